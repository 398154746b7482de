//! Calico's kinds, as their CRDs and Calico's own API check them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::super::causes::Causes;
use super::fields::{items, one_of};
use crate::policy::calico_selector_error;

/// maxItems of the CRDs.
const MAX_RULES: usize = 1_024;
const ACTIONS: [&str; 4] = ["Allow", "Deny", "Log", "Pass"];
const TYPES: [&str; 2] = ["Ingress", "Egress"];
/// Tiers that are always there, with the order and default action that they keep.
const BUILT_IN: [(&str, f64, &str); 3] = [
    ("kube-admin", 1_000.0, "Pass"),
    ("default", 1_000_000.0, "Deny"),
    ("kube-baseline", 10_000_000.0, "Pass"),
];

/// A Tier.
pub(super) fn tier(object: &Value, causes: &mut Causes) {
    let spec = &object["spec"];
    one_of(
        &spec["defaultAction"],
        "spec.defaultAction",
        &["Deny", "Pass"],
        causes,
    );
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let built_in = BUILT_IN.iter().find(|(known, ..)| *known == name);
    let Some((_, order, action)) = built_in else {
        return;
    };
    if spec["order"].as_f64() != Some(*order) {
        let why = format!("the {name} tier must have order {order}");
        causes.invalid("spec.order", &spec["order"], why);
    }
    if spec["defaultAction"] != *action {
        let why = format!("the {name} tier must have default action {action}");
        causes.invalid("spec.defaultAction", &spec["defaultAction"], why);
    }
}

/// What a staged policy asks for.
pub(super) fn staged(spec: &Value, causes: &mut Causes) {
    one_of(
        &spec["stagedAction"],
        "spec.stagedAction",
        &["Set", "Delete", "Learn", "Ignore"],
        causes,
    );
}

/// A GlobalNetworkSet or NetworkSet.
pub(super) fn network_set(spec: &Value, causes: &mut Causes) {
    nets(&spec["nets"], "spec.nets", causes);
}

/// A HostEndpoint.
pub(super) fn host_endpoint(spec: &Value, causes: &mut Causes) {
    for (path, ip) in items(&spec["expectedIPs"], "spec.expectedIPs") {
        if ip.as_str().unwrap_or_default().parse::<IpAddr>().is_err() {
            causes.invalid(&path, ip, "must be an address like 192.0.2.1");
        }
    }
    for (path, port) in items(&spec["ports"], "spec.ports") {
        for field in ["name", "protocol", "port"] {
            if port[field].is_null() {
                causes.required(&format!("{path}.{field}"), "");
            }
        }
    }
}

/// A GlobalNetworkPolicy or NetworkPolicy.
pub(super) fn policy(spec: &Value, causes: &mut Causes) {
    let is_set = |field: &str| spec[field] == true;
    if is_set("preDNAT") && is_set("doNotTrack") {
        let why = "preDNAT and doNotTrack cannot both be true";
        causes.invalid("spec.preDNAT", &spec["preDNAT"], why);
    }
    if (is_set("preDNAT") || is_set("doNotTrack")) && !is_set("applyOnForward") {
        let why = "applyOnForward must be true if either preDNAT or doNotTrack is true";
        causes.invalid("spec.applyOnForward", &spec["applyOnForward"], why);
    }
    let has_egress = items(&spec["egress"], "").next().is_some();
    let concerns_egress = items(&spec["types"], "").any(|(_, of)| *of == "Egress");
    if is_set("preDNAT") && (has_egress || concerns_egress) {
        causes.forbidden("spec.egress", "preDNAT policy cannot have any egress rules");
    }
    for (path, of) in items(&spec["types"], "spec.types") {
        one_of(of, &path, &TYPES, causes);
    }
    for field in ["selector", "namespaceSelector", "serviceAccountSelector"] {
        selector(&spec[field], &format!("spec.{field}"), causes);
    }
    for direction in ["ingress", "egress"] {
        let path = format!("spec.{direction}");
        let rules = items(&spec[direction], &path);
        let length = spec[direction].as_array().map_or(0, Vec::len);
        if length > MAX_RULES {
            let message = format!("Too many: {length}: must have at most {MAX_RULES} items");
            causes.add("FieldValueTooMany", &path, message);
        }
        for (path, of) in rules {
            rule(of, &path, causes);
        }
    }
}

fn rule(rule: &Value, path: &str, causes: &mut Causes) {
    let action = format!("{path}.action");
    one_of(&rule["action"], &action, &ACTIONS, causes);
    let version = &rule["ipVersion"];
    if !version.is_null() && *version != 4 && *version != 6 {
        causes.not_supported(&format!("{path}.ipVersion"), version, &["4", "6"]);
    }
    for field in ["icmp", "notICMP"] {
        let icmp = &rule[field];
        if icmp["type"].is_null() && !icmp["code"].is_null() {
            let why = "ICMP code specified without an ICMP type";
            causes.invalid(&format!("{path}.{field}.code"), &icmp["code"], why);
        }
    }
    for end in ["source", "destination"] {
        let (end, path) = (&rule[end], format!("{path}.{end}"));
        for field in ["selector", "notSelector", "namespaceSelector"] {
            selector(&end[field], &format!("{path}.{field}"), causes);
        }
        let accounts = &end["serviceAccounts"]["selector"];
        selector(
            accounts,
            &format!("{path}.serviceAccounts.selector"),
            causes,
        );
        for field in ["nets", "notNets"] {
            nets(&end[field], &format!("{path}.{field}"), causes);
        }
    }
}

fn selector(value: &Value, path: &str, causes: &mut Causes) {
    let error = value.as_str().and_then(calico_selector_error);
    if let Some(error) = error {
        causes.invalid(path, value, error);
    }
}

fn nets(list: &Value, path: &str, causes: &mut Causes) {
    for (path, net) in items(list, path) {
        let text = net.as_str().unwrap_or_default();
        if text.parse::<IpNet>().is_err() && text.parse::<IpAddr>().is_err() {
            causes.invalid(
                &path,
                net,
                "must be an address or a network like 10.0.0.0/8",
            );
        }
    }
}
