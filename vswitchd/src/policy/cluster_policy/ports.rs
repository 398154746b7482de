//! Protocols and ports of a rule: `protocols` of v1alpha2, `ports` of v1alpha1. Always those of the
//! destination.

use serde_json::{Map, Value};
use vswitch_datapath::flow::{PortRange, ip_proto};

use super::super::json::{self, PartError};
use super::super::tiers::Transport;

/// Protocols that a named port may bring.
const NAMED_PROTOCOLS: [u8; 3] = [ip_proto::TCP, ip_proto::UDP, ip_proto::SCTP];

/// Reads one entry of `protocols`.
pub(super) fn of_protocol(value: &Value) -> Result<Transport, PartError> {
    let (field, value) = json::one_of(value, &["tcp", "udp", "sctp", "destinationNamedPort"])?;
    let proto = match field {
        "tcp" => ip_proto::TCP,
        "udp" => ip_proto::UDP,
        "sctp" => ip_proto::SCTP,
        _ => return named(value),
    };
    let (_, port) = json::one_of(value, &["destinationPort"])?;
    Ok(Transport::to(proto, Some(ports(port)?)))
}

fn ports(value: &Value) -> Result<PortRange, PartError> {
    let (field, value) = json::one_of(value, &["number", "range"])?;
    if field == "number" {
        let first = json::number(value, 1, u16::MAX)?;
        return Ok(PortRange { first, last: first });
    }
    range(json::object(value, &["start", "end"])?)
}

/// Reads one entry of `ports`.
pub(super) fn of_port(value: &Value) -> Result<Transport, PartError> {
    let (field, value) = json::one_of(value, &["portNumber", "portRange", "namedPort"])?;
    let (proto, ports) = match field {
        "portNumber" => {
            let fields = json::object(value, &["protocol", "port"])?;
            let first = number(fields, "port")?;
            (protocol(fields)?, PortRange { first, last: first })
        }
        "portRange" => {
            let fields = json::object(value, &["protocol", "start", "end"])?;
            (protocol(fields)?, range(fields)?)
        }
        _ => return named(value),
    };
    Ok(Transport::to(proto, Some(ports)))
}

/// TCP where none is named.
fn protocol(fields: &Map<String, Value>) -> Result<u8, PartError> {
    let Some(value) = fields.get("protocol").filter(|value| !value.is_null()) else {
        return Ok(ip_proto::TCP);
    };
    match value.as_str() {
        Some("TCP") => Ok(ip_proto::TCP),
        Some("UDP") => Ok(ip_proto::UDP),
        Some("SCTP") => Ok(ip_proto::SCTP),
        _ => Err(PartError::unknown(value, "TCP, UDP, SCTP")),
    }
}

/// It brings protocol and number, for each pod its own.
fn named(value: &Value) -> Result<Transport, PartError> {
    let name = value.as_str().filter(|name| !name.is_empty());
    let name = name.ok_or(PartError::Type { expected: "a name" })?;
    Ok(Transport::Named {
        eth_type: None,
        protos: NAMED_PROTOCOLS.to_vec(),
        name: name.to_owned(),
        source: None,
    })
}

fn number(fields: &Map<String, Value>, field: &'static str) -> Result<u16, PartError> {
    let value = fields.get(field).ok_or(PartError::Missing { field })?;
    json::number(value, 1, u16::MAX)
}

/// Both ends belong to it.
fn range(fields: &Map<String, Value>) -> Result<PortRange, PartError> {
    let (first, last) = (number(fields, "start")?, number(fields, "end")?);
    if last < first {
        return Err(PartError::EmptyRange { first, last });
    }
    Ok(PortRange { first, last })
}
