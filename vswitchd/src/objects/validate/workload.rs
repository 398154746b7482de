//! Pods: what the switch relies on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::bandwidth::{EGRESS_BANDWIDTH, INGRESS_BANDWIDTH, bits_per_second};
use super::super::causes::Causes;
use super::fields::{ip_address, items, port_name, port_number, protocol};

/// A Pod.
pub(super) fn pod(pod: &Value, causes: &mut Causes) {
    for annotation in [INGRESS_BANDWIDTH, EGRESS_BANDWIDTH] {
        let value = &pod["metadata"]["annotations"][annotation];
        if let Some(Err(problem)) = value.as_str().map(bits_per_second) {
            let field = format!("metadata.annotations[{annotation}]");
            causes.invalid(&field, value, problem);
        }
    }
    let containers = &pod["spec"]["containers"];
    if containers.as_array().is_none_or(Vec::is_empty) {
        causes.required("spec.containers", "");
    }
    let mut names = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        for (path, container) in items(&pod["spec"][list], &format!("spec.{list}")) {
            let name = &container["name"];
            if name.as_str().unwrap_or_default().is_empty() {
                causes.required(&format!("{path}.name"), "");
            } else if !names.insert(name.as_str()) {
                causes.duplicate(&format!("{path}.name"), name);
            }
            container_ports(&container["ports"], &format!("{path}.ports"), causes);
        }
    }
    for (path, ip) in items(&pod["status"]["podIPs"], "status.podIPs") {
        ip_address(&ip["ip"], &format!("{path}.ip"), causes);
    }
    if !pod["status"]["podIP"].is_null() {
        ip_address(&pod["status"]["podIP"], "status.podIP", causes);
    }
}

fn container_ports(ports: &Value, path: &str, causes: &mut Causes) {
    let mut names = BTreeSet::new();
    for (path, port) in items(ports, path) {
        port_number(
            &port["containerPort"],
            &format!("{path}.containerPort"),
            causes,
        );
        protocol(&port["protocol"], &format!("{path}.protocol"), causes);
        if let Some(name) = port["name"].as_str().filter(|name| !name.is_empty()) {
            let field = format!("{path}.name");
            port_name(&port["name"], &field, causes);
            if !names.insert(name) {
                causes.duplicate(&field, &port["name"]);
            }
        }
    }
}
