//! An allocator that counts, for tests of what is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Allocations of this thread: the test runner has threads of its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread holds.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// Counts each thread's allocations and what they take.
pub(crate) struct Counting;

/// Returns what the allocator takes for it: glibc's chunks have 8 bytes of their own, are
/// multiples of 16 and at least 32.
fn taken(size: usize) -> i64 {
    i64::try_from((size + 8).next_multiple_of(16).max(32)).unwrap_or(i64::MAX)
}

fn count(allocations: u64, bytes: i64) {
    // A thread that ends has no counters left, and nothing to measure.
    let _gone = ALLOCATIONS.try_with(|count| count.set(count.get() + allocations));
    let _gone = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every call goes to the system allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, taken(layout.size()));
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, -taken(layout.size()));
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(1, taken(new_size) - taken(layout.size()));
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Returns how often `work` allocates.
pub(crate) fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// Returns what this thread holds.
pub(crate) fn held() -> i64 {
    HELD.get()
}
