//! All policies in the order in which they are judged, with the pods that each selects.

use std::collections::BTreeMap;

use super::cluster_policy::{ClusterPolicy, Tier};
use super::compiled::Subject;
use super::peers::{PodPeer, Scope};
use super::pods::is_addressable;
use crate::state::{ClusterState, ObjectKey, PodRecord, PolicyKey};

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyOverview {
    /// The policy.
    pub policy: PolicyKey,
    /// Tier and priority of a ClusterNetworkPolicy that is understood.
    pub level: Option<(String, u16)>,
    /// How many of the pods it selects.
    pub selected: usize,
}

/// Returns every policy with how many of some pods it selects: tier Admin by priority and name,
/// NetworkPolicies by namespace and name, tier Baseline, and last what is not understood of the
/// cluster's policies and does nothing.
#[must_use]
pub fn overview<'a>(
    cluster: &ClusterState,
    pods: impl IntoIterator<Item = &'a ObjectKey>,
) -> Vec<PolicyOverview> {
    let pods = pods.into_iter().filter_map(|key| cluster.pod(key));
    let pods: Vec<&PodRecord> = pods
        .map(AsRef::as_ref)
        .filter(|pod| is_addressable(pod))
        .collect();
    let count = |peer: &PodPeer| {
        pods.iter()
            .filter(|pod| selects(cluster, peer, pod))
            .count()
    };
    let mut tiers: BTreeMap<(Tier, u16, String), usize> = BTreeMap::new();
    let mut odd = Vec::new();
    for record in cluster.cluster_policies() {
        match ClusterPolicy::parse(record) {
            Ok(policy) => {
                let selected = count(&policy.subject);
                tiers.insert((policy.tier, policy.priority, policy.name), selected);
            }
            Err(_) => odd.push(PolicyOverview {
                policy: PolicyKey::ClusterNetworkPolicy(record.name.clone()),
                level: None,
                selected: 0,
            }),
        }
    }
    let of_namespaces = cluster.policies().map(|record| {
        let peer = PodPeer {
            scope: Scope::Namespace(record.key.namespace.clone()),
            selector: Subject::of(record).selector,
        };
        PolicyOverview {
            policy: PolicyKey::NetworkPolicy(record.key.clone()),
            level: None,
            selected: count(&peer),
        }
    });
    let of_tier = |wanted: Tier| {
        let of_tier = tiers.iter().filter(move |((tier, ..), _)| *tier == wanted);
        of_tier.map(|((tier, priority, name), selected)| PolicyOverview {
            policy: PolicyKey::ClusterNetworkPolicy(name.clone()),
            level: Some((tier.to_string(), *priority)),
            selected: *selected,
        })
    };
    of_tier(Tier::Admin)
        .chain(of_namespaces)
        .chain(of_tier(Tier::Baseline))
        .chain(odd)
        .collect()
}

fn selects(cluster: &ClusterState, peer: &PodPeer, pod: &PodRecord) -> bool {
    let is_in = match &peer.scope {
        Scope::Everywhere => true,
        Scope::Namespace(name) => *name == pod.key.namespace,
        Scope::Namespaces(selector) => {
            let namespace = cluster.namespace(&pod.key.namespace);
            namespace.is_some_and(|namespace| selector.matches(&namespace.labels))
        }
    };
    is_in && peer.selector.matches(&pod.labels)
}
