//! Validation with the API server's rules and words (k8s.io/apimachinery validation).

mod meta;
mod network_policy;
mod workload;

use std::fmt::Display;

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

    fn invalid(&mut self, field: &str, value: &Value, why: impl Display) {
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
        Resource::Service => workload::service(object, causes),
        Resource::EndpointSlice => workload::endpoint_slice(object, causes),
        Resource::NetworkPolicy => network_policy::spec(&object["spec"], causes),
    }
}

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
    if !value
        .as_str()
        .is_some_and(|protocol| PROTOCOLS.contains(&protocol))
    {
        causes.not_supported(field, value, &PROTOCOLS);
    }
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
