//! All objects in memory, and the changes that watches may still ask for. Not thread-safe by
//! itself; the registry guards it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::Resource;

/// Changes that are remembered; a watch that is further behind has to list again.
const WINDOW: usize = 8192;

/// Endpoints in the slices that are remembered: each is small, and takes a map of its own.
const ENDPOINTS_WINDOW: usize = 32_768;

/// Bytes of the changes that are remembered: each leaves a copy of its whole object, which may
/// have 3 MiB.
const WINDOW_BYTES: usize = 32 << 20;

/// What names an object: its resource, namespace (empty for none) and name.
pub type ObjectId = (Resource, String, String);

/// Returns what names an object, by its metadata.
pub(super) fn id_of(resource: Resource, object: &Value) -> ObjectId {
    let text = |field: &str| {
        let text = object["metadata"][field].as_str();
        text.unwrap_or_default().to_owned()
    };
    (resource, text("namespace"), text("name"))
}

/// One change: the object before and after it.
#[derive(Debug, Clone)]
pub(super) struct ObjectChange {
    pub(super) version: u64,
    pub(super) id: ObjectId,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
}

/// A change without its version.
pub(super) type Pending = (ObjectId, Option<Arc<Value>>, Option<Arc<Value>>);

/// The objects and their recent history.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    objects: BTreeMap<ObjectId, Arc<Value>>,
    history: VecDeque<ObjectChange>,
    /// Endpoints in the slices of the history.
    endpoints: usize,
    /// Bytes of the history, about.
    bytes: usize,
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
            bytes: 0,
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
        self.bytes += bytes_of(&change);
        self.history.push_back(change);
        while self.history.len() > WINDOW
            || self.endpoints > ENDPOINTS_WINDOW
            || self.bytes > WINDOW_BYTES
        {
            let Some(old) = self.history.pop_front() else {
                break;
            };
            self.endpoints -= endpoints_of(&old);
            self.bytes -= bytes_of(&old);
            self.forgotten = old.version;
        }
    }

    /// Returns the objects of a resource, of one namespace or all, as they were at a version;
    /// `None` if that is forgotten, or not yet there.
    pub(super) fn objects_at(
        &self,
        version: u64,
        resource: Resource,
        namespace: Option<&str>,
    ) -> Option<BTreeMap<&ObjectId, &Arc<Value>>> {
        if version > self.version {
            return None;
        }
        let changes = self.changes_since(version)?;
        let mut objects: BTreeMap<_, _> = self.objects(resource, namespace).collect();
        let is_wanted = |change: &&ObjectChange| {
            let (of, within, _) = &change.id;
            *of == resource && namespace.is_none_or(|namespace| namespace == within)
        };
        // What was before the first change of an object is what there was.
        let mut changes: Vec<_> = changes.filter(is_wanted).collect();
        changes.reverse();
        for change in changes {
            match &change.before {
                Some(before) => objects.insert(&change.id, before),
                None => objects.remove(&change.id),
            };
        }
        Some(objects)
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

/// What a change costs, about: the object after it. That before it is the one of an earlier
/// change, or of a deletion.
fn bytes_of(change: &ObjectChange) -> usize {
    let object = change.after.as_ref().or(change.before.as_ref());
    size_of::<ObjectChange>() + object.map_or(0, |object| weight(object))
}

/// Bytes of a value in memory, about: what its texts, keys and nodes take.
fn weight(value: &Value) -> usize {
    let inner = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| size_of::<String>() + key.len() + weight(value))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + inner
}
