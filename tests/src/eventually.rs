//! Waiting for a condition that another process brings about.

use std::time::{Duration, Instant};

/// Calls `check` until it succeeds; gives up after ten seconds.
///
/// # Panics
/// Panics with `what` and the last error when the time is over.
pub fn eventually<T, E: std::fmt::Debug>(what: &str, check: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(Duration::from_secs(10), what, check)
}

/// As [`eventually`], for what takes longer by its nature.
///
/// # Panics
/// Panics with `what` and the last error when the time is over.
#[expect(clippy::disallowed_methods, reason = "real processes run on real time")]
pub fn eventually_within<T, E: std::fmt::Debug>(
    longest: Duration,
    what: &str,
    mut check: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + longest;
    let mut pause = Duration::from_millis(5);
    loop {
        match check() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("not in time: {what}: {error:?}"),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
