//! How long first packets take: a histogram that workers add to and anybody reads.
//!
//! A worker knows how long it was at a batch, since ports are charged for it: no packet pays for
//! this but the few that walked the tables, with one addition for all of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from what one packet takes to what a pod notices.
/// What took longer is in one more.
pub const BOUNDS: [u64; 14] = [
    4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768,
];

/// Counts, read one after the other: those of a batch may be in some of them only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstPackets {
    /// Packets in each bucket, of [`BOUNDS`] and beyond.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// How long all of them took.
    pub nanoseconds: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FirstPacketTimes {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl FirstPacketTimes {
    /// Adds packets that came in a batch which took so long, from its receipt until all that was to
    /// be sent was.
    pub(super) fn add(&self, packets: u32, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| bound * 1_000 < nanos);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(packets.into(), Relaxed);
        }
        let all = nanos.saturating_mul(packets.into());
        self.nanoseconds.fetch_add(all, Relaxed);
    }

    pub(super) fn read(&self) -> FirstPackets {
        FirstPackets {
            buckets: std::array::from_fn(|at| {
                self.buckets
                    .get(at)
                    .map_or(0, |bucket| bucket.load(Relaxed))
            }),
            nanoseconds: self.nanoseconds.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_in_the_bucket_of_how_long_their_batch_took() {
        let times = FirstPacketTimes::default();
        times.add(2, Duration::from_micros(4));
        times.add(1, Duration::from_nanos(5_001));
        times.add(3, Duration::from_secs(1));
        let read = times.read();
        assert_eq!(read.buckets[..2], [2, 1]);
        assert_eq!(read.buckets[BOUNDS.len()], 3);
        assert_eq!(read.nanoseconds, 8_000 + 5_001 + 3_000_000_000);
    }
}
