//! The registry's changes as `ClusterChange`s: everything there is, then every change.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::reduce::{gone, present};
use super::registry::Shared;
use super::shelf::{ObjectId, Shelf};
use super::{Registry, Resource};
use crate::state::ClusterChange;

/// A reader that misses nothing: one that fell behind the window compares everything.
#[derive(Debug)]
pub struct Feed {
    /// Everything there was when the feed began.
    pub initial: Vec<ClusterChange>,
    shared: Arc<Shared>,
    wakeups: watch::Receiver<u64>,
    seen: u64,
    /// What was told so far, to find what vanished while the feed was behind.
    told: BTreeMap<ObjectId, Arc<Value>>,
}

/// Begins a feed.
#[must_use]
pub fn feed(registry: &Registry) -> Feed {
    let wakeups = registry.wakeups();
    let shared = Arc::clone(registry.shared());
    let mut feed = Feed {
        initial: Vec::new(),
        shared: Arc::clone(&shared),
        wakeups,
        seen: 0,
        told: BTreeMap::new(),
    };
    feed.initial = feed.compare(&shared.shelf());
    feed
}

/// Kinds that rules are compiled from.
const KINDS: [Resource; 6] = [
    Resource::Namespace,
    Resource::Node,
    Resource::Pod,
    Resource::NetworkPolicy,
    Resource::Service,
    Resource::EndpointSlice,
];

impl Feed {
    /// Returns the version up to which changes were returned.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.seen
    }

    /// Waits for changes; `None` when the registry is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<ClusterChange>> {
        self.wakeups
            .wait_for(|version| *version > self.seen)
            .await
            .ok()?;
        let shared = Arc::clone(&self.shared);
        let shelf = shared.shelf();
        let Some(changes) = shelf.changes_since(self.seen) else {
            return Some(self.compare(&shelf));
        };
        let mut told = Vec::new();
        for change in changes.filter(|change| KINDS.contains(&change.id.0)) {
            told.extend(self.difference(&change.id, change.after.as_ref()));
        }
        self.seen = shelf.version();
        Some(told)
    }

    /// Compares all objects with what was told.
    fn compare(&mut self, shelf: &Shelf) -> Vec<ClusterChange> {
        let mut changes = Vec::new();
        let gone: Vec<ObjectId> = self
            .told
            .keys()
            .filter(|id| shelf.get(id).is_none())
            .cloned()
            .collect();
        for id in gone {
            changes.extend(self.difference(&id, None));
        }
        for kind in KINDS {
            for (id, object) in shelf.objects(kind, None) {
                changes.extend(self.difference(id, Some(object)));
            }
        }
        self.seen = shelf.version();
        changes
    }

    fn difference(&mut self, id: &ObjectId, object: Option<&Arc<Value>>) -> Option<ClusterChange> {
        let Some(object) = object else {
            self.told.remove(id);
            return gone(id);
        };
        let old = self.told.insert(id.clone(), Arc::clone(object));
        if old.is_some_and(|old| old == *object) {
            return None;
        }
        present(id, object)
    }
}
