//! `ClusterState`: the namespaces, pods, policies, services, nodes and attachments that rules are
//! compiled from.
//!
//! Both modes feed it through [`ClusterChange`]; nothing behind it knows which mode it is.
//! The policy compiler and the reconciler read it; it holds facts only and decides nothing.
//! What it holds depends on the last change of each object, never on the order in which
//! changes of different objects arrive (two pods that claim one address excepted, see
//! [`ClusterState::owner_of`]).

mod attachment;
mod cluster;
mod records;
mod selector;

pub use attachment::{Attachment, HostPort, LocalEndpoint};
pub use cluster::ClusterState;
pub(crate) use cluster::names_a_pod;
pub use records::{
    ClusterChange, ClusterPolicyRecord, EndpointPort, EndpointRecord, EndpointSliceRecord,
    NETWORK_ANNOTATION, NamedPort, NamespaceRecord, NodeRecord, ObjectKey, PodPhase, PodRecord,
    PolicyKey, PolicyRecord, ServicePort, ServiceRecord,
};
pub(crate) use selector::Escaped;
pub use selector::{Requirement, Selector, SelectorError};
