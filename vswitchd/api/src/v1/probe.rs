//! Probes: one packet that the switch sends on behalf of a pod.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Explanation;

/// `POST /v1/probes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// The pod of this node on whose behalf it is sent: `namespace/pod`, or an address of it.
    pub from: String,
    /// Receiver: `namespace/pod`, an address, or a Service: `svc/name`, `svc/namespace/name`.
    pub to: String,
    /// `tcp` (default), `udp`, `icmp`.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Destination port (tcp, udp).
    #[serde(default)]
    pub port: Option<u16>,
    /// How long an answer is waited for: 1000 by default, at most 10000.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// Answer to a probe: what became of the packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbeResult {
    /// Where it ended.
    pub outcome: ProbeOutcome,
    /// The packet, in match syntax.
    pub packet: String,
    /// What answered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ProbeAnswer>,
    /// The endpoint that a Service chose for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Where it went: a pod of this node, another node, or outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
    /// Drop reason (snake_case) if this switch dropped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
    /// Policies that decided, `namespace/name`.
    pub policies: Vec<String>,
    /// What policies say of it, if it was not answered: why, and what would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// All of it as one sentence.
    pub summary: String,
}

/// Where a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// The receiver answered.
    Answered,
    /// The receiver, or a router on the way, refused: a reset or an ICMP error.
    Refused,
    /// This switch dropped it because somebody decided so: a policy, an operator.
    Denied,
    /// This switch dropped it for another reason.
    Dropped,
    /// Nothing answered in time.
    NoAnswer,
}

/// What answered a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbeAnswer {
    /// `syn_ack`, `reset`, `segment` (any other one of TCP), `datagram`, `echo_reply` or `icmp_error`.
    pub kind: String,
    /// What it is, in words.
    pub text: String,
    /// Who sent it, as the pod would have seen it.
    pub from: String,
    /// Microseconds from when the probe came into the switch to when the answer did.
    pub after_us: u64,
}
