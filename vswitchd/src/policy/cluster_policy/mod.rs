//! ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2): policies of the whole cluster, in two
//! tiers around the NetworkPolicies.
//!
//! ```text
//! 55 EgressAdminTier     ip_src=@selected, ip_dst=@peer, port → Forward | drop | EgressRule
//! 65 EgressBaselineTier  the same                             → Forward | drop | Forward
//! 75 IngressAdminTier    ip_src=@peer, ip_dst=@selected, port → Output | drop | IngressRule
//! 85 IngressBaselineTier the same                             → Output | drop | Output
//! ```
//!
//! The rules of a tier stand in the order in which the API has them judged: a policy's priority is
//! the priority of its rules, and inside one priority the id of a rule tells its [`Place`]: by the
//! policy's name, then by the rule's position. The first one that matches decides.
//!
//! What is not understood fails closed, as the API's documentation words it for unknown peers: an
//! Accept rule with such a part matches nothing, a Deny or Pass rule denies all of the subject's.
//!
//! [`Place`]: crate::rules::Place

mod compile;
mod json;
mod peer;
mod ports;
mod written;

pub(super) use compile::{compile, selection_name};
pub use compile::{deciding_policies, denial};
pub(super) use peer::ClusterPeer;
pub(super) use ports::ClusterPort;
pub(super) use written::{ClusterPolicy, ClusterRule, RuleAction, Tier, Traffic};
pub use written::{Flaw, flaws};
