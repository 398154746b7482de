//! Services.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::Value;

use super::super::causes::Causes;
use super::super::services::{
    family_of, is_externally_reachable, is_headless, needs_cluster_ip, needs_health_check_port,
    needs_node_ports, selector,
};
use super::fields::{
    IMMUTABLE, PORT_RANGE, ip_address, is_port, items, one_of, port_name, port_number, protocol,
    special,
};
use super::meta::{SUBDOMAIN, is_subdomain};

/// A Service.
pub(super) fn service(service: &Value, causes: &mut Causes) {
    let spec = &service["spec"];
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(&spec["type"], "spec.type", &kinds, causes);
    if spec["type"] == "ExternalName" {
        external_name(spec, causes);
    } else {
        if !is_headless(spec) && spec["ports"].as_array().is_none_or(Vec::is_empty) {
            causes.required("spec.ports", "");
        }
        cluster_ips(spec, causes);
        families(spec, causes);
    }
    ports(spec, causes);
    node_ports(spec, causes);
    affinity(spec, causes);
    traffic(spec, causes);
    reachable_from(spec, causes);
}

/// What is set at creation and stays as long as the Service has a ClusterIP at all.
pub(super) fn change(old: &Value, service: &Value, causes: &mut Causes) {
    let (old, spec) = (&old["spec"], &service["spec"]);
    let is_set = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if !needs_cluster_ip(old) || !needs_cluster_ip(spec) {
        return;
    }
    if is_set(&old["clusterIP"]) && old["clusterIP"] != spec["clusterIP"] {
        causes.invalid("spec.clusterIP", &spec["clusterIP"], IMMUTABLE);
    }
    let primary = |spec: &Value| spec["ipFamilies"][0].clone();
    if is_set(&primary(old)) && is_set(&old["clusterIP"]) && primary(old) != primary(spec) {
        let why = "may not change once set";
        causes.invalid("spec.ipFamilies[0]", &primary(spec), why);
    }
    let secondary = |spec: &Value| spec["clusterIPs"][1].clone();
    let both = is_set(&secondary(old)) && is_set(&secondary(spec));
    if both && secondary(old) != secondary(spec) {
        causes.invalid("spec.clusterIPs[1]", &secondary(spec), IMMUTABLE);
    }
    let both = needs_health_check_port(old) && needs_health_check_port(spec);
    let (before, after) = (&old["healthCheckNodePort"], &spec["healthCheckNodePort"]);
    if both && before.is_number() && before != after {
        causes.invalid("spec.healthCheckNodePort", after, IMMUTABLE);
    }
}

fn external_name(spec: &Value, causes: &mut Causes) {
    let name = spec["externalName"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.required("spec.externalName", "");
    } else if !is_subdomain(name.strip_suffix('.').unwrap_or(name)) {
        causes.invalid("spec.externalName", &spec["externalName"], SUBDOMAIN);
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let is_empty = match &spec[field] {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if !is_empty {
            let why = "may not be set for ExternalName services";
            causes.forbidden(&format!("spec.{field}"), why);
        }
    }
}

fn cluster_ips(spec: &Value, causes: &mut Causes) {
    let list = spec["clusterIPs"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let Some(first) = list.first() else { return };
    match spec["clusterIP"].as_str() {
        None | Some("") => causes.required("spec.clusterIP", ""),
        Some(ip) if first != ip => causes.invalid(
            "spec.clusterIPs",
            &spec["clusterIPs"],
            "first value must match `clusterIP`",
        ),
        _ => {}
    }
    if is_headless(spec) {
        headless(spec, list, causes);
        return;
    }
    if list.len() > 2 {
        let why = "may only hold up to 2 values";
        causes.invalid("spec.clusterIPs", &spec["clusterIPs"], why);
    }
    let mut seen = BTreeSet::new();
    for (index, (path, value)) in items(&spec["clusterIPs"], "spec.clusterIPs").enumerate() {
        let Some(ip) = ip_address(value, &path, causes) else {
            continue;
        };
        if !seen.insert(family_of(ip)) {
            let why = "may specify no more than one IP for each IP family";
            causes.invalid("spec.clusterIPs", &spec["clusterIPs"], why);
        }
        let expected = spec["ipFamilies"][index].as_str();
        if let Some(expected) = expected.filter(|family| *family != family_of(ip)) {
            let why = format!("expected an {expected} value as indicated by `ipFamilies[{index}]`");
            causes.invalid(&path, value, why);
        }
    }
}

fn headless(spec: &Value, list: &[Value], causes: &mut Causes) {
    if list.len() > 1 {
        let why = "'None' must be the first and only value";
        causes.invalid("spec.clusterIPs", &spec["clusterIPs"], why);
    }
    let kind = spec["type"].as_str().unwrap_or_default();
    if matches!(kind, "NodePort" | "LoadBalancer") {
        let why = format!("may not be set to 'None' for {kind} services");
        causes.invalid("spec.clusterIPs[0]", &spec["clusterIP"], why);
    }
}

fn families(spec: &Value, causes: &mut Causes) {
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    let policy = &spec["ipFamilyPolicy"];
    if !policy.is_null() {
        one_of(policy, "spec.ipFamilyPolicy", &policies, causes);
    }
    let mut seen = BTreeSet::new();
    for (path, family) in items(&spec["ipFamilies"], "spec.ipFamilies") {
        one_of(family, &path, &["IPv4", "IPv6"], causes);
        if !seen.insert(family.as_str()) {
            causes.duplicate(&path, family);
        }
    }
    let is_single = policy.is_null() || policy == "SingleStack";
    for field in ["ipFamilies", "clusterIPs"] {
        let many = spec[field].as_array().is_some_and(|list| list.len() > 1);
        // Without a ClusterIP and selector the endpoints may be of any family.
        let free = policy.is_null() && is_headless(spec) && selector(spec).is_none();
        if many && is_single && !free {
            let why = format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {field} are specified"
            );
            causes.invalid("spec.ipFamilyPolicy", policy, why);
        }
    }
}

fn ports(spec: &Value, causes: &mut Causes) {
    let many = spec["ports"]
        .as_array()
        .is_some_and(|ports| ports.len() > 1);
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (path, port) in items(&spec["ports"], "spec.ports") {
        port_number(&port["port"], &format!("{path}.port"), causes);
        protocol(&port["protocol"], &format!("{path}.protocol"), causes);
        if !numbers.insert((port["port"].as_i64(), port["protocol"].as_str())) {
            let pair = serde_json::json!({"port": port["port"], "protocol": port["protocol"]});
            causes.duplicate(&path, &pair);
        }
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
}

fn node_ports(spec: &Value, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (path, port) in items(&spec["ports"], "spec.ports") {
        let field = format!("{path}.nodePort");
        let number = &port["nodePort"];
        if number.is_null() {
            continue;
        }
        if !needs_node_ports(spec) {
            let kind = spec["type"].as_str().unwrap_or_default();
            let why = format!("may not be used when `type` is '{kind}'");
            causes.forbidden(&field, &why);
            continue;
        }
        port_number(number, &field, causes);
        if !seen.insert((number.as_i64(), port["protocol"].as_str())) {
            causes.duplicate(&field, number);
        }
    }
    let health = &spec["healthCheckNodePort"];
    if health.is_null() {
        return;
    }
    port_number(health, "spec.healthCheckNodePort", causes);
    if !needs_health_check_port(spec) {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is \
                   'Local'";
        causes.invalid("spec.healthCheckNodePort", health, why);
    }
}

/// Longest affinity: a day, in seconds.
const MAX_AFFINITY: i64 = 86_400;

fn affinity(spec: &Value, causes: &mut Causes) {
    let kinds = ["ClientIP", "None"];
    one_of(
        &spec["sessionAffinity"],
        "spec.sessionAffinity",
        &kinds,
        causes,
    );
    let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    let fits = |seconds: i64| (1..=MAX_AFFINITY).contains(&seconds);
    if spec["sessionAffinity"] == "ClientIP" && !seconds.as_i64().is_some_and(fits) {
        let why = format!("must be greater than 0 and less than {MAX_AFFINITY}");
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        causes.invalid(field, seconds, why);
    }
}

fn traffic(spec: &Value, causes: &mut Causes) {
    for field in ["internalTrafficPolicy", "externalTrafficPolicy"] {
        let path = format!("spec.{field}");
        if !spec[field].is_null() {
            one_of(&spec[field], &path, &["Cluster", "Local"], causes);
        }
    }
    let distribution = &spec["trafficDistribution"];
    if !distribution.is_null() {
        let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        one_of(distribution, "spec.trafficDistribution", &known, causes);
    }
    let policy = &spec["externalTrafficPolicy"];
    if !policy.is_null() && !is_externally_reachable(spec) {
        let why = "may only be set for externally-accessible services";
        causes.invalid("spec.externalTrafficPolicy", policy, why);
    }
}

fn reachable_from(spec: &Value, causes: &mut Causes) {
    for (path, value) in items(&spec["externalIPs"], "spec.externalIPs") {
        if let Some(ip) = ip_address(value, &path, causes)
            && let Some(why) = special(ip)
        {
            causes.invalid(&path, value, why);
        }
    }
    let ranges = "spec.loadBalancerSourceRanges";
    for (path, range) in items(&spec["loadBalancerSourceRanges"], ranges) {
        // The API takes blanks around them.
        let text = range.as_str().unwrap_or_default().trim();
        if text.parse::<IpNet>().is_err() {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.invalid(&path, range, why);
        }
    }
    let is_empty = spec["loadBalancerSourceRanges"]
        .as_array()
        .is_none_or(Vec::is_empty);
    if !is_empty && spec["type"] != "LoadBalancer" {
        causes.forbidden(ranges, "may only be used when `type` is 'LoadBalancer'");
    }
}
