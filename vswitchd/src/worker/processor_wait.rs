//! How long a thread, having work, waited for a processor: what the scheduler counts.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use vswitch_datapath::Timestamp;

/// The calling thread's account with the scheduler, read anew from time to time.
#[derive(Debug)]
pub(super) struct ProcessorWait {
    /// `None` where the kernel keeps no such account (without CONFIG_SCHED_INFO).
    schedstat: Option<File>,
    last: Option<(Duration, Timestamp)>,
}

impl ProcessorWait {
    /// Opens the account of the calling thread.
    pub(super) fn of_this_thread() -> Self {
        Self {
            schedstat: File::open("/proc/thread-self/schedstat").ok(),
            last: None,
        }
    }

    /// Returns how long the thread waited since the last call, and how long ago that was.
    pub(super) fn since_last(&mut self, now: Timestamp) -> Option<(Duration, Duration)> {
        let total = self.total()?;
        let last = self.last.replace((total, now));
        last.map(|(before, at)| (total.saturating_sub(before), now.since(at)))
    }

    /// Second of three numbers (Documentation/scheduler/sched-stats.rst): nanoseconds on a run
    /// queue.
    fn total(&self) -> Option<Duration> {
        let mut buffer = [0; 64];
        let length = self.schedstat.as_ref()?.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
        let nanos = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    #[test]
    fn a_thread_that_yields_to_busy_ones_has_waited() {
        let threads = std::thread::available_parallelism().unwrap().get() + 1;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let mut wait = ProcessorWait::of_this_thread();
            assert_eq!(wait.since_last(Timestamp::from_nanos(1)), None);
            let mut waited = Duration::ZERO;
            while waited < Duration::from_millis(5) {
                std::thread::yield_now();
                let (more, within) = wait.since_last(Timestamp::from_nanos(11)).unwrap();
                assert!(within <= Duration::from_nanos(10));
                waited += more;
            }
            stop.store(true, Relaxed);
        });
    }
}
