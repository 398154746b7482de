//! `ClusterState`: what the switch knows of namespaces, pods, policies and attachments.
//!
//! Both modes feed it through [`ClusterChange`]; nothing behind it knows which mode it is.

mod attachment;
mod records;

pub use attachment::Attachment;
pub use records::{
    ClusterChange, NamedPort, NamespaceRecord, ObjectKey, PodPhase, PodRecord, PolicyRecord,
};
