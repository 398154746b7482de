//! AdminNetworkPolicy and BaselineAdminNetworkPolicy: the demands of their CRDs (network-policy-api,
//! v1alpha1, experimental channel).
//!
//! An object that has only fields which the CRD does not know is let through here, as with
//! ClusterNetworkPolicy. So are protocols and networks that only look like some: the CRDs take any
//! text; what is not understood of it fails closed.

use serde_json::Value;

use super::super::causes::Causes;
use super::fields::{
    at_most, each_once, exactly_one, items, name_of_rule, one_of, port_number, required,
    some_at_most,
};
use super::meta;

/// Longest lists of rules, and of a rule's peers and ports.
const MAX_ITEMS: usize = 100;
/// Longest lists of networks and names.
const MAX_TEXTS: usize = 25;
const MAX_NETWORK: usize = 43;

const PODS: [&str; 2] = ["namespaces", "pods"];

/// What the two kinds do not have in common.
#[derive(Debug)]
struct Kind {
    actions: &'static [&'static str],
    egress_peers: &'static [&'static str],
}

const ADMIN: Kind = Kind {
    actions: &["Allow", "Deny", "Pass"],
    egress_peers: &["namespaces", "pods", "nodes", "networks", "domainNames"],
};
const BASELINE: Kind = Kind {
    actions: &["Allow", "Deny"],
    egress_peers: &["namespaces", "pods", "nodes", "networks"],
};

/// An AdminNetworkPolicy.
pub(super) fn admin(object: &Value, causes: &mut Causes) {
    let priority = &object["spec"]["priority"];
    if !object["spec"].is_null()
        && required(priority, "spec.priority", causes)
        && !priority.as_i64().is_some_and(|p| (0..=1_000).contains(&p))
    {
        let why = "must be between 0 and 1000, inclusive";
        causes.invalid("spec.priority", priority, why);
    }
    policy(object, &ADMIN, causes);
}

/// The BaselineAdminNetworkPolicy.
pub(super) fn baseline(object: &Value, causes: &mut Causes) {
    let name = &object["metadata"]["name"];
    if name != "default" {
        let why = "Only one baseline admin network policy with metadata.name=\"default\" can be \
                   created in the cluster";
        causes.invalid("metadata.name", name, why);
    }
    policy(object, &BASELINE, causes);
}

fn policy(object: &Value, kind: &Kind, causes: &mut Causes) {
    let spec = &object["spec"];
    if spec.is_null() {
        return causes.required("spec", "");
    }
    if required(&spec["subject"], "spec.subject", causes) {
        exactly_one(&spec["subject"], "spec.subject", &PODS, causes);
        pods(&spec["subject"], "spec.subject", causes);
    }
    let directions = [
        ("ingress", "from", &PODS[..]),
        ("egress", "to", kind.egress_peers),
    ];
    for (direction, field, known) in directions {
        let path = format!("spec.{direction}");
        at_most(&spec[direction], &path, MAX_ITEMS, causes);
        for (path, written) in items(&spec[direction], &path) {
            rule(written, &path, (field, known), kind, causes);
        }
    }
}

fn rule(
    rule: &Value,
    path: &str,
    (field, known): (&str, &[&str]),
    kind: &Kind,
    causes: &mut Causes,
) {
    name_of_rule(&rule["name"], &format!("{path}.name"), causes);
    let action = format!("{path}.action");
    if required(&rule["action"], &action, causes) {
        one_of(&rule["action"], &action, kind.actions, causes);
    }
    let peers = format!("{path}.{field}");
    if required(&rule[field], &peers, causes) {
        some_at_most(&rule[field], &peers, MAX_ITEMS, causes);
    }
    for (path, written) in items(&rule[field], &peers) {
        exactly_one(written, &path, known, causes);
        pods(written, &path, causes);
        if field == "to" {
            beyond_pods(written, &path, causes);
        }
    }
    let ports = format!("{path}.ports");
    if !rule["ports"].is_null() {
        some_at_most(&rule["ports"], &ports, MAX_ITEMS, causes);
    }
    for (path, written) in items(&rule["ports"], &ports) {
        port(written, &path, causes);
    }
    named_port_has_pods(rule, path, causes);
}

/// A rule of the CRDs: only pods have ports with names.
fn named_port_has_pods(rule: &Value, path: &str, causes: &mut Causes) {
    let mut ports = items(&rule["ports"], "");
    let mut peers = items(&rule["to"], "");
    let has_no_pods = |peer: &Value| {
        let fields = ["networks", "nodes", "domainNames"];
        fields.iter().any(|field| !peer[field].is_null())
    };
    if ports.any(|(_, port)| !port["namedPort"].is_null())
        && peers.any(|(_, peer)| has_no_pods(peer))
    {
        let why = "networks/nodes/domainNames peer cannot be set with namedPorts since there are \
                   no namedPorts for networks/nodes/domainNames";
        causes.invalid(path, rule, why);
    }
}

fn pods(peer: &Value, path: &str, causes: &mut Causes) {
    let namespaces = format!("{path}.namespaces");
    meta::label_selector(&peer["namespaces"], &namespaces, causes);
    let pods = &peer["pods"];
    if pods.is_null() {
        return;
    }
    for field in ["namespaceSelector", "podSelector"] {
        let path = format!("{path}.pods.{field}");
        if required(&pods[field], &path, causes) {
            meta::label_selector(&pods[field], &path, causes);
        }
    }
}

fn beyond_pods(peer: &Value, path: &str, causes: &mut Causes) {
    meta::label_selector(&peer["nodes"], &format!("{path}.nodes"), causes);
    for field in ["networks", "domainNames"] {
        let path = format!("{path}.{field}");
        if !peer[field].is_null() {
            some_at_most(&peer[field], &path, MAX_TEXTS, causes);
            each_once(&peer[field], &path, causes);
        }
    }
    for (path, network) in items(&peer["networks"], &format!("{path}.networks")) {
        let text = network.as_str().unwrap_or_default();
        if text.len() > MAX_NETWORK {
            let message = format!("Too long: may not be more than {MAX_NETWORK} bytes");
            causes.add("FieldValueTooLong", &path, message);
        }
        if text.contains(':') == text.contains('.') {
            let why = "CIDR must be either an IPv4 or IPv6 address. IPv4 address embedded in IPv6 \
                       addresses are not supported";
            causes.invalid(&path, network, why);
        }
    }
    for (path, name) in items(&peer["domainNames"], &format!("{path}.domainNames")) {
        if !name.as_str().is_some_and(is_domain_name) {
            let why = "must be a domain name, (e.g. example.com or *.example.com)";
            causes.invalid(&path, name, why);
        }
    }
}

fn port(port: &Value, path: &str, causes: &mut Causes) {
    exactly_one(
        port,
        path,
        &["portNumber", "portRange", "namedPort"],
        causes,
    );
    for (form, ends) in [
        ("portNumber", &["port"][..]),
        ("portRange", &["start", "end"]),
    ] {
        if port[form].is_null() {
            continue;
        }
        for end in ends {
            let path = format!("{path}.{form}.{end}");
            if required(&port[form][end], &path, causes) {
                port_number(&port[form][end], &path, causes);
            }
        }
    }
}

/// The CRD's pattern: two labels or more of letters, digits, `-` and `_`, which end in a letter or
/// digit if they are longer than one character, `*.` perhaps before them, a dot perhaps behind. Its
/// class `A-z` lets `[\]^_` and a backquote begin a label, too.
fn is_domain_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let names = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| match label.as_bytes() {
        [] => false,
        [first, rest @ ..] => {
            let begins = first.is_ascii_digit() || (b'A'..=b'z').contains(first);
            let ends = rest.last().is_none_or(u8::is_ascii_alphanumeric);
            let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
            begins && ends && rest.iter().all(goes_on)
        }
    };
    names.contains('.') && names.split('.').all(is_label)
}
