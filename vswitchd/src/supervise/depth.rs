//! Depth of a queue: how much waits in it, and how much has gone through.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// State of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// What waits in it.
    pub waiting: u64,
    /// What was ever taken out of it: a queue of which this stands still while something waits
    /// is stuck, whoever empties it.
    pub taken: u64,
}

/// How much ever began and ended of some kind of work that is done on its callers' threads.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) begun: AtomicU64,
    pub(super) done: AtomicU64,
}

impl Counts {
    pub(super) fn depth(&self) -> Depth {
        let taken = self.done.load(Relaxed);
        Depth {
            waiting: self.begun.load(Relaxed).saturating_sub(taken),
            taken,
        }
    }
}
