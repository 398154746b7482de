//! Who is watched, and who is late.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::fault::Faults;
use super::part::{Limits, Part};
use super::queue::{Counts, Depth, Queue};

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
    shared: Weak<Shared>,
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
    entries: Mutex<Vec<Arc<Entry>>>,
    is_stopping: AtomicBool,
    faults: Faults,
    next_id: AtomicU64,
}

impl Shared {
    /// The list is changed by single calls, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part that gave no sign of life for longer than it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Its name.
    pub name: String,
    /// For how long.
    pub silent_for: Duration,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.silent_for.as_secs();
        write!(f, "{} gave no sign of life for {seconds} s", self.name)
    }
}

/// Starts and watches parts. Cheap to clone; all clones are one supervisor.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    pub(super) shared: Arc<Shared>,
}

impl Supervisor {
    /// Returns a supervisor whose parts fail as told; [`Faults::none`] outside of tests.
    #[must_use]
    pub fn new(faults: Faults) -> Self {
        Self {
            shared: Arc::new(Shared {
                faults,
                ..Shared::default()
            }),
        }
    }

    /// States that the daemon is stopping: what ends from now on ends as it should.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.shared.is_stopping.load(Relaxed)
    }

    /// Returns the names of all parts that are watched now.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = self.entries();
        entries.iter().map(|entry| entry.name.clone()).collect()
    }

    /// Returns who is late; nobody as long as no watchdog was started.
    #[must_use]
    pub fn late(&self) -> Vec<Late> {
        let entries = self.entries().into_iter();
        let late = entries.filter(|entry| entry.silent_for() >= entry.limits.late);
        late.map(|entry| Late {
            name: entry.name.clone(),
            silent_for: entry.silent_for(),
        })
        .collect()
    }

    /// Watches a queue that others fill and empty; `depth` must not block.
    #[must_use]
    pub fn queue(&self, part: Part, depth: impl Fn() -> Depth + Send + Sync + 'static) -> Queue {
        Queue {
            entry: self.enter(part, "", Sign::Queue(Box::new(depth))),
            counts: Arc::default(),
        }
    }

    /// Watches a kind of work that goes through [`Queue::run`].
    #[must_use]
    pub fn work(&self, part: Part) -> Queue {
        let counts = Arc::<Counts>::default();
        let seen = Arc::clone(&counts);
        Queue {
            entry: self.enter(part, "", Sign::Queue(Box::new(move || seen.depth()))),
            counts,
        }
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.shared.lock().clone()
    }

    pub(super) fn enter(&self, part: Part, instance: &str, sign: Sign) -> Arc<Entry> {
        let name = match instance {
            "" => part.name().to_owned(),
            instance => format!("{} {instance}", part.name()),
        };
        let faults = self.shared.faults.clone();
        let entry = Arc::new(Entry {
            id: self.shared.next_id.fetch_add(1, Relaxed),
            part,
            name,
            limits: faults.limits(part),
            faults,
            sign,
            beats: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            shared: Arc::downgrade(&self.shared),
        });
        self.shared.lock().push(Arc::clone(&entry));
        entry
    }
}
