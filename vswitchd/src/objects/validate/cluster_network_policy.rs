//! ClusterNetworkPolicy: the demands of its CRD (network-policy-api v0.2.0, experimental channel).
//!
//! An object that has only fields which the CRD does not know is let through here: the API drops
//! such fields before, and whoever keeps them wants them to fail closed.

use ipnet::IpNet;
use serde_json::Value;

use super::super::causes::Causes;
use super::fields::{
    at_most, each_once, exactly_one, items, name_of_rule, one_of, port_number, required,
    some_at_most,
};
use super::meta;

/// Longest lists of rules, peers, protocols, networks and names.
const MAX_ITEMS: usize = 25;
const MAX_NETWORK: usize = 43;

const PODS: [&str; 2] = ["namespaces", "pods"];
const EGRESS_PEERS: [&str; 5] = ["namespaces", "pods", "nodes", "networks", "domainNames"];
const PROTOCOLS: [&str; 4] = ["tcp", "udp", "sctp", "destinationNamedPort"];

/// A whole policy.
pub(super) fn policy(object: &Value, causes: &mut Causes) {
    let spec = &object["spec"];
    if spec.is_null() {
        return causes.required("spec", "");
    }
    if required(&spec["tier"], "spec.tier", causes) {
        one_of(&spec["tier"], "spec.tier", &["Admin", "Baseline"], causes);
    }
    let priority = &spec["priority"];
    if required(priority, "spec.priority", causes)
        && !priority.as_i64().is_some_and(|p| (0..=1_000).contains(&p))
    {
        let why = "must be between 0 and 1000, inclusive";
        causes.invalid("spec.priority", priority, why);
    }
    if required(&spec["subject"], "spec.subject", causes) {
        exactly_one(&spec["subject"], "spec.subject", &PODS, causes);
        pods(&spec["subject"], "spec.subject", causes);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let path = format!("spec.{direction}");
        at_most(&spec[direction], &path, MAX_ITEMS, causes);
        for (path, written) in items(&spec[direction], &path) {
            rule(written, &path, peers, causes);
        }
    }
}

fn rule(rule: &Value, path: &str, peers: &str, causes: &mut Causes) {
    name_of_rule(&rule["name"], &format!("{path}.name"), causes);
    let action = format!("{path}.action");
    if required(&rule["action"], &action, causes) {
        one_of(
            &rule["action"],
            &action,
            &["Accept", "Deny", "Pass"],
            causes,
        );
    }
    let peers_path = format!("{path}.{peers}");
    if required(&rule[peers], &peers_path, causes) {
        some_at_most(&rule[peers], &peers_path, MAX_ITEMS, causes);
    }
    let known = if peers == "to" {
        &EGRESS_PEERS[..]
    } else {
        &PODS[..]
    };
    for (path, written) in items(&rule[peers], &peers_path) {
        exactly_one(written, &path, known, causes);
        pods(written, &path, causes);
        if peers == "to" {
            beyond_pods(written, &path, causes);
        }
    }
    let protocols = format!("{path}.protocols");
    if !rule["protocols"].is_null() {
        some_at_most(&rule["protocols"], &protocols, MAX_ITEMS, causes);
    }
    for (path, written) in items(&rule["protocols"], &protocols) {
        protocol(written, &path, causes);
    }
    named_port_has_pods(rule, path, causes);
}

/// A rule of the CRD: only pods have ports with names.
fn named_port_has_pods(rule: &Value, path: &str, causes: &mut Causes) {
    let mut protocols = items(&rule["protocols"], "");
    let mut peers = items(&rule["to"], "");
    let has_no_pods = |peer: &Value| {
        let fields = ["networks", "nodes", "domainNames"];
        fields.iter().any(|field| !peer[field].is_null())
    };
    if protocols.any(|(_, entry)| !entry["destinationNamedPort"].is_null())
        && peers.any(|(_, peer)| has_no_pods(peer))
    {
        let why = "networks, nodes and domainNames peers cannot be used with destinationNamedPort";
        causes.invalid(path, rule, why);
    }
}

fn pods(peer: &Value, path: &str, causes: &mut Causes) {
    if !peer["namespaces"].is_null() {
        let path = format!("{path}.namespaces");
        meta::label_selector(&peer["namespaces"], &path, causes);
    }
    let pods = &peer["pods"];
    if pods.is_null() {
        return;
    }
    let selector = format!("{path}.pods.podSelector");
    if required(&pods["podSelector"], &selector, causes) {
        meta::label_selector(&pods["podSelector"], &selector, causes);
    }
    let selector = format!("{path}.pods.namespaceSelector");
    meta::label_selector(&pods["namespaceSelector"], &selector, causes);
}

fn beyond_pods(peer: &Value, path: &str, causes: &mut Causes) {
    if !peer["nodes"].is_null() {
        meta::label_selector(&peer["nodes"], &format!("{path}.nodes"), causes);
    }
    let networks = format!("{path}.networks");
    if !peer["networks"].is_null() {
        some_at_most(&peer["networks"], &networks, MAX_ITEMS, causes);
        each_once(&peer["networks"], &networks, causes);
    }
    for (path, network) in items(&peer["networks"], &networks) {
        if !network.as_str().is_some_and(is_cidr) {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.invalid(&path, network, why);
        }
    }
    let names = format!("{path}.domainNames");
    if !peer["domainNames"].is_null() {
        some_at_most(&peer["domainNames"], &names, MAX_ITEMS, causes);
        each_once(&peer["domainNames"], &names, causes);
    }
    for (path, name) in items(&peer["domainNames"], &names) {
        if !name.as_str().is_some_and(is_domain_name) {
            let why = "must be a domain name, (e.g. example.com or *.example.com)";
            causes.invalid(&path, name, why);
        }
    }
}

fn protocol(entry: &Value, path: &str, causes: &mut Causes) {
    exactly_one(entry, path, &PROTOCOLS, causes);
    for field in ["tcp", "udp", "sctp"] {
        if entry[field].is_null() {
            continue;
        }
        let path = format!("{path}.{field}");
        exactly_one(&entry[field], &path, &["destinationPort"], causes);
        let port = &entry[field]["destinationPort"];
        if !port.is_null() {
            destination_port(port, &format!("{path}.destinationPort"), causes);
        }
    }
}

fn destination_port(port: &Value, path: &str, causes: &mut Causes) {
    exactly_one(port, path, &["number", "range"], causes);
    if !port["number"].is_null() {
        port_number(&port["number"], &format!("{path}.number"), causes);
    }
    let range = &port["range"];
    if range.is_null() {
        return;
    }
    for end in ["start", "end"] {
        let path = format!("{path}.range.{end}");
        if required(&range[end], &path, causes) {
            port_number(&range[end], &path, causes);
        }
    }
    if let (Some(start), Some(end)) = (range["start"].as_i64(), range["end"].as_i64())
        && start >= end
    {
        let why = "Start must be less than End";
        causes.invalid(&format!("{path}.range"), range, why);
    }
}

/// isCIDR of Kubernetes' CEL library: host bits are let pass; leading zeros, zones and IPv4
/// addresses in the form of IPv6 ones are not.
fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let is_plain = length == "0" || !length.starts_with(['0', '+']);
    let is_mapped = address
        .parse::<std::net::Ipv6Addr>()
        .is_ok_and(|address| address.to_ipv4_mapped().is_some());
    text.len() <= MAX_NETWORK && is_plain && !is_mapped && text.parse::<IpNet>().is_ok()
}

/// The CRD's pattern: labels of letters, digits, `-` and `_`, the first perhaps `*`, perhaps a dot
/// at the end. Its class `A-z` lets `[\]^_` and a backquote begin a label, too.
fn is_domain_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let names = text.strip_prefix("*.").unwrap_or(text);
    let begins = |byte: u8| matches!(byte, b'a'..=b'z' | b'A'..=b'z' | b'0'..=b'9');
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    names.split('.').all(|label| {
        let mut bytes = label.bytes();
        bytes.next().is_some_and(begins) && bytes.all(goes_on)
    })
}
