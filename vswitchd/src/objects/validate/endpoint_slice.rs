//! EndpointSlices.

use std::net::IpAddr;

use serde_json::Value;

use super::super::causes::Causes;
use super::fields::{IMMUTABLE, items, one_of, port_number, protocol, special};

const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 100;

/// An EndpointSlice.
pub(super) fn slice(slice: &Value, causes: &mut Causes) {
    let kinds = ["FQDN", "IPv4", "IPv6"];
    one_of(&slice["addressType"], "addressType", &kinds, causes);
    at_most(&slice["endpoints"], "endpoints", MAX_ENDPOINTS, causes);
    at_most(&slice["ports"], "ports", MAX_PORTS, causes);
    let kind = slice["addressType"].as_str().unwrap_or_default();
    for (path, endpoint) in items(&slice["endpoints"], "endpoints") {
        addresses(
            &endpoint["addresses"],
            &format!("{path}.addresses"),
            kind,
            causes,
        );
    }
    for (path, port) in items(&slice["ports"], "ports") {
        protocol(&port["protocol"], &format!("{path}.protocol"), causes);
        if !port["port"].is_null() {
            port_number(&port["port"], &format!("{path}.port"), causes);
        }
    }
}

fn addresses(list: &Value, path: &str, kind: &str, causes: &mut Causes) {
    if list.as_array().is_none_or(Vec::is_empty) {
        causes.required(path, "must contain at least 1 item");
    }
    for (path, address) in items(list, path) {
        let ip = address.as_str().unwrap_or_default().parse::<IpAddr>().ok();
        let fits = match kind {
            "IPv4" => ip.is_some_and(|ip| ip.is_ipv4()),
            "IPv6" => ip.is_some_and(|ip| ip.is_ipv6()),
            _ => true,
        };
        if let Some(why) = ip.and_then(special) {
            causes.invalid(&path, address, why);
        }
        if !fits {
            causes.invalid(&path, address, format!("must be a valid {kind} address"));
        }
    }
}

fn at_most(list: &Value, field: &str, most: usize, causes: &mut Causes) {
    let count = list.as_array().map_or(0, Vec::len);
    if count > most {
        let message = format!("Too many: {count}: must have at most {most} items");
        causes.add("FieldValueTooMany", field, message);
    }
}

/// The addresses of a slice stay of one type.
pub(super) fn change(old: &Value, slice: &Value, causes: &mut Causes) {
    if old["addressType"] != slice["addressType"] {
        causes.invalid("addressType", &slice["addressType"], IMMUTABLE);
    }
}
