//! Live traces: packets while they pass.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{TraceStep, TraceTranslation};

/// First event of a live trace: `begun`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceBegun {
    /// Node that traces.
    pub node: String,
    /// The port of which every packet is looked at.
    pub port: String,
}

/// Last event of a live trace: `ended`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceEnded {
    /// `count`, `time`, `port_gone` or `stopping`.
    pub reason: String,
    /// Packets that there was no room for.
    pub lost: u64,
}

/// Event `hop` of a live trace: a packet on its way through a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceHop {
    /// The node.
    pub node: String,
    /// When it came, by the clock of the node: RFC 3339, to the microsecond.
    pub time: String,
    /// It goes against the connection, or is an error about it.
    pub is_reply: bool,
    /// Where it came in: `namespace/pod`, or the name of another port.
    pub in_port: String,
    /// As it came in.
    pub packet: TracedHeaders,
    /// As it was sent, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_as: Option<TracedHeaders>,
    /// The walk, table by table.
    pub steps: Vec<TraceStep>,
    /// State of its connection: `+est+trk`.
    pub ct_state: String,
    /// What a Service made of a new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation: Option<TraceTranslation>,
    /// Packets of its connection were forwarded by the kernel until this one, which went through a
    /// worker because it is traced.
    pub was_in_kernel: bool,
    /// `forwarded`, `forwarded_in_fragments`, `answered` (by the switch itself), `held` (until the first
    /// fragment of its datagram comes), `taken` (it answers a probe) or `dropped`.
    pub verdict: String,
    /// Drop reason (snake_case) if it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
    /// The sender of a dropped packet was told.
    pub is_sender_told: bool,
    /// Where it went: a pod of this node, another node, or outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
    /// Policies that decided, `namespace/name`.
    pub policies: Vec<String>,
    /// The verdict as one sentence.
    pub summary: String,
}

/// What a packet is known by, on each node that it passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TracedHeaders {
    /// `TCP`, `UDP`, …
    pub protocol: String,
    /// Address, with the port behind it if it has one.
    pub source: String,
    /// The same.
    pub destination: String,
    /// IPv4 identification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_id: Option<u16>,
    /// Flags of TCP: `SYN,ACK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<String>,
    /// Sequence number of TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_seq: Option<u32>,
    /// What TCP acknowledges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_ack: Option<u32>,
    /// Type of an ICMP message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u16>,
    /// Bytes behind the transport header.
    pub payload_bytes: usize,
    /// Their sum (RFC 1071).
    pub payload_checksum: u16,
}
