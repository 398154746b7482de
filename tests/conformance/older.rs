//! ClusterNetworkPolicies written in the form of the kinds before them, `v1alpha1`. Tests of the
//! policy compiler use it as well.

use serde_json::{Map, Value, json};

/// Returns kind, name and spec of what means the same, if it can be written. `is_last`: no other
/// policy of tier Baseline comes behind it.
pub(crate) fn older(
    name: &str,
    spec: &Value,
    is_last: bool,
) -> Option<(&'static str, String, Value)> {
    let is_admin = spec["tier"] == "Admin";
    let mut written = Map::new();
    for (field, value) in spec.as_object()? {
        let value = match field.as_str() {
            "tier" => continue,
            "priority" if !is_admin => continue,
            "subject" => peer(value),
            "ingress" | "egress" => rules(value),
            _ => value.clone(),
        };
        written.insert(field.clone(), value);
    }
    let written = Value::Object(written);
    if is_admin {
        return Some(("AdminNetworkPolicy", name.to_owned(), written));
    }
    let mut rules = ["ingress", "egress"].into_iter();
    let passes = rules.any(|direction| {
        let rules = spec[direction].as_array();
        rules.is_some_and(|rules| rules.iter().any(|rule| rule["action"] == "Pass"))
    });
    let kind = "BaselineAdminNetworkPolicy";
    (is_last && !passes).then(|| (kind, "default".to_owned(), written))
}

fn each(list: &Value, of: impl Fn(&Value) -> Value) -> Value {
    list.as_array().into_iter().flatten().map(of).collect()
}

fn rules(list: &Value) -> Value {
    each(list, |rule| {
        let fields = rule.as_object().into_iter().flatten();
        let fields = fields.map(|(field, value)| match field.as_str() {
            "action" if value == "Accept" => (field.clone(), json!("Allow")),
            "from" | "to" => (field.clone(), each(value, peer)),
            "protocols" => ("ports".to_owned(), each(value, port)),
            _ => (field.clone(), value.clone()),
        });
        Value::Object(fields.collect())
    })
}

/// `namespaceSelector` has to be there.
fn peer(peer: &Value) -> Value {
    let mut peer = peer.clone();
    if let Some(pods) = peer.get_mut("pods").and_then(Value::as_object_mut) {
        pods.entry("namespaceSelector").or_insert_with(|| json!({}));
    }
    peer
}

/// What is unknown in the one form is so in the other.
fn port(entry: &Value) -> Value {
    if let Some(name) = entry.get("destinationNamedPort") {
        return json!({ "namedPort": name });
    }
    let of = [("tcp", "TCP"), ("udp", "UDP"), ("sctp", "SCTP")];
    let known = of.iter().find(|(field, _)| entry.get(field).is_some());
    let Some((field, protocol)) = known else {
        return entry.clone();
    };
    let mut port = entry[field].clone();
    let numbers = port
        .as_object_mut()
        .and_then(|port| port.remove("destinationPort"));
    let numbers = numbers.unwrap_or_default();
    port["protocol"] = json!(protocol);
    match numbers.get("range") {
        None => {
            port["port"] = numbers["number"].clone();
            json!({ "portNumber": port })
        }
        Some(range) => {
            port["start"] = range["start"].clone();
            port["end"] = range["end"].clone();
            json!({ "portRange": port })
        }
    }
}
