//! Probes, which are connections to be judged, and their answers.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_datapath::DropReason;
use vswitch_datapath::flow::ip_proto;

use super::ports::{ClusterPort, Protocol};
use crate::policy::denial;
use crate::state::ObjectKey;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum End {
    /// A pod.
    Pod(ObjectKey),
    /// An address, a pod's or not.
    Address {
        /// The address.
        ip: IpAddr,
    },
}

/// A destination port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortName {
    /// By number.
    Number(u16),
    /// By the name that the receiving pod gives it.
    Name(String),
}

/// A connection to judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Sender.
    pub from: End,
    /// Receiver.
    pub to: End,
    /// Destination port; not for ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// TCP if absent.
    #[serde(default)]
    pub protocol: Protocol,
}

/// The verdict on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Whether the receiver's policies let it in; true where there are none.
    pub ingress: bool,
    /// Whether the sender's policies let it out; true where there are none.
    pub egress: bool,
    /// Both.
    pub allowed: bool,
    /// Why, one line.
    pub reason: String,
    /// The policies that decided, the sender's first: `namespace/name`, the bare name of a
    /// ClusterNetworkPolicy, kind and name of the kinds before it, or `calico:` before one of Calico's.
    pub policies: Vec<String>,
    /// Those that decided at the sender.
    #[serde(default)]
    pub egress_by: Vec<String>,
    /// Those that decided at the receiver.
    #[serde(default)]
    pub ingress_by: Vec<String>,
}

/// A probe that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// There is no such pod.
    #[error("there is no pod {pod}")]
    UnknownPod {
        /// Namespace and name.
        pod: ObjectKey,
    },
    /// A pod that nothing can be sent from or to.
    #[error("pod {pod} has no address")]
    NoAddress {
        /// Namespace and name.
        pod: ObjectKey,
    },
    /// One end is IPv4 only, the other IPv6 only.
    #[error("{from} and {to} have no address family in common")]
    NoCommonFamily {
        /// Sender.
        from: String,
        /// Receiver.
        to: String,
    },
    /// The receiver has no port of this name for the protocol.
    #[error("{to} has no port {name:?} for this protocol")]
    UnknownPort {
        /// Receiver.
        to: String,
        /// Name of the port.
        name: String,
    },
    /// TCP, UDP and SCTP need one.
    #[error("{protocol} needs a port")]
    NoPort {
        /// The protocol.
        protocol: Protocol,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => key.fmt(f),
            Self::Address { ip } => ip.fmt(f),
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        })
    }
}

/// `x/a -> y/b:80/TCP`.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)?;
        if let Some(port) = &self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.protocol)
    }
}

impl Protocol {
    /// Returns its number over IPv4 (IANA protocol numbers).
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Tcp => ip_proto::TCP,
            Self::Udp => ip_proto::UDP,
            Self::Sctp => ip_proto::SCTP,
            Self::Icmp => ip_proto::ICMP,
        }
    }
}

impl Probe {
    pub(super) fn between(from: &ObjectKey, to: &ObjectKey, port: &ClusterPort) -> Self {
        Self {
            from: End::Pod(from.clone()),
            to: End::Pod(to.clone()),
            port: Some(PortName::Number(port.port)),
            protocol: port.protocol,
        }
    }
}

impl Answer {
    /// The answer to a connection that no policy is asked about.
    pub(super) fn unjudged(why: &str) -> Self {
        Self {
            ingress: true,
            egress: true,
            allowed: true,
            reason: format!("allowed: {why}"),
            policies: Vec::new(),
            egress_by: Vec::new(),
            ingress_by: Vec::new(),
        }
    }

    /// The answer where the sender's side let it pass, or something besides policies stopped it.
    pub(super) fn of(
        reason: Option<DropReason>,
        egress_by: Vec<String>,
        ingress_by: Vec<String>,
    ) -> Self {
        let policies = together(&egress_by, &ingress_by);
        let is_denied = reason == Some(DropReason::PolicyIngress);
        let text = match reason {
            None if policies.is_empty() => "allowed: no policy isolates the pods".to_owned(),
            None => format!("allowed by {}", policies.join(", ")),
            Some(DropReason::PolicyIngress) => {
                format!("ingress denied: {}", denial("receiver", &ingress_by))
            }
            Some(reason) => format!("dropped ({}): {}", reason.name(), reason.help().trim()),
        };
        Self {
            ingress: !is_denied,
            egress: true,
            allowed: reason.is_none(),
            reason: text,
            policies: if is_denied {
                ingress_by.clone()
            } else {
                policies
            },
            egress_by,
            ingress_by,
        }
    }

    /// The answer where the sender's side denied it.
    pub(super) fn denied_by_egress(
        ingress: bool,
        egress_by: Vec<String>,
        ingress_by: Vec<String>,
    ) -> Self {
        let out = denial("sender", &egress_by);
        let (text, policies) = if ingress {
            (format!("egress denied: {out}"), egress_by.clone())
        } else {
            let denied = denial("receiver", &ingress_by);
            let text = format!("egress and ingress denied: {out}; {denied}");
            (text, together(&egress_by, &ingress_by))
        };
        Self {
            ingress,
            egress: false,
            allowed: false,
            reason: text,
            policies,
            egress_by,
            ingress_by,
        }
    }
}

/// The policies of both ends, each once.
fn together(egress: &[String], ingress: &[String]) -> Vec<String> {
    let more = ingress.iter().filter(|name| !egress.contains(name));
    egress.iter().chain(more).cloned().collect()
}
