//! Policies as they are written, without regard to direction: whom they isolate, their rules.

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};

use super::super::direction::Direction;
use crate::state::{ClusterState, PodRecord, PolicyRecord, Selector};

/// A policy that isolates a pod in one direction.
#[derive(Debug)]
pub(super) struct Isolating<'a> {
    pub(super) policy: &'a PolicyRecord,
    /// Why its subject is not understood; it allows nothing then.
    pub(super) flaw: Option<String>,
}

/// A rule of either direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrittenRule<'a> {
    pub(super) peers: &'a [NetworkPolicyPeer],
    pub(super) ports: &'a [NetworkPolicyPort],
}

/// Returns the policies that isolate a pod.
pub(super) fn isolating<'a>(
    cluster: &'a ClusterState,
    pod: &PodRecord,
    direction: Direction,
) -> Vec<Isolating<'a>> {
    let of_namespace = cluster
        .policies()
        .filter(|policy| policy.key.namespace == pod.key.namespace);
    of_namespace
        .filter(|policy| isolates(&policy.spec, direction))
        .filter_map(|policy| selects(policy, pod))
        .collect()
}

/// What cannot be understood selects every pod that it could mean.
fn selects<'a>(policy: &'a PolicyRecord, pod: &PodRecord) -> Option<Isolating<'a>> {
    let written = policy.spec.pod_selector.clone().unwrap_or_default();
    let (selector, flaw) = match Selector::parse(&written) {
        Ok(selector) => (selector, None),
        Err(error) => (Selector::widest(&written), Some(error.to_string())),
    };
    selector
        .matches(&pod.labels)
        .then_some(Isolating { policy, flaw })
}

/// Without policyTypes a policy concerns ingress, and egress if it has an egress rule. An
/// unknown type isolates in both directions.
fn isolates(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return direction == Direction::Ingress || !list(&spec.egress).is_empty();
    }
    let is_known = |name: &String| Direction::BOTH.iter().any(|d| d.policy_type() == name);
    !types.iter().all(is_known) || types.iter().any(|name| name == direction.policy_type())
}

/// Returns the rules of one direction.
pub(super) fn written(spec: &NetworkPolicySpec, direction: Direction) -> Vec<WrittenRule<'_>> {
    match direction {
        Direction::Ingress => list(&spec.ingress)
            .iter()
            .map(|rule| WrittenRule {
                peers: list(&rule.from),
                ports: list(&rule.ports),
            })
            .collect(),
        Direction::Egress => list(&spec.egress)
            .iter()
            .map(|rule| WrittenRule {
                peers: list(&rule.to),
                ports: list(&rule.ports),
            })
            .collect(),
    }
}

fn list<T>(written: &Option<Vec<T>>) -> &[T] {
    written.as_deref().unwrap_or_default()
}
