//! Defaults as the API server sets them (the kinds' `SetDefaults_*` in Kubernetes).

use serde_json::{Value, json};

use super::Resource;
use super::services::{drop_zeros, is_externally_reachable};

/// Completes an object; `node_name` is where a pod is that does not say so itself.
pub(super) fn complete(resource: Resource, object: &mut Value, node_name: &str) {
    match resource {
        Resource::Namespace => namespace(object),
        Resource::Pod => pod(object, node_name),
        Resource::Node
        | Resource::ServiceAccount
        | Resource::ClusterNetworkPolicy
        | Resource::GlobalNetworkSet
        | Resource::NetworkSet
        | Resource::HostEndpoint
        | Resource::Event => {}
        Resource::AdminNetworkPolicy | Resource::BaselineAdminNetworkPolicy => {
            admin_network_policy(object);
        }
        Resource::StagedKubernetesNetworkPolicy => staged(object),
        Resource::GlobalNetworkPolicy | Resource::CalicoNetworkPolicy => calico_policy(object),
        Resource::StagedGlobalNetworkPolicy | Resource::StagedNetworkPolicy => {
            staged(object);
            calico_policy(object);
        }
        Resource::CalicoTier => set_default(&mut object["spec"], "defaultAction", json!("Deny")),
        Resource::Service => service(object),
        Resource::EndpointSlice => endpoint_slice(object),
        Resource::NetworkPolicy => network_policy(object),
    }
}

fn set_default(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() {
        object[field] = value;
    }
}

fn staged(object: &mut Value) {
    set_default(&mut object["spec"], "stagedAction", json!("Set"));
}

/// As Calico's API does: without types those of the rules, and ingress without egress rules.
fn calico_policy(object: &mut Value) {
    let spec = &mut object["spec"];
    set_default(spec, "tier", json!("default"));
    let has = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    if !has(&spec["types"]) {
        spec["types"] = match (has(&spec["ingress"]), has(&spec["egress"])) {
            (true, true) => json!(["Ingress", "Egress"]),
            (false, true) => json!(["Egress"]),
            (_, false) => json!(["Ingress"]),
        };
    }
}

/// As the CRDs do: ports are TCP's.
fn admin_network_policy(object: &mut Value) {
    for direction in ["ingress", "egress"] {
        let rules = object["spec"].get_mut(direction);
        let rules = rules.and_then(Value::as_array_mut).into_iter().flatten();
        let ports = rules.filter_map(|rule| rule.get_mut("ports")?.as_array_mut());
        for port in ports.flatten() {
            for form in ["portNumber", "portRange"] {
                if let Some(port) = port.get_mut(form).filter(|port| port.is_object()) {
                    set_default(port, "protocol", json!("TCP"));
                }
            }
        }
    }
}

fn set_protocols(ports: &mut Value) {
    for port in ports.as_array_mut().into_iter().flatten() {
        set_default(port, "protocol", json!("TCP"));
    }
}

fn namespace(object: &mut Value) {
    // NamespaceDefaultLabelName of Kubernetes 1.21 and later.
    let name = object["metadata"]["name"].clone();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    set_default(&mut object["spec"], "finalizers", json!(["kubernetes"]));
    set_default(&mut object["status"], "phase", json!("Active"));
}

fn pod(object: &mut Value, node_name: &str) {
    let spec = &mut object["spec"];
    let fields = [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
    ];
    for (field, value) in fields {
        set_default(spec, field, value);
    }
    // There is no scheduler: a pod that names no node is for this one.
    if !node_name.is_empty() {
        set_default(spec, "nodeName", json!(node_name));
    }
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            set_default(container, "imagePullPolicy", json!("IfNotPresent"));
            set_default(
                container,
                "terminationMessagePath",
                json!("/dev/termination-log"),
            );
            set_default(container, "terminationMessagePolicy", json!("File"));
            if container["ports"].is_array() {
                set_protocols(&mut container["ports"]);
            }
        }
        if spec[list].is_null() {
            spec.as_object_mut().map(|spec| spec.remove(list));
        }
    }
    set_default(&mut object["status"], "phase", json!("Pending"));
}

fn service(object: &mut Value) {
    let spec = &mut object["spec"];
    drop_zeros(spec);
    set_default(spec, "type", json!("ClusterIP"));
    set_default(spec, "sessionAffinity", json!("None"));
    if spec["type"] != "ExternalName" {
        set_default(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    list_cluster_ip(spec);
    if is_externally_reachable(spec) {
        set_default(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if spec["type"] == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    affinity(spec);
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        set_default(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        set_default(port, "targetPort", number);
    }
    if spec["ports"].is_null() {
        spec.as_object_mut().map(|spec| spec.remove("ports"));
    }
    if object["status"].is_null() {
        object["status"] = json!({"loadBalancer": {}});
    }
}

/// The single address of clients that know no list of them.
fn list_cluster_ip(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else {
        return;
    };
    let ip = fields.get("clusterIP").and_then(Value::as_str);
    let ip = ip.filter(|ip| !ip.is_empty()).map(str::to_owned);
    let list = fields.get("clusterIPs").and_then(Value::as_array);
    let is_empty = list.is_none_or(Vec::is_empty);
    match ip {
        Some(ip) if is_empty => {
            fields.insert("clusterIPs".to_owned(), json!([ip]));
        }
        None if is_empty => {
            fields.remove("clusterIP");
            fields.remove("clusterIPs");
        }
        _ => {}
    }
}

fn affinity(spec: &mut Value) {
    if spec["sessionAffinity"] == "ClientIP" {
        let client = &mut spec["sessionAffinityConfig"]["clientIP"];
        set_default(client, "timeoutSeconds", json!(10_800));
    } else if spec["sessionAffinity"] == "None" {
        spec.as_object_mut()
            .map(|spec| spec.remove("sessionAffinityConfig"));
    }
}

fn endpoint_slice(object: &mut Value) {
    let ports = object.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        set_default(port, "name", json!(""));
        set_default(port, "protocol", json!("TCP"));
    }
}

fn network_policy(object: &mut Value) {
    let spec = &mut object["spec"];
    set_default(spec, "podSelector", json!({}));
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        let has_egress = spec["egress"]
            .as_array()
            .is_some_and(|rules| !rules.is_empty());
        let types = if has_egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
        spec["policyTypes"] = types;
    }
    for direction in ["ingress", "egress"] {
        let Some(rules) = spec.get_mut(direction).and_then(Value::as_array_mut) else {
            continue;
        };
        for rule in rules {
            if rule["ports"].is_array() {
                set_protocols(&mut rule["ports"]);
            } else {
                rule.as_object_mut().map(|rule| rule.remove("ports"));
            }
        }
    }
}
