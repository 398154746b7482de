//! The `ports` of a policy rule.

use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use vswitch_datapath::flow::{PortRange, ip_proto};

use super::tiers::Transport;

/// One entry of `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PortDemand {
    /// Every port of the protocol.
    Protocol(u8),
    /// A range of ports.
    Range(u8, PortRange),
    /// A container port's name, resolved at the destination pod.
    Named(u8, String),
}

/// Why a port entry means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum PortDemandError {
    #[error("protocol {text:?} is not TCP, UDP or SCTP")]
    Protocol { text: String },
    #[error("port {number} is not in 1 to 65535")]
    Number { number: i32 },
    #[error("endPort needs a numeric port")]
    EndWithoutNumber,
    #[error("endPort {last} is below port {first}")]
    EndBelowPort { first: u16, last: u16 },
}

impl PortDemand {
    pub(super) fn parse(written: &NetworkPolicyPort) -> Result<Self, PortDemandError> {
        let proto = protocol(written.protocol.as_deref())?;
        match (&written.port, written.end_port) {
            (None, None) => Ok(Self::Protocol(proto)),
            (Some(IntOrString::String(name)), None) => Ok(Self::Named(proto, name.clone())),
            (None | Some(IntOrString::String(_)), Some(_)) => {
                Err(PortDemandError::EndWithoutNumber)
            }
            (Some(IntOrString::Int(port)), end) => {
                let first = number(*port)?;
                let last = end.map_or(Ok(first), number)?;
                if last < first {
                    return Err(PortDemandError::EndBelowPort { first, last });
                }
                Ok(Self::Range(proto, PortRange { first, last }))
            }
        }
    }
}

impl From<PortDemand> for Transport {
    fn from(demand: PortDemand) -> Self {
        match demand {
            PortDemand::Protocol(proto) => Self::to(proto, None),
            PortDemand::Range(proto, range) => Self::to(proto, Some(range)),
            PortDemand::Named(proto, name) => Self::Named {
                eth_type: None,
                protos: vec![proto],
                name,
                source: None,
            },
        }
    }
}

fn protocol(text: Option<&str>) -> Result<u8, PortDemandError> {
    match text {
        None | Some("TCP") => Ok(ip_proto::TCP),
        Some("UDP") => Ok(ip_proto::UDP),
        Some("SCTP") => Ok(ip_proto::SCTP),
        Some(other) => Err(PortDemandError::Protocol {
            text: other.to_owned(),
        }),
    }
}

fn number(number: i32) -> Result<u16, PortDemandError> {
    let in_range = u16::try_from(number).ok().filter(|port| *port != 0);
    in_range.ok_or(PortDemandError::Number { number })
}
