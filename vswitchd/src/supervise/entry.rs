//! Entries of the supervisor: each part with its heartbeat.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::depth::Depth;
use super::fault::Faults;
use super::part::{Limits, Part};
use super::starting::Starting;

/// How it is seen that a part lives.
pub(super) enum Sign {
    /// Its number of beats grows.
    Beats,
    /// Its queue is empty or moves.
    Queue(Box<dyn Fn() -> Depth + Send + Sync>),
}

/// Something that is watched.
pub(super) struct Entry {
    /// Tells it from every other that ever was.
    pub(super) id: u64,
    pub(super) part: Part,
    /// The part's name, and which one where there are several.
    pub(super) name: String,
    pub(super) limits: Limits,
    pub(super) faults: Faults,
    pub(super) sign: Sign,
    pub(super) beats: AtomicU64,
    /// For how long the watchdog has seen no sign of life, milliseconds.
    pub(super) silent: AtomicU64,
    pub(super) shared: Weak<Shared>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.name).finish()
    }
}

impl Entry {
    pub(super) fn silent_for(&self) -> Duration {
        Duration::from_millis(self.silent.load(Relaxed))
    }

    /// Ends the watch.
    pub(super) fn leave(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().retain(|entry| entry.id != self.id);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.shared
            .upgrade()
            .is_none_or(|shared| shared.is_stopping.load(Relaxed))
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Guards the list; held for a copy or a change of it.
    pub(super) entries: Mutex<Vec<Arc<Entry>>>,
    pub(super) is_stopping: AtomicBool,
    pub(super) start: Starting,
    pub(super) faults: Faults,
    pub(super) next_id: AtomicU64,
}

impl Shared {
    /// The list is changed by single calls, so a panic elsewhere leaves it whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
