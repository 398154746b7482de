//! Answers of `GET /v1/flow-records`: what was denied, and connections that were allowed.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::NearMiss;

/// `GET /v1/flow-records`: what the switch of this node denied, or which connections it allowed, the
/// latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowRecords {
    /// The node.
    pub node: String,
    /// Records of the time that was asked for, each with what was counted in it.
    pub records: Vec<FlowRecord>,
    /// Records beyond the limit, which are older.
    pub more: usize,
    /// Packets and connections since the daemon started that no record tells of: too many at once.
    pub lost: u64,
    /// Which allowed connections are recorded: `off`, `all` or `1/N` of them.
    #[serde(default)]
    pub recording: String,
    /// Ends, and beginnings where those are recorded, of allowed connections since the daemon
    /// started that no record names: too many at once.
    #[serde(default)]
    pub lost_connections: u64,
    /// What of the records could not be kept or read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Packets that were denied alike, or allowed connections that were alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowRecord {
    /// The node.
    pub node: String,
    /// What they have in common.
    #[serde(flatten)]
    pub of: FlowOf,
    /// Packets that were dropped.
    pub packets: u64,
    /// Connections that were cut, that would have been denied, or that were allowed and have ended
    /// or begun.
    pub connections: u64,
    /// When the first packet came, of allowed connections of the one that began first: RFC 3339,
    /// UTC.
    pub first: String,
    /// When the last packet came; when the last of allowed connections ended or began.
    pub last: String,
    /// What allowed connections carried that have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<FlowTraffic>,
    /// Why policies denied them, and what would have let them pass, when that was found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<FlowExplanation>,
}

/// What packets of a record have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct FlowOf {
    /// `denied`; `cut`: a connection that had been allowed; `would_deny`: by policies in audit,
    /// which deny nothing; `allowed`: connections that have ended or begun.
    pub verdict: String,
    /// Drop reason: `policy_ingress`, `policy_egress`, `admin_drop`, … Why connections were allowed:
    /// `policy`, `not_isolated` (no policy says anything of either end), or `unknown` (the rules of
    /// then are forgotten); `lost`: there was no room to note that more of them began or ended.
    pub reason: String,
    /// `ingress` or `egress` of policies, seen from the pods that they select; absent where policies
    /// of both allowed a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// Who began; absent: too many different ones at once to be told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<FlowEnd>,
    /// With whom, behind Services; absent as `source` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<FlowEnd>,
    /// Address and port of the Service that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or the number of the IP protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Destination port, behind Services; type of an ICMP message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The policies that denied: one by a rule, or all that isolate together. Those that allowed a
    /// connection: one a direction. As `GET /v1/policies` names them.
    pub policies: Vec<String>,
    /// The rule that decided; of policies that isolate together, the first one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<FlowRule>,
    /// The rules that allowed connections: of egress, of ingress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_by: Vec<FlowRule>,
    /// How allowed connections ended: `fin`, `rst`, `timeout`, `evicted`, `cut`, `replaced` or
    /// `detached`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// What of allowed connections the record tells: `begin` or `end`; absent of all other records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

impl FlowOf {
    /// Returns whether its `port` is the type of an ICMP message.
    #[must_use]
    pub fn is_icmp(&self) -> bool {
        let protocol = self.protocol.as_deref();
        protocol.is_some_and(|protocol| protocol.starts_with("ICMP"))
    }

    /// Returns protocol and port for people: `TCP 80`, `ICMP type 8`; `-` if there were various.
    #[must_use]
    pub fn protocol_and_port(&self) -> String {
        let protocol = self.protocol.as_deref().unwrap_or("-");
        match self.port {
            Some(number) if self.is_icmp() => format!("{protocol} type {number}"),
            Some(port) => format!("{protocol} {port}"),
            None => protocol.to_owned(),
        }
    }

    /// Returns the policies that decided, else the drop reason.
    #[must_use]
    pub fn decided_by(&self) -> String {
        if self.policies.is_empty() {
            self.reason.clone()
        } else {
            self.policies.join(", ")
        }
    }
}

/// What connections carried. Bytes are those of IP packets, headers included, as they came into the
/// switch: a super-frame that the sender's device would have segmented is one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct FlowTraffic {
    /// What those sent who began.
    pub sent: FlowCount,
    /// What the others sent.
    pub received: FlowCount,
    /// Milliseconds from the first to the last packet of the longest connection.
    pub duration_ms: u64,
}

/// Packets and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct FlowCount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct FlowEnd {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// `namespace/name` of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Kind and name of what the pod belongs to, as far as its labels say: `Deployment web`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Whether it is the node itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_node: bool,
}

/// The pod, else the address.
impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pod {
            Some(pod) => f.write_str(pod),
            None if self.is_node => write!(f, "node ({})", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// A rule of the tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct FlowRule {
    /// Table that it stands in, as `vsctl dump-flows` names it.
    pub table: String,
    /// Kind of the object that it came from.
    pub kind: String,
    /// The object.
    pub name: String,
    /// Which part of it; of a policy of a tier with tier, order and action. May be empty.
    pub part: String,
}

impl fmt::Display for FlowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table, name, part, ..
        } = self;
        let space = if part.is_empty() { "" } else { " " };
        write!(f, "{table} {name}{space}{part}")
    }
}

/// Why policies denied something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowExplanation {
    /// As one sentence.
    pub reason: String,
    /// The rule that came closest to allowing it, and what it lacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest_miss: Option<NearMiss>,
}

/// Reason, nearest rule and cure, as one line.
impl fmt::Display for FlowExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        let Some(miss) = &self.nearest_miss else {
            return Ok(());
        };
        let (policy, part) = (&miss.rule.policy, &miss.rule.part);
        write!(f, "; nearest rule {policy} {part}: {}", miss.reason)?;
        match &miss.advice {
            Some(advice) => write!(f, "; {}", advice.text),
            None => Ok(()),
        }
    }
}
