//! Objects of an API server reduced to the fields that anything here reads, before they are
//! kept anywhere: a Pod of a cluster is ten times as large, and its status changes all the time.

use serde_json::{Map, Value, json};

use super::reduce::POLICY_MODE;
use super::{Family, Resource};

/// Annotations of pods that something here may read.
const POD_ANNOTATIONS: [&str; 2] = ["kubernetes.io/", "vswitch.io/"];

/// Written by kubectl with a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Returns what is kept of an object; what an object lacks is lacking in it too.
#[must_use]
pub fn stripped(resource: Resource, object: &Value) -> Value {
    let kept = selected(object, &mask(resource)).filter(Value::is_object);
    let mut kept = kept.unwrap_or_else(|| json!({}));
    let annotations = kept.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.retain(|key, _| match resource {
            Resource::Pod => POD_ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix)),
            Resource::Node => key != LAST_APPLIED,
            _ => key == POLICY_MODE,
        });
    }
    let info = resource.info();
    kept["apiVersion"] = json!(info.api_version());
    kept["kind"] = json!(info.kind);
    kept
}

/// The fields that are kept: `true` keeps a field whole, and a mask of a list is that of its
/// elements.
fn mask(resource: Resource) -> Value {
    let mut mask = match resource.family() {
        Family::Namespaces | Family::ServiceAccounts => json!({}),
        Family::Nodes => json!({
            "spec": {"podCIDR": true, "podCIDRs": true},
            "status": {"addresses": true},
        }),
        Family::Pods => json!({
            "spec": {"nodeName": true, "hostNetwork": true, "serviceAccountName": true,
                "containers": {"name": true, "image": true, "ports": true},
                "initContainers": {"name": true, "image": true, "ports": true,
                    "restartPolicy": true}},
            "status": {"phase": true, "podIP": true, "podIPs": true},
        }),
        Family::NetworkPolicies | Family::ClusterPolicies(_) => json!({"spec": true}),
        Family::Calico => json!({"spec": true, "stored": true}),
        Family::HostEndpoints => json!({"spec": {"node": true}, "stored": true}),
        Family::Events => json!({}),
        Family::Services => json!({"spec": true, "status": {"loadBalancer": true}}),
        Family::EndpointSlices => json!({"addressType": true, "ports": true,
            "endpoints": {"addresses": true, "conditions": true, "nodeName": true, "hints": true}}),
    };
    mask["metadata"] = json!({"name": true, "namespace": true, "uid": true, "labels": true,
        "creationTimestamp": true, "deletionTimestamp": true});
    // Which of them change how often is not known: but for those that are read they go.
    mask["metadata"]["annotations"] = json!(true);
    mask
}

fn selected(value: &Value, mask: &Value) -> Option<Value> {
    let Some(fields) = mask.as_object() else {
        return Some(value.clone());
    };
    match value {
        Value::Array(items) => Some(
            items
                .iter()
                .filter_map(|item| selected(item, mask))
                .collect(),
        ),
        Value::Object(object) => {
            let pairs = fields
                .iter()
                .filter_map(|(key, mask)| Some((key.clone(), selected(object.get(key)?, mask)?)));
            Some(Value::Object(pairs.collect::<Map<_, _>>()))
        }
        // Not of the kind that the API has here: left out, as what it lacks.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::reduce::present;

    #[test]
    fn what_rules_are_compiled_from_is_kept_and_nothing_else() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "labels": {"app": "web"},
                "managedFields": [{"manager": "kubelet"}], "resourceVersion": "7",
                "annotations": {"kubernetes.io/ingress-bandwidth": "1M", "example.com/x": "y"}},
            "spec": {"nodeName": "node-a", "volumes": [{"name": "token"}],
                "containers": [{"name": "c", "image": "web:1", "env": [{"name": "A"}],
                    "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "lastProbeTime": null}]},
        });
        let kept = stripped(Resource::Pod, &pod);
        let text = kept.to_string();
        for gone in [
            "managedFields",
            "resourceVersion",
            "volumes",
            "env",
            "conditions",
            "x",
        ] {
            assert!(!text.contains(&format!("\"{gone}\"")), "{gone}: {text}");
        }
        assert_eq!(
            kept["metadata"]["annotations"],
            json!({"kubernetes.io/ingress-bandwidth": "1M"})
        );
        let id = (Resource::Pod, "shop".to_owned(), "web".to_owned());
        assert_eq!(present(&id, &kept), present(&id, &pod));
    }

    #[test]
    fn a_heartbeat_of_a_node_changes_nothing() {
        let node = |time: &str| {
            let condition = json!({"type": "Ready", "lastHeartbeatTime": time});
            json!({"metadata": {"name": "n", "resourceVersion": time},
                "spec": {"podCIDRs": ["10.1.0.0/24"]}, "status": {"conditions": [condition]}})
        };
        assert_eq!(
            stripped(Resource::Node, &node("1")),
            stripped(Resource::Node, &node("2"))
        );
    }

    #[test]
    fn objects_of_another_shape_are_no_failure() {
        let list = json!({"metadata": [{"name": "x"}]});
        for odd in [
            list,
            json!(null),
            json!([1]),
            json!({"metadata": "x", "spec": 7, "status": [[]]}),
        ] {
            let kept = stripped(Resource::Pod, &odd);
            assert_eq!(kept["kind"], "Pod", "{odd}");
        }
    }
}
