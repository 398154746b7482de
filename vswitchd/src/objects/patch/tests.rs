//! Patches against what the API server makes of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::patched::{MAX_OPERATIONS, patched};
use crate::objects::schema::{Type, root};
use crate::objects::{PatchKind, RESOURCES, Resource};

fn type_of(resource: Resource) -> &'static Type {
    root(resource.info())
}

fn apply(kind: PatchKind, old: Value, patch: Value) -> Value {
    patched(kind, type_of(Resource::Pod), &old, &patch).unwrap()
}

fn merged(resource: Resource, old: Value, patch: Value) -> Value {
    patched(PatchKind::StrategicMerge, type_of(resource), &old, &patch).unwrap()
}

fn refused(resource: Resource, old: Value, patch: Value) -> String {
    let error = patched(PatchKind::StrategicMerge, type_of(resource), &old, &patch).unwrap_err();
    assert_eq!(error.code, 400, "{error}");
    error.message
}

fn ports(ports: Value) -> Value {
    json!({"spec": {"ports": ports}})
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
    let code = |patch: Value| {
        let refused = patched(PatchKind::Json, type_of(Resource::Pod), &old, &patch);
        refused.unwrap_err().code
    };
    assert_eq!(code(json!([{"op": "remove", "path": "/b"}])), 422);
    assert_eq!(code(json!({"a": 2})), 400);
}

#[test]
fn a_json_patch_that_doubles_the_object_again_and_again_is_refused() {
    let double = |n| json!({"op": "copy", "from": "", "path": format!("/x{n}")});
    let old = json!({"a": "y".repeat(100)});
    let code = |patch: Value| {
        let refused = patched(PatchKind::Json, type_of(Resource::Pod), &old, &patch);
        refused.unwrap_err().code
    };
    assert_eq!(code((0..64).map(double).collect()), 422);
    let test = json!({"op": "test", "path": "/a", "value": old["a"]});
    assert_eq!(code(Value::Array(vec![test; MAX_OPERATIONS + 1])), 413);
}

#[test]
fn strategic_merge_finds_list_items_by_their_keys() {
    let old = json!({"spec": {"containers": [
        {"name": "a", "image": "x", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
        {"name": "b", "image": "y"}]}});
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
        "containers": [{"name": "a", "image": "z", "ports": [{"containerPort": 80, "name": "web"},
            {"containerPort": 81, "protocol": "UDP"}]},
        {"name": "b", "$patch": "delete"}, {"name": "c"}]}});
    let new = json!({"spec": {"containers": [
        {"name": "a", "image": "z", "ports": [
            {"containerPort": 80, "protocol": "TCP", "name": "web"},
            {"containerPort": 81, "protocol": "UDP"}]},
        {"name": "c"}]}});
    assert_eq!(merged(Resource::Pod, old, patch), new);
}

#[test]
fn ports_are_merged_by_their_number_alone() {
    let old = ports(json!([{"port": 53, "protocol": "TCP", "targetPort": 5353}]));
    let patch = ports(json!([{"port": 53, "protocol": "UDP"}]));
    assert_eq!(
        merged(Resource::Service, old, patch),
        ports(json!([{"port": 53, "protocol": "UDP", "targetPort": 5353}]))
    );
    let containers =
        |ports: Value| json!({"spec": {"containers": [{"name": "a", "ports": ports}]}});
    let old = containers(json!([{"containerPort": 53, "protocol": "TCP", "name": "dns"}]));
    let patch = containers(json!([{"containerPort": 53, "protocol": "UDP"}]));
    assert_eq!(
        merged(Resource::Pod, old, patch),
        containers(json!([{"containerPort": 53, "protocol": "UDP", "name": "dns"}]))
    );
}

/// What kubectl sends when the protocol of a port changes in an applied manifest.
#[test]
fn an_applied_change_of_protocol_leaves_one_port() {
    let old = ports(json!([{"port": 53, "protocol": "TCP", "targetPort": 5353}]));
    let patch = json!({"spec": {"$setElementOrder/ports": [{"port": 53}],
        "ports": [{"port": 53, "protocol": "UDP", "targetPort": null}]}});
    assert_eq!(
        merged(Resource::Service, old, patch),
        ports(json!([{"port": 53, "protocol": "UDP"}]))
    );
}

/// Both have the same merge key, so a deletion by it means both, as in Kubernetes; the patch
/// brings back what it names.
#[test]
fn a_deletion_by_key_concerns_every_element_of_that_key() {
    let both =
        json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80}]);
    let patch = ports(json!([{"port": 53, "$patch": "delete"}]));
    let new = merged(Resource::Service, ports(both.clone()), patch);
    assert_eq!(new, ports(json!([{"port": 80}])));
    let patch = ports(json!([{"port": 53, "$patch": "delete"}, {"port": 53, "protocol": "TCP"}]));
    let new = merged(Resource::Service, ports(both), patch);
    assert_eq!(new["spec"]["ports"].as_array().unwrap().len(), 2);
}

#[test]
fn strategic_merge_keeps_the_ports_of_a_service_that_the_patch_does_not_name() {
    let old = ports(json!([{"port": 80, "protocol": "TCP"}, {"port": 53}]));
    let patch = ports(json!([{"port": 80, "targetPort": 8080}]));
    let new = json!([{"port": 80, "protocol": "TCP", "targetPort": 8080}, {"port": 53}]);
    assert_eq!(merged(Resource::Service, old, patch), ports(new));
}

#[test]
fn lists_without_a_key_are_replaced() {
    let policy = |ingress: Value| json!({"spec": {"ingress": ingress}});
    let old = policy(json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]));
    for patch in [json!([{}]), json!([{"$patch": "replace"}, {}])] {
        let new = merged(Resource::NetworkPolicy, old.clone(), policy(patch));
        assert_eq!(new, policy(json!([{}])));
    }
    let message = refused(
        Resource::NetworkPolicy,
        old,
        policy(json!([{}, {"$patch": "delete"}])),
    );
    assert!(message.contains("spec.ingress[1].$patch: "), "{message}");
}

#[test]
fn directives_replace_and_empty_maps() {
    let old = json!({"spec": {"podSelector": {"matchLabels": {"a": "1"}}}});
    let selector = |selector: Value| json!({"spec": {"podSelector": selector}});
    let replaced = selector(json!({"$patch": "replace", "matchLabels": {"b": "2"}}));
    let new = merged(Resource::NetworkPolicy, old.clone(), replaced.clone());
    assert_eq!(new, selector(json!({"matchLabels": {"b": "2"}})));
    let new = merged(Resource::NetworkPolicy, json!({}), replaced);
    assert_eq!(new, selector(json!({"matchLabels": {"b": "2"}})));
    let new = merged(
        Resource::NetworkPolicy,
        old.clone(),
        selector(json!({"$patch": "delete", "matchLabels": {"c": "3"}})),
    );
    assert_eq!(new, selector(json!({})));
    for odd in [json!("merge"), json!(7), json!(null)] {
        let patch = selector(json!({"$patch": odd}));
        let message = refused(Resource::NetworkPolicy, old.clone(), patch);
        assert!(message.contains("spec.podSelector.$patch: "), "{message}");
    }
}

#[test]
fn a_list_with_a_key_is_replaced_when_an_element_says_so() {
    let old = ports(json!([{"port": 80, "nodePort": 30080}, {"port": 53}]));
    let patch = ports(json!([{"port": 80}, {"$patch": "replace"}]));
    assert_eq!(
        merged(Resource::Service, old.clone(), patch),
        ports(json!([{"port": 80}]))
    );
    for (patch, field) in [
        (json!([{"protocol": "UDP"}]), "spec.ports[0]: "),
        (
            json!([{"port": 80}, {"$patch": "delete"}]),
            "spec.ports[1]: ",
        ),
        (
            json!([{"port": 80, "$patch": "merge"}]),
            "spec.ports[0].$patch: ",
        ),
        (
            json!([{"port": 80, "$patch": ["x"]}]),
            "spec.ports[0].$patch: ",
        ),
        (json!(["x"]), "spec.ports[0]: "),
    ] {
        let message = refused(Resource::Service, old.clone(), ports(patch));
        assert!(message.contains(field), "{message}");
    }
}

#[test]
fn values_come_and_go_in_sets_of_values() {
    let old = json!({"metadata": {"finalizers": ["x", "y"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"],
        "$setElementOrder/finalizers": ["z", "y"], "finalizers": ["z"]}});
    let new = merged(Resource::NetworkPolicy, old.clone(), patch);
    assert_eq!(new, json!({"metadata": {"finalizers": ["z", "y"]}}));
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}});
    let message = refused(Resource::NetworkPolicy, old, patch);
    assert!(
        message.contains("metadata.$deleteFromPrimitiveList/finalizers: must be a list"),
        "{message}"
    );
}

#[test]
fn elements_are_put_into_the_order_that_the_patch_asks_for() {
    let containers = |names: &[&str]| -> Value {
        let items: Value = names.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"containers": items}})
    };
    let order = |names: &[&str], more: &[&str]| {
        let mut patch = containers(more);
        patch["spec"]["$setElementOrder/containers"] =
            containers(names)["spec"]["containers"].clone();
        patch
    };
    let old = containers(&["a", "server", "b"]);
    let new = merged(Resource::Pod, old.clone(), order(&["b", "a"], &[]));
    // It stood before `b`, and stays there.
    assert_eq!(new, containers(&["server", "b", "a"]));
    let new = merged(
        Resource::Pod,
        old.clone(),
        order(&["new", "a", "b"], &["new"]),
    );
    assert_eq!(new, containers(&["new", "a", "server", "b"]));
    let message = refused(Resource::Pod, old, order(&["a"], &["b"]));
    assert!(
        message.contains("spec.containers.$setElementOrder/"),
        "{message}"
    );
}

#[test]
fn fields_that_are_not_retained_go() {
    let volume = |source: Value| json!({"spec": {"volumes": [source]}});
    let old = volume(json!({"name": "v", "emptyDir": {}}));
    let patch = volume(json!({"name": "v", "hostPath": {"path": "/x"},
        "$retainKeys": ["name", "hostPath"]}));
    let new = merged(Resource::Pod, old.clone(), patch);
    assert_eq!(
        new,
        volume(json!({"name": "v", "hostPath": {"path": "/x"}}))
    );
    let forgotten = volume(json!({"name": "v", "hostPath": {}, "$retainKeys": ["name"]}));
    let message = refused(Resource::Pod, old, forgotten);
    assert!(
        message.contains("spec.volumes[0].$retainKeys: "),
        "{message}"
    );
}

/// How a list is merged, as Kubernetes' OpenAPI says it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Merge {
    Replaced,
    Scalars,
    By(String),
}

/// Finds the lists below a definition: their path and how they are merged.
fn lists(
    definitions: &BTreeMap<String, Value>,
    schema: &Value,
    path: &[String],
    trail: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, Merge)>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap().to_owned();
        if trail.contains(&name) {
            return;
        }
        trail.push(name.clone());
        lists(definitions, &definitions[&name], path, trail, found);
        trail.pop();
        return;
    }
    for (field, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = [path, std::slice::from_ref(field)].concat();
        if property["type"] == "array" {
            let strategy = property["x-kubernetes-patch-strategy"]
                .as_str()
                .unwrap_or_default();
            let merge = match property["x-kubernetes-patch-merge-key"].as_str() {
                _ if !strategy.starts_with("merge") => Merge::Replaced,
                Some(key) => Merge::By(key.to_owned()),
                None => Merge::Scalars,
            };
            found.push((path.clone(), merge));
            // Elements are reached by their merge key alone.
            if let Some(key) = property["x-kubernetes-patch-merge-key"].as_str() {
                let path = [&path[..], &[format!("[{key}]")]].concat();
                lists(definitions, &property["items"], &path, trail, found);
            }
        } else {
            lists(definitions, property, &path, trail, found);
        }
    }
}

/// Puts a value at the end of a path; `[key]` is an element with this key.
fn nested(path: &[String], value: &Value) -> Value {
    match path {
        [] => value.clone(),
        [first, rest @ ..] => match first
            .strip_prefix('[')
            .and_then(|key| key.strip_suffix(']'))
        {
            Some(key) => {
                let mut item = nested(rest, value);
                item[key] = json!("same");
                json!([item])
            }
            None => json!({first: nested(rest, value)}),
        },
    }
}

#[test]
fn every_list_of_every_kind_is_merged_as_kubernetes_openapi_says() {
    let definitions = crate::objects::definitions();
    let mut counts = (0, 0, 0);
    for info in &RESOURCES {
        let mut found = Vec::new();
        let name = crate::objects::schema::definition_of(info);
        lists(
            &definitions,
            &definitions[&name],
            &[],
            &mut vec![name.clone()],
            &mut found,
        );
        for (path, merge) in found {
            let (old, patch, new) = match &merge {
                Merge::Replaced => {
                    counts.0 += 1;
                    (json!(["a", "b"]), json!(["c"]), json!(["c"]))
                }
                Merge::Scalars => {
                    counts.1 += 1;
                    (json!(["a", "b"]), json!(["c"]), json!(["c", "a", "b"]))
                }
                Merge::By(key) => {
                    counts.2 += 1;
                    let old = json!([{key: 1, "protocol": "TCP", "x": 1}, {key: 2, "x": 2}]);
                    let patch = json!([{key: 1, "protocol": "UDP"}]);
                    let new = json!([{key: 1, "protocol": "UDP", "x": 1}, {key: 2, "x": 2}]);
                    (old, patch, new)
                }
            };
            let result = merged(info.resource, nested(&path, &old), nested(&path, &patch));
            assert_eq!(
                result,
                nested(&path, &new),
                "{} {path:?} {merge:?}",
                info.kind
            );
        }
    }
    assert!(
        counts.0 > 100 && counts.1 > 5 && counts.2 > 30,
        "{counts:?}"
    );
}

/// The keys that Kubernetes' documentation names (patchMergeKey in `k8s.io/api`), beside the
/// embedded description.
#[test]
fn the_embedded_description_has_the_documented_merge_keys() {
    let documented = [
        (Resource::Service, "spec.ports", "port"),
        (Resource::Service, "status.conditions", "type"),
        (Resource::Pod, "metadata.ownerReferences", "uid"),
        (Resource::Pod, "spec.containers", "name"),
        (
            Resource::Pod,
            "spec.containers.[name].ports",
            "containerPort",
        ),
        (Resource::Pod, "spec.containers.[name].env", "name"),
        (
            Resource::Pod,
            "spec.containers.[name].volumeMounts",
            "mountPath",
        ),
        (
            Resource::Pod,
            "spec.containers.[name].volumeDevices",
            "devicePath",
        ),
        (Resource::Pod, "spec.volumes", "name"),
        (Resource::Pod, "spec.imagePullSecrets", "name"),
        (Resource::Pod, "spec.hostAliases", "ip"),
        (
            Resource::Pod,
            "spec.topologySpreadConstraints",
            "topologyKey",
        ),
        (Resource::Pod, "status.podIPs", "ip"),
        (Resource::Pod, "status.conditions", "type"),
        (Resource::Node, "status.addresses", "type"),
        (Resource::Node, "status.conditions", "type"),
        (Resource::Namespace, "status.conditions", "type"),
    ];
    for (resource, path, key) in documented {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let old = nested(&path, &json!([{key: "1", "x": 1}]));
        let new = merged(resource, old, nested(&path, &json!([{key: "1", "y": 2}])));
        assert_eq!(
            new,
            nested(&path, &json!([{key: "1", "x": 1, "y": 2}])),
            "{path:?}"
        );
    }
}
