//! Configuration of the workers.

use std::time::Duration;

use crate::clock::MonotonicClock;
use crate::port::MAX_BATCH;

/// How the workers work.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Threads, at least 1.
    pub workers: usize,
    /// Frames per receive call, 1 to [`MAX_BATCH`]; each costs a 64 KiB buffer per worker.
    pub batch: usize,
    /// Rounds without a frame after which a worker sleeps; 0 sleeps at once.
    pub spin_polls: u32,
    /// How often connections past their time are removed.
    pub expire_interval: Duration,
    /// The clock whose time stamps the datapath sees.
    pub clock: MonotonicClock,
}

impl WorkerConfig {
    /// Returns the defaults: one worker, batches of 16. Sixteen super-frames, a mebibyte, still
    /// fit the second-level cache of many cores between receive and send; twice as many do not,
    /// and are twice the buffers of each worker.
    #[must_use]
    pub const fn new(clock: MonotonicClock) -> Self {
        Self {
            workers: 1,
            batch: 16,
            spin_polls: 16,
            expire_interval: Duration::from_secs(1),
            clock,
        }
    }

    pub(super) fn checked(mut self) -> Self {
        self.workers = self.workers.max(1);
        self.batch = self.batch.clamp(1, MAX_BATCH);
        self
    }
}
