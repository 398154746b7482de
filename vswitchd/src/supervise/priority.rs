//! Scheduling priority of threads.

/// Adds to the calling thread's nice value (sched(7)); 19 is the most there is. Nobody needs a right
/// for that, and without `CAP_SYS_NICE` it cannot be undone.
pub fn lower_priority(nice: i32) {
    // SAFETY: nice(2) takes a number; on Linux it is the calling thread's value that changes.
    let _now = unsafe { libc::nice(nice) };
}
