//! The supervisor: all watched parts, and which of them are late.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::depth::{Counts, Depth};
use super::entry::{Entry, Shared, Sign};
use super::fault::Faults;
use super::part::Part;
use super::queue::Queue;

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

    /// Runs the start of the daemon. A part that ends early meanwhile ends the process, unless
    /// `start` fails at that moment; when it has failed, the daemon is stopping.
    ///
    /// # Errors
    /// Those of `start`.
    pub async fn starting<T, E>(&self, start: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let starting = &self.shared.start;
        starting.begin();
        // The start first: parts that end because it drops them end within its last poll.
        let started = tokio::select! {
            biased;
            started = start => started,
            never = starting.end() => match never {},
        };
        match started {
            // What it has begun may still be ending, so the phase stays.
            Err(_) => self.stop(),
            Ok(_) => starting.finish(),
        }
        started
    }
}
