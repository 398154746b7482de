//! `ClusterState`: the namespaces, pods, policies, services, nodes and attachments that rules are
//! compiled from.
//!
//! Both modes feed it through [`ClusterChange`]; nothing behind it knows which mode it is.
//! The reconciler's model owns it and applies each change once; the compilers get each
//! [`Changed`] with it, and read it. It holds facts only and decides nothing.
//! What it holds depends on the last change of each object, never on the order in which
//! changes of different objects arrive (two pods that claim one address excepted, see
//! [`ClusterState::owner_of`]).

mod attachment;
mod changed;
mod cluster;
mod policies;
mod records;
mod selector;

pub use attachment::{Attachment, HostPort, LocalEndpoint};
pub use changed::Changed;
pub use cluster::ClusterState;
pub(crate) use cluster::names_a_pod;
pub use records::{
    AnyPolicy, CalicoPolicyRecord, ClusterChange, ClusterPolicyKey, ClusterPolicyKind,
    ClusterPolicyRecord, EndpointPort, EndpointRecord, EndpointSliceRecord, NETWORK_ANNOTATION,
    NamedPort, NamespaceRecord, NetworkSetRecord, NodeRecord, ObjectKey, PodPhase, PodRecord,
    PolicyKey, PolicyMode, PolicyRecord, ServiceAccountRecord, ServicePort, ServiceRecord,
    StagedRecord, TierRecord,
};
pub(crate) use selector::Escaped;
pub use selector::{Requirement, Selector, SelectorError};
