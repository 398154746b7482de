//! The only place that reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use vswitch_datapath::Timestamp;

/// A monotonic clock that hands out datapath time stamps.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    start: Instant,
    /// The same, as the kernel's monotonic clock has it, in nanoseconds.
    start_nanos: u64,
}

impl MonotonicClock {
    /// Starts a clock at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            start_nanos: kernel_nanos(),
        }
    }

    /// Returns the time since the start.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Timestamp::from_nanos(nanos)
    }

    /// Returns what a time of the kernel's monotonic clock is here.
    #[must_use]
    pub const fn at(&self, kernel_nanos: u64) -> Timestamp {
        Timestamp::from_nanos(kernel_nanos.saturating_sub(self.start_nanos))
    }
}

fn kernel_nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    // Every Linux has that clock.
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// Returns the time, to measure how long something takes.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// Returns the seconds since 1970-01-01 UTC.
#[must_use]
pub fn unix_seconds() -> u64 {
    since_1970().as_secs()
}

/// Returns the nanoseconds since 1970-01-01 UTC.
#[must_use]
pub fn unix_nanos() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn since_1970() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}
