//! Server-side apply against a registry, as the API server answers it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::objects::tests::kit::{V4, create, open, registry};
use crate::objects::{PatchKind, Registry, Resource, StatusError, WriteOptions};
use crate::store::MemoryStore;

fn by(manager: &str) -> WriteOptions {
    WriteOptions {
        manager: manager.to_owned(),
        ..WriteOptions::default()
    }
}

fn forced(manager: &str) -> WriteOptions {
    WriteOptions {
        force: true,
        ..by(manager)
    }
}

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
}

fn policy(selector: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "web"}, "spec": {"podSelector": {"matchLabels": selector}}})
}

fn labelled(labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": labels}})
}

fn try_apply(
    registry: &Registry,
    config: &Value,
    options: &WriteOptions,
) -> Result<Arc<Value>, StatusError> {
    let resource = match config["kind"].as_str() {
        Some("NetworkPolicy") => Resource::NetworkPolicy,
        Some("Pod") => Resource::Pod,
        _ => Resource::Service,
    };
    let written = registry.apply(resource, "default", "web", config, options);
    written.map(|written| written.object)
}

fn apply(registry: &Registry, config: &Value, manager: &str) -> Arc<Value> {
    try_apply(registry, config, &by(manager)).unwrap()
}

fn patch(registry: &Registry, manager: &str, patch: Value) -> Arc<Value> {
    let (resource, kind) = (Resource::Service, PatchKind::Merge);
    let written = registry.patch(resource, "default", "web", kind, &patch, by(manager));
    written.unwrap().object
}

/// `MANAGER OPERATION` and the fields of each entry.
fn owners(object: &Value) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let pairs = entries.iter().map(|entry| {
        let text = |field: &str| entry[field].as_str().unwrap().to_owned();
        assert_eq!(text("fieldsType"), "FieldsV1");
        (
            format!("{} {}", text("manager"), text("operation")),
            entry["fieldsV1"].clone(),
        )
    });
    Value::Object(pairs.collect())
}

#[test]
fn what_a_configuration_no_longer_names_is_taken_away() {
    let registry = registry(V4);
    let first = apply(
        &registry,
        &policy(json!({"app": "web", "tier": "x"})),
        "gitops",
    );
    assert_eq!(
        owners(&first),
        json!({"gitops Apply": {"f:spec": {"f:podSelector": {}}}})
    );
    let second = apply(&registry, &policy(json!({"app": "web"})), "gitops");
    assert_eq!(
        second["spec"]["podSelector"],
        json!({"matchLabels": {"app": "web"}})
    );

    let dns = json!({"name": "tcp", "port": 53, "protocol": "TCP", "targetPort": 5353});
    let udp = json!({"name": "udp", "port": 53, "protocol": "UDP"});
    let labels = json!({"a": "1", "b": "2"});
    let mut config = service(json!({"ports": [dns, udp], "externalIPs": ["192.0.2.1"]}));
    config["metadata"]["labels"] = labels;
    apply(&registry, &config, "gitops");
    let mut config = service(json!({"ports": [{"name": "udp", "port": 53, "protocol": "UDP"}]}));
    config["metadata"]["labels"] = json!({"b": "2"});
    let left = apply(&registry, &config, "gitops");
    assert_eq!(left["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(left["spec"]["externalIPs"], Value::Null);
    let ports = json!([{"name": "udp", "port": 53, "protocol": "UDP", "targetPort": 53}]);
    assert_eq!(left["spec"]["ports"], ports);
    // What the server gave is nobody's and stays.
    assert!(left["spec"]["clusterIP"].is_string());
    assert_eq!(
        owners(&left)["gitops Apply"],
        json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:ports": {
            "k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}}}})
    );
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    let registry = registry(V4);
    let config = service(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
    let first = apply(&registry, &config, "gitops");
    let version = registry.current_version();
    assert_eq!(apply(&registry, &config, "gitops"), first);
    assert_eq!(registry.current_version(), version);
}

#[test]
fn another_managers_value_is_a_conflict_that_force_decides() {
    let registry = registry(V4);
    let config = |target: u16| service(json!({"ports": [{"port": 80, "targetPort": target}]}));
    apply(&registry, &config(8080), "a");
    let error = try_apply(&registry, &config(9090), &by("b")).unwrap_err();
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    let field = ".spec.ports[port=80,protocol=\"TCP\"].targetPort";
    let message = format!("Apply failed with 1 conflict: conflict with \"a\": {field}");
    assert_eq!(error.message, message);
    let status = error.to_value();
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": field}])
    );
    // Nothing was written.
    let live = registry.get(Resource::Service, "default", "web").unwrap();
    assert_eq!(live["spec"]["ports"][0]["targetPort"], 8080);

    let taken = try_apply(&registry, &config(9090), &forced("b")).unwrap();
    assert_eq!(taken["spec"]["ports"][0]["targetPort"], 9090);
    let owners = owners(&taken);
    let port = "k:{\"port\":80,\"protocol\":\"TCP\"}";
    let of = |manager: &str| owners[manager]["f:spec"]["f:ports"][port].clone();
    assert_eq!(of("a Apply"), json!({".": {}, "f:port": {}}));
    assert_eq!(
        of("b Apply"),
        json!({".": {}, "f:port": {}, "f:targetPort": {}})
    );
}

#[test]
fn what_two_managers_apply_is_both_theirs() {
    let registry = registry(V4);
    let both = service(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
    apply(&registry, &both, "a");
    apply(&registry, &both, "b");
    // One lets go: the other still holds it.
    let ports = service(json!({"ports": [{"port": 80}]}));
    let kept = apply(&registry, &ports, "a");
    assert_eq!(kept["spec"]["selector"], json!({"app": "web"}));
    let gone = apply(&registry, &ports, "b");
    assert_eq!(gone["spec"]["selector"], Value::Null);
}

#[test]
fn writes_that_apply_nothing_own_what_they_change() {
    let registry = registry(V4);
    let object = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let options = by("kubectl-create");
    registry
        .create(Resource::Service, "default", object, options)
        .unwrap();
    let live = patch(
        &registry,
        "label",
        json!({"metadata": {"labels": {"a": "1"}}}),
    );
    assert_eq!(
        owners(&live),
        json!({
            "kubectl-create Update": {"f:spec": {
                "f:internalTrafficPolicy": {},
                "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}":
                    {".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}},
                "f:sessionAffinity": {}, "f:type": {}}},
            "label Update": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}},
        })
    );
    let error = try_apply(&registry, &labelled(json!({"a": "2"})), &by("c")).unwrap_err();
    assert!(
        error
            .message
            .starts_with("Apply failed with 1 conflict: conflict with \"label\" using v1 at "),
        "{error}"
    );
    assert!(error.message.ends_with(": .metadata.labels.a"), "{error}");
    // A write takes what it changes from whoever had it.
    let live = patch(
        &registry,
        "other",
        json!({"metadata": {"labels": {"a": "3"}}}),
    );
    assert_eq!(
        owners(&live)["label Update"],
        json!({"f:metadata": {"f:labels": {}}})
    );
    let live = patch(&registry, "other", json!({"metadata": {"labels": null}}));
    let owners = owners(&live);
    assert_eq!(
        (&owners["label Update"], &owners["other Update"]),
        (&json!(null), &json!(null))
    );
}

#[test]
fn a_write_of_the_status_owns_the_status_alone() {
    let registry = registry(V4);
    apply(&registry, &service(json!({"ports": [{"port": 80}]})), "a");
    let status = json!({"status": {"conditions": [{"type": "Ok", "status": "True",
        "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        "metadata": {"labels": {"x": "y"}}});
    let options = WriteOptions {
        status: true,
        ..by("controller")
    };
    let (resource, kind) = (Resource::Service, PatchKind::Merge);
    let written = registry.patch(resource, "default", "web", kind, &status, options);
    let object = written.unwrap().object;
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let of_status = entries
        .iter()
        .find(|entry| entry["subresource"] == "status")
        .unwrap();
    let fields = of_status["fieldsV1"].as_object().unwrap();
    assert_eq!(
        fields.keys().collect::<Vec<_>>(),
        ["f:status"],
        "{of_status}"
    );
}

#[test]
fn an_object_that_nobody_applied_keeps_what_it_had() {
    let store = Arc::new(MemoryStore::default());
    let registry = open(Arc::clone(&store) as _, V4);
    create(
        &registry,
        Resource::Service,
        json!({"metadata": {"name": "web", "labels": {"a": "1"}},
        "spec": {"ports": [{"port": 80}]}}),
    );
    // As stored before there was anything like managedFields.
    patch(&registry, "x", json!({"metadata": {"managedFields": [{}]}}));
    let bare = registry.get(Resource::Service, "default", "web").unwrap();
    assert_eq!(bare["metadata"]["managedFields"], Value::Null);
    let error = try_apply(&registry, &labelled(json!({"a": "2"})), &by("b")).unwrap_err();
    let cause = &error.causes[0];
    assert!(
        cause.message.contains("\"before-first-apply\" using v1"),
        "{error}"
    );
    let live = apply(&registry, &labelled(json!({"b": "2"})), "b");
    assert_eq!(live["metadata"]["labels"], json!({"a": "1", "b": "2"}));
}

#[test]
fn kubectl_moves_from_client_side_apply_without_a_conflict() {
    let registry = registry(V4);
    let config = |labels: Value| {
        let mut config = service(json!({"ports": [{"port": 80}]}));
        config["metadata"]["labels"] = labels;
        config
    };
    let first = config(json!({"a": "1", "b": "1"}));
    let mut object = first.clone();
    let last = "kubectl.kubernetes.io/last-applied-configuration";
    object["metadata"]["annotations"] = json!({last: first.to_string()});
    let options = by("kubectl-client-side-apply");
    registry
        .create(Resource::Service, "default", object, options)
        .unwrap();
    patch(
        &registry,
        "other",
        json!({"metadata": {"labels": {"c": "1"}}}),
    );
    // Its own of before: no conflict. Another's: one.
    apply(&registry, &config(json!({"a": "2", "b": "1"})), "kubectl");
    let error = try_apply(
        &registry,
        &config(json!({"a": "3", "c": "2"})),
        &by("kubectl"),
    );
    let fields: Vec<String> = error
        .unwrap_err()
        .causes
        .into_iter()
        .map(|c| c.field)
        .collect();
    assert_eq!(fields, [".metadata.labels.c"]);
    let error = try_apply(&registry, &config(json!({"b": "2"})), &by("gitops")).unwrap_err();
    assert_eq!(error.code, 409);
    // The record follows, so that client-side apply may come back.
    let live = apply(&registry, &config(json!({"a": "4"})), "kubectl");
    let record = live["metadata"]["annotations"][last].as_str().unwrap();
    let record: Value = serde_json::from_str(record).unwrap();
    assert_eq!(record["metadata"]["labels"], json!({"a": "4"}));
}

#[test]
fn clients_may_write_the_entries_but_not_lose_them_by_accident() {
    let registry = registry(V4);
    let live = apply(&registry, &service(json!({"ports": [{"port": 80}]})), "a");
    let entries = live["metadata"]["managedFields"].clone();
    let entries_after = |value: Value| {
        let live = patch(
            &registry,
            "x",
            json!({"metadata": {"managedFields": value}}),
        );
        live["metadata"]["managedFields"].clone()
    };
    for unread in [
        json!([]),
        json!(null),
        json!([{"manager": "b", "operation": "Own"}]),
    ] {
        assert_eq!(entries_after(unread.clone()), entries, "{unread}");
    }
    let mut renamed = entries.clone();
    renamed[0]["manager"] = json!("b");
    assert_eq!(entries_after(renamed.clone()), renamed);
    assert_eq!(entries_after(json!([{}])), Value::Null);
}

#[test]
fn managers_are_bounded_and_the_oldest_become_one() {
    let registry = registry(V4);
    apply(
        &registry,
        &service(json!({"ports": [{"port": 80}]})),
        "applier",
    );
    for n in 0..30 {
        let label = json!({"metadata": {"labels": {format!("l{n}"): "x"}}});
        patch(&registry, &format!("m{n:02}"), label);
    }
    let live = registry.get(Resource::Service, "default", "web").unwrap();
    let owners = owners(&live);
    assert!(owners.as_object().unwrap().len() <= 12, "{owners}");
    assert!(owners["applier Apply"].is_object());
    let labels = owners["ancient-changes Update"]["f:metadata"]["f:labels"].as_object();
    assert!(labels.is_some_and(|labels| labels.len() >= 20), "{owners}");
}

#[test]
fn ownership_survives_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let config = service(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
    apply(&open(Arc::clone(&store) as _, V4), &config, "a");
    let registry = open(store, V4);
    let left = apply(&registry, &service(json!({"ports": [{"port": 80}]})), "a");
    assert_eq!(left["spec"]["selector"], Value::Null);
}

#[test]
fn sets_keyed_lists_and_order_are_merged() {
    let registry = registry(V4);
    let pod = |containers: &[&str], finalizers: Value| {
        let containers: Value = containers
            .iter()
            .map(|name| json!({"name": name, "image": "x", "ports": [{"containerPort": 80}]}))
            .collect();
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": containers},
            "metadata": {"name": "web", "finalizers": finalizers}})
    };
    apply(&registry, &pod(&["a", "b"], json!(["x/a", "x/b"])), "a");
    let live = apply(&registry, &pod(&["side", "b"], json!(["x/c", "x/b"])), "b");
    let names = |object: &Value| -> Vec<String> {
        let containers = object["spec"]["containers"].as_array().unwrap();
        containers
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&live), ["side", "a", "b"]);
    assert_eq!(live["metadata"]["finalizers"], json!(["x/c", "x/a", "x/b"]));
    let live = apply(&registry, &pod(&["b"], json!(["x/b"])), "a");
    assert_eq!(names(&live), ["side", "b"]);
    assert_eq!(live["metadata"]["finalizers"], json!(["x/c", "x/b"]));
}

#[test]
fn configurations_that_are_none_are_refused_with_the_field_named() {
    let registry = registry(V4);
    let good = || service(json!({"ports": [{"port": 80}]}));
    let with = |pointer: &str, value: Value| {
        let mut config = good();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[field] = value;
        config
    };
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!([deep]);
    }
    for (config, told) in [
        (json!([]), "metadata is not an object"),
        (json!({"metadata": 7}), "metadata"),
        (with("/apiVersion", json!("v2")), "expected: v1"),
        (with("/kind", json!("Node")), "must be of kind Service"),
        (
            with("/metadata/name", json!("other")),
            "does not match the name on the URL",
        ),
        (
            with("/metadata/managedFields", json!([{}])),
            "metadata.managedFields must be nil",
        ),
        (
            with("/spec/ports", json!([{"protocol": "TCP"}])),
            ".spec.ports[0]: an element has no port",
        ),
        (
            with("/spec/ports", json!([7])),
            ".spec.ports[0]: an element is not an object",
        ),
        (
            with("/spec/ports", json!({})),
            ".spec.ports: expected a list",
        ),
        (
            with(
                "/spec/ports",
                json!([{"port": 80}, {"port": 80, "protocol": "TCP"}]),
            ),
            ".spec.ports[1]: duplicate entries for key [port=80,protocol=\"TCP\"]",
        ),
        (with("/spec", json!([])), ".spec: expected an object"),
        (
            with("/spec/odd", json!(1)),
            ".spec.odd: field not declared in schema",
        ),
        (
            with("/metadata/finalizers", json!([{}])),
            ".metadata.finalizers[0]: ",
        ),
        (
            with("/metadata/finalizers", deep),
            ".metadata.finalizers[0]: ",
        ),
        (
            with("/spec/type", json!(7)),
            "cannot be handled as a Service",
        ),
    ] {
        let error = try_apply(&registry, &config, &by("a")).unwrap_err();
        assert_eq!(error.code, 400, "{error}");
        assert!(error.message.contains(told), "{told}: {error}");
    }
    let error = try_apply(
        &registry,
        &service(json!({"ports": [{"port": 0}]})),
        &by("a"),
    );
    assert_eq!(error.unwrap_err().code, 422);
    registry
        .get(Resource::Service, "default", "web")
        .unwrap_err();
}
