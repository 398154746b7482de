//! From an object of any kind whose policies stand in tiers to what it is compiled from.

use super::tiers::{Flaw, TieredPolicy};
use super::{calico, cluster_policy};
use crate::state::{ClusterState, ObjectKey, PolicyKey};

/// Returns what a policy says, if it is there and of such a kind; the flaws of one that does
/// nothing.
pub(super) fn tiered(
    state: &ClusterState,
    key: &PolicyKey,
) -> Option<Result<TieredPolicy, Vec<Flaw>>> {
    let of_calico = |key: &ObjectKey| {
        let record = state.calico_policy(key)?;
        Some(calico::parse(record, |name| {
            state.tier(name).map(AsRef::as_ref)
        }))
    };
    match key {
        PolicyKey::NetworkPolicy(_) => None,
        PolicyKey::ClusterPolicy(key) => state
            .cluster_policy(key)
            .map(|record| cluster_policy::parse(record)),
        PolicyKey::GlobalNetworkPolicy(name) => of_calico(&ObjectKey {
            namespace: String::new(),
            name: name.clone(),
        }),
        PolicyKey::CalicoNetworkPolicy(key) => of_calico(key),
    }
}

/// Returns the keys of all policies of such kinds.
pub(super) fn tiered_keys(state: &ClusterState) -> impl Iterator<Item = PolicyKey> {
    let of_cluster = state.cluster_policies();
    let of_cluster = of_cluster.map(|of| PolicyKey::ClusterPolicy(of.key.clone()));
    let of_calico = state.calico_policies();
    of_cluster.chain(of_calico.map(|policy| PolicyKey::of_calico(&policy.key)))
}
