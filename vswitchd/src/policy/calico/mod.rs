//! Calico's policies: GlobalNetworkPolicy and NetworkPolicy (projectcalico.org/v3 and
//! crd.projectcalico.org/v1), with the network sets that they find by labels and the tiers that they
//! stand in.
//!
//! NetworkPolicies of Kubernetes are in tier `default` at order 1000, ClusterNetworkPolicies in tiers
//! `kube-admin` and `kube-baseline`. What is not understood or not served fails closed: an Allow rule
//! with such a part matches nothing, a Deny or Pass rule denies all of the subject's.

mod ends;
mod transports;
mod written;

pub(super) use written::parse;
