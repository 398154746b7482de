//! Watchers of all kinds, and the task that applies their changes to the mirror.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{mpsc, watch as channel};

use super::api_server::ApiServer;
use super::health::Health;
use super::merge::{Heard, Merge};
use super::watched::{WATCHED, Watched};
use super::watcher::{WatchSettings, Watcher};
use crate::objects::{LastKnown, Registry, RegistryConfig, follow};
use crate::store::SharedStore;
use crate::supervise::{Beats, Depth, Ended, Part, Queue, Supervisor, Task};

/// What watchers tell waits here while the mirror takes in what came before.
const QUEUE: usize = 1_024;

/// Changes that the mirror shows at once.
const BATCH: usize = 4_096;

/// A cluster that is being watched, until this is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Its objects, as far as they are known.
    pub registry: Arc<Registry>,
    /// How far the watchers are.
    pub health: Arc<Health>,
    /// The version at which the mirror first showed everything that the API server has.
    pub synced: channel::Receiver<Option<u64>>,
    /// Whether the mirror began with what was known from the last run.
    pub has_last_known: bool,
    follower: Task,
    /// End with this.
    _watchers: Vec<Task>,
    _inbox: Queue,
}

impl Cluster {
    /// Waits until what is known is stored, after `stop` of [`watch`] has turned true.
    pub async fn stored(self) {
        self.follower.ended().await;
    }
}

/// Begins to watch; the mirror begins with what is known from the last run. When `stop` turns
/// true, what is known is stored a last time.
#[must_use]
pub fn watch(
    api: &ApiServer,
    config: RegistryConfig,
    store: SharedStore,
    last_known: Option<LastKnown>,
    settings: &WatchSettings,
    stop: channel::Receiver<bool>,
    supervisor: &Supervisor,
) -> Cluster {
    let has_last_known = last_known.is_some();
    // A watch that works is heard of once in its time, with all that it may be late.
    let silence = 2 * (settings.watch_for + settings.grace);
    let health = Arc::new(Health::new(api.url(), last_known.as_ref(), silence));
    let objects = last_known.map(|last| last.objects).unwrap_or_default();
    let merge = Merge::new(&config.node_name, &objects);
    let own_pods = format!("spec.nodeName={}", config.node_name);
    let registry = Registry::mirror_of(api.url(), objects, config, store.losses());

    let mut tasks = Vec::new();
    let (told, inbox) = mpsc::channel(QUEUE);
    for watched in WATCHED {
        let selector = (watched == Watched::OwnPods).then(|| own_pods.clone());
        let watcher = Watcher::new(
            api.clone(),
            (watched, selector),
            settings.clone(),
            Arc::clone(&health),
            told.clone(),
        );
        let run = |beat| watcher.run(beat);
        tasks.push(supervisor.task(Part::Watcher, watched.name(), run));
    }
    let (sender, synced) = channel::channel(None);
    let taken = Arc::new(AtomicU64::new(0));
    let queue = supervisor.queue(Part::WatcherInbox, {
        // Weak, so that the mirror ends when the watchers have.
        let (queue, taken) = (told.downgrade(), Arc::clone(&taken));
        move || Depth {
            waiting: queue.upgrade().map_or(0, |queue| waiting(&queue)),
            taken: taken.load(Relaxed),
        }
    });
    drop(told);
    tasks.push(supervisor.task(Part::Mirror, "", {
        let registry = Arc::clone(&registry);
        move |beat| take_in(registry, merge, inbox, taken, sender, beat)
    }));
    // What a watcher has heard counts when the mirror shows it.
    let is_live = {
        let (health, synced) = (Arc::clone(&health), synced.clone());
        move || synced.borrow().is_some() && health.is_live()
    };
    let follower = supervisor.task(Part::LastKnown, "", {
        let registry = Arc::clone(&registry);
        move |beat| follow(registry, store, has_last_known, is_live, stop, beat)
    });
    Cluster {
        registry,
        health,
        synced,
        has_last_known,
        follower,
        _watchers: tasks,
        _inbox: queue,
    }
}

/// Puts what watchers tell into the mirror.
async fn take_in(
    registry: Arc<Registry>,
    mut merge: Merge,
    mut inbox: mpsc::Receiver<Heard>,
    taken: Arc<AtomicU64>,
    synced: channel::Sender<Option<u64>>,
    beat: Beats,
) -> Ended {
    while let Some(told) = beat.wait(inbox.recv()).await {
        let mut first = told.at;
        let mut changes = merge.take(told.report);
        taken.fetch_add(1, Relaxed);
        while changes.len() < BATCH
            && let Ok(told) = inbox.try_recv()
        {
            taken.fetch_add(1, Relaxed);
            let more = merge.take(told.report);
            // What changes nothing says nothing of how long a change takes.
            if changes.is_empty() || (!more.is_empty() && told.at < first) {
                first = told.at;
            }
            changes.extend(more);
        }
        let version = registry.mirror(changes, first);
        if merge.is_synced() {
            synced.send_if_modified(|synced| {
                let is_first = synced.is_none();
                synced.get_or_insert(version);
                is_first
            });
        }
    }
    Ended::Early("the watchers have ended")
}

fn waiting(queue: &mpsc::Sender<Heard>) -> u64 {
    u64::try_from(queue.max_capacity() - queue.capacity()).unwrap_or(u64::MAX)
}
