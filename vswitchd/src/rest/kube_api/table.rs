//! Tables as kubectl prints them: the API server's columns of each kind.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock;
use crate::objects::{ObjectList, Resource, ResourceInfo};

/// A column: name, type, whether only `-o wide` shows it.
type Column = (&'static str, &'static str, bool);

const fn columns(resource: Resource) -> &'static [Column] {
    match resource {
        Resource::Namespace => &[
            ("Name", "string", false),
            ("Status", "string", false),
            ("Age", "string", false),
        ],
        Resource::Pod => &[
            ("Name", "string", false),
            ("Ready", "string", false),
            ("Status", "string", false),
            ("Restarts", "string", false),
            ("Age", "string", false),
            ("IP", "string", true),
            ("Node", "string", true),
            ("Nominated Node", "string", true),
            ("Readiness Gates", "string", true),
        ],
        Resource::Node => &[
            ("Name", "string", false),
            ("Status", "string", false),
            ("Roles", "string", false),
            ("Age", "string", false),
            ("Version", "string", false),
            ("Internal-IP", "string", true),
        ],
        Resource::Service => &[
            ("Name", "string", false),
            ("Type", "string", false),
            ("Cluster-IP", "string", false),
            ("External-IP", "string", false),
            ("Port(s)", "string", false),
            ("Age", "string", false),
            ("Selector", "string", true),
        ],
        Resource::ServiceAccount | Resource::BaselineAdminNetworkPolicy => {
            &[("Name", "string", false), ("Age", "string", false)]
        }
        Resource::EndpointSlice => &[
            ("Name", "string", false),
            ("AddressType", "string", false),
            ("Ports", "string", false),
            ("Endpoints", "string", false),
            ("Age", "string", false),
        ],
        Resource::NetworkPolicy | Resource::StagedKubernetesNetworkPolicy => &[
            ("Name", "string", false),
            ("Pod-Selector", "string", false),
            ("Age", "string", false),
        ],
        Resource::ClusterNetworkPolicy => &[
            ("Name", "string", false),
            ("Tier", "string", false),
            ("Priority", "string", false),
            ("Age", "string", false),
        ],
        Resource::AdminNetworkPolicy => &[
            ("Name", "string", false),
            ("Priority", "string", false),
            ("Age", "string", false),
        ],
        Resource::CalicoTier => &[
            ("Name", "string", false),
            ("Order", "string", false),
            ("DefaultAction", "string", false),
            ("Age", "string", false),
        ],
        Resource::GlobalNetworkPolicy
        | Resource::CalicoNetworkPolicy
        | Resource::StagedGlobalNetworkPolicy
        | Resource::StagedNetworkPolicy => &[
            ("Name", "string", false),
            ("Tier", "string", false),
            ("Order", "string", false),
            ("Selector", "string", false),
            ("Age", "string", false),
        ],
        Resource::GlobalNetworkSet | Resource::NetworkSet => &[
            ("Name", "string", false),
            ("Nets", "string", false),
            ("Age", "string", false),
        ],
        Resource::Event => &[
            ("Last Seen", "string", false),
            ("Type", "string", false),
            ("Reason", "string", false),
            ("Object", "string", false),
            ("Subobject", "string", true),
            ("Source", "string", true),
            ("Message", "string", false),
            ("First Seen", "string", true),
            ("Count", "string", true),
            ("Name", "string", true),
        ],
        Resource::HostEndpoint => &[
            ("Name", "string", false),
            ("Node", "string", false),
            ("Interface", "string", false),
            ("Age", "string", false),
        ],
    }
}

/// Returns a meta.k8s.io/v1 Table of the objects.
pub(super) fn of(info: &ResourceInfo, list: &ObjectList, include_object: &str) -> Value {
    let rows: Vec<Value> = list
        .items
        .iter()
        .map(|object| {
            let included = match include_object {
                "None" => Value::Null,
                "Object" => (**object).clone(),
                _ => metadata_of(object),
            };
            json!({"cells": cells(info.resource, object), "object": included})
        })
        .collect();
    table(columns(info.resource), &rows, list)
}

fn table(columns: &[Column], rows: &[Value], list: &ObjectList) -> Value {
    let definitions: Vec<Value> = columns
        .iter()
        .map(|(name, kind, wide)| {
            json!({"name": name, "type": kind, "format": if *name == "Name" { "name" } else { "" },
                "description": "", "priority": i32::from(*wide)})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata(list),
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// Returns a ListMeta.
pub(super) fn list_metadata(list: &ObjectList) -> Value {
    let mut metadata = json!({"resourceVersion": list.resource_version.to_string()});
    if let Some(next) = &list.next {
        metadata["continue"] = json!(next.to_token());
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    metadata
}

/// Returns a PartialObjectMetadata.
pub(super) fn metadata_of(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"]})
}

/// Returns a PartialObjectMetadataList.
pub(super) fn metadata_list(list: &ObjectList) -> Value {
    let items: Vec<Value> = list
        .items
        .iter()
        .map(|object| metadata_of(object))
        .collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata(list), "items": items})
}

fn cells(resource: Resource, object: &Value) -> Vec<String> {
    let name = text(&object["metadata"]["name"]);
    let (spec, status) = (&object["spec"], &object["status"]);
    let age = age(&object["metadata"]["creationTimestamp"]);
    match resource {
        Resource::Namespace => vec![name, text(&status["phase"]), age],
        Resource::Pod => {
            let containers = spec["containers"].as_array().map_or(0, Vec::len);
            let ready = if is_ready(status) { containers } else { 0 };
            let phase = if object["metadata"]["deletionTimestamp"].is_null() {
                text(&status["phase"])
            } else {
                "Terminating".to_owned()
            };
            let none = || "<none>".to_owned();
            let (ip, node) = (text(&status["podIP"]), text(&spec["nodeName"]));
            vec![
                name,
                format!("{ready}/{containers}"),
                phase,
                "0".to_owned(),
                age,
                ip,
                node,
                none(),
                none(),
            ]
        }
        Resource::Node => {
            let state = if is_ready(status) { "Ready" } else { "Unknown" };
            let version = text(&status["nodeInfo"]["kubeletVersion"]);
            let addresses = status["addresses"].as_array().into_iter().flatten();
            let mut addresses = addresses.filter(|address| address["type"] == "InternalIP");
            let address = addresses
                .next()
                .map_or(text(&Value::Null), |a| text(&a["address"]));
            vec![
                name,
                state.to_owned(),
                "<none>".to_owned(),
                age,
                version,
                address,
            ]
        }
        Resource::Service => vec![
            name,
            text(&spec["type"]),
            text(&spec["clusterIP"]),
            external_addresses(spec, status),
            joined(&spec["ports"], |port| {
                let (number, protocol) = (&port["port"], text(&port["protocol"]));
                match &port["nodePort"] {
                    Value::Null => format!("{number}/{protocol}"),
                    on_node => format!("{number}:{on_node}/{protocol}"),
                }
            }),
            age,
            pairs(&spec["selector"]),
        ],
        Resource::ServiceAccount | Resource::BaselineAdminNetworkPolicy => vec![name, age],
        Resource::EndpointSlice => vec![
            name,
            text(&object["addressType"]),
            joined(&object["ports"], |port| port["port"].to_string()),
            joined(&object["endpoints"], |endpoint| {
                joined(&endpoint["addresses"], text)
            }),
            age,
        ],
        Resource::NetworkPolicy | Resource::StagedKubernetesNetworkPolicy => {
            vec![name, selector(&spec["podSelector"]), age]
        }
        Resource::ClusterNetworkPolicy => {
            vec![name, text(&spec["tier"]), spec["priority"].to_string(), age]
        }
        Resource::AdminNetworkPolicy => vec![name, spec["priority"].to_string(), age],
        Resource::CalicoTier => vec![name, order(spec), text(&spec["defaultAction"]), age],
        Resource::GlobalNetworkPolicy
        | Resource::CalicoNetworkPolicy
        | Resource::StagedGlobalNetworkPolicy
        | Resource::StagedNetworkPolicy => vec![
            name,
            text(&spec["tier"]),
            order(spec),
            text(&spec["selector"]),
            age,
        ],
        Resource::GlobalNetworkSet | Resource::NetworkSet => {
            vec![name, joined(&spec["nets"], text), age]
        }
        Resource::Event => event(object, name),
        Resource::HostEndpoint => {
            vec![name, text(&spec["node"]), text(&spec["interfaceName"]), age]
        }
    }
}

/// As `printEvent` of the API server.
fn event(event: &Value, name: String) -> Vec<String> {
    let object = &event["involvedObject"];
    let kind = text(&object["kind"]).to_lowercase();
    let source = &event["source"];
    let source = [&source["component"], &source["host"]];
    let source: Vec<&str> = source.into_iter().filter_map(Value::as_str).collect();
    let subobject = object["fieldPath"].as_str().unwrap_or_default();
    vec![
        age(&event["lastTimestamp"]),
        text(&event["type"]),
        text(&event["reason"]),
        format!("{kind}/{}", text(&object["name"])),
        subobject.to_owned(),
        source.join(", "),
        text(&event["message"]).trim().to_owned(),
        age(&event["firstTimestamp"]),
        event["count"].to_string(),
        name,
    ]
}

/// An order; what has none comes last.
fn order(spec: &Value) -> String {
    match &spec["order"] {
        Value::Null => "<none>".to_owned(),
        order => order.to_string(),
    }
}

/// What leads to a Service from outside.
fn external_addresses(spec: &Value, status: &Value) -> String {
    if spec["type"] == "ExternalName" {
        return text(&spec["externalName"]);
    }
    let ingress = status["loadBalancer"]["ingress"].as_array();
    let ingress = ingress
        .into_iter()
        .flatten()
        .filter(|_| spec["type"] == "LoadBalancer");
    let balancers = ingress.filter_map(|to| to["ip"].as_str().or_else(|| to["hostname"].as_str()));
    let external = spec["externalIPs"].as_array().into_iter().flatten();
    let all: Vec<&str> = balancers
        .chain(external.filter_map(Value::as_str))
        .collect();
    match all.as_slice() {
        [] if spec["type"] == "LoadBalancer" => "<pending>".to_owned(),
        [] => text(&Value::Null),
        all => all.join(","),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("<none>").to_owned()
}

fn joined(list: &Value, each: impl Fn(&Value) -> String) -> String {
    match list.as_array() {
        Some(items) if !items.is_empty() => items.iter().map(each).collect::<Vec<_>>().join(","),
        _ => "<none>".to_owned(),
    }
}

fn pairs(map: &Value) -> String {
    match map.as_object() {
        Some(map) if !map.is_empty() => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}={}", text(v)))
                .collect();
            pairs.join(",")
        }
        _ => "<none>".to_owned(),
    }
}

/// As metav1.FormatLabelSelector writes it.
fn selector(selector: &Value) -> String {
    let mut parts = Vec::new();
    if selector["matchLabels"]
        .as_object()
        .is_some_and(|labels| !labels.is_empty())
    {
        parts.push(pairs(&selector["matchLabels"]));
    }
    for expression in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = text(&expression["key"]);
        let values = joined(&expression["values"], text);
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key,
        });
    }
    if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(",")
    }
}

fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Time since then, as kubectl writes it (duration.HumanDuration).
fn age(created: &Value) -> String {
    let Some(created) = created
        .as_str()
        .and_then(|text| text.parse::<Timestamp>().ok())
    else {
        return "<unknown>".to_owned();
    };
    let now = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
    let seconds = now.saturating_sub(created.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => with_rest(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with_rest(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with_rest(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => with_rest(days / 365, "y", days % 365, "d"),
    }
}

fn with_rest(whole: i64, unit: &str, rest: i64, rest_unit: &str) -> String {
    if rest == 0 {
        format!("{whole}{unit}")
    } else {
        format!("{whole}{unit}{rest}{rest_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_cell_for_each_column() {
        for info in crate::objects::RESOURCES
            .iter()
            .chain(&crate::objects::EVENTS)
        {
            let cells = cells(info.resource, &json!({}));
            assert_eq!(cells.len(), columns(info.resource).len(), "{}", info.kind);
        }
    }

    #[test]
    fn services_show_what_leads_to_them() {
        let shown = |service: Value| cells(Resource::Service, &service)[3..5].join(" ");
        let ports = json!([{"port": 80, "nodePort": 30080, "protocol": "TCP"},
            {"port": 53, "protocol": "UDP"}]);
        let mut service = json!({"spec": {"type": "LoadBalancer", "ports": ports}});
        assert_eq!(shown(service.clone()), "<pending> 80:30080/TCP,53/UDP");
        service["status"]["loadBalancer"]["ingress"] = json!([{"ip": "192.0.2.1"}]);
        service["spec"]["externalIPs"] = json!(["192.0.2.2"]);
        assert_eq!(shown(service), "192.0.2.1,192.0.2.2 80:30080/TCP,53/UDP");
        let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
        assert_eq!(shown(named), "example.com <none>");
    }

    #[test]
    fn selectors_are_written_as_kubectl_writes_them() {
        assert_eq!(selector(&json!({})), "<none>");
        let both = json!({"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["x", "y"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(selector(&both), "a=1,b in (x,y),!c");
    }
}
