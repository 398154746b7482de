//! Rate limits: of a rule and of a port, shared by all workers, and of what an engine answers.

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
        due_after(due, now, self.tolerance_nanos, self.interval_nanos)
    }
}

/// The algorithm: a packet that comes earlier before its due time than is tolerated may not
/// pass; one that passes puts the next off by what it costs.
fn due_after(due: u64, now: Timestamp, tolerance_nanos: u64, cost_nanos: u64) -> Option<u64> {
    let now = now.as_nanos();
    let due = due.max(now);
    (due - now <= tolerance_nanos).then(|| due.saturating_add(cost_nanos))
}

/// What passes at once, as time at the full rate. A TCP sender that lost all it had under way is
/// silent for 200 ms at least, its least retransmission timeout in Linux: what it did not send
/// meanwhile it may send then, or it would never reach the rate.
const BURST_NANOS: u64 = 250_000_000;

/// What passes at once at any rate, bytes: two super-frames of GSO.
const LEAST_BURST_BYTES: u64 = 2 << 16;

/// The same for bytes: a token bucket of a rate in bits per second.
#[derive(Debug)]
pub(crate) struct ByteMeter {
    rate_bps: u64,
    tolerance_nanos: u64,
    /// As that of [`Meter`].
    due: AtomicU64,
}

impl ByteMeter {
    /// Returns a meter with a full bucket.
    pub(crate) fn new(rate_bps: u64) -> Self {
        let rate_bps = rate_bps.max(1);
        Self {
            rate_bps,
            tolerance_nanos: BURST_NANOS.max(nanos_of(LEAST_BURST_BYTES, rate_bps)),
            due: AtomicU64::new(0),
        }
    }

    /// Returns whether a frame of this length may pass now, and counts it if so. Any length
    /// may while the bucket is not empty; what it took too much is missing afterwards.
    pub(crate) fn allow(&self, bytes: u64, now: Timestamp) -> bool {
        let cost = nanos_of(bytes, self.rate_bps);
        let next = |due| due_after(due, now, self.tolerance_nanos, cost);
        self.due.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

/// Returns how long so many bytes take at a rate.
fn nanos_of(bytes: u64, rate_bps: u64) -> u64 {
    let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate_bps);
    u64::try_from(nanos).unwrap_or(u64::MAX)
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
    fn bytes_pass_at_their_rate_whatever_the_length_of_frames() {
        for length in [60, 1_514, 65_550] {
            let meter = ByteMeter::new(100_000_000);
            let at = |micros| Timestamp::from_nanos(0) + Duration::from_micros(micros);
            let offered = (0..2_000_000).step_by(4).map(at);
            let passed = offered.filter(|now| meter.allow(length, *now)).count();
            let bytes = u64::try_from(passed).unwrap() * length;
            // Two seconds and the burst.
            let (least, most) = (25_000_000, 28_125_000 + length);
            assert!((least..=most).contains(&bytes), "{length}: {bytes}");
        }
    }

    #[test]
    fn the_slowest_rate_lets_a_super_frame_pass_in_the_end() {
        let meter = ByteMeter::new(1_000);
        let start = Timestamp::from_nanos(1);
        assert!(meter.allow(65_550, start));
        assert!(meter.allow(65_550, start));
        assert!(!meter.allow(60, start));
        let refilled = start + Duration::from_secs(600);
        assert!(meter.allow(65_550, refilled));
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
