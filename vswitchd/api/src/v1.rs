//! Bodies of the `/v1` REST resources.
//!
//! JSON, UTF-8. Counters are monotonic since the daemon started; durations are seconds.
//! Errors are `{"error":{"code":"…","message":"…"}}` with a stable snake_case code.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{IfName, MacAddr};

mod audit;
mod explain;
mod flow_record;
mod live_trace;
mod policy;
mod probe;
mod service;
mod traffic;

pub use audit::{AuditEnd, AuditEntry, AuditPods};
pub use explain::{
    ExplainAdvice, ExplainRequest, ExplainedDirection, Explanation, LabelAdvice, NearMiss,
    PolicyPart, PortAdvice, TablesVerdict,
};
pub use flow_record::{
    FlowCount, FlowEnd, FlowExplanation, FlowOf, FlowRecord, FlowRecords, FlowRule, FlowTraffic,
};
pub use live_trace::{TraceBegun, TraceEnded, TraceHop, TracedHeaders};
pub use policy::PolicyView;
pub use probe::{ProbeAnswer, ProbeOutcome, ProbeRequest, ProbeResult};
pub use service::{
    EndpointCounts, ExplainedEndpoint, ExplainedService, LoadBalancingGroup, ServicePortView,
    ServiceView, TraceTranslation,
};
pub use traffic::{Traffic, TrafficEdge};

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Stable, snake_case: `port_not_found`, `invalid_match`, …
    pub code: String,
    /// One line for people; names the offending thing.
    pub message: String,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// `standalone` or `cluster`.
    pub mode: String,
    /// In a cluster: where the switch stands with its API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    /// Name of this node.
    pub node: String,
    /// Whether ports forward and rules are in force.
    pub ready: bool,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Epoch of the published rules.
    pub epoch: u64,
    /// Ports, gateway included.
    pub ports: usize,
    /// Rules in all tables.
    pub rules: usize,
    /// Address sets.
    pub address_sets: usize,
    /// Connections now and at most.
    pub connections: Occupancy,
    /// Objects that policies are compiled from.
    pub objects: ObjectCounts,
    /// Mode of a kube-proxy that was left on (`nftables`, `iptables`, `ipvs`). It serves the
    /// node's own connections and NodePorts then; pods' connections are always the switch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<String>,
    /// Pod networks of this node.
    #[schema(value_type = Vec<String>)]
    pub pod_cidrs: Vec<IpNet>,
    /// Gateway interface in the host.
    #[schema(value_type = String)]
    pub gateway: IfName,
    /// Worker threads.
    pub workers: usize,
    /// Flows (directions of connections) that the kernel forwards; none where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_path_flows: Option<usize>,
    /// How packets get to pods of other nodes: `vxlan`, `host-gw` or `none`; empty before it
    /// was looked at.
    #[serde(default)]
    pub backend: String,
    /// Pods' networks of other nodes that are reached.
    #[serde(default)]
    pub remote_networks: usize,
    /// Frames dropped, by reason; reasons that never occurred are left out.
    pub drops: BTreeMap<String, u64>,
    /// What an operator should look at; empty when all is well.
    pub problems: Vec<String>,
}

/// Where a switch in a cluster stands with its API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatus {
    /// Address of the API server.
    pub api_server: String,
    /// `live`: every change is heard. `stale`: some are not at the moment. `last-known`: what is
    /// in force is known from the last run. `waiting`: nothing is known yet.
    pub state: String,
    /// How long what is in force may have been outdated, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_seconds: Option<u64>,
    /// Why changes are not heard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// Fill level of a bounded table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Occupancy {
    /// Entries now.
    pub entries: usize,
    /// Most entries it may hold.
    pub limit: usize,
}

/// Numbers of objects known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names are the objects'")]
pub struct ObjectCounts {
    pub namespaces: usize,
    pub pods: usize,
    pub network_policies: usize,
    /// Services that have something to balance.
    pub services: usize,
}

/// `GET /v1/ports`: one switch port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// Port number.
    pub no: u32,
    /// `pod`, `gateway`, `vm` or `mirror`.
    pub kind: String,
    /// Host interface.
    pub ifname: String,
    /// `up`, `down` or `gone`.
    pub link: String,
    /// `namespace/name` of the pod on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// MAC of the far end.
    #[schema(value_type = String)]
    pub mac: MacAddr,
    /// Addresses of the far end.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// MTU, bytes.
    pub mtu: u16,
    /// What it can take, e.g. `csum tso4 tso6 uso`.
    pub offloads: String,
    /// Counters.
    pub counters: PortCounters,
    /// What its pod may receive, bits per second; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_bps: Option<u64>,
    /// What its pod may send, bits per second; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_bps: Option<u64>,
    /// Frames that came in on it and were dropped, by reason; `bandwidth_exceeded` are those
    /// beyond its own limits, either way.
    pub drops: BTreeMap<String, u64>,
}

/// Counters of a port; rx and tx as the switch sees them. A GSO super-frame is one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PortCounters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_drops: u64,
    pub tx_errors: u64,
}

/// `POST /v1/ports`: a port that is not a pod's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPort {
    /// `vm` (TAP with offloads, an address and policies like a pod's) or `mirror` (plain TAP
    /// that receives copies).
    pub kind: NewPortKind,
    /// Name of the TAP.
    #[schema(value_type = String)]
    pub ifname: IfName,
    /// `vm`: namespace of the Pod object that stands for it (default `default`).
    #[serde(default)]
    pub namespace: Option<String>,
    /// `vm`: name of the Pod object that stands for it (default: the interface's name).
    #[serde(default)]
    pub name: Option<String>,
    /// `vm`: MAC that the guest will use (default: derived from the name).
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddr>,
    /// `vm`: labels of the Pod object.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Kind of a port made over REST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "described at NewPort::kind")]
pub enum NewPortKind {
    Vm,
    Mirror,
}

/// `GET /v1/flows`: one rule of one table with its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// Table number.
    pub table: u8,
    /// Table name.
    pub table_name: String,
    /// Priority.
    pub priority: u16,
    /// Match in OVS syntax; empty matches everything.
    #[serde(rename = "match")]
    pub matches: String,
    /// Actions.
    pub actions: String,
    /// Groups the rules of one owner; hexadecimal.
    pub cookie: String,
    /// Frames that the rule decided.
    pub packets: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// Where the rule came from.
    pub origin: FlowOrigin,
}

/// The object that a rule came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowOrigin {
    /// `NetworkPolicy`, `Service`, `Pod`, `Gateway`, `AdminFlow`, `Builtin`.
    pub kind: String,
    /// `namespace/name`, or the name.
    pub name: String,
    /// Part of the object; may be empty.
    pub part: String,
}

/// `POST /v1/flows` and `GET /v1/admin-flows`: a flow of table 30.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminFlow {
    /// Its name; posting the same name again replaces it.
    pub name: String,
    /// Priority, 1 to 65535.
    pub priority: u16,
    /// Match in OVS syntax.
    #[serde(rename = "match", default)]
    pub matches: String,
    /// Actions, e.g. `drop`, `mirror:5,goto_table:40`, `rate_limit(pps=100,burst=20),goto_table:40`.
    pub actions: String,
}

/// `POST /v1/store/accept-loss`: which losses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptLoss {
    /// Only those that concern this namespace alone; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Answer to [`AcceptLoss`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceptedLosses {
    /// What was accepted, each in a sentence.
    pub accepted: Vec<String>,
}

/// `GET /v1/connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp` or the protocol's number.
    pub protocol: String,
    /// State of the protocol's machine, e.g. `ESTABLISHED`.
    pub state: String,
    /// First packet's source.
    #[schema(value_type = String)]
    pub src: IpAddr,
    /// First packet's source port or ICMP identifier.
    pub src_port: u16,
    /// First packet's destination.
    #[schema(value_type = String)]
    pub dst: IpAddr,
    /// First packet's destination port or ICMP identifier.
    pub dst_port: u16,
    /// Port the first packet came in on.
    pub in_port: u32,
    /// Port it left through.
    pub out_port: u32,
    /// Seconds until it is forgotten if nothing more is seen.
    pub timeout_seconds: u64,
    /// Whether both sides were heard.
    pub assured: bool,
    /// Whether the kernel may forward its packets.
    #[serde(default)]
    pub offloaded: bool,
    /// Original direction.
    pub orig_packets: u64,
    /// Original direction.
    pub orig_bytes: u64,
    /// Reply direction.
    pub reply_packets: u64,
    /// Reply direction.
    pub reply_bytes: u64,
    /// What the packets leave as, where a Service translated them: `source → destination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<Forwarded>,
}

/// The ends of a translated connection, as its receiver sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forwarded {
    /// Source.
    #[schema(value_type = String)]
    pub src: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination: the endpoint.
    #[schema(value_type = String)]
    pub dst: IpAddr,
    /// Destination port.
    pub dst_port: u16,
}

/// `GET /v1/address-sets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddressSet {
    /// Name; `@NAME` in matches.
    pub name: String,
    /// Members.
    #[schema(value_type = Vec<String>)]
    pub members: Vec<IpNet>,
}

/// `GET /v1/attachments`: what CNI ADD made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttachmentView {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// Interface inside.
    pub ifname: String,
    /// Network namespace.
    pub netns: String,
    /// `namespace/name`.
    pub pod: String,
    /// Host interface.
    pub host_ifname: String,
    /// Switch port.
    pub port: u32,
    /// Addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpNet>,
}

/// `POST /v1/trace`: a packet described, nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Sender: `namespace/pod`, an address, or `node`.
    pub from: String,
    /// Receiver: `namespace/pod`, an address, or a Service: `svc/name`, `svc/namespace/name`.
    pub to: String,
    /// `tcp` (default), `udp`, `sctp`, `icmp`.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Destination port (tcp, udp, sctp).
    #[serde(default)]
    pub port: Option<u16>,
    /// Source port (default 40000).
    #[serde(default)]
    pub src_port: Option<u16>,
}

/// Answer to a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// The packet, in match syntax.
    pub packet: String,
    /// The walk, table by table.
    pub steps: Vec<TraceStep>,
    /// Whether it would be delivered.
    pub allowed: bool,
    /// Drop reason (snake_case) if it would not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
    /// Port it would leave through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_port: Option<u32>,
    /// What a Service makes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation: Option<TraceTranslation>,
    /// Policies that decided, `namespace/name`.
    pub policies: Vec<String>,
    /// The verdict as one sentence.
    pub summary: String,
}

/// One table of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    /// Table number.
    pub table: u8,
    /// Table name.
    pub table_name: String,
    /// The rule that matched; `None` on a miss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
    /// What happened, e.g. `ct_state=+new+trk`.
    pub note: String,
}

/// `GET /v1/leases`: one address in use or resting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Container that holds it; `None` while it rests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Interface in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// Seconds until a resting address may be given out again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_seconds: Option<u64>,
}
