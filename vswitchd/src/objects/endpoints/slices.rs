//! The slices that a Service should have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::Resource;
use super::super::services::{family_of, selector};
use super::super::shelf::ObjectId;
use super::{MANAGED_BY, OURSELVES, SERVICE_NAME, ServiceKey, View, endpoint, label, selects};

/// Most endpoints of a slice that the API takes.
const MAX_ENDPOINTS: usize = 1000;

/// Longest name of an object.
const MAX_NAME: usize = 253;

/// Returns the slices of a Service by their places, without the metadata that each keeps.
pub(super) fn of(view: &View<'_>, key: &ServiceKey, service: &Value) -> BTreeMap<ObjectId, Value> {
    let spec = &service["spec"];
    let mut slices = BTreeMap::new();
    if spec["type"] == "ExternalName" || selector(spec).is_none() {
        return slices;
    }
    let pods: BTreeMap<&ObjectId, &Arc<Value>> = view
        .objects(Resource::Pod, &key.0)
        .filter(|(_, pod)| selects(spec, pod) && !endpoint::is_finished(pod))
        .collect();
    let pods: Vec<&Arc<Value>> = pods.into_values().collect();
    for family in families(spec, &pods) {
        for (ports, endpoints) in groups(view, spec, &pods, family) {
            for (index, endpoints) in endpoints.chunks(MAX_ENDPOINTS).enumerate() {
                add(
                    view,
                    key,
                    service,
                    (family, &ports, index),
                    endpoints,
                    &mut slices,
                );
            }
            if endpoints.is_empty() {
                add(view, key, service, (family, &ports, 0), &[], &mut slices);
            }
        }
    }
    slices
}

/// The families that the Service names. One that names none has those of its Pods.
fn families(spec: &Value, pods: &[&Arc<Value>]) -> BTreeSet<&'static str> {
    let named = spec["ipFamilies"].as_array().into_iter().flatten();
    let mut families: BTreeSet<&str> = named
        .filter_map(|family| ["IPv4", "IPv6"].into_iter().find(|known| family == known))
        .collect();
    if families.is_empty() {
        let ips = pods.iter().flat_map(|pod| endpoint::addresses(pod));
        families.extend(ips.map(family_of));
    }
    if families.is_empty() {
        families.insert("IPv4");
    }
    families
}

/// Endpoints by their ports, as JSON: Pods that have other numbers under the names asked for
/// are in slices of their own. Without endpoints there is one group that is empty.
fn groups(
    view: &View<'_>,
    spec: &Value,
    pods: &[&Arc<Value>],
    family: &str,
) -> Vec<(Value, Vec<Value>)> {
    let publishes_all = spec["publishNotReadyAddresses"] == true;
    let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for pod in pods {
        if let Some(mut endpoint) = endpoint::of(pod, family, publishes_all) {
            if let Some(zone) = endpoint["nodeName"]
                .as_str()
                .and_then(|name| view.zone(name))
            {
                endpoint["zone"] = json!(zone);
            }
            if let Some(hints) = endpoint::hints(spec, &endpoint) {
                endpoint["hints"] = hints;
            }
            let ports = endpoint::ports(spec, Some(pod));
            let group = groups.entry(ports.to_string());
            let (_, endpoints) = group.or_insert_with(|| (ports, Vec::new()));
            endpoints.push(endpoint);
        }
    }
    if groups.is_empty() {
        return vec![(endpoint::ports(spec, None), Vec::new())];
    }
    groups.into_values().collect()
}

/// What tells a slice from others of its Service: family, ports, and its number where one
/// slice cannot hold all endpoints.
type Identity<'a> = (&'a str, &'a Value, usize);

fn add(
    view: &View<'_>,
    key: &ServiceKey,
    service: &Value,
    identity: Identity<'_>,
    endpoints: &[Value],
    slices: &mut BTreeMap<ObjectId, Value>,
) {
    let id = free_place(view, key, identity, slices);
    let (family, ports, _) = identity;
    let metadata = &service["metadata"];
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "labels": {SERVICE_NAME: key.1, MANAGED_BY: OURSELVES},
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": key.1,
                "uid": metadata["uid"],
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    });
    slices.insert(id, slice);
}

/// The name that an identity always has, unless an object that is not of this Service is
/// there.
fn free_place(
    view: &View<'_>,
    (namespace, service): &ServiceKey,
    identity: Identity<'_>,
    slices: &BTreeMap<ObjectId, Value>,
) -> ObjectId {
    let mut attempt = 0;
    loop {
        let name = name(service, identity, attempt);
        let id = (Resource::EndpointSlice, namespace.clone(), name);
        let is_ours = |slice: &Arc<Value>| label(slice, SERVICE_NAME) == Some(service);
        let is_free = view.get(&id).is_none_or(is_ours) && !slices.contains_key(&id);
        if is_free {
            return id;
        }
        attempt += 1;
    }
}

fn name(service: &str, (family, ports, index): Identity<'_>, attempt: usize) -> String {
    let text = format!("{service}/{family}/{ports}/{index}/{attempt}");
    let suffix = suffix(crc32fast::hash(text.as_bytes()));
    let room = MAX_NAME - suffix.len() - 1;
    let service: String = service.chars().take(room).collect();
    format!("{service}-{suffix}")
}

/// Five characters as the API server appends to generateName.
fn suffix(mut hash: u32) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut letters = String::new();
    for _ in 0..5 {
        letters.push(char::from(LETTERS[(hash % 27) as usize]));
        hash /= 27;
    }
    letters
}
