//! The registry's changes as `ClusterChange`s: everything there is, then every change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;
use tokio::sync::watch;

use super::registry::Shared;
use super::shelf::{Place, Shelf};
use super::{Registry, Resource};
use crate::state::{
    ClusterChange, NamedPort, NamespaceRecord, ObjectKey, PodPhase, PodRecord, PolicyRecord,
};

/// A reader that misses nothing: one that fell behind the window compares everything.
#[derive(Debug)]
pub struct Feed {
    /// Everything there was when the feed began.
    pub initial: Vec<ClusterChange>,
    shared: Arc<Shared>,
    wakeups: watch::Receiver<u64>,
    seen: u64,
    /// What was told so far, to find what vanished while the feed was behind.
    told: BTreeMap<Place, Arc<Value>>,
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

/// Kinds that policies are compiled from.
const KINDS: [Resource; 3] = [Resource::Namespace, Resource::Pod, Resource::NetworkPolicy];

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
        for change in changes.filter(|change| KINDS.contains(&change.place.0)) {
            told.extend(self.tell(&change.place, change.after.as_ref()));
        }
        self.seen = shelf.version();
        Some(told)
    }

    /// Compares all objects with what was told.
    fn compare(&mut self, shelf: &Shelf) -> Vec<ClusterChange> {
        let mut changes = Vec::new();
        let gone: Vec<Place> = self
            .told
            .keys()
            .filter(|place| shelf.get(place).is_none())
            .cloned()
            .collect();
        for place in gone {
            changes.extend(self.tell(&place, None));
        }
        for kind in KINDS {
            for (place, object) in shelf.objects(kind, None) {
                changes.extend(self.tell(place, Some(object)));
            }
        }
        self.seen = shelf.version();
        changes
    }

    fn tell(&mut self, place: &Place, object: Option<&Arc<Value>>) -> Option<ClusterChange> {
        let Some(object) = object else {
            self.told.remove(place);
            return gone(place);
        };
        let old = self.told.insert(place.clone(), Arc::clone(object));
        if old.is_some_and(|old| old == *object) {
            return None;
        }
        present(place, object)
    }
}

fn key((_, namespace, name): &Place) -> ObjectKey {
    ObjectKey {
        namespace: namespace.clone(),
        name: name.clone(),
    }
}

fn gone(place: &Place) -> Option<ClusterChange> {
    match place.0 {
        Resource::Namespace => Some(ClusterChange::NamespaceGone(place.2.clone())),
        Resource::Pod => Some(ClusterChange::PodGone(key(place))),
        Resource::NetworkPolicy => Some(ClusterChange::PolicyGone(key(place))),
        _ => None,
    }
}

pub(super) fn present(place: &Place, object: &Value) -> Option<ClusterChange> {
    match place.0 {
        Resource::Namespace => {
            let labels = labels(object);
            Some(ClusterChange::Namespace(NamespaceRecord {
                name: place.2.clone(),
                labels,
            }))
        }
        Resource::Pod => Some(ClusterChange::Pod(pod_record(key(place), object))),
        Resource::NetworkPolicy => policy_record(key(place), object).map(ClusterChange::Policy),
        _ => None,
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object();
    let pairs = labels.into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// Reduces a Pod; an address that is none is logged and left out.
fn pod_record(key: ObjectKey, pod: &Value) -> PodRecord {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let list = status["podIPs"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut texts: Vec<&str> = list.iter().filter_map(|ip| ip["ip"].as_str()).collect();
    if texts.is_empty() {
        texts.extend(status["podIP"].as_str());
    }
    let ips = texts.into_iter().filter_map(|text| {
        let ip = text.parse::<IpAddr>();
        if ip.is_err() {
            tracing::warn!(pod = %key, address = text, "address of a pod is not understood");
        }
        ip.ok()
    });
    PodRecord {
        ips: ips.collect(),
        uid: pod["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        labels: labels(pod),
        host_network: spec["hostNetwork"] == true,
        phase: phase(status["phase"].as_str()),
        node_name: spec["nodeName"].as_str().map(str::to_owned),
        named_ports: named_ports(spec),
        key,
    }
}

fn phase(text: Option<&str>) -> PodPhase {
    match text {
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some("Unknown") => PodPhase::Unknown,
        _ => PodPhase::Pending,
    }
}

/// Ports of containers, and of init containers that go on running (sidecars).
fn named_ports(spec: &Value) -> Vec<NamedPort> {
    let containers = spec["containers"].as_array().into_iter().flatten();
    let sidecars = spec["initContainers"].as_array().into_iter().flatten();
    let sidecars = sidecars.filter(|container| container["restartPolicy"] == "Always");
    let ports = containers
        .chain(sidecars)
        .filter_map(|c| c["ports"].as_array())
        .flatten();
    ports.filter_map(named_port).collect()
}

fn named_port(port: &Value) -> Option<NamedPort> {
    let proto = match port["protocol"].as_str().unwrap_or("TCP") {
        "TCP" => 6,
        "UDP" => 17,
        "SCTP" => 132,
        _ => return None,
    };
    let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
    Some(NamedPort {
        name: port["name"].as_str()?.to_owned(),
        port: number,
        proto,
    })
}

fn policy_record(key: ObjectKey, policy: &Value) -> Option<PolicyRecord> {
    match serde_json::from_value::<NetworkPolicy>(policy.clone()) {
        Ok(policy) => Some(PolicyRecord {
            key,
            spec: policy.spec.unwrap_or_default(),
        }),
        Err(error) => {
            // Validation has let it in, so this is a defect; what was in force stays so.
            tracing::error!(policy = %key, %error, "policy is not understood");
            None
        }
    }
}
