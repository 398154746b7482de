//! Answers of `GET /v1/traffic`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::FlowEnd;

/// `GET /v1/traffic`: who is connected with whom, through this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// The node.
    pub node: String,
    /// Tracked connections, those alike as one; what was active last comes first.
    pub edges: Vec<TrafficEdge>,
    /// Kinds beyond the limit, of which nothing went by for longer.
    pub more: usize,
}

/// Connections with the same ends, protocol and destination port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrafficEdge {
    /// Who began.
    pub source: FlowEnd,
    /// With whom, behind Services.
    pub destination: FlowEnd,
    /// Address and port of the Service that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or the number of the IP protocol.
    pub protocol: String,
    /// Destination port, behind Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Connections.
    pub connections: u64,
    /// Packets of both directions.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
    /// Since the first packet of the oldest.
    pub age_seconds: u64,
    /// Since the last packet of any of them.
    pub idle_seconds: u64,
}
