//! Protocol, ports and ICMP types of a rule.

use serde_json::Value;
use vswitch_datapath::flow::{PortRange, ether_type, ip_proto};

use super::ends::EndError;
use crate::policy::json::{self, PartError};
use crate::policy::tiers::Transport;

/// Most combinations that a rule may come to.
const MOST: usize = 4_096;
/// Protocols with ports.
const WITH_PORTS: [u8; 3] = [ip_proto::TCP, ip_proto::UDP, ip_proto::SCTP];
const ALL: PortRange = PortRange {
    first: 0,
    last: u16::MAX,
};

/// Ports of one end.
#[derive(Debug, Default)]
struct Ports {
    numbers: Vec<PortRange>,
    names: Vec<String>,
}

/// Returns what a rule demands of protocol and ports: by numbers, and by names of ports.
pub(super) fn transports(rule: &Value) -> Result<(Vec<Transport>, Vec<Transport>), EndError> {
    let at = |field: &str, error| (format!(".{field}"), error);
    let wanted = protocol(&rule["protocol"]).map_err(|error| at("protocol", error))?;
    let unwanted = protocol(&rule["notProtocol"]).map_err(|error| at("notProtocol", error))?;
    let eth_type = match &rule["ipVersion"] {
        Value::Null => None,
        value if *value == 4 => Some(ether_type::IPV4),
        value if *value == 6 => Some(ether_type::IPV6),
        value => {
            let known = "4, 6";
            let value = value.to_string();
            return Err(at("ipVersion", PartError::UnknownValue { value, known }));
        }
    };
    let (sources, of_source) = ports(rule, "source", wanted)?;
    if !of_source.is_empty() {
        let error = PartError::NotServed("a name of a source port is not served");
        return Err(at("source.ports", error));
    }
    let (destinations, names) = ports(rule, "destination", wanted)?;
    let has_ports = sources.is_some() || destinations.is_some();
    let protos: Vec<Option<u8>> = match (wanted, unwanted) {
        (None, None) => vec![None],
        (Some(wanted), unwanted) if unwanted != Some(wanted) => vec![Some(wanted)],
        (Some(_), _) => Vec::new(),
        (None, Some(not)) => (0..=u8::MAX).filter(|one| *one != not).map(Some).collect(),
    };
    let icmp = icmp(rule, wanted)?;
    if icmp.is_some() && has_ports {
        let error = PartError::NotServed("icmp and ports stand in one rule");
        return Err(at("icmp", error));
    }
    let any = || vec![None];
    let some = |ranges: Option<Vec<PortRange>>| {
        ranges.map_or_else(any, |ranges| ranges.into_iter().map(Some).collect())
    };
    let sources = some(sources);
    let pairs: Vec<(Option<PortRange>, Option<PortRange>)> = match icmp {
        Some(pairs) => pairs,
        // Names alone are no numbers.
        None if destinations.is_none() && !names.is_empty() => Vec::new(),
        None => {
            let destinations = some(destinations);
            let pair = |source: &Option<PortRange>| {
                let source = *source;
                destinations
                    .iter()
                    .map(move |to| (source, *to))
                    .collect::<Vec<_>>()
            };
            sources.iter().flat_map(pair).collect()
        }
    };
    if pairs.len() * protos.len() > MOST {
        let error = PartError::NotServed("so many combinations of ports are not served");
        return Err((String::new(), error));
    }
    let numbers = protos.iter().flat_map(|proto| {
        pairs
            .iter()
            .map(|(source, destination)| Transport::Numbers {
                eth_type,
                proto: *proto,
                source: *source,
                destination: *destination,
            })
    });
    let of_names: Vec<u8> = WITH_PORTS
        .into_iter()
        .filter(|one| wanted.is_none_or(|wanted| wanted == *one) && unwanted != Some(*one))
        .collect();
    let named = names.iter().flat_map(|name| {
        sources.iter().map(|source| Transport::Named {
            eth_type,
            protos: of_names.clone(),
            name: name.clone(),
            source: *source,
        })
    });
    Ok((numbers.collect(), named.collect()))
}

/// Reads a protocol: one of Calico's names, or a number.
fn protocol(value: &Value) -> Result<Option<u8>, PartError> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let number = || text.parse().ok().filter(|number| *number != 0);
    let protocol = match text.as_str() {
        "UDPLite" => Some(136),
        name => ip_proto::by_name(name).or_else(number),
    };
    protocol.map(Some).ok_or(PartError::Protocol { text })
}

/// Returns the ports of an end, `None` if any will do, and the names of ports.
fn ports(
    rule: &Value,
    end: &str,
    proto: Option<u8>,
) -> Result<(Option<Vec<PortRange>>, Vec<String>), EndError> {
    let read = |field: &str| {
        let list = &rule[end][field];
        let at = |error| (format!(".{end}.{field}"), error);
        port_list(list).map_err(at)
    };
    let (wanted, unwanted) = (read("ports")?, read("notPorts")?);
    let at = |field: &str, error| Err((format!(".{end}.{field}"), error));
    if !unwanted.names.is_empty() {
        let error = PartError::NotServed("a name of a port is not served there");
        return at("notPorts", error);
    }
    if !wanted.names.is_empty() && !unwanted.numbers.is_empty() {
        let error = PartError::NotServed("names in ports beside it are not served");
        return at("notPorts", error);
    }
    let has_numbers = !wanted.numbers.is_empty() || !unwanted.numbers.is_empty();
    let can_have = match proto {
        Some(proto) => WITH_PORTS.contains(&proto),
        None => !has_numbers,
    };
    let needs = PartError::NeedsProtocol {
        what: "a port",
        protocols: "TCP, UDP or SCTP",
    };
    if (has_numbers || !wanted.names.is_empty()) && !can_have {
        return at("ports", needs);
    }
    if !has_numbers {
        return Ok((None, wanted.names));
    }
    let mut numbers = wanted.numbers;
    if numbers.is_empty() && wanted.names.is_empty() {
        numbers.push(ALL);
    }
    for not in unwanted.numbers {
        numbers = numbers
            .into_iter()
            .flat_map(|range| without(range, not))
            .collect();
    }
    Ok((Some(numbers), wanted.names))
}

/// Returns a range without another.
fn without(range: PortRange, not: PortRange) -> Vec<PortRange> {
    let mut left = Vec::new();
    if let Some(last) = not.first.checked_sub(1)
        && range.first <= last
    {
        let last = last.min(range.last);
        left.push(PortRange { last, ..range });
    }
    if let Some(first) = not.last.checked_add(1)
        && first <= range.last
    {
        let first = first.max(range.first);
        left.push(PortRange { first, ..range });
    }
    left
}

fn port_list(list: &Value) -> Result<Ports, PartError> {
    let mut ports = Ports::default();
    let items = match list {
        Value::Null => return Ok(ports),
        list => list
            .as_array()
            .ok_or(PartError::Type { expected: "a list" })?,
    };
    for item in items {
        let text = match item {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            other => {
                let text = other.to_string();
                return Err(PartError::Port { text });
            }
        };
        let is_number = text.chars().all(|c| c.is_ascii_digit() || c == '-');
        match range(&text) {
            Some(range) => ports.numbers.push(range),
            // A name of a port has a letter and no colon (IANA service names).
            None if is_number || text.contains(':') => {
                return Err(PartError::Port { text });
            }
            None => ports.names.push(text),
        }
    }
    Ok(ports)
}

fn range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(PortRange { first, last })
}

/// Pairs of types and codes, if a rule demands any.
type TypesAndCodes = Vec<(Option<PortRange>, Option<PortRange>)>;

fn icmp(rule: &Value, proto: Option<u8>) -> Result<Option<TypesAndCodes>, EndError> {
    let mut found: Option<TypesAndCodes> = None;
    for (field, is_wanted) in [("icmp", true), ("notICMP", false)] {
        let written = &rule[field];
        if written.is_null() {
            continue;
        }
        let at = |error| (format!(".{field}"), error);
        let needs = PartError::NeedsProtocol {
            what: "icmp",
            protocols: "ICMP or ICMPv6",
        };
        if !proto.is_some_and(ip_proto::is_icmp) {
            return Err(at(needs));
        }
        let fields = json::object(written, &["type", "code"]).map_err(at)?;
        let number = |name: &str, last| {
            let value = fields.get(name).filter(|value| !value.is_null());
            value.map(|value| json::number(value, 0, last)).transpose()
        };
        let (kind, code) = (
            number("type", 254).map_err(at)?,
            number("code", 255).map_err(at)?,
        );
        let kind = match (kind, code) {
            (None, None) => continue,
            (None, Some(_)) => return Err(at(PartError::Missing { field: "type" })),
            (Some(kind), _) => single(kind),
        };
        let code = code.map(single);
        let pairs = if is_wanted {
            vec![(Some(kind), code)]
        } else {
            let others = without(ALL, kind)
                .into_iter()
                .map(|kind| (Some(kind), None));
            let codes = code.into_iter().flat_map(|code| without(ALL, code));
            others
                .chain(codes.map(|code| (Some(kind), Some(code))))
                .collect()
        };
        found = Some(match found {
            None => pairs,
            Some(before) => both(&before, &pairs),
        });
    }
    Ok(found)
}

const fn single(number: u16) -> PortRange {
    PortRange {
        first: number,
        last: number,
    }
}

/// Returns what both allow.
fn both(a: &TypesAndCodes, b: &TypesAndCodes) -> TypesAndCodes {
    let common = |a: Option<PortRange>, b: Option<PortRange>| match (a, b) {
        (None, other) | (other, None) => Some(other),
        (Some(a), Some(b)) => {
            let (first, last) = (a.first.max(b.first), a.last.min(b.last));
            (first <= last).then_some(Some(PortRange { first, last }))
        }
    };
    let pairs = a
        .iter()
        .flat_map(|one| b.iter().map(move |other| (one, other)));
    pairs
        .filter_map(|(one, other)| Some((common(one.0, other.0)?, common(one.1, other.1)?)))
        .collect()
}
