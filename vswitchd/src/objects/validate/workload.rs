//! Pods, Services and EndpointSlices: what the switch relies on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::{Causes, PORT_RANGE, is_port, items, port_name, port_number, protocol};

/// A Pod.
pub(super) fn pod(pod: &Value, causes: &mut Causes) {
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

fn ip_address(value: &Value, field: &str, causes: &mut Causes) {
    if value
        .as_str()
        .unwrap_or_default()
        .parse::<IpAddr>()
        .is_err()
    {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.invalid(field, value, why);
    }
}

/// A Service.
pub(super) fn service(service: &Value, causes: &mut Causes) {
    let spec = &service["spec"];
    let kind = spec["type"].as_str().unwrap_or_default();
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        causes.not_supported("spec.type", &spec["type"], &kinds);
    }
    let headless = spec["clusterIP"] == "None";
    if kind != "ExternalName" && !headless && spec["ports"].as_array().is_none_or(Vec::is_empty) {
        causes.required("spec.ports", "");
    }
    let many = spec["ports"]
        .as_array()
        .is_some_and(|ports| ports.len() > 1);
    let mut names = BTreeSet::new();
    for (path, port) in items(&spec["ports"], "spec.ports") {
        port_number(&port["port"], &format!("{path}.port"), causes);
        protocol(&port["protocol"], &format!("{path}.protocol"), causes);
        match &port["targetPort"] {
            target @ Value::String(_) => port_name(target, &format!("{path}.targetPort"), causes),
            Value::Null => {}
            target if target.as_i64().is_some_and(is_port) => {}
            target => causes.invalid(&format!("{path}.targetPort"), target, PORT_RANGE),
        }
        match port["name"].as_str() {
            None | Some("") if many => causes.required(&format!("{path}.name"), ""),
            Some(name) if !names.insert(name) => {
                causes.duplicate(&format!("{path}.name"), &port["name"]);
            }
            _ => {}
        }
    }
    let cluster_ip = &spec["clusterIP"];
    if cluster_ip
        .as_str()
        .is_some_and(|ip| !ip.is_empty() && ip != "None")
    {
        ip_address(cluster_ip, "spec.clusterIP", causes);
    }
    for (path, ip) in items(&spec["externalIPs"], "spec.externalIPs") {
        ip_address(ip, &path, causes);
    }
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(slice: &Value, causes: &mut Causes) {
    let kinds = ["FQDN", "IPv4", "IPv6"];
    let kind = slice["addressType"].as_str().unwrap_or_default();
    if !kinds.contains(&kind) {
        causes.not_supported("addressType", &slice["addressType"], &kinds);
    }
    for (path, endpoint) in items(&slice["endpoints"], "endpoints") {
        if endpoint["addresses"].as_array().is_none_or(Vec::is_empty) {
            causes.required(&format!("{path}.addresses"), "must contain at least 1 item");
        }
        for (path, address) in items(&endpoint["addresses"], &format!("{path}.addresses")) {
            let ip = address.as_str().unwrap_or_default().parse::<IpAddr>().ok();
            let fits = match kind {
                "IPv4" => ip.is_some_and(|ip| ip.is_ipv4()),
                "IPv6" => ip.is_some_and(|ip| ip.is_ipv6()),
                _ => true,
            };
            if !fits {
                causes.invalid(&path, address, format!("must be a valid {kind} address"));
            }
        }
    }
    for (path, port) in items(&slice["ports"], "ports") {
        protocol(&port["protocol"], &format!("{path}.protocol"), causes);
        if !port["port"].is_null() {
            port_number(&port["port"], &format!("{path}.port"), causes);
        }
    }
}
