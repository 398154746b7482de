//! The pods that policies can speak of, with the addresses they truly have.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use slab::Slab;
use vswitch_api::PortNo;

use super::ids::RosterId;
use super::program::NodeFacts;
use super::selector_index::LabelIndex;
use crate::state::{ClusterState, LocalEndpoint, ObjectKey, PodPhase, PodRecord, Selector};

/// Number of a pod inside one compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PodId(pub(super) usize);

/// What labels can select: a pod, or networks that a network set gives labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum MemberKey {
    Pod(ObjectKey),
    /// Without a namespace: a GlobalNetworkSet.
    NetworkSet(ObjectKey),
}

/// A pod, or a network set, as policies see it.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) record: Arc<PodRecord>,
    /// It is a network set, and the record holds its name and labels.
    pub(super) is_network_set: bool,
    /// Of a pod: the addresses that are its own and nobody else's.
    nets: Vec<IpNet>,
    /// Whether it has a port on this node.
    pub(super) is_local: bool,
    /// The groups and selections it is in.
    pub(super) rosters: Vec<RosterId>,
}

impl Pod {
    /// Returns a network set.
    pub(super) fn network_set(record: Arc<PodRecord>, nets: Vec<IpNet>) -> Self {
        Self {
            record,
            is_network_set: true,
            nets,
            is_local: false,
            rosters: Vec::new(),
        }
    }

    fn key(&self) -> MemberKey {
        let key = self.record.key.clone();
        if self.is_network_set {
            MemberKey::NetworkSet(key)
        } else {
            MemberKey::Pod(key)
        }
    }

    /// Its networks; of a pod its addresses as single-address networks.
    pub(super) fn nets(&self) -> impl Iterator<Item = IpNet> {
        self.nets.iter().copied()
    }

    /// Returns whether it is where it was, with the same addresses and ports, so that only its
    /// labels can have changed.
    pub(super) fn stays(&self, now: &Self) -> bool {
        self.nets == now.nets
            && self.is_local == now.is_local
            && self.record.named_ports == now.record.named_ports
    }

    /// Returns the numbers that a named port has at this pod.
    pub(super) fn resolve(&self, proto: u8, name: &str) -> BTreeSet<u16> {
        let named = self.record.named_ports.iter();
        named
            .filter(|p| p.proto == proto && p.name == name)
            .map(|p| p.port)
            .collect()
    }
}

/// Returns whether a pod has, or may come to have, an address of its own.
///
/// A finished pod's address is free for others; a pod in the host's network is the node.
pub(super) fn is_addressable(pod: &PodRecord) -> bool {
    !pod.host_network && !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
}

/// The ports of this node and the addresses that pods elsewhere cannot have.
#[derive(Debug, Default)]
pub(super) struct Locals {
    pub(super) endpoints: BTreeMap<PortNo, LocalEndpoint>,
    by_pod: HashMap<ObjectKey, Vec<PortNo>>,
    taken: HashSet<IpAddr>,
}

impl Locals {
    /// Sets the ports of this node and the node's own addresses.
    pub(super) fn set(&mut self, endpoints: BTreeMap<PortNo, LocalEndpoint>, node: &NodeFacts) {
        self.by_pod.clear();
        self.taken = node.addresses.iter().copied().collect();
        for endpoint in endpoints.values() {
            let ports = self.by_pod.entry(endpoint.pod.clone()).or_default();
            ports.push(endpoint.port_no);
            self.taken.extend(&endpoint.addresses);
        }
        self.endpoints = endpoints;
    }

    /// Returns the ports of a pod on this node.
    pub(super) fn ports_of(&self, pod: &ObjectKey) -> &[PortNo] {
        self.by_pod.get(pod).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns a member as policies see it, if it is there.
    pub(super) fn place(&self, state: &ClusterState, key: &MemberKey) -> Option<Pod> {
        match key {
            MemberKey::Pod(key) => self.place_pod(state, key),
            MemberKey::NetworkSet(key) => {
                let set = state.network_set(key)?;
                let record = PodRecord {
                    key: key.clone(),
                    labels: set.labels.clone(),
                    ..PodRecord::default()
                };
                let nets = set.nets.iter().copied().collect();
                Some(Pod::network_set(Arc::new(record), nets))
            }
        }
    }

    /// Returns the pod as policies see it, and `None` for one that has no address of its own.
    ///
    /// For a local pod the attachment says which addresses it has, and nobody else has them,
    /// whatever a pod's status claims.
    fn place_pod(&self, state: &ClusterState, key: &ObjectKey) -> Option<Pod> {
        let record = state.pod(key).filter(|pod| is_addressable(pod))?;
        let ports = self.ports_of(key);
        let addresses: Vec<IpAddr> = if ports.is_empty() {
            let is_own = |ip: &&IpAddr| {
                !self.taken.contains(*ip) && state.owner_of(**ip).is_some_and(|p| p.key == *key)
            };
            record.ips.iter().filter(is_own).copied().collect()
        } else {
            let endpoints = ports.iter().filter_map(|port| self.endpoints.get(port));
            endpoints.flat_map(|e| &e.addresses).copied().collect()
        };
        Some(Pod {
            record: Arc::clone(record),
            is_network_set: false,
            nets: addresses.into_iter().map(IpNet::from).collect(),
            is_local: !ports.is_empty(),
            rosters: Vec::new(),
        })
    }
}

/// All such pods, and all network sets.
#[derive(Debug, Default)]
pub(super) struct Pods {
    slab: Slab<Pod>,
    ids: HashMap<MemberKey, PodId>,
    by_namespace: HashMap<String, BTreeSet<PodId>>,
    local: HashMap<String, BTreeSet<PodId>>,
    labels: LabelIndex<PodId>,
}

impl Pods {
    pub(super) fn get(&self, id: PodId) -> Option<&Pod> {
        self.slab.get(id.0)
    }

    pub(super) fn get_mut(&mut self, id: PodId) -> Option<&mut Pod> {
        self.slab.get_mut(id.0)
    }

    pub(super) fn id_of(&self, key: &MemberKey) -> Option<PodId> {
        self.ids.get(key).copied()
    }

    pub(super) fn insert(&mut self, pod: Pod) -> PodId {
        let key = &pod.record.key;
        let id = PodId(self.slab.vacant_key());
        self.ids.insert(pod.key(), id);
        let namespace = key.namespace.clone();
        if pod.is_local {
            self.local.entry(namespace.clone()).or_default().insert(id);
        }
        self.by_namespace.entry(namespace).or_default().insert(id);
        self.labels.insert(&pod.record.labels, id);
        self.slab.insert(pod);
        id
    }

    /// Replaces the record of a pod that stays; returns the rosters that it is in.
    pub(super) fn relabel(&mut self, id: PodId, record: Arc<PodRecord>) -> Vec<RosterId> {
        let Some(pod) = self.slab.get_mut(id.0) else {
            return Vec::new();
        };
        self.labels.remove(&pod.record.labels, id);
        self.labels.insert(&record.labels, id);
        pod.record = record;
        pod.rosters.clone()
    }

    pub(super) fn remove(&mut self, id: PodId) -> Option<Pod> {
        let pod = self.slab.try_remove(id.0)?;
        let key = &pod.record.key;
        self.ids.remove(&pod.key());
        remove_from(&mut self.by_namespace, &key.namespace, id);
        if pod.is_local {
            remove_from(&mut self.local, &key.namespace, id);
        }
        self.labels.remove(&pod.record.labels, id);
        Some(pod)
    }

    /// Returns the pods of this node in a namespace.
    pub(super) fn local_in(&self, namespace: &str) -> impl Iterator<Item = (PodId, &Pod)> {
        let ids = self.local.get(namespace).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.get(*id)?)))
    }

    /// Returns the pods of this node.
    pub(super) fn local(&self) -> impl Iterator<Item = (PodId, &Pod)> {
        let ids = self.local.values().flatten();
        ids.filter_map(|id| Some((*id, self.get(*id)?)))
    }

    /// Returns the pods of a namespace.
    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (PodId, &Pod)> {
        let ids = self.by_namespace.get(namespace).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.get(*id)?)))
    }

    /// Returns a small collection that holds all pods the selector matches, `None` if nothing
    /// narrows it down.
    pub(super) fn candidates(&self, selector: &Selector) -> Option<Vec<PodId>> {
        self.labels.candidates(selector)
    }

    /// Returns every pod.
    pub(super) fn ids(&self) -> impl Iterator<Item = PodId> {
        self.slab.iter().map(|(id, _)| PodId(id))
    }
}

fn remove_from(map: &mut HashMap<String, BTreeSet<PodId>>, namespace: &str, id: PodId) {
    if let Some(ids) = map.get_mut(namespace) {
        ids.remove(&id);
        if ids.is_empty() {
            map.remove(namespace);
        }
    }
}
