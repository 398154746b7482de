//! Patches: JSON (RFC 6902), merge (RFC 7386) and strategic merge, as the API server applies them.

use serde_json::{Map, Value};

use super::{PatchKind, StatusError};

/// Returns the object with the patch applied.
///
/// # Errors
/// 400 for a patch that is none, 422 for one that does not fit the object.
pub(super) fn patched(kind: PatchKind, old: &Value, patch: &Value) -> Result<Value, StatusError> {
    let mut object = old.clone();
    match kind {
        PatchKind::Json => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| StatusError::bad_request(format!("not a JSON patch: {error}")))?;
            apply_operations(&mut object, &patch)?;
        }
        PatchKind::Merge => json_patch::merge(&mut object, as_object(patch)?),
        // There are no managed fields: what an applied configuration names is set, lists are
        // merged by their keys, and nothing that it does not name is taken away.
        PatchKind::StrategicMerge | PatchKind::Apply => {
            merge_map(&mut object, as_object(patch)?, "");
        }
    }
    if !object.is_object() {
        return Err(StatusError::bad_request("the patch leaves no object"));
    }
    Ok(object)
}

/// Most operations of a JSON patch; each copy nests the object deeper at worst.
const MAX_OPERATIONS: usize = 1_000;

/// Largest object on the way, bytes: an operation that copies the object into itself doubles it.
const MAX_BYTES: usize = 3 << 20;

fn apply_operations(object: &mut Value, patch: &json_patch::Patch) -> Result<(), StatusError> {
    let refuse = |why: &dyn std::fmt::Display| {
        let message =
            format!("the server rejected our request due to an error in our request: {why}");
        StatusError::plain(422, "Invalid", message)
    };
    if patch.len() > MAX_OPERATIONS {
        let message = format!("a JSON patch may have at most {MAX_OPERATIONS} operations");
        return Err(StatusError::plain(413, "RequestEntityTooLarge", message));
    }
    for operation in patch.iter() {
        json_patch::patch(object, std::slice::from_ref(operation))
            .map_err(|error| refuse(&error))?;
        let copies = matches!(operation, json_patch::PatchOperation::Copy(_));
        if copies && object.to_string().len() > MAX_BYTES {
            return Err(refuse(&"the patch makes the object too large"));
        }
    }
    Ok(())
}

fn as_object(patch: &Value) -> Result<&Value, StatusError> {
    if patch.is_object() {
        return Ok(patch);
    }
    Err(StatusError::bad_request("the patch is not a JSON object"))
}

/// Lists of the served kinds that are merged by a key, by the name of their field (patchMergeKey
/// in Kubernetes' types). Others are replaced.
fn merge_keys(parent: &str, field: &str, list: &[Value]) -> &'static [&'static str] {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims" => &["name"],
        "conditions" => &["type"],
        "addresses" => &["type"],
        "podIPs" | "hostIPs" | "hostAliases" => &["ip"],
        "ownerReferences" => &["uid"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        "topologySpreadConstraints" => &["topologyKey"],
        // Container ports have containerPort, a Service has its ports in its spec; the lists of
        // NetworkPolicy and EndpointSlice have no merge key and are replaced.
        "ports" if list.iter().any(|port| port.get("containerPort").is_some()) => {
            &["containerPort", "protocol"]
        }
        "ports" if parent == "spec" => &["port", "protocol"],
        _ => &[],
    }
}

/// Lists of plain values that are merged as sets.
fn is_set(field: &str) -> bool {
    matches!(field, "finalizers")
}

fn merge_map(target: &mut Value, patch: &Value, own_field: &str) {
    let Some(patch) = patch.as_object() else {
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let rest = patch.iter().filter(|(key, _)| !key.starts_with('$'));
            *target = Value::Object(rest.map(|(k, v)| (k.clone(), v.clone())).collect());
            return;
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return;
        }
        _ => {}
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    retain_keys(fields, patch);
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            delete_from_list(fields.get_mut(field), value);
        } else if key.starts_with('$') {
            // Directives about order and retained keys are no fields.
        } else if value.is_null() {
            fields.remove(key);
        } else {
            merge_field(fields, own_field, key, value);
        }
    }
}

fn retain_keys(fields: &mut Map<String, Value>, patch: &Map<String, Value>) {
    if let Some(keys) = patch.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|key, _| keys.iter().any(|kept| kept == key));
    }
}

fn delete_from_list(list: Option<&mut Value>, doomed: &Value) {
    if let (Some(list), Some(doomed)) = (list.and_then(Value::as_array_mut), doomed.as_array()) {
        list.retain(|value| !doomed.contains(value));
    }
}

fn merge_field(fields: &mut Map<String, Value>, parent: &str, key: &str, value: &Value) {
    match value {
        Value::Object(_) => {
            let target = fields
                .entry(key)
                .or_insert_with(|| Value::Object(Map::new()));
            merge_map(target, value, key);
        }
        Value::Array(patch) => {
            let old = fields
                .get(key)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            fields.insert(
                key.to_owned(),
                Value::Array(merged_list(parent, key, old, patch)),
            );
        }
        _ => {
            fields.insert(key.to_owned(), value.clone());
        }
    }
}

fn merged_list(parent: &str, field: &str, old: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    if is_set(field) {
        let mut list = old;
        for value in patch {
            if !list.contains(value) {
                list.push(value.clone());
            }
        }
        return list;
    }
    let keys = merge_keys(parent, field, patch);
    let replaces = patch.iter().any(|item| item["$patch"] == "replace");
    if keys.is_empty() || replaces {
        let items = patch.iter().filter(|item| item.get("$patch").is_none());
        return items.cloned().collect();
    }
    let mut list = old;
    for item in patch {
        let same = |other: &Value| keys.iter().all(|key| same_key(key, other, item));
        let position = list.iter().position(same);
        match (item["$patch"].as_str(), position) {
            (Some("delete"), Some(position)) => {
                list.remove(position);
            }
            (Some("delete"), None) => {}
            (_, Some(position)) => merge_map(&mut list[position], item, ""),
            (_, None) => {
                let mut fresh = Value::Object(Map::new());
                merge_map(&mut fresh, item, "");
                list.push(fresh);
            }
        }
    }
    list
}

/// An absent protocol is TCP in every list that has one.
fn same_key(key: &str, a: &Value, b: &Value) -> bool {
    let value = |item: &Value| match &item[key] {
        Value::Null if key == "protocol" => Value::from("TCP"),
        other => other.clone(),
    };
    value(a) == value(b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(kind: PatchKind, old: Value, patch: Value) -> Value {
        patched(kind, &old, &patch).unwrap()
    }

    #[test]
    fn merge_patch_sets_and_removes_labels() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let new = apply(
            PatchKind::Merge,
            old,
            json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
        );
        assert_eq!(new, json!({"metadata": {"labels": {"b": "2", "c": "3"}}}));
    }

    #[test]
    fn json_patch_is_applied_or_refused_as_a_whole() {
        let old = json!({"a": 1});
        let patch = json!([{"op": "replace", "path": "/a", "value": 2}]);
        assert_eq!(apply(PatchKind::Json, old.clone(), patch), json!({"a": 2}));
        let missing = json!([{"op": "remove", "path": "/b"}]);
        assert_eq!(
            patched(PatchKind::Json, &old, &missing).unwrap_err().code,
            422
        );
        assert_eq!(
            patched(PatchKind::Json, &old, &json!({"a": 2}))
                .unwrap_err()
                .code,
            400
        );
    }

    #[test]
    fn strategic_merge_finds_list_items_by_their_keys() {
        let old = json!({"spec": {"containers": [
            {"name": "a", "image": "x", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            {"name": "b", "image": "y"}]}});
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [
            {"name": "a", "image": "z", "ports": [{"containerPort": 80, "name": "web"},
                {"containerPort": 80, "protocol": "UDP"}]},
            {"name": "b", "$patch": "delete"}, {"name": "c"}]}});
        let new = apply(PatchKind::StrategicMerge, old, patch);
        assert_eq!(
            new,
            json!({"spec": {"containers": [
            {"name": "a", "image": "z", "ports": [
                {"containerPort": 80, "protocol": "TCP", "name": "web"},
                {"containerPort": 80, "protocol": "UDP"}]},
            {"name": "c"}]}})
        );
    }

    #[test]
    fn strategic_merge_replaces_lists_without_a_key_and_follows_directives() {
        let old = json!({"spec": {"ingress": [{"from": []}], "podSelector": {"matchLabels": {"a": "1"}}},
            "metadata": {"finalizers": ["x", "y"]}});
        let patch = json!({"spec": {"ingress": [{}],
                "podSelector": {"$patch": "replace", "matchLabels": {"b": "2"}}},
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["x"], "finalizers": ["z"]}});
        let new = apply(PatchKind::StrategicMerge, old, patch);
        assert_eq!(
            new["spec"],
            json!({"ingress": [{}], "podSelector": {"matchLabels": {"b": "2"}}})
        );
        let finalizers = new["metadata"]["finalizers"].as_array().unwrap();
        assert!(finalizers.contains(&json!("y")) && finalizers.contains(&json!("z")));
        assert!(!finalizers.contains(&json!("x")));
    }

    #[test]
    fn strategic_merge_keeps_the_ports_of_a_service_that_the_patch_does_not_name() {
        let old = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 53}]}});
        let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
        let new = apply(PatchKind::StrategicMerge, old, patch);
        let ports = json!([{"port": 80, "protocol": "TCP", "targetPort": 8080}, {"port": 53}]);
        assert_eq!(new["spec"]["ports"], ports);
    }

    #[test]
    fn a_json_patch_that_doubles_the_object_again_and_again_is_refused() {
        let double = |n| json!({"op": "copy", "from": "", "path": format!("/x{n}")});
        let patch: Value = (0..64).map(double).collect();
        let old = json!({"a": "y".repeat(100)});
        assert_eq!(
            patched(PatchKind::Json, &old, &patch).unwrap_err().code,
            422
        );
        let test = json!({"op": "test", "path": "/a", "value": old["a"]});
        let many = Value::Array(vec![test; MAX_OPERATIONS + 1]);
        assert_eq!(patched(PatchKind::Json, &old, &many).unwrap_err().code, 413);
    }
}
