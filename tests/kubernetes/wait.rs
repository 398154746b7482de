//! Waiting for a cluster, which takes longer than what one daemon does.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Calls `check` until it succeeds; fails with its last error when the time is over.
#[expect(clippy::disallowed_methods, reason = "real processes run on real time")]
pub(crate) fn within<T>(
    seconds: u64,
    what: &str,
    mut check: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("not within {seconds} s: {what}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
