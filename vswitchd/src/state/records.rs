//! The reduced form of Kubernetes objects that policies are compiled from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use serde::{Deserialize, Serialize};

/// Namespace and name of a namespaced object; `namespace/name` in text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// metadata.name.
    pub name: String,
    /// metadata.labels.
    pub labels: BTreeMap<String, String>,
}

/// status.phase of a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Kubernetes'")]
pub enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

/// A named container port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// ports[].name.
    pub name: String,
    /// ports[].containerPort.
    pub port: u16,
    /// IP protocol number (TCP 6, UDP 17, SCTP 132).
    pub proto: u8,
}

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRecord {
    /// Namespace and name.
    pub key: ObjectKey,
    /// metadata.uid.
    pub uid: String,
    /// metadata.labels.
    pub labels: BTreeMap<String, String>,
    /// status.podIPs (podIP if the list is absent).
    pub ips: Vec<IpAddr>,
    /// spec.hostNetwork.
    pub host_network: bool,
    /// status.phase.
    pub phase: PodPhase,
    /// spec.nodeName.
    pub node_name: Option<String>,
    /// Named ports of containers and of sidecars (init containers with restartPolicy Always).
    pub named_ports: Vec<NamedPort>,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRecord {
    /// Namespace and name.
    pub key: ObjectKey,
    /// spec, as validated.
    pub spec: NetworkPolicySpec,
}

/// One change of the cluster as a watch delivers it.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterChange {
    /// Added or changed.
    Namespace(NamespaceRecord),
    /// Gone.
    NamespaceGone(String),
    /// Added or changed.
    Pod(PodRecord),
    /// Gone.
    PodGone(ObjectKey),
    /// Added or changed.
    Policy(PolicyRecord),
    /// Gone.
    PolicyGone(ObjectKey),
}
