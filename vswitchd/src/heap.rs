//! Giving memory back to the kernel, which the allocator keeps by itself.

/// Returns every whole page that is free inside the heap to the kernel. Takes milliseconds for
/// hundreds of megabytes, in which threads that allocate may wait.
///
/// The C library does so by itself at the end of a heap only, where something long-lived is enough
/// to keep all below it: after a flood of connections that is all that they took.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number and is safe in threads.
    let _has_given = unsafe { libc::malloc_trim(0) };
}
