//! Priorities of the policy tables, names of address sets, and the facts about the node that policies
//! depend on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vswitch_datapath::flow::SetName;

use crate::state::PolicyKey;

/// Priorities inside the policy tables; a higher one wins.
pub mod priority {
    use vswitch_api::Priority;

    /// Isolation of a port whose pod or policies are not known.
    pub const UNKNOWN: Priority = Priority(55_000);
    /// The node's own traffic to its pods.
    pub const NODE: Priority = Priority(56_000);
    /// A pod to itself.
    pub const OWN: Priority = Priority(54_000);
    /// Rules of the policy of a tier that comes first; those behind it have lower ones.
    pub const FIRST_IN_TIER: Priority = Priority(50_000);
    /// The lowest of those.
    pub const LAST_IN_TIER: Priority = Priority(1_000);
    /// What NetworkPolicies allow, and isolation.
    pub const POLICY: Priority = Priority(100);
}

/// Returns the name of the set that holds the node's own addresses.
#[must_use]
pub fn node_set() -> SetName {
    SetName("node".into())
}

/// What policies depend on besides the cluster's objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// Every address of the node, the gateway's included. Its processes always reach local
    /// pods, and no pod object can claim one of them.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether all policies and namespaces have been heard of. Until then a pod without a
    /// policy may only look open, so that every local pod is isolated.
    pub is_synced: bool,
}

/// A part of a policy that could not be understood and therefore fails closed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyProblem {
    /// The policy.
    pub policy: PolicyKey,
    /// Where in it, e.g. `ingress[0].from[1]`.
    pub part: String,
    /// What is wrong, one line.
    pub problem: String,
}
