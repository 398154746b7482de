//! The result of ADD in the form of each version of the specification.

use serde_json::{Map, Value, json};

use crate::attach::Record;

/// Writes the result; interfaces and addresses of `prev_result` (an earlier plugin of the
/// chain) come first and keep their indexes.
pub(super) fn render(version: &str, record: &Record, prev_result: Option<&Value>) -> Value {
    let list = |key: &str| {
        prev_result
            .and_then(|prev| prev.get(key))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let mut interfaces = list("interfaces");
    let container_index = interfaces.len() + 1;
    interfaces.extend(interfaces_of(version, record));
    let mut ips = list("ips");
    ips.extend(ips_of(version, record, container_index));
    let mut routes = list("routes");
    routes.extend(routes_of(version, record));
    let mut result = Map::new();
    result.insert("cniVersion".to_owned(), json!(version));
    result.insert("interfaces".to_owned(), Value::Array(interfaces));
    result.insert("ips".to_owned(), Value::Array(ips));
    if !routes.is_empty() {
        result.insert("routes".to_owned(), Value::Array(routes));
    }
    let prev_dns = prev_result.and_then(|prev| prev.get("dns")).cloned();
    if let Some(dns) = record.plan.dns.clone().filter(says_something).or(prev_dns) {
        result.insert("dns".to_owned(), dns);
    }
    Value::Object(result)
}

fn interfaces_of(version: &str, record: &Record) -> [Value; 2] {
    let attachment = &record.attachment;
    let host = json!({"name": attachment.host_ifname});
    let mut container = json!({
        "name": attachment.ifname,
        "mac": attachment.mac,
        "sandbox": attachment.netns,
    });
    if version == "1.1.0" {
        container["mtu"] = json!(attachment.mtu);
    }
    [host, container]
}

fn ips_of(version: &str, record: &Record, index: usize) -> Vec<Value> {
    let ip = |planned: &crate::ipam::PlannedIp| {
        let mut ip = json!({"interface": index, "address": planned.address});
        if let Some(gateway) = planned.gateway {
            ip["gateway"] = json!(gateway);
        }
        // Dropped in 1.0.0.
        if version.starts_with("0.") {
            ip["version"] = json!(if planned.address.addr().is_ipv4() {
                "4"
            } else {
                "6"
            });
        }
        ip
    };
    record.plan.ips.iter().map(ip).collect()
}

fn routes_of(version: &str, record: &Record) -> Vec<Value> {
    let route = |route: &crate::ipam::Route| {
        let mut rendered = json!({"dst": route.dst});
        if let Some(gw) = route.gw {
            rendered["gw"] = json!(gw);
        }
        if version == "1.1.0" {
            if let Some(mtu) = route.mtu {
                rendered["mtu"] = json!(mtu);
            }
            if let Some(priority) = route.priority {
                rendered["priority"] = json!(priority);
            }
        }
        rendered
    };
    record.plan.routes.iter().map(route).collect()
}

/// IPAM plugins write `"dns": {}` for nothing.
fn says_something(dns: &Value) -> bool {
    dns.as_object().is_some_and(|dns| !dns.is_empty())
}
