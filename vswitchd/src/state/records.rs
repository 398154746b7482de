//! The reduced form of Kubernetes objects that rules are compiled from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use vswitch_datapath::pipeline::Bandwidth;

/// Namespace and name of a namespaced object; `namespace/name` in text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
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

/// A kind of policies of the whole cluster (policy.networking.k8s.io).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClusterPolicyKind {
    /// Of v1alpha2, in either tier.
    ClusterNetworkPolicy,
    /// Of v1alpha1, in tier Admin.
    AdminNetworkPolicy,
    /// Of v1alpha1, in tier Baseline; there is one, called `default`.
    BaselineAdminNetworkPolicy,
}

impl ClusterPolicyKind {
    /// Returns the kind as objects write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
        }
    }
}

/// Kind and name of a policy of the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ClusterPolicyKey {
    pub kind: ClusterPolicyKind,
    pub name: String,
}

/// A policy of any kind; in text `namespace/name`, the bare name of a ClusterNetworkPolicy, kind and
/// name of an AdminNetworkPolicy or BaselineAdminNetworkPolicy, or `calico:` before the namespace
/// and name of one of Calico's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKey {
    /// A NetworkPolicy.
    NetworkPolicy(ObjectKey),
    /// A ClusterNetworkPolicy, or one of the kinds that it takes the place of.
    ClusterPolicy(ClusterPolicyKey),
    /// Calico's GlobalNetworkPolicy, by its name.
    GlobalNetworkPolicy(String),
    /// Calico's NetworkPolicy.
    CalicoNetworkPolicy(ObjectKey),
}

impl PolicyKey {
    /// What [`PolicyKey::kind`] calls a NetworkPolicy of Kubernetes.
    pub const NETWORK_POLICY: &'static str = "NetworkPolicy";
    /// What it calls the kinds whose policies stand in tiers.
    pub const TIERED_KINDS: [&'static str; 5] = [
        ClusterPolicyKind::ClusterNetworkPolicy.name(),
        ClusterPolicyKind::AdminNetworkPolicy.name(),
        ClusterPolicyKind::BaselineAdminNetworkPolicy.name(),
        "GlobalNetworkPolicy",
        "CalicoNetworkPolicy",
    ];
    /// What the texts of Calico's policies begin with.
    pub const CALICO: &'static str = "calico:";

    /// Returns the kind; Calico's NetworkPolicy under a name of its own.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NetworkPolicy(_) => Self::NETWORK_POLICY,
            Self::ClusterPolicy(key) => key.kind.name(),
            Self::GlobalNetworkPolicy(_) => "GlobalNetworkPolicy",
            Self::CalicoNetworkPolicy(_) => "CalicoNetworkPolicy",
        }
    }

    /// Returns the name for texts that name the kind as well.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::NetworkPolicy(key) => key.to_string(),
            Self::ClusterPolicy(key) => key.name.clone(),
            Self::GlobalNetworkPolicy(name) => format!("{}{name}", Self::CALICO),
            Self::CalicoNetworkPolicy(key) => format!("{}{key}", Self::CALICO),
        }
    }

    /// Returns whether it is what [`PolicyKey::kind`] calls a kind of policies.
    #[must_use]
    pub fn is_kind(kind: &str) -> bool {
        kind == Self::NETWORK_POLICY || Self::TIERED_KINDS.contains(&kind)
    }

    /// Returns the text of a policy of this kind and name. Kinds of the whole cluster may share
    /// names: all but ClusterNetworkPolicy are named with their kind.
    #[must_use]
    pub fn text(kind: &str, name: &str) -> String {
        let older = [
            ClusterPolicyKind::AdminNetworkPolicy.name(),
            ClusterPolicyKind::BaselineAdminNetworkPolicy.name(),
        ];
        if older.contains(&kind) {
            format!("{kind} {name}")
        } else {
            name.to_owned()
        }
    }

    /// Returns whether a [text](Self::text) is that of the policy which `asked` names, with its kind
    /// or without.
    #[must_use]
    pub fn is_named(text: &str, asked: &str) -> bool {
        text == asked || text.rsplit(' ').next() == Some(asked)
    }

    /// Returns the key of a policy of Calico's; without a namespace it is a GlobalNetworkPolicy.
    #[must_use]
    pub fn of_calico(key: &ObjectKey) -> Self {
        if key.namespace.is_empty() {
            Self::GlobalNetworkPolicy(key.name.clone())
        } else {
            Self::CalicoNetworkPolicy(key.clone())
        }
    }

    /// Returns the namespace, if the kind has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::NetworkPolicy(key) | Self::CalicoNetworkPolicy(key) => Some(&key.namespace),
            Self::ClusterPolicy(_) | Self::GlobalNetworkPolicy(_) => None,
        }
    }

    /// Returns namespace and name.
    #[must_use]
    pub fn object(&self) -> ObjectKey {
        match self {
            Self::NetworkPolicy(key) | Self::CalicoNetworkPolicy(key) => key.clone(),
            Self::ClusterPolicy(ClusterPolicyKey { name, .. })
            | Self::GlobalNetworkPolicy(name) => ObjectKey {
                namespace: String::new(),
                name: name.clone(),
            },
        }
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::text(self.kind(), &self.name()))
    }
}

/// Whether a policy decides: annotation `policy.vswitch.io/mode` of the policy, or else of its
/// namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PolicyMode {
    /// It does.
    #[default]
    Enforce,
    /// It is tried out: what it would deny is noted.
    Audit,
}

/// A policy of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyPolicy {
    /// A NetworkPolicy.
    Network(Arc<PolicyRecord>),
    /// A ClusterNetworkPolicy.
    Cluster(Arc<ClusterPolicyRecord>),
    /// One of Calico's.
    Calico(Arc<CalicoPolicyRecord>),
}

impl AnyPolicy {
    /// Returns which one it is.
    #[must_use]
    pub fn key(&self) -> PolicyKey {
        match self {
            Self::Network(record) => PolicyKey::NetworkPolicy(record.key.clone()),
            Self::Cluster(record) => PolicyKey::ClusterPolicy(record.key.clone()),
            Self::Calico(record) => PolicyKey::of_calico(&record.key),
        }
    }

    /// Returns what it says of itself.
    #[must_use]
    pub fn mode(&self) -> Option<PolicyMode> {
        match self {
            Self::Network(record) => record.mode,
            Self::Cluster(record) => record.mode,
            Self::Calico(record) => record.mode,
        }
    }
}

/// A change of a policy that Calico's staged kinds try out.
#[derive(Debug, Clone, PartialEq)]
pub struct StagedRecord {
    /// What the policy would become; `None`: it would be deleted.
    pub becomes: Option<AnyPolicy>,
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// metadata.name.
    pub name: String,
    /// metadata.labels.
    pub labels: BTreeMap<String, String>,
    /// What its policies are that do not say it themselves.
    pub mode: Option<PolicyMode>,
}

/// status.phase of a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are Kubernetes'")]
pub enum PodPhase {
    #[default]
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// spec.serviceAccountName; `default` where it names none.
    pub service_account: String,
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
    /// What it says of itself.
    pub mode: Option<PolicyMode>,
}

/// A policy of the whole cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterPolicyRecord {
    /// Kind, which says how the spec is to be read, and metadata.name.
    pub key: ClusterPolicyKey,
    /// spec as it came: what this version does not know of it has to fail closed, and therefore
    /// to be seen.
    pub spec: Value,
    /// What it says of itself.
    pub mode: Option<PolicyMode>,
}

/// A policy of Calico's: a GlobalNetworkPolicy, without a namespace, or a NetworkPolicy
/// (projectcalico.org/v3, crd.projectcalico.org/v1).
#[derive(Debug, Clone, PartialEq)]
pub struct CalicoPolicyRecord {
    /// Namespace, if it is of one, and name.
    pub key: ObjectKey,
    /// spec as it came: what this version does not know of it has to fail closed, and therefore
    /// to be seen.
    pub spec: Value,
    /// What it says of itself.
    pub mode: Option<PolicyMode>,
}

/// A NetworkSet of Calico's, or a GlobalNetworkSet, without a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSetRecord {
    /// Namespace, if it is of one, and name.
    pub key: ObjectKey,
    /// metadata.labels.
    pub labels: BTreeMap<String, String>,
    /// spec.nets, without host bits.
    pub nets: BTreeSet<IpNet>,
}

/// A ServiceAccount: selectors of Calico's find pods by the labels of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountRecord {
    /// Namespace and name.
    pub key: ObjectKey,
    /// metadata.labels.
    pub labels: BTreeMap<String, String>,
}

/// A Tier of Calico's.
#[derive(Debug, Clone, PartialEq)]
pub struct TierRecord {
    /// metadata.name.
    pub name: String,
    /// spec.order; none: last.
    pub order: Option<f64>,
    /// spec.defaultAction is Pass: traffic that no policy of the tier decides on goes on to the
    /// next one.
    pub passes: bool,
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
    /// Gone.
    ClusterPolicyGone(ClusterPolicyKey),
    /// Added or changed.
    CalicoPolicy(CalicoPolicyRecord),
    /// Gone.
    CalicoPolicyGone(ObjectKey),
    /// Added or changed: a change of this policy.
    Staged(PolicyKey, StagedRecord),
    /// Gone.
    StagedGone(PolicyKey),
    /// Added or changed.
    NetworkSet(NetworkSetRecord),
    /// Gone.
    NetworkSetGone(ObjectKey),
    /// Added or changed.
    ServiceAccount(ServiceAccountRecord),
    /// Gone.
    ServiceAccountGone(ObjectKey),
    /// Added or changed.
    Tier(TierRecord),
    /// Gone, by name.
    TierGone(String),
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
