//! Time as the datapath knows it: a number handed in by the caller.

use std::time::Duration;

/// Nanoseconds since an arbitrary start that the caller chose (a monotonic clock's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Returns the time that many nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`, zero if that lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    #[inline]
    fn add(self, rhs: Duration) -> Self {
        // Not `as_nanos`, whose 128 bits every packet of a connection would pay for.
        let nanos = rhs.as_secs().saturating_mul(1_000_000_000);
        let nanos = nanos.saturating_add(u64::from(rhs.subsec_nanos()));
        Self(self.0.saturating_add(nanos))
    }
}
