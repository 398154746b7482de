//! Checks of single fields that several kinds have.

use std::net::IpAddr;

use serde_json::Value;

use super::super::causes::Causes;

pub(super) const IMMUTABLE: &str = "field is immutable";

/// The items of a list, each with its path.
pub(super) fn items<'a>(list: &'a Value, path: &str) -> impl Iterator<Item = (String, &'a Value)> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .enumerate()
        .map(move |(index, item)| (format!("{path}[{index}]"), item))
}

pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn protocol(value: &Value, field: &str, causes: &mut Causes) {
    one_of(value, field, &PROTOCOLS, causes);
}

pub(super) fn is_port(number: i64) -> bool {
    (1..=65535).contains(&number)
}

pub(super) const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

pub(super) fn port_number(value: &Value, field: &str, causes: &mut Causes) {
    if !value.as_i64().is_some_and(is_port) {
        causes.invalid(field, value, PORT_RANGE);
    }
}

pub(super) fn ip_address(value: &Value, field: &str, causes: &mut Causes) -> Option<IpAddr> {
    let ip = value.as_str().unwrap_or_default().parse::<IpAddr>().ok();
    if ip.is_none() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.invalid(field, value, why);
    }
    ip
}

/// Why an address can be neither a Service's in the world outside nor an endpoint's.
pub(in super::super) fn special(ip: IpAddr) -> Option<&'static str> {
    let (is_link_local, is_local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets().starts_with(&[224, 0, 0])),
        // Scope 2, permanent (RFC 4291 section 2.7).
        IpAddr::V6(ip) => (
            ip.is_unicast_link_local(),
            ip.octets().starts_with(&[0xff, 0x02]),
        ),
    };
    if ip.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if ip.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if is_link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if is_local_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

pub(super) fn one_of(value: &Value, field: &str, supported: &[&str], causes: &mut Causes) {
    if !value.as_str().is_some_and(|text| supported.contains(&text)) {
        causes.not_supported(field, value, supported);
    }
}

/// IANA service names (RFC 6335 section 5.1).
pub(super) fn port_name(value: &Value, field: &str, causes: &mut Causes) {
    let name = value.as_str().unwrap_or_default();
    if name.len() > 15 {
        causes.invalid(field, value, "must be no more than 15 characters");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        causes.invalid(
            field,
            value,
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        );
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        causes.invalid(field, value, "must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        causes.invalid(field, value, "must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        causes.invalid(field, value, "must not begin or end with a hyphen");
    }
}

pub(super) fn required(value: &Value, path: &str, causes: &mut Causes) -> bool {
    if value.is_null() {
        causes.required(path, "");
    }
    !value.is_null()
}

/// Longest name of a rule of a policy of the cluster.
const MAX_RULE_NAME: usize = 100;

/// Name of a rule of a policy of the cluster.
pub(super) fn name_of_rule(name: &Value, path: &str, causes: &mut Causes) {
    let name = name.as_str().unwrap_or_default();
    if name.chars().count() > MAX_RULE_NAME {
        let message = format!("Too long: may not be more than {MAX_RULE_NAME} characters");
        causes.add("FieldValueTooLong", path, message);
    }
}

/// minProperties and maxProperties of a CRD.
pub(super) fn exactly_one(object: &Value, path: &str, known: &[&str], causes: &mut Causes) {
    let fields = object.as_object().into_iter().flatten();
    let there: Vec<&String> = fields
        .filter(|(_, value)| !value.is_null())
        .map(|(field, _)| field)
        .collect();
    let known_there = there.iter().filter(|field| known.contains(&field.as_str()));
    if there.is_empty() || known_there.count() > 1 {
        let why = format!("must have exactly one of {}", known.join(", "));
        causes.invalid(path, object, why);
    }
}

/// maxItems of a CRD.
pub(super) fn at_most(list: &Value, path: &str, most: usize, causes: &mut Causes) {
    let length = list.as_array().map_or(0, Vec::len);
    if length > most {
        let message = format!("Too many: {length}: must have at most {most} items");
        causes.add("FieldValueTooMany", path, message);
    }
}

/// minItems of one, and maxItems.
pub(super) fn some_at_most(list: &Value, path: &str, most: usize, causes: &mut Causes) {
    if list.as_array().is_none_or(Vec::is_empty) {
        causes.invalid(path, list, "should have at least 1 items");
    }
    at_most(list, path, most, causes);
}

/// x-kubernetes-list-type: set.
pub(super) fn each_once(list: &Value, path: &str, causes: &mut Causes) {
    let mut seen = std::collections::HashSet::new();
    for (path, item) in items(list, path) {
        if !seen.insert(item.as_str()) {
            causes.duplicate(&path, item);
        }
    }
}
