//! The policy compiler: changes of the cluster and the local endpoints in, changes of rules and
//! address sets out. NetworkPolicies here, those with tiers in `tiers`, read by `cluster_policy` and
//! `calico`.
//!
//! Pure: no clock, no I/O; what it comes to depends on what it was told, not on the order. The
//! reconciler gives a [`Compiler`] what changed, lets it read the cluster, and installs what it gives
//! out. Rules are made only for policies that select pods of this node, and name their peers by address
//! set, so that a label change moves set members and no rule. What cannot be understood of a policy
//! allows nothing, while the policy still isolates what it selects, and stands in
//! [`Compiler::problems`].
//!
//! ```text
//! 60 EgressRule    ip_src=@selected, ip_dst=@peer, port → Forward     (one per allow)
//! 61 EgressDefault ip_src=@selected → drop(policy_egress)             (one per policy; or reject)
//! 80 IngressRule   ip_src=@peer, ip_dst=@selected, port → Output
//! 81 IngressDefault ip_dst=@selected → drop(policy_ingress)
//! ```
//!
//! No match in any of them lets the packet on: a pod that no policy selects is open.

mod calico;
mod calico_labels;
mod cidr;
mod cluster_policy;
mod compiled;
mod compiler;
mod direction;
mod endpoints;
pub mod explain;
mod expression;
mod groups;
mod ids;
mod json;
mod namespaces;
mod nodes;
mod output;
mod overview;
mod peers;
mod pods;
mod ports;
mod program;
mod roster;
mod selector_index;
mod surroundings;
mod tiered;
mod tiers;

#[cfg(test)]
pub(crate) mod tests;

pub use cluster_policy::flaws;
pub use compiler::Compiler;
pub use expression::calico_selector_error;
pub use overview::{PolicyOverview, overview};
pub use program::{NodeFacts, PolicyProblem, node_set, priority};
pub use tiers::{Flaw, deciding_policies, denial};
