//! NetworkPolicy (ValidateNetworkPolicySpec of Kubernetes).

use ipnet::IpNet;
use serde_json::Value;

use super::super::causes::Causes;
use super::fields::{PORT_RANGE, is_port, items, port_name, protocol};
use super::meta;

/// spec of a NetworkPolicy.
pub(super) fn spec(spec: &Value, causes: &mut Causes) {
    meta::label_selector(&spec["podSelector"], "spec.podSelector", causes);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (path, rule) in items(&spec[direction], &format!("spec.{direction}")) {
            for (path, port) in items(&rule["ports"], &format!("{path}.ports")) {
                policy_port(port, &path, causes);
            }
            for (path, peer) in items(&rule[peers], &format!("{path}.{peers}")) {
                policy_peer(peer, &path, causes);
            }
        }
    }
    policy_types(&spec["policyTypes"], causes);
}

fn policy_types(types: &Value, causes: &mut Causes) {
    if types.as_array().is_some_and(|types| types.len() > 2) {
        causes.invalid(
            "spec.policyTypes",
            types,
            "may not specify more than two policyTypes",
        );
        return;
    }
    for (path, kind) in items(types, "spec.policyTypes") {
        if !matches!(kind.as_str(), Some("Ingress" | "Egress")) {
            causes.not_supported(&path, kind, &["Egress", "Ingress"]);
        }
    }
}

fn policy_port(port: &Value, path: &str, causes: &mut Causes) {
    protocol(&port["protocol"], &format!("{path}.protocol"), causes);
    let (number, end) = (&port["port"], &port["endPort"]);
    let (field, end_field) = (format!("{path}.port"), format!("{path}.endPort"));
    match number {
        Value::Null => {
            if !end.is_null() {
                let why = "may not be specified when `port` is not specified";
                causes.invalid(&end_field, end, why);
            }
        }
        Value::String(_) => {
            if !end.is_null() {
                let why = "may not be specified when `port` is non-numeric";
                causes.invalid(&end_field, end, why);
            }
            port_name(number, &field, causes);
        }
        _ => {
            if !number.as_i64().is_some_and(is_port) {
                causes.invalid(&field, number, PORT_RANGE);
            }
            if let Some(end) = end.as_i64() {
                if number.as_i64().is_some_and(|number| end < number) {
                    let why = "must be greater than or equal to `port`";
                    causes.invalid(&end_field, &Value::from(end), why);
                }
                if !is_port(end) {
                    causes.invalid(&end_field, &Value::from(end), PORT_RANGE);
                }
            }
        }
    }
}

fn policy_peer(peer: &Value, path: &str, causes: &mut Causes) {
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if !peer[field].is_null() {
            selectors += 1;
            meta::label_selector(&peer[field], &format!("{path}.{field}"), causes);
        }
    }
    let block = &peer["ipBlock"];
    if !block.is_null() {
        ip_block(block, &format!("{path}.ipBlock"), causes);
    }
    match (selectors, block.is_null()) {
        (0, true) => causes.required(path, "must specify a peer"),
        (1.., false) => {
            causes.forbidden(path, "may not specify both ipBlock and another peer");
        }
        _ => {}
    }
}

const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

fn ip_block(block: &Value, path: &str, causes: &mut Causes) {
    let text = block["cidr"].as_str().unwrap_or_default();
    if text.is_empty() {
        causes.required(&format!("{path}.cidr"), "");
        return;
    }
    let Ok(cidr) = text.parse::<IpNet>() else {
        causes.invalid(&format!("{path}.cidr"), &block["cidr"], CIDR);
        return;
    };
    for (path, except) in items(&block["except"], &format!("{path}.except")) {
        let Ok(inner) = except.as_str().unwrap_or_default().parse::<IpNet>() else {
            causes.invalid(&path, except, CIDR);
            continue;
        };
        let is_strict_subset = cidr.contains(&inner) && inner.prefix_len() > cidr.prefix_len();
        if !is_strict_subset {
            causes.invalid(
                &path,
                except,
                format!("must be a strict subset of `cidr`: {text}"),
            );
        }
    }
}
