//! Rate limits: of a rule, shared by all workers, and of what an engine answers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::time::Timestamp;

/// A leaky bucket as the generic cell rate algorithm (ITU-T I.371) states it: one number, the
/// time at which the next packet is due, instead of a token count and its time.
#[derive(Debug)]
pub(crate) struct Meter {
    interval_nanos: u64,
    /// How far before its due time a packet may come.
    tolerance_nanos: u64,
    /// Time in nanoseconds; nothing else is ordered by it: relaxed.
    due: AtomicU64,
}

impl Meter {
    /// Returns a meter with a full bucket.
    pub(crate) fn new(rate_pps: u32, burst: u32) -> Self {
        let interval_nanos = 1_000_000_000 / u64::from(rate_pps.max(1));
        let tolerance_nanos = interval_nanos * u64::from(burst.saturating_sub(1));
        Self {
            interval_nanos,
            tolerance_nanos,
            due: AtomicU64::new(0),
        }
    }

    /// Returns whether one more packet may pass now, and counts it if so.
    pub(crate) fn allow(&self, now: Timestamp) -> bool {
        let next = |due| self.due_after(due, now);
        self.due.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Returns whether one more packet might pass now; counts nothing.
    pub(crate) fn has_room(&self, now: Timestamp) -> bool {
        self.due_after(self.due.load(Relaxed), now).is_some()
    }

    /// Returns when the next packet is due if one passes now; `None` if it may not.
    fn due_after(&self, due: u64, now: Timestamp) -> Option<u64> {
        let now = now.as_nanos();
        let due = due.max(now);
        (due - now <= self.tolerance_nanos).then(|| due.saturating_add(self.interval_nanos))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let meter = Meter::new(100, 5);
        let start = Timestamp::from_nanos(1_000_000_000_000);
        assert!(meter.has_room(start));
        assert_eq!((0..20).filter(|_| meter.allow(start)).count(), 5);
        assert!(!meter.has_room(start));
        let later = start + Duration::from_millis(10);
        assert_eq!((0..20).filter(|_| meter.allow(later)).count(), 1);
        let much_later = start + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| meter.allow(much_later)).count(), 5);
    }

    #[test]
    fn the_rate_holds_over_a_second() {
        let meter = Meter::new(1_000, 1);
        let at = |micros| Timestamp::from_nanos(0) + Duration::from_micros(micros);
        assert_eq!(
            (0..100_000).filter(|i| meter.allow(at(i * 10))).count(),
            1_000
        );
    }
}
