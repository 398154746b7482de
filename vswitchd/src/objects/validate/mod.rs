//! Validation with the API server's rules and words (k8s.io/apimachinery validation).

mod admin_network_policy;
mod calico;
mod cluster_network_policy;
mod endpoint_slice;
mod fields;
mod meta;
mod network_policy;
mod object;
mod service;
mod workload;

pub(super) use fields::special;
pub(super) use object::{change, object};
