//! The reduced form of Kubernetes objects that rules are compiled from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vswitch_datapath::pipeline::Bandwidth;

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

/// A policy of any kind; in text `namespace/name`, or the bare name of a ClusterNetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKey {
    /// A NetworkPolicy.
    NetworkPolicy(ObjectKey),
    /// A ClusterNetworkPolicy, by its name.
    ClusterNetworkPolicy(String),
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkPolicy(key) => key.fmt(f),
            Self::ClusterNetworkPolicy(name) => f.write_str(name),
        }
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
    /// Annotations kubernetes.io/ingress-bandwidth and kubernetes.io/egress-bandwidth.
    pub bandwidth: Bandwidth,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRecord {
    /// Namespace and name.
    pub key: ObjectKey,
    /// spec, as validated.
    pub spec: NetworkPolicySpec,
}

/// A ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2).
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterPolicyRecord {
    /// metadata.name.
    pub name: String,
    /// spec as it came: what this version does not know of it has to fail closed, and therefore
    /// to be seen.
    pub spec: Value,
}

/// A Service that has something to balance: neither headless nor `ExternalName`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Namespace and name.
    pub key: ObjectKey,
    /// spec.clusterIPs (clusterIP if the list is absent).
    pub cluster_ips: Vec<IpAddr>,
    /// spec.externalIPs.
    pub external_ips: Vec<IpAddr>,
    /// status.loadBalancer.ingress[].ip, of those with ipMode VIP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// spec.loadBalancerSourceRanges; empty: all.
    pub source_ranges: Vec<IpNet>,
    /// spec.ports.
    pub ports: Vec<ServicePort>,
    /// spec.sessionAffinityConfig.clientIP.timeoutSeconds, if sessionAffinity is ClientIP.
    pub affinity: Option<Duration>,
    /// spec.internalTrafficPolicy is Local.
    pub internal_local: bool,
    /// spec.externalTrafficPolicy is Local.
    pub external_local: bool,
    /// spec.healthCheckNodePort.
    pub health_check_node_port: Option<u16>,
}

/// One of spec.ports of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// ports[].name; empty if there is none.
    pub name: String,
    /// IP protocol number (TCP 6, UDP 17, SCTP 132).
    pub proto: u8,
    /// ports[].port.
    pub port: u16,
    /// ports[].nodePort.
    pub node_port: Option<u16>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSliceRecord {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The Service that it is of, by its label `kubernetes.io/service-name`.
    pub service: ObjectKey,
    /// endpoints.
    pub endpoints: Vec<EndpointRecord>,
    /// ports.
    pub ports: Vec<EndpointPort>,
}

/// One of the endpoints of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRecord {
    /// addresses\[0\]: the API calls the others for consumers of their own kind.
    pub ip: IpAddr,
    /// conditions.ready; unknown means ready.
    pub ready: bool,
    /// conditions.serving; unknown means as ready.
    pub serving: bool,
    /// conditions.terminating.
    pub terminating: bool,
    /// nodeName.
    pub node_name: Option<String>,
    /// hints.forZones\[\].name.
    pub zones: Vec<String>,
    /// hints.forNodes\[\].name.
    pub nodes: Vec<String>,
}

/// One of the ports of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    /// ports[].name; empty if there is none.
    pub name: String,
    /// IP protocol number.
    pub proto: u8,
    /// ports[].port.
    pub port: u16,
}

/// What the keys of annotations begin with by which nodes tell each other how to reach their
/// pods; they are flannel's, so that nodes of both kinds can be in one cluster.
pub const NETWORK_ANNOTATION: &str = "flannel.alpha.coreos.com/";

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRecord {
    /// metadata.name.
    pub name: String,
    /// metadata.labels.
    pub labels: BTreeMap<String, String>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// spec.podCIDRs (podCIDR if the list is absent), without host bits.
    pub pod_cidrs: Vec<IpNet>,
    /// status.addresses of type InternalIP.
    pub internal_ips: Vec<IpAddr>,
    /// status.addresses of every type, as far as they are addresses.
    pub ips: Vec<IpAddr>,
    /// metadata.annotations, those that begin with [`NETWORK_ANNOTATION`].
    pub annotations: BTreeMap<String, String>,
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
    /// Added or changed.
    ClusterPolicy(ClusterPolicyRecord),
    /// Gone, by name.
    ClusterPolicyGone(String),
    /// Added or changed.
    Service(ServiceRecord),
    /// Gone, or nothing to balance any more.
    ServiceGone(ObjectKey),
    /// Added or changed.
    EndpointSlice(EndpointSliceRecord),
    /// Gone, or of no Service any more.
    EndpointSliceGone(ObjectKey),
    /// Added or changed.
    Node(NodeRecord),
    /// Gone.
    NodeGone(String),
}
