//! Pod network between nodes: tunnels and routes to the pods of other nodes, and filters for what
//! comes from there.
//!
//! [`plan_nodes`] is pure: from the Nodes of the cluster to tunnels, routes and permitted sources.
//! [`NodeNetwork`] brings the kernel in line with a plan. What nodes tell each other is in the
//! annotations and the wire format of flannel, so that nodes of both kinds reach each other.
//!
//! Identity: a pod's address may only come from its own node. Of a tunnel that is the VTEP
//! whose MAC stands in the inner frame, and the outer source must be a known node; of a link
//! it is the neighbour that has the node's address. All else is dropped and counted.

mod filter;
mod kernel;
mod peer;
mod plan;
mod spec;
#[cfg(test)]
mod tests;

pub use filter::{NODE_DROPS, NodeDrop};
pub use kernel::{NodeNetwork, NodeNetworkError, NodeNetworkStatus};
pub use peer::{NodePublication, Underlay, node_publication};
pub use plan::{NodePlan, PeerProblem, Tunnel, plan_nodes, tunnel_overhead};
pub use spec::{NodesSpec, tunnel_ifnames};
