//! All objects in memory, and the changes that watches may still ask for. Not thread-safe by
//! itself; the registry guards it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::Resource;

/// Changes that are remembered; a watch that is further behind has to list again.
const WINDOW: usize = 8192;

/// Endpoints in the slices that are remembered: each change of one endpoint leaves another copy
/// of its whole slice, which may have a thousand.
const ENDPOINTS_WINDOW: usize = 32_768;

/// What names an object: its resource, namespace (empty for none) and name.
pub type ObjectId = (Resource, String, String);

/// One change: the object before and after it.
#[derive(Debug, Clone)]
pub(super) struct ObjectChange {
    pub(super) version: u64,
    pub(super) id: ObjectId,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
}

/// The objects and their recent history.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    objects: BTreeMap<ObjectId, Arc<Value>>,
    history: VecDeque<ObjectChange>,
    /// Endpoints in the slices of the history.
    endpoints: usize,
    /// Version of the newest change.
    version: u64,
    /// Version of the newest change that is no longer remembered.
    forgotten: u64,
}

impl Shelf {
    /// Returns a shelf with these objects and no history.
    pub(super) fn new(objects: BTreeMap<ObjectId, Arc<Value>>, version: u64) -> Self {
        Self {
            objects,
            history: VecDeque::new(),
            endpoints: 0,
            version,
            forgotten: version,
        }
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, id: &ObjectId) -> Option<&Arc<Value>> {
        self.objects.get(id)
    }

    /// Returns all objects.
    pub(super) fn all(&self) -> impl Iterator<Item = (&ObjectId, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Returns the objects of a resource, of one namespace or all.
    pub(super) fn objects<'a, 'b>(
        &'a self,
        resource: Resource,
        namespace: Option<&'b str>,
    ) -> impl Iterator<Item = (&'a ObjectId, &'a Arc<Value>)> + use<'a, 'b> {
        let from = (
            resource,
            namespace.unwrap_or_default().to_owned(),
            String::new(),
        );
        self.objects
            .range(from..)
            .take_while(move |((r, ns, _), _)| {
                *r == resource && namespace.is_none_or(|namespace| namespace == ns)
            })
    }

    /// Applies a change whose version is the next one.
    pub(super) fn apply(&mut self, change: ObjectChange) {
        self.version = change.version;
        match &change.after {
            Some(object) => self.objects.insert(change.id.clone(), Arc::clone(object)),
            None => self.objects.remove(&change.id),
        };
        self.endpoints += endpoints_of(&change);
        self.history.push_back(change);
        while self.history.len() > WINDOW || self.endpoints > ENDPOINTS_WINDOW {
            let Some(old) = self.history.pop_front() else {
                break;
            };
            self.endpoints -= endpoints_of(&old);
            self.forgotten = old.version;
        }
    }

    /// Returns the changes behind a version; `None` if some of them are forgotten.
    pub(super) fn changes_since(
        &self,
        version: u64,
    ) -> Option<impl Iterator<Item = &ObjectChange>> {
        if version < self.forgotten {
            return None;
        }
        let start = self
            .history
            .partition_point(|change| change.version <= version);
        Some(self.history.range(start..))
    }
}

fn endpoints_of(change: &ObjectChange) -> usize {
    let object = change.after.as_ref().or(change.before.as_ref());
    let endpoints = object.and_then(|object| object["endpoints"].as_array());
    endpoints.map_or(0, Vec::len)
}
