//! Pods as endpoints of a Service.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::services::family_of;

/// Returns the addresses of a Pod.
pub(super) fn addresses(pod: &Value) -> Vec<IpAddr> {
    let status = &pod["status"];
    let list = status["podIPs"].as_array().into_iter().flatten();
    let list: Vec<IpAddr> = list.filter_map(|ip| parsed(&ip["ip"])).collect();
    if list.is_empty() {
        return parsed(&status["podIP"]).into_iter().collect();
    }
    list
}

fn parsed(ip: &Value) -> Option<IpAddr> {
    ip.as_str()?.parse().ok()
}

/// Returns whether a Pod has nothing to run any more.
pub(super) fn is_finished(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

/// Returns a Pod as an endpoint, if it has an address of the family.
pub(super) fn of(pod: &Value, family: &str, publishes_all: bool) -> Option<Value> {
    let ip = addresses(pod)
        .into_iter()
        .find(|ip| family_of(*ip) == family)?;
    let metadata = &pod["metadata"];
    let serving = is_serving(pod);
    let terminating = !metadata["deletionTimestamp"].is_null();
    let mut endpoint = json!({
        "addresses": [ip],
        "conditions": {
            "ready": publishes_all || (serving && !terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    });
    if let Some(node) = pod["spec"]["nodeName"].as_str() {
        endpoint["nodeName"] = json!(node);
    }
    Some(endpoint)
}

/// Says for whom an endpoint is near by spec.trafficDistribution: for those of its zone, and where
/// the node is preferred for those of its node. Only ready endpoints have hints.
pub(super) fn hints(spec: &Value, endpoint: &Value) -> Option<Value> {
    let distribution = spec["trafficDistribution"].as_str()?;
    if endpoint["conditions"]["ready"] != true {
        return None;
    }
    let named = |field: &str| Some(json!([{"name": endpoint[field].as_str()?}]));
    let mut hints = json!({});
    if let Some(zones) = named("zone") {
        hints["forZones"] = zones;
    }
    if let Some(nodes) = named("nodeName").filter(|_| distribution == "PreferSameNode") {
        hints["forNodes"] = nodes;
    }
    hints.get("forZones").or(hints.get("forNodes"))?;
    Some(hints)
}

/// What the Pod says of itself; one that nobody probes serves as long as it runs.
fn is_serving(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    match conditions.find(|condition| condition["type"] == "Ready") {
        Some(condition) => condition["status"] == "True",
        None => pod["status"]["phase"] == "Running",
    }
}

/// Returns the ports of a slice whose endpoints this Pod is one of; without a Pod those that
/// are the same for all. What a Pod does not have under the name asked for is left out.
pub(super) fn ports(spec: &Value, pod: Option<&Value>) -> Value {
    let ports = spec["ports"].as_array().into_iter().flatten();
    let resolved = ports.filter_map(|port| {
        let number = match &port["targetPort"] {
            Value::String(name) => named(pod?, name, &port["protocol"])?,
            Value::Null => port["port"].as_i64()?,
            number => number.as_i64()?,
        };
        let mut resolved = json!({
            "name": port["name"].as_str().unwrap_or_default(),
            "protocol": port["protocol"],
            "port": number,
        });
        if let Some(protocol) = port["appProtocol"].as_str() {
            resolved["appProtocol"] = json!(protocol);
        }
        Some(resolved)
    });
    resolved.collect()
}

/// Finds a port of containers, and of init containers that go on running, by its name.
fn named(pod: &Value, name: &str, protocol: &Value) -> Option<i64> {
    let list = |field: &str| pod["spec"][field].as_array().into_iter().flatten();
    let sidecars = list("initContainers").filter(|c| c["restartPolicy"] == "Always");
    let mut ports = list("containers")
        .chain(sidecars)
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    let port = ports.find(|port| {
        let own = port["protocol"].as_str().unwrap_or("TCP");
        port["name"] == name && *protocol == own
    });
    port?["containerPort"].as_i64()
}
