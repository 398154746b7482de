//! EndpointSlices of Services that have a selector, as Kubernetes' controller makes them.
//!
//! There is no loop that catches up: a write's consequences for slices are found before it is
//! committed and committed with it, so that nobody ever sees the one without the other.

mod endpoint;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::Resource;
use super::services::selector;
use super::shelf::{ObjectId, Pending, Shelf};

/// Label of a slice that names its Service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of a Node that names its zone.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of a slice that names who writes it.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our name there.
const OURSELVES: &str = "endpointslice-controller.vswitch";

/// An object's change: what was there, what will be.
pub(super) type SliceChange = (ObjectId, Option<Arc<Value>>, Option<Value>);

/// Namespace and name of a Service.
type ServiceKey = (String, String);

/// Returns the changes of slices that these changes of other objects bring about.
pub(super) fn consequences(shelf: &Shelf, changes: &[Pending]) -> Vec<SliceChange> {
    let after = changes.iter().map(|(id, _, after)| (id, after.as_ref()));
    let view = View {
        shelf,
        changed: after.collect(),
    };
    // All that is in a namespace goes with it in these changes, slices included.
    let is_gone = |namespace: &str| {
        let id = (Resource::Namespace, String::new(), namespace.to_owned());
        view.changed.get(&id).is_some_and(Option::is_none)
    };
    let mut keys = BTreeSet::new();
    for (id, before, after) in changes {
        if is_gone(&id.1) {
            continue;
        }
        if id.0 == Resource::Node && zone_of(before.as_ref()) != zone_of(after.as_ref()) {
            let services = shelf.objects(Resource::Service, None);
            keys.extend(
                services.map(|((_, namespace, name), _)| (namespace.clone(), name.clone())),
            );
        }
        for object in [before, after].into_iter().flatten() {
            concerned(&view, id, object, &mut keys);
        }
    }
    keys.iter().flat_map(|key| renewed(&view, key)).collect()
}

/// Returns what there is to change in the slices of all Services.
pub(super) fn all(shelf: &Shelf) -> Vec<SliceChange> {
    let view = View {
        shelf,
        changed: BTreeMap::new(),
    };
    let mut keys = BTreeSet::new();
    for resource in [Resource::Service, Resource::EndpointSlice] {
        for (id, object) in shelf.objects(resource, None) {
            concerned(&view, id, object, &mut keys);
        }
    }
    keys.iter().flat_map(|key| renewed(&view, key)).collect()
}

/// The objects as they will be when the changes are made.
struct View<'a> {
    shelf: &'a Shelf,
    changed: BTreeMap<&'a ObjectId, Option<&'a Arc<Value>>>,
}

impl View<'_> {
    fn get(&self, id: &ObjectId) -> Option<&Arc<Value>> {
        match self.changed.get(id) {
            Some(after) => *after,
            None => self.shelf.get(id),
        }
    }

    /// Returns the objects of a namespace, in no order.
    fn objects<'a>(
        &'a self,
        resource: Resource,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectId, &'a Arc<Value>)> {
        let kept = self.shelf.objects(resource, Some(namespace));
        let kept = kept.filter(|(id, _)| !self.changed.contains_key(id));
        let is_of = move |(r, ns, _): &ObjectId| *r == resource && ns == namespace;
        let changed = self.changed.iter().filter(move |(id, _)| is_of(id));
        kept.chain(changed.filter_map(|(id, after)| Some((*id, (*after)?))))
    }

    /// Returns the zone of a Node.
    fn zone(&self, node: &str) -> Option<&str> {
        let id = (Resource::Node, String::new(), node.to_owned());
        zone_of(self.get(&id))
    }

    /// Returns the slices of a Service, whoever wrote them.
    fn slices_of(&self, (namespace, service): &ServiceKey) -> BTreeMap<ObjectId, Arc<Value>> {
        self.objects(Resource::EndpointSlice, namespace)
            .filter(|(_, slice)| label(slice, SERVICE_NAME) == Some(service))
            .map(|(id, slice)| (id.clone(), Arc::clone(slice)))
            .collect()
    }
}

fn zone_of(node: Option<&Arc<Value>>) -> Option<&str> {
    label(node?, ZONE)
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

/// Whether a Pod's labels are those that the selector asks for.
fn selects(spec: &Value, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    selector(spec).is_some_and(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value))
}

/// Adds the Services whose slices an object has a say in.
fn concerned(view: &View<'_>, id: &ObjectId, object: &Value, keys: &mut BTreeSet<ServiceKey>) {
    let (resource, namespace, name) = id;
    let mut add = |name: &str| keys.insert((namespace.clone(), name.to_owned()));
    match resource {
        Resource::Service => {
            add(name);
        }
        Resource::EndpointSlice => {
            label(object, SERVICE_NAME).map(add);
        }
        Resource::Pod => {
            let services = view.objects(Resource::Service, namespace);
            let of_pod = services.filter(|(_, service)| selects(&service["spec"], object));
            for ((_, _, name), _) in of_pod {
                add(name);
            }
        }
        _ => {}
    }
}

/// Returns what there is to change in the slices of one Service.
fn renewed(view: &View<'_>, key: &ServiceKey) -> Vec<SliceChange> {
    let existing = view.slices_of(key);
    let is_ours = |slice: &Value| label(slice, MANAGED_BY) == Some(OURSELVES);
    let is_left_to_others = existing.values().any(|slice| !is_ours(slice));
    let id = (Resource::Service, key.0.clone(), key.1.clone());
    let service = view.get(&id).filter(|_| !is_left_to_others);
    let wanted = service.map_or_else(BTreeMap::new, |service| slices::of(view, key, service));
    let mut changes: Vec<SliceChange> = Vec::new();
    for (id, slice) in &existing {
        if is_ours(slice) && !wanted.contains_key(id) {
            changes.push((id.clone(), Some(Arc::clone(slice)), None));
        }
    }
    for (id, slice) in wanted {
        let before = existing.get(&id);
        let slice = before.map_or_else(|| created(&id, &slice), |old| updated(old, &slice));
        if before.is_none_or(|before| **before != slice) {
            changes.push((id, before.cloned(), Some(slice)));
        }
    }
    changes
}

fn created((_, namespace, name): &ObjectId, slice: &Value) -> Value {
    let mut slice = slice.clone();
    let metadata = &mut slice["metadata"];
    metadata["name"] = json!(name);
    metadata["namespace"] = json!(namespace);
    metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
    metadata["creationTimestamp"] = json!(super::prepare::now());
    slice
}

/// The slice under the metadata that it has, labels that others added included.
fn updated(old: &Value, slice: &Value) -> Value {
    let mut metadata = old["metadata"].clone();
    for (key, value) in slice["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
    {
        metadata["labels"][key] = value.clone();
    }
    metadata["ownerReferences"] = slice["metadata"]["ownerReferences"].clone();
    let mut slice = slice.clone();
    slice["metadata"] = metadata;
    slice
}
