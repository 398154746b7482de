//! Bodies of `POST /v1/explain`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ExplainedService;

/// `POST /v1/explain`: a connection, described as for a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Sender: `namespace/pod`, an address, or `node`.
    pub from: String,
    /// Receiver: the same forms, or a Service: `svc/name`, `svc/namespace/name`.
    pub to: String,
    /// `tcp` (default), `udp`, `sctp`, `icmp`.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Destination port (tcp, udp, sctp).
    #[serde(default)]
    pub port: Option<u16>,
}

/// Why policies allow a connection, or do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Whether the policies of both ends allow it, wherever the pods are.
    pub allowed: bool,
    /// The verdict as one sentence.
    pub summary: String,
    /// What the tables of this node do with the first packet.
    pub tables: TablesVerdict,
    /// Where the two do not say the same: why that may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The endpoints, if the receiver is a Service. Both directions are then those of the first
    /// endpoint that is not reachable, or of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ExplainedService>,
    /// The sender's policies.
    pub egress: ExplainedDirection,
    /// The receiver's policies.
    pub ingress: ExplainedDirection,
}

/// The verdict of this node's tables, as `POST /v1/trace` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TablesVerdict {
    /// Whether the packet would be delivered.
    pub allowed: bool,
    /// Drop reason (snake_case) if it would not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
}

/// The policies of one end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedDirection {
    /// Whether they allow the connection.
    pub allowed: bool,
    /// Whether the pod is on this node, so that this node's tables apply them.
    pub here: bool,
    /// What decided, as one sentence.
    pub reason: String,
    /// Policies that isolate the pod, `namespace/name`.
    pub isolated_by: Vec<String>,
    /// The first rule that allows the connection, if one had to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<PolicyPart>,
    /// The rule of a policy of a tier that denies it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<PolicyPart>,
    /// If nothing allows it: the rules that might have, the nearest first.
    pub near_misses: Vec<NearMiss>,
}

/// A part of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyPart {
    /// `namespace/name`, the bare name of a ClusterNetworkPolicy, kind and name of an
    /// `AdminNetworkPolicy` or `BaselineAdminNetworkPolicy`, or `calico:` before one of Calico's.
    pub policy: String,
    /// E.g. `ingress[0].from[1].ports[0]`; of a policy of a tier with tier, priority and
    /// action before it: `Admin 10 Deny ingress[0].from[1]`.
    pub part: String,
}

/// A rule that does not allow the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NearMiss {
    /// The rule, down to the peer.
    pub rule: PolicyPart,
    /// What matches and what does not.
    pub reason: String,
    /// A change that suffices at this end, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<ExplainAdvice>,
}

/// Either labels to change, all of them, or ports to use, one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainAdvice {
    /// As one sentence.
    pub text: String,
    /// Labels to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<LabelAdvice>,
    /// Ports to use instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortAdvice>,
}

/// Labels to change on one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LabelAdvice {
    /// `Pod` or `Namespace`.
    pub kind: String,
    /// Namespace of a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Labels to set.
    pub set: BTreeMap<String, String>,
    /// Label keys to remove.
    pub remove: Vec<String>,
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortAdvice {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// First port; `None`: all ports of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Last port of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
}
