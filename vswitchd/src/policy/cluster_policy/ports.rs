//! The `protocols` of a ClusterNetworkPolicy's rule.

use serde_json::Value;
use vswitch_datapath::flow::{PortRange, ip_proto};

use super::json::{self, PartError};

/// One entry of `protocols`: always of the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum ClusterPort {
    /// Ports of a protocol.
    Range(u8, PortRange),
    /// A container port's name; it brings protocol and number, for each pod its own.
    Named(String),
}

/// Protocols that a named port may bring.
pub(in super::super) const NAMED_PROTOCOLS: [u8; 3] =
    [ip_proto::TCP, ip_proto::UDP, ip_proto::SCTP];

impl ClusterPort {
    pub(super) fn parse(value: &Value) -> Result<Self, PartError> {
        let (field, value) = json::one_of(value, &["tcp", "udp", "sctp", "destinationNamedPort"])?;
        let proto = match field {
            "tcp" => ip_proto::TCP,
            "udp" => ip_proto::UDP,
            "sctp" => ip_proto::SCTP,
            _ => {
                let name = value.as_str().filter(|name| !name.is_empty());
                let name = name.ok_or(PartError::Type { expected: "a name" })?;
                return Ok(Self::Named(name.to_owned()));
            }
        };
        let (_, port) = json::one_of(value, &["destinationPort"])?;
        Ok(Self::Range(proto, ports(port)?))
    }
}

fn ports(value: &Value) -> Result<PortRange, PartError> {
    let (field, value) = json::one_of(value, &["number", "range"])?;
    if field == "number" {
        let first = json::number(value, 1, u16::MAX)?;
        return Ok(PortRange { first, last: first });
    }
    let fields = json::object(value, &["start", "end"])?;
    let end = |field: &'static str| {
        let value = fields.get(field).ok_or(PartError::Missing { field })?;
        json::number(value, 1, u16::MAX)
    };
    let (first, last) = (end("start")?, end("end")?);
    if last < first {
        return Err(PartError::EmptyRange { first, last });
    }
    Ok(PortRange { first, last })
}
