//! Answers of `GET /v1/audit`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/audit`: connections that were allowed and that policies in audit would have denied,
/// since this version of the policies was there, at the most since the daemon started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// `would_deny`.
    pub verdict: String,
    /// The policies that would have denied: one by a rule, or all that isolate together. As
    /// `GET /v1/policies` names them.
    pub policies: Vec<String>,
    /// `ingress` or `egress`, seen from the pods that the policies select.
    pub direction: String,
    /// The pods that the policies select; absent from an entry of `various`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<AuditPods>,
    /// The other end.
    pub peer: AuditEnd,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or the number of the IP protocol; absent from an entry
    /// of `various`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Destination port, behind Services; type of an ICMP message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How many connections.
    pub connections: u64,
    /// When the first one was judged: RFC 3339, UTC.
    pub first: String,
    /// When the last one was.
    pub last: String,
}

/// The other end of such connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditEnd {
    /// Pods.
    Pods(AuditPods),
    /// An address that no pod has.
    #[schema(value_type = String)]
    Address(IpAddr),
    /// Too many different ones to be told apart.
    Various,
}

/// Pods of one namespace that are alike: of one Deployment, say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct AuditPods {
    /// Their namespace.
    pub namespace: String,
    /// The labels that they have, but for those that Kubernetes' controllers give each pod or
    /// version of its own.
    pub labels: BTreeMap<String, String>,
}
