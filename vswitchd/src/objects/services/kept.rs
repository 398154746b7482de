//! Updates of Services: addresses and ports that stay, and those that go with the old type.
//!
//! Clients write back manifests that never had addresses and ports, and patches leave those of
//! the old type in place.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    drop_zeros, is_externally_reachable, needs_cluster_ip, needs_health_check_port,
    needs_node_ports,
};

/// Completes a Service before its defaults are set with what `old` was given.
pub(in crate::objects) fn keep(old: &Value, service: &mut Value) {
    let (old, spec) = (&old["spec"], &mut service["spec"]);
    drop_zeros(spec);
    if spec["type"].is_null() {
        spec["type"] = json!("ClusterIP");
    }
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        keep_addresses(old, spec);
        drop_second_family(old, spec);
    } else if needs_cluster_ip(old) {
        for field in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            drop_same(old, spec, field);
        }
    }
    match (needs_node_ports(old), needs_node_ports(spec)) {
        (true, true) => keep_node_ports(old, spec),
        (true, false) => drop_node_ports(old, spec),
        _ => {}
    }
    if old["type"] == "LoadBalancer" && spec["type"] != "LoadBalancer" {
        drop_same(old, spec, "allocateLoadBalancerNodePorts");
        drop_same(old, spec, "loadBalancerClass");
        drop_same(old, spec, "loadBalancerSourceRanges");
    }
    if is_externally_reachable(old) && !is_externally_reachable(spec) {
        drop_same(old, spec, "externalTrafficPolicy");
    }
    match (needs_health_check_port(old), needs_health_check_port(spec)) {
        (true, true) => set_if_absent(old, spec, "healthCheckNodePort"),
        (true, false) => drop_same(old, spec, "healthCheckNodePort"),
        _ => {}
    }
}

fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn set_if_absent(old: &Value, spec: &mut Value, field: &str) {
    let is_missing = spec.get(field).is_none_or(is_absent);
    if let Some(before) = old.get(field)
        && is_missing
    {
        spec[field] = before.clone();
    }
}

fn drop_same(old: &Value, spec: &mut Value, field: &str) {
    if old.get(field) == spec.get(field) {
        remove(spec, field);
    }
}

fn remove(object: &mut Value, field: &str) {
    object.as_object_mut().map(|fields| fields.remove(field));
}

fn keep_addresses(old: &Value, spec: &mut Value) {
    set_if_absent(old, spec, "clusterIP");
    if spec.get("clusterIP") == old.get("clusterIP") {
        set_if_absent(old, spec, "clusterIPs");
    } else if spec.get("clusterIPs") == old.get("clusterIPs") {
        // A client that knows one address only has changed it: the list follows.
        remove(spec, "clusterIPs");
    }
    set_if_absent(old, spec, "ipFamilyPolicy");
    set_if_absent(old, spec, "ipFamilies");
}

/// A Service that goes back to a single stack gives its second address back.
fn drop_second_family(old: &Value, spec: &mut Value) {
    let is_downgrade =
        spec["ipFamilyPolicy"] == "SingleStack" && old["ipFamilyPolicy"] != "SingleStack";
    if !is_downgrade {
        return;
    }
    for field in ["clusterIPs", "ipFamilies"] {
        if spec.get(field) == old.get(field)
            && let Some(list) = spec.get_mut(field).and_then(Value::as_array_mut)
        {
            list.truncate(1);
        }
    }
}

fn ports(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["ports"].as_array().into_iter().flatten()
}

fn numbers(spec: &Value) -> BTreeSet<i64> {
    ports(spec).filter_map(|p| p["nodePort"].as_i64()).collect()
}

/// Ports without a number get that of the old port of their name, unless another took it.
fn keep_node_ports(old: &Value, spec: &mut Value) {
    let name = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
    let named: BTreeMap<String, i64> = ports(old)
        .filter_map(|port| Some((name(port), port["nodePort"].as_i64()?)))
        .collect();
    let asked = numbers(spec);
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        let before = named
            .get(&name(port))
            .filter(|number| !asked.contains(number));
        if let Some(number) = before
            && port.get("nodePort").is_none_or(Value::is_null)
        {
            port["nodePort"] = json!(number);
        }
    }
}

fn drop_node_ports(old: &Value, spec: &mut Value) {
    if numbers(old) != numbers(spec) {
        return;
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        remove(port, "nodePort");
    }
}
