//! All policies in the order in which they are judged, with the pods that each selects.

use super::calico_labels::labels_of_pod;
use super::compiled::Subject;
use super::peers::{Members, PodPeer, Scope};
use super::pods::is_addressable;
use super::tiered::{tiered, tiered_keys};
use super::tiers::{Flaw, Position, TieredPolicy};
use crate::state::{ClusterState, ObjectKey, PodRecord, PolicyKey};

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyOverview {
    /// The policy.
    pub policy: PolicyKey,
    /// Tier, and order in it, of a policy of a tier that is understood.
    pub level: Option<(String, String)>,
    /// Whom it selects, as address sets are named; empty if it does nothing.
    pub subject: String,
    /// How many of the pods it selects.
    pub selected: usize,
    /// Why it does nothing.
    pub idle: Vec<Flaw>,
}

/// Returns every policy with how many of some pods it selects, in the order in which they are
/// judged; last what does nothing.
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
    let count = |members: &Members| {
        let selected = pods.iter().filter(|pod| selects(cluster, members, pod));
        selected.count()
    };
    let (mut tiers, mut idle): (Vec<TieredPolicy>, Vec<PolicyOverview>) = Default::default();
    for key in tiered_keys(cluster) {
        match tiered(cluster, &key) {
            Some(Ok(policy)) => tiers.push(policy),
            Some(Err(flaws)) => idle.push(PolicyOverview {
                policy: key,
                level: None,
                subject: String::new(),
                selected: 0,
                idle: flaws,
            }),
            None => {}
        }
    }
    tiers.sort_by(|a, b| a.position.cmp(&b.position));
    let before = tiers
        .iter()
        .take_while(|of| is_before(&of.position))
        .count();
    let of_tiers = tiers.into_iter().map(|of| PolicyOverview {
        selected: count(&of.subject),
        subject: of.subject.set_name().to_string(),
        level: Some((of.tier, of.order)),
        policy: of.key,
        idle: Vec::new(),
    });
    let of_namespaces = cluster.policies().map(|record| {
        let members = Members::Pods(PodPeer {
            scope: Scope::Namespace(record.key.namespace.clone()),
            selector: Subject::of(record).selector,
        });
        PolicyOverview {
            policy: PolicyKey::NetworkPolicy(record.key.clone()),
            level: None,
            selected: count(&members),
            subject: members.set_name().to_string(),
            idle: Vec::new(),
        }
    });
    let mut all: Vec<PolicyOverview> = of_tiers.collect();
    let behind = all.split_off(before);
    all.into_iter()
        .chain(of_namespaces)
        .chain(behind)
        .chain(idle)
        .collect()
}

/// Returns whether a policy comes before the NetworkPolicies.
fn is_before(position: &Position) -> bool {
    let to_default = position.tier.to_default();
    to_default.is_lt() || (to_default.is_eq() && position.is_early())
}

fn selects(cluster: &ClusterState, members: &Members, pod: &PodRecord) -> bool {
    let namespace = cluster.namespace(&pod.key.namespace);
    let of_namespace = namespace.map(|namespace| &namespace.labels);
    let peer = match members {
        Members::Pods(peer) => peer,
        Members::Selected { expression, .. } => {
            return expression.matches(&labels_of_pod(pod, cluster));
        }
    };
    let is_in = match &peer.scope {
        Scope::Everywhere => true,
        Scope::Namespace(name) => *name == pod.key.namespace,
        Scope::Namespaces(selector) => of_namespace.is_some_and(|labels| selector.matches(labels)),
    };
    is_in && peer.selector.matches(&pod.labels)
}
