//! Policies of the whole cluster (policy.networking.k8s.io), in two tiers around the
//! NetworkPolicies: ClusterNetworkPolicy of v1alpha2, AdminNetworkPolicy and
//! BaselineAdminNetworkPolicy of v1alpha1. They mean the same and are written in different forms.
//!
//! What is not understood fails closed, as the API's documentation words it for unknown peers: an
//! Accept rule with such a part matches nothing, a Deny or Pass rule denies all of the subject's.

mod form;
mod peer;
mod ports;
mod written;

use written::noted;

pub use written::flaws;
pub(super) use written::parse;
