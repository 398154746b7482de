//! The registry's changes as `ClusterChange`s: everything there is, then every change.
//!
//! A namespace whose policies may be incomplete, because the store has lost records, is isolated:
//! in the place of its policies stands one that selects every pod and allows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::reduce::{gone, present};
use super::shared::Shared;
use super::shelf::{ObjectId, Shelf};
use super::{Registry, Resource};
use crate::state::ClusterChange;
use crate::store::{Doubt, Loss, ObjectsFrom};

/// A reader that misses nothing: one that fell behind the window compares everything.
#[derive(Debug)]
pub struct Feed {
    /// Everything there was when the feed began.
    pub initial: Vec<ClusterChange>,
    shared: Arc<Shared>,
    wakeups: watch::Receiver<u64>,
    losses: watch::Receiver<Arc<Vec<Loss>>>,
    objects_from: ObjectsFrom,
    doubt: Doubt,
    seen: u64,
    /// What was told so far, to find what vanished while the feed was behind.
    told: BTreeMap<ObjectId, Arc<Value>>,
}

/// Begins a feed.
#[must_use]
pub fn feed(registry: &Registry) -> Feed {
    let wakeups = registry.wakeups();
    let shared = Arc::clone(registry.shared());
    let mut losses = registry.losses();
    let objects_from = registry.objects_from();
    let doubt = Doubt::of(&losses.borrow_and_update(), objects_from);
    let mut feed = Feed {
        initial: Vec::new(),
        shared: Arc::clone(&shared),
        wakeups,
        losses,
        objects_from,
        doubt,
        seen: 0,
        told: BTreeMap::new(),
    };
    feed.initial = feed.compare(&shared.shelf());
    feed
}

/// Kinds that rules are compiled from.
const KINDS: [Resource; 18] = [
    Resource::Namespace,
    Resource::Node,
    Resource::ServiceAccount,
    Resource::Pod,
    Resource::NetworkPolicy,
    Resource::ClusterNetworkPolicy,
    Resource::AdminNetworkPolicy,
    Resource::BaselineAdminNetworkPolicy,
    // Sets and tiers before the policies that name them.
    Resource::CalicoTier,
    Resource::GlobalNetworkSet,
    Resource::NetworkSet,
    Resource::GlobalNetworkPolicy,
    Resource::CalicoNetworkPolicy,
    Resource::StagedGlobalNetworkPolicy,
    Resource::StagedNetworkPolicy,
    Resource::StagedKubernetesNetworkPolicy,
    Resource::Service,
    Resource::EndpointSlice,
];

/// Name of the policy that isolates a namespace; no object can have it.
pub(super) const ISOLATION: &str = "isolated:records-lost";

/// What stands for the policies of a namespace that may be incomplete.
fn isolation(namespace: &str) -> (ObjectId, Arc<Value>) {
    let policy = json!({
        "metadata": {"namespace": namespace, "name": ISOLATION},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    });
    let id = (
        Resource::NetworkPolicy,
        namespace.to_owned(),
        ISOLATION.to_owned(),
    );
    (id, Arc::new(policy))
}

impl Feed {
    /// Returns the version up to which changes were returned.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.seen
    }

    /// Returns when the oldest of the changes was heard that the last call of [`Feed::next`]
    /// returned: written by the API of this switch, or told by an API server.
    #[must_use]
    pub fn heard(&self) -> Option<Instant> {
        self.shared.heard_first(self.seen)
    }

    /// Waits for changes; `None` when the registry is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<ClusterChange>> {
        let Self {
            wakeups,
            losses,
            seen,
            ..
        } = self;
        tokio::select! {
            changed = wakeups.wait_for(|version| *version > *seen) => drop(changed.ok()?),
            // A store that never loses anything has no sender.
            Ok(()) = losses.changed() => {}
        }
        let shared = Arc::clone(&self.shared);
        let shelf = shared.shelf();
        let doubt = Doubt::of(&self.losses.borrow_and_update(), self.objects_from);
        if doubt != self.doubt {
            self.doubt = doubt;
            return Some(self.compare(&shelf));
        }
        let Some(changes) = shelf.changes_since(self.seen) else {
            return Some(self.compare(&shelf));
        };
        let mut told = Vec::new();
        for change in changes.filter(|change| KINDS.contains(&change.id.0)) {
            if !self.hides(&change.id) {
                told.extend(self.difference(&change.id, change.after.as_ref()));
            }
            if self.doubt == Doubt::All && change.id.0 == Resource::Namespace {
                let (id, policy) = isolation(&change.id.2);
                told.extend(self.difference(&id, change.after.as_ref().map(|_| &policy)));
            }
        }
        self.seen = shelf.version();
        Some(told)
    }

    /// Whether a policy does not count, because others of its namespace, or of the cluster, may
    /// be missing: what it accepts, they may deny.
    fn hides(&self, id: &ObjectId) -> bool {
        match id.0 {
            Resource::NetworkPolicy | Resource::CalicoNetworkPolicy => self.doubt.covers(&id.1),
            Resource::ClusterNetworkPolicy
            | Resource::AdminNetworkPolicy
            | Resource::BaselineAdminNetworkPolicy
            | Resource::GlobalNetworkPolicy => self.doubt == Doubt::All,
            _ => false,
        }
    }

    /// Returns the policies that isolate.
    fn isolations(&self, shelf: &Shelf) -> BTreeMap<ObjectId, Arc<Value>> {
        match &self.doubt {
            Doubt::Namespaces(some) => some.iter().map(|name| isolation(name)).collect(),
            Doubt::All => {
                // Also those whose own object is among what was lost.
                let namespaces =
                    shelf
                        .all()
                        .map(|((resource, namespace, name), _)| match resource {
                            Resource::Namespace => name,
                            _ => namespace,
                        });
                let namespaces: BTreeSet<&String> = namespaces.collect();
                let named = namespaces.into_iter().filter(|name| !name.is_empty());
                named.map(|name| isolation(name)).collect()
            }
        }
    }

    /// Compares all objects with what was told.
    fn compare(&mut self, shelf: &Shelf) -> Vec<ClusterChange> {
        let isolations = self.isolations(shelf);
        let mut changes = Vec::new();
        // First what closes: no packet meets a namespace between two sets of policies.
        for (id, policy) in &isolations {
            changes.extend(self.difference(id, Some(policy)));
        }
        let is_gone = |id: &&ObjectId| {
            let is_there = shelf.get(id).is_some() && !self.hides(id);
            !is_there && !isolations.contains_key(id)
        };
        let gone: Vec<ObjectId> = self.told.keys().filter(is_gone).cloned().collect();
        for kind in KINDS {
            for (id, object) in shelf.objects(kind, None) {
                if !self.hides(id) {
                    changes.extend(self.difference(id, Some(object)));
                }
            }
        }
        for id in gone {
            changes.extend(self.difference(&id, None));
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
