//! Validation with the API server's rules and words (k8s.io/apimachinery validation).

mod endpoint_slice;
mod meta;
mod network_policy;
mod service;
mod workload;

use std::fmt::Display;
use std::net::IpAddr;

use serde_json::Value;

use super::{Resource, ResourceInfo, StatusCause};

/// Collects all that is wrong with an object.
#[derive(Debug, Default)]
pub(super) struct Causes(Vec<StatusCause>);

impl Causes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_list(self) -> Vec<StatusCause> {
        self.0
    }

    fn add(&mut self, reason: &'static str, field: &str, message: String) {
        self.0.push(StatusCause {
            reason,
            field: field.to_owned(),
            message,
        });
    }

    pub(super) fn invalid(&mut self, field: &str, value: &Value, why: impl Display) {
        self.add(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {value}: {why}"),
        );
    }

    fn required(&mut self, field: &str, why: &str) {
        let colon = if why.is_empty() { "" } else { ": " };
        self.add(
            "FieldValueRequired",
            field,
            format!("Required value{colon}{why}"),
        );
    }

    fn forbidden(&mut self, field: &str, why: &str) {
        self.add("FieldValueForbidden", field, format!("Forbidden: {why}"));
    }

    fn duplicate(&mut self, field: &str, value: &Value) {
        self.add(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {value}"),
        );
    }

    fn not_supported(&mut self, field: &str, value: &Value, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let message = format!(
            "Unsupported value: {value}: supported values: {}",
            supported.join(", ")
        );
        self.add("FieldValueNotSupported", field, message);
    }
}

/// Validates a canonical object with its defaults set.
pub(super) fn object(info: &ResourceInfo, object: &Value, causes: &mut Causes) {
    meta::metadata(info, &object["metadata"], causes);
    match info.resource {
        Resource::Namespace | Resource::Node => {}
        Resource::Pod => workload::pod(object, causes),
        Resource::Service => service::service(object, causes),
        Resource::EndpointSlice => endpoint_slice::slice(object, causes),
        Resource::NetworkPolicy => network_policy::spec(&object["spec"], causes),
    }
}

/// Validates what a write may not change of the object that it changes.
pub(super) fn change(info: &ResourceInfo, old: &Value, object: &Value, causes: &mut Causes) {
    match info.resource {
        Resource::Service => service::change(old, object, causes),
        Resource::EndpointSlice => endpoint_slice::change(old, object, causes),
        _ => {}
    }
}

const IMMUTABLE: &str = "field is immutable";

/// The items of a list, each with its path.
fn items<'a>(list: &'a Value, path: &str) -> impl Iterator<Item = (String, &'a Value)> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .enumerate()
        .map(move |(index, item)| (format!("{path}[{index}]"), item))
}

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

fn protocol(value: &Value, field: &str, causes: &mut Causes) {
    one_of(value, field, &PROTOCOLS, causes);
}

fn is_port(number: i64) -> bool {
    (1..=65535).contains(&number)
}

const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

fn port_number(value: &Value, field: &str, causes: &mut Causes) {
    if !value.as_i64().is_some_and(is_port) {
        causes.invalid(field, value, PORT_RANGE);
    }
}

fn ip_address(value: &Value, field: &str, causes: &mut Causes) -> Option<IpAddr> {
    let ip = value.as_str().unwrap_or_default().parse::<IpAddr>().ok();
    if ip.is_none() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.invalid(field, value, why);
    }
    ip
}

/// Why an address can be neither a Service's in the world outside nor an endpoint's.
pub(super) fn special(ip: IpAddr) -> Option<&'static str> {
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

fn one_of(value: &Value, field: &str, supported: &[&str], causes: &mut Causes) {
    if !value.as_str().is_some_and(|text| supported.contains(&text)) {
        causes.not_supported(field, value, supported);
    }
}

/// IANA service names (RFC 6335 section 5.1).
fn port_name(value: &Value, field: &str, causes: &mut Causes) {
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
