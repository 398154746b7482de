//! Status conditions of policies that are objects of a cluster: a condition for each node, about
//! whether the policy is in force there. ClusterNetworkPolicies of `policy.networking.k8s.io` and
//! the kinds before them have a list of conditions; NetworkPolicies and Calico's have no status.
//!
//! Every node writes at its own moment, and only what differs from what is there; all nodes together
//! write about five times a second. A cluster of more nodes than [`MOST_NODES`] gets none: the object
//! would grow with the nodes, and each write goes to all watchers of the cluster.

mod condition;
mod follow;

pub(super) use follow::{PolicyStatus, follow};
