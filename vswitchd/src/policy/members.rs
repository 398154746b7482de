//! Who owns which address: the pods that selectors can find, with their true addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_api::PortNo;

use super::program::NodeFacts;
use crate::state::{
    ClusterState, LocalEndpoint, NamespaceRecord, ObjectKey, PodPhase, PodRecord, Selector,
};

/// A pod that policies can speak of.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) pod: &'a PodRecord,
    pub(super) addresses: Vec<IpAddr>,
}

/// Those of one namespace.
#[derive(Debug)]
struct NamespaceMembers<'a> {
    /// `None` if the namespace itself has not been heard of.
    record: Option<&'a NamespaceRecord>,
    local: Vec<Member<'a>>,
    remote: Vec<Member<'a>>,
}

/// All such pods, by namespace.
#[derive(Debug)]
pub(super) struct Members<'a> {
    by_namespace: BTreeMap<&'a str, NamespaceMembers<'a>>,
}

/// Which pods a peer means.
#[derive(Debug)]
pub(super) enum Scope {
    /// Every pod of the cluster.
    Everywhere,
    /// Those of one namespace.
    Namespace(String),
    /// Those of the namespaces that a selector finds.
    Namespaces(Selector),
}

/// Addresses as single-address networks.
pub(super) fn single<'a>(
    addresses: impl IntoIterator<Item = &'a IpAddr>,
) -> impl Iterator<Item = IpNet> {
    addresses.into_iter().map(|ip| IpNet::from(*ip))
}

/// Returns whether a pod has, or may come to have, an address of its own.
///
/// A finished pod's address is free for others; a pod in the host's network is the node.
pub(super) fn is_addressable(pod: &PodRecord) -> bool {
    !pod.host_network && !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
}

impl<'a> Members<'a> {
    /// Joins pod objects with the ports of this node. For a local pod the attachment says
    /// which addresses it has, and nobody else has them, whatever a pod's status claims.
    pub(super) fn new(
        state: &'a ClusterState,
        locals: &BTreeMap<PortNo, LocalEndpoint>,
        node: &NodeFacts,
    ) -> Self {
        let mut attached: BTreeMap<&ObjectKey, Vec<IpAddr>> = BTreeMap::new();
        let mut taken: BTreeSet<IpAddr> = node.addresses.clone();
        for endpoint in locals.values() {
            attached
                .entry(&endpoint.pod)
                .or_default()
                .extend(&endpoint.addresses);
            taken.extend(&endpoint.addresses);
        }
        let mut by_namespace: BTreeMap<&str, NamespaceMembers<'_>> = BTreeMap::new();
        for pod in state.pods().filter(|pod| is_addressable(pod)) {
            let name = pod.key.namespace.as_str();
            let namespace = by_namespace.entry(name).or_insert_with(|| {
                let record = state.namespace(name).map(AsRef::as_ref);
                NamespaceMembers {
                    record,
                    local: Vec::new(),
                    remote: Vec::new(),
                }
            });
            if let Some(addresses) = attached.get(&pod.key) {
                namespace.local.push(Member {
                    pod,
                    addresses: addresses.clone(),
                });
            } else {
                let addresses = claimed(state, pod)
                    .filter(|ip| !taken.contains(ip))
                    .collect();
                namespace.remote.push(Member { pod, addresses });
            }
        }
        Self { by_namespace }
    }

    /// Returns the pods of this node that a policy of the namespace selects.
    pub(super) fn subjects<'s>(
        &'s self,
        namespace: &str,
        selector: &'s Selector,
    ) -> impl Iterator<Item = &'s Member<'a>> {
        let namespace = self.by_namespace.get(namespace);
        let local = namespace.into_iter().flat_map(|namespace| &namespace.local);
        local.filter(|member| selector.matches(&member.pod.labels))
    }

    /// Returns the pods that a selector finds in a scope.
    ///
    /// A namespace that has not been heard of has no labels that a selector could be held
    /// against; its pods are found only from within.
    pub(super) fn select<'s>(
        &'s self,
        scope: &'s Scope,
        selector: &'s Selector,
    ) -> impl Iterator<Item = &'s Member<'a>> {
        let namespaces: Box<dyn Iterator<Item = &'s NamespaceMembers<'a>>> = match scope {
            Scope::Everywhere => Box::new(self.by_namespace.values()),
            Scope::Namespace(name) => Box::new(self.by_namespace.get(name.as_str()).into_iter()),
            Scope::Namespaces(wanted) => {
                let is_wanted = |of: &&NamespaceMembers<'_>| {
                    of.record
                        .is_some_and(|record| wanted.matches(&record.labels))
                };
                Box::new(self.by_namespace.values().filter(is_wanted))
            }
        };
        let pods = namespaces.flat_map(|namespace| namespace.local.iter().chain(&namespace.remote));
        pods.filter(|member| selector.matches(&member.pod.labels))
    }
}

/// The addresses of a pod's status that no other pod claimed after it.
fn claimed(state: &ClusterState, pod: &PodRecord) -> impl Iterator<Item = IpAddr> {
    pod.ips
        .iter()
        .copied()
        .filter(|ip| state.owner_of(*ip).is_some_and(|p| p.key == pod.key))
}

impl Member<'_> {
    /// Returns the numbers that a named port has at this pod.
    pub(super) fn resolve(&self, proto: u8, name: &str) -> BTreeSet<u16> {
        let named = self.pod.named_ports.iter();
        named
            .filter(|p| p.proto == proto && p.name == name)
            .map(|p| p.port)
            .collect()
    }
}
