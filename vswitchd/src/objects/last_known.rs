//! Last known objects of a mirror, in the store: a node that boots without its API server
//! enforces them.
//!
//! Follows the mirror behind its readers: rules do not wait for the disk. Many changes become few
//! commits. A node that loses power forgets the last second at most, and only until its API server
//! answers. The objects count only together with the note that says from which API server they
//! are and when they were complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use super::mirror::Objects;
use super::shelf::ObjectId;
use super::{Registry, persist};
use crate::clock;
use crate::errors;
use crate::store::{Bucket, Loss, SharedStore, StoreError, Write};
use crate::supervise::{self, Beats, Ended};

const NOTE_KEY: &[u8] = b"cluster/last_known";

/// Changes are gathered for so long before they are written.
const GATHER_FOR: Duration = Duration::from_secs(1);

/// How old the note of an unchanged cluster may become.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Says that the stored objects were complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    origin: String,
    heard_at: u64,
    /// Losses of the store that were known, and that the objects are complete in spite of.
    #[serde(default)]
    losses: Vec<Loss>,
}

/// What was known when the daemon last ran.
#[derive(Debug, Clone, PartialEq)]
pub struct LastKnown {
    /// The objects.
    pub objects: Objects,
    /// When the API server was last heard, Unix seconds.
    pub heard_at: u64,
}

impl LastKnown {
    /// Reads what was known of the API server at `origin`; `None` if that is nothing, or never
    /// was complete. Blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(store: &SharedStore, origin: &str) -> Result<Option<Self>, StoreError> {
        let note = store.get(Bucket::Meta, NOTE_KEY)?;
        let note = note.and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        let Some(note) = note else {
            return Ok(None);
        };
        if note.origin != origin {
            tracing::warn!(
                known = note.origin,
                origin,
                "last known objects are of another API server and not used"
            );
            return Ok(None);
        }
        let losses = Arc::clone(&store.losses().borrow());
        let mut losses = losses
            .iter()
            .filter(|loss| loss.may_concern(Bucket::Cluster));
        if let Some(loss) = losses.find(|loss| !note.losses.contains(loss)) {
            tracing::warn!(%loss, "last known objects may be incomplete and are not used");
            return Ok(None);
        }
        Ok(Some(Self {
            objects: persist::load(store.as_ref(), Bucket::Cluster)?,
            heard_at: note.heard_at,
        }))
    }
}

/// Writes what a mirror shows; see [`follow`].
#[derive(Debug)]
struct Follower {
    registry: Arc<Registry>,
    store: SharedStore,
    /// Version up to which changes are stored; `None`: what is stored is not known.
    stored: Option<u64>,
    is_failing: bool,
}

/// Keeps what is stored behind what the mirror shows, until `stop` turns true: then what is
/// missing is written once more. `is_live` says whether everything has been heard and is being
/// heard.
pub async fn follow(
    registry: Arc<Registry>,
    store: SharedStore,
    loaded: bool,
    is_live: impl Fn() -> bool + Send,
    mut stop: watch::Receiver<bool>,
    beat: Beats,
) -> Ended {
    let mut wakeups = registry.wakeups();
    let mut follower = Follower {
        // A mirror begins with version 1, which is what was loaded.
        stored: loaded.then_some(1),
        registry,
        store,
        is_failing: false,
    };
    loop {
        let stored = follower.stored.unwrap_or(0);
        let changed = async {
            let changed = wakeups.wait_for(|version| *version > stored);
            // Both ends mean the same: the note is to be written anew, with or without changes.
            let _ = tokio::time::timeout(NOTE_EVERY, changed).await;
            tokio::time::sleep(GATHER_FOR).await;
        };
        let event = async {
            tokio::select! {
                () = changed => false,
                // An error means that the daemon is gone.
                _ = stop.wait_for(|stop| *stop) => true,
            }
        };
        let is_over = beat.wait(event).await;
        follower = follower.write(is_live()).await;
        if is_over {
            return Ended::AsTold;
        }
    }
}

impl Follower {
    async fn write(mut self, is_live: bool) -> Self {
        let write = move || {
            let outcome = self.write_blocking(is_live);
            match &outcome {
                Err(error) if !self.is_failing => {
                    let error = errors::chain(error);
                    tracing::error!(error, "storing the last known objects failed");
                }
                Ok(()) if self.is_failing => tracing::info!("last known objects stored again"),
                _ => {}
            }
            self.is_failing = outcome.is_err();
            self
        };
        supervise::blocking(write).await
    }

    fn write_blocking(&mut self, is_live: bool) -> Result<(), StoreError> {
        let (version, mut writes) = self.pending()?;
        if let Some(origin) = self.registry.origin().filter(|_| is_live) {
            let note = Note {
                origin: origin.to_owned(),
                heard_at: clock::unix_seconds(),
                losses: self.store.losses().borrow().to_vec(),
            };
            let note = serde_json::to_vec(&note).expect("text and numbers are always JSON");
            writes.push(Write::Put(Bucket::Meta, NOTE_KEY.to_vec(), note));
        }
        // At once: half of what was known together would be a state that never was.
        if !writes.is_empty() {
            self.store.commit(writes)?;
        }
        self.stored = Some(version);
        Ok(())
    }

    /// Returns what has to be written, and the version that the store has then.
    fn pending(&self) -> Result<(u64, Vec<Write>), StoreError> {
        let shelf = self.registry.shared().shelf();
        let version = shelf.version();
        if let Some(changes) = self.stored.and_then(|stored| shelf.changes_since(stored)) {
            let latest: BTreeMap<&ObjectId, Option<&Arc<Value>>> = changes
                .map(|change| (&change.id, change.after.as_ref()))
                .collect();
            let write = |(id, object): (&&ObjectId, &Option<&Arc<Value>>)| {
                persist::write(Bucket::Cluster, id, object.map(Arc::as_ref))
            };
            return Ok((version, latest.iter().map(write).collect()));
        }
        let present: Objects = shelf
            .all()
            .map(|(id, object)| (id.clone(), Arc::clone(object)))
            .collect();
        drop(shelf);
        let stored = self.store.scan(Bucket::Cluster, b"")?;
        let mut writes = vec![Write::Delete(Bucket::Meta, NOTE_KEY.to_vec())];
        let keys: std::collections::BTreeSet<Vec<u8>> =
            present.keys().map(persist::key_of).collect();
        let gone = stored.into_iter().filter(|(key, _)| !keys.contains(key));
        writes.extend(gone.map(|(key, _)| Write::Delete(Bucket::Cluster, key)));
        let put = |(id, object): (&ObjectId, &Arc<Value>)| {
            persist::write(Bucket::Cluster, id, Some(object))
        };
        writes.extend(present.iter().map(put));
        Ok((version, writes))
    }
}
