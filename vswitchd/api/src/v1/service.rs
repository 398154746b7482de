//! Bodies about Services and their groups.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/groups`: a load-balancing group, `group:ID` in actions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadBalancingGroup {
    /// Its number.
    pub id: u32,
    /// What it is for: `namespace/service:port/PROTOCOL`, `,local` behind it if it holds
    /// endpoints of this node only.
    pub name: String,
    /// Where new connections go, `address:port`; each as likely as the others.
    pub endpoints: Vec<String>,
    /// How long a client keeps its endpoint after its last new connection, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u64>,
}

/// `GET /v1/services`: a Service that the switch serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// `namespace/name`.
    pub service: String,
    /// ClusterIPs.
    #[schema(value_type = Vec<String>)]
    pub cluster_ips: Vec<IpAddr>,
    /// External addresses.
    #[schema(value_type = Vec<String>)]
    pub external_ips: Vec<IpAddr>,
    /// Addresses of load balancers.
    #[schema(value_type = Vec<String>)]
    pub load_balancer_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePortView>,
    /// Endpoints by what they are ready for.
    pub endpoints: EndpointCounts,
    /// How long a client keeps its endpoint, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u64>,
    /// Connections to ClusterIPs stay on this node.
    pub internal_local: bool,
    /// Connections from outside stay on this node.
    pub external_local: bool,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServicePortView {
    /// Its name; may be empty.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Its number.
    pub port: u16,
    /// Its NodePort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// How many endpoints a Service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, Default)]
pub struct EndpointCounts {
    /// In its EndpointSlices.
    pub total: usize,
    /// Ready.
    pub ready: usize,
    /// Terminating.
    pub terminating: usize,
    /// Ready and of this node.
    pub ready_here: usize,
}

/// What a Service made of a traced connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceTranslation {
    /// Name of the group that was asked.
    pub group: String,
    /// The endpoint that it chose, `address:port`.
    pub endpoint: String,
}

/// A Service in an explanation: policies judge its endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedService {
    /// Name of the group that new connections are spread over.
    pub group: String,
    /// Endpoints that the policies of both ends let the sender reach.
    pub reachable: usize,
    /// Its endpoints; at most 16.
    pub endpoints: Vec<ExplainedEndpoint>,
    /// Endpoints that are not listed and were not looked at.
    pub more: usize,
}

/// One endpoint of an explained Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedEndpoint {
    /// `address:port`.
    pub endpoint: String,
    /// The pod that has the address, `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Whether the policies of both ends allow the connection to it.
    pub allowed: bool,
    /// The verdict as one sentence.
    pub summary: String,
}
