//! The registry as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

mod admin_policy;
mod cluster_policy;
pub(in crate::objects) mod kit;
mod lost;

use super::*;
use crate::state::ClusterChange;
use crate::store::{MemoryStore, SharedStore};

fn config() -> RegistryConfig {
    RegistryConfig {
        node_name: "node-a".to_owned(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_ports: 30000..=32767,
    }
}

fn registry() -> Arc<Registry> {
    Registry::open(Arc::new(MemoryStore::default()), config()).unwrap()
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "web"}]}]}})
}

fn policy(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn create(registry: &Registry, resource: Resource, namespace: &str, object: Value) -> Arc<Value> {
    registry
        .create(resource, namespace, object, WriteOptions::default())
        .unwrap()
        .object
}

/// Creates a policy with this spec and returns what is said against it.
fn refusal(spec: Value) -> String {
    let error = registry().create(
        Resource::NetworkPolicy,
        "default",
        policy(spec),
        WriteOptions::default(),
    );
    let error = error.unwrap_err();
    assert_eq!((error.code, error.reason), (422, "Invalid"));
    error.message
}

#[test]
fn a_created_object_has_metadata_and_defaults() {
    let registry = registry();
    let pod = create(&registry, Resource::Pod, "default", pod("web"));
    let metadata = &pod["metadata"];
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(!metadata[field].as_str().unwrap().is_empty(), "{field}");
    }
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(pod["apiVersion"], "v1");
    assert_eq!(pod["spec"]["nodeName"], "node-a");
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
    assert_eq!(pod["status"]["phase"], "Pending");
    let policy = create(
        &registry,
        Resource::NetworkPolicy,
        "default",
        policy(json!({"egress": [{"ports": [{"port": 80}]}]})),
    );
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["spec"]["podSelector"], json!({}));
    assert_eq!(policy["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    assert_eq!(policy["metadata"]["generation"], 1);
}

#[test]
fn an_empty_list_of_egress_rules_does_not_isolate_egress() {
    let registry = registry();
    let spec = json!({"podSelector": {}, "egress": []});
    let policy = create(&registry, Resource::NetworkPolicy, "default", policy(spec));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
}

#[test]
fn reads_and_writes_are_refused_as_the_api_server_refuses_them() {
    let registry = registry();
    create(&registry, Resource::Pod, "default", pod("web"));
    let options = WriteOptions::default;
    let again = registry
        .create(Resource::Pod, "default", pod("web"), options())
        .unwrap_err();
    assert_eq!(
        (again.code, again.message.as_str()),
        (409, "pods \"web\" already exists")
    );
    let missing = registry
        .get(Resource::NetworkPolicy, "default", "x")
        .unwrap_err();
    assert_eq!(
        missing.message,
        "networkpolicies.networking.k8s.io \"x\" not found"
    );
    let nowhere = registry
        .create(Resource::Pod, "shop", pod("web"), options())
        .unwrap_err();
    assert_eq!(
        (nowhere.code, nowhere.message.as_str()),
        (404, "namespaces \"shop\" not found")
    );
    let other = json!({"kind": "Service", "metadata": {"name": "x"}});
    assert_eq!(
        registry
            .create(Resource::Pod, "default", other, options())
            .unwrap_err()
            .code,
        400
    );
    let mut stray = pod("web");
    stray["metadata"]["namespace"] = json!("shop");
    assert_eq!(
        registry
            .create(Resource::Pod, "default", stray, options())
            .unwrap_err()
            .code,
        400
    );
    let wrong_type = json!({"metadata": {"name": "x", "labels": {"a": 1}}});
    let error = registry
        .create(Resource::Pod, "default", wrong_type, options())
        .unwrap_err();
    assert_eq!(error.code, 400, "{error}");
    let default = registry.delete(
        Resource::Namespace,
        "",
        "default",
        &DeleteOptions::default(),
    );
    assert_eq!(default.unwrap_err().code, 403);
}

#[test]
fn a_stale_write_is_a_conflict_and_a_write_of_nothing_is_none() {
    let registry = registry();
    let first = create(&registry, Resource::Pod, "default", pod("web"));
    let labels = |value: &str| json!({"metadata": {"labels": {"x": value}}});
    let patch = |value: &str| {
        let kind = PatchKind::Merge;
        let patch = labels(value);
        registry.patch(
            Resource::Pod,
            "default",
            "web",
            kind,
            &patch,
            WriteOptions::default(),
        )
    };
    let second = patch("1").unwrap().object;
    assert_ne!(
        first["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );
    assert_eq!(
        patch("1").unwrap().object,
        second,
        "nothing changed, no new version"
    );
    let options = WriteOptions::default();
    let stale = registry.update(Resource::Pod, "default", "web", (*first).clone(), options);
    let stale = stale.unwrap_err();
    assert_eq!((stale.code, stale.reason), (409, "Conflict"));
    assert!(
        stale.message.contains("the object has been modified"),
        "{stale}"
    );
    let precondition = DeleteOptions {
        uid: Some("other".to_owned()),
        ..DeleteOptions::default()
    };
    let refused = registry
        .delete(Resource::Pod, "default", "web", &precondition)
        .unwrap_err();
    assert_eq!(refused.code, 409);
}

#[test]
fn a_status_write_changes_the_status_only_and_the_other_way_round() {
    let registry = registry();
    create(&registry, Resource::Pod, "default", pod("web"));
    let patch = json!({"metadata": {"labels": {"x": "1"}}, "status": {"phase": "Failed"}});
    let write = |status: bool| {
        let options = WriteOptions {
            status,
            ..WriteOptions::default()
        };
        let kind = PatchKind::Merge;
        registry
            .patch(Resource::Pod, "default", "web", kind, &patch, options)
            .unwrap()
            .object
    };
    let spec_write = write(false);
    assert_eq!(spec_write["status"]["phase"], "Pending");
    assert_eq!(spec_write["metadata"]["labels"]["x"], "1");
    let status_write = write(true);
    assert_eq!(status_write["status"]["phase"], "Failed");
}

#[test]
fn putting_the_manifest_back_changes_nothing() {
    let registry = registry();
    let spec = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]});
    let first = create(
        &registry,
        Resource::NetworkPolicy,
        "default",
        policy(spec.clone()),
    );
    let options = WriteOptions::default();
    let again = registry.update(
        Resource::NetworkPolicy,
        "default",
        "p",
        policy(spec),
        options.clone(),
    );
    assert_eq!(again.unwrap().object, first);
    let pod_before = create(&registry, Resource::Pod, "default", pod("web"));
    let again = registry
        .update(Resource::Pod, "default", "web", pod("web"), options)
        .unwrap();
    assert_eq!(
        again.object, pod_before,
        "the node stays although the manifest names none"
    );
}

#[test]
fn unknown_fields_are_refused_warned_of_or_dropped_as_asked() {
    let registry = registry();
    let write = |name: &str, field_validation| {
        let mut object = policy(json!({"podSelector": {}, "ingres": [{}]}));
        object["metadata"]["name"] = json!(name);
        let options = WriteOptions {
            field_validation,
            ..WriteOptions::default()
        };
        registry.create(Resource::NetworkPolicy, "default", object, options)
    };
    let strict = write("a", FieldValidation::Strict).unwrap_err();
    assert!(
        strict.message.contains("unknown field \"spec.ingres\""),
        "{strict}"
    );
    let warned = write("b", FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, ["unknown field \"spec.ingres\""]);
    assert!(
        write("c", FieldValidation::Ignore)
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn network_policies_are_validated_in_the_words_of_the_api_server() {
    let ingress = |rule: Value| json!({"podSelector": {}, "ingress": [rule]});
    let port = |port: Value| ingress(json!({"ports": [port]}));
    let peer = |peer: Value| ingress(json!({"from": [peer]}));
    let cases = [
        (
            port(json!({"port": 80000})),
            "spec.ingress[0].ports[0].port: Invalid value: 80000: must be between 1 and 65535, inclusive",
        ),
        (
            port(json!({"port": 0})),
            "spec.ingress[0].ports[0].port: Invalid value: 0",
        ),
        (
            port(json!({"port": "Web"})),
            "must contain only alpha-numeric characters",
        ),
        (
            port(json!({"port": "80"})),
            "must contain at least one letter (a-z)",
        ),
        (
            port(json!({"port": "a-very-long-name"})),
            "must be no more than 15 characters",
        ),
        (
            port(json!({"port": 80, "protocol": "ICMP"})),
            "Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            port(json!({"port": 80, "endPort": 79})),
            "must be greater than or equal to `port`",
        ),
        (
            port(json!({"port": "web", "endPort": 79})),
            "may not be specified when `port` is non-numeric",
        ),
        (
            port(json!({"endPort": 79})),
            "may not be specified when `port` is not specified",
        ),
        (
            peer(json!({})),
            "spec.ingress[0].from[0]: Required value: must specify a peer",
        ),
        (
            peer(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
            "may not specify both ipBlock and another peer",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0"}})),
            "spec.ingress[0].from[0].ipBlock.cidr: Invalid value",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}})),
            "except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
            "must be a strict subset",
        ),
        (
            peer(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
            "values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            peer(
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
            ),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        (
            peer(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}})),
            "not a valid selector operator",
        ),
        (
            json!({"podSelector": {"matchLabels": {"a b": "c"}}}),
            "name part must consist of",
        ),
        (
            json!({"podSelector": {"matchLabels": {"a": "b c"}}}),
            "a valid label must be an empty string",
        ),
        (
            json!({"podSelector": {}, "policyTypes": ["Sideways"]}),
            "supported values: \"Egress\", \"Ingress\"",
        ),
    ];
    for (spec, words) in cases {
        let message = refusal(spec.clone());
        assert!(
            message.starts_with("NetworkPolicy.networking.k8s.io \"p\" is invalid: "),
            "{message}"
        );
        assert!(
            message.contains(words),
            "{spec}\nsays {message}\nnot  {words}"
        );
    }
    let both = refusal(port(json!({"port": 0, "protocol": "X"})));
    assert!(
        both.contains("is invalid: [spec.") && both.ends_with(']'),
        "{both}"
    );
}

#[test]
fn names_labels_and_pods_are_validated() {
    let registry = registry();
    let refused = |resource, namespace: &str, object: Value| {
        let error = registry.create(resource, namespace, object, WriteOptions::default());
        error.unwrap_err().message
    };
    let long = "x".repeat(64);
    for name in ["Web", "-web", "web_1", "", &long] {
        let message = refused(Resource::Namespace, "", json!({"metadata": {"name": name}}));
        assert!(message.contains("metadata.name"), "{name}: {message}");
    }
    let mut labelled = pod("web");
    labelled["metadata"]["labels"] = json!({"a": "x".repeat(64)});
    assert!(refused(Resource::Pod, "default", labelled).contains("metadata.labels"));
    let empty = json!({"metadata": {"name": "web"}, "spec": {"containers": []}});
    assert!(refused(Resource::Pod, "default", empty).contains("spec.containers: Required value"));
    let mut twice = pod("web");
    twice["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]);
    assert!(refused(Resource::Pod, "default", twice).contains("ports[1].name: Duplicate value"));
}

#[test]
fn the_default_namespace_and_a_ready_node_are_there_from_the_start() {
    let registry = registry();
    registry.get(Resource::Namespace, "", "default").unwrap();
    let node = registry.get(Resource::Node, "", "node-a").unwrap();
    assert_eq!(node["status"]["conditions"][0]["type"], "Ready");
}

#[test]
fn deleting_a_namespace_deletes_what_is_in_it() {
    let registry = registry();
    create(
        &registry,
        Resource::Namespace,
        "",
        json!({"metadata": {"name": "shop"}}),
    );
    create(&registry, Resource::Pod, "shop", pod("web"));
    create(&registry, Resource::Pod, "default", pod("web"));
    registry
        .delete(Resource::Namespace, "", "shop", &DeleteOptions::default())
        .unwrap();
    assert_eq!(
        registry.get(Resource::Pod, "shop", "web").unwrap_err().code,
        404
    );
    registry.get(Resource::Pod, "default", "web").unwrap();
}

#[test]
fn an_object_with_finalizers_goes_when_the_last_one_is_taken() {
    let registry = registry();
    let mut object = pod("web");
    object["metadata"]["finalizers"] = json!(["example.com/wait"]);
    create(&registry, Resource::Pod, "default", object);
    registry
        .delete(Resource::Pod, "default", "web", &DeleteOptions::default())
        .unwrap();
    let marked = registry.get(Resource::Pod, "default", "web").unwrap();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let patch = json!({"metadata": {"finalizers": null}});
    let options = WriteOptions::default();
    registry
        .patch(
            Resource::Pod,
            "default",
            "web",
            PatchKind::Merge,
            &patch,
            options,
        )
        .unwrap();
    assert_eq!(
        registry
            .get(Resource::Pod, "default", "web")
            .unwrap_err()
            .code,
        404
    );
}

#[test]
fn everything_is_there_again_after_a_restart_and_versions_go_on() {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let registry = Registry::open(Arc::clone(&store), config()).unwrap();
    let before = create(&registry, Resource::Pod, "default", pod("web"));
    create(&registry, Resource::Pod, "default", pod("gone"));
    registry
        .delete(Resource::Pod, "default", "gone", &DeleteOptions::default())
        .unwrap();
    let version = registry.current_version();
    drop(registry);
    let registry = Registry::open(store, config()).unwrap();
    assert_eq!(
        registry.get(Resource::Pod, "default", "web").unwrap(),
        before
    );
    assert!(registry.get(Resource::Pod, "default", "gone").is_err());
    assert_eq!(registry.current_version(), version);
}

async fn next(watch: &mut Watch) -> (&'static str, String) {
    let event = tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await;
    let (kind, object) = match event.expect("an event in time").expect("the watch goes on") {
        WatchEvent::Added(object) => ("ADDED", object),
        WatchEvent::Modified(object) => ("MODIFIED", object),
        WatchEvent::Deleted(object) => ("DELETED", object),
        WatchEvent::Bookmark(object) => ("BOOKMARK", object),
        WatchEvent::Error(status) => return ("ERROR", status.code.to_string()),
    };
    (
        kind,
        object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    )
}

#[tokio::test]
async fn a_watch_reports_changes_of_what_it_selects() {
    let registry = registry();
    create(&registry, Resource::Pod, "default", pod("a"));
    let selection = Selection {
        label_selector: "app=a".to_owned(),
        ..Selection::default()
    };
    let options = WatchOptions {
        selection,
        send_initial_events: true,
        ..WatchOptions::default()
    };
    let mut watch = registry
        .watch(Resource::Pod, Some("default"), &options)
        .unwrap();
    assert_eq!(next(&mut watch).await, ("ADDED", "a".to_owned()));
    assert_eq!(next(&mut watch).await, ("BOOKMARK", String::new()));
    create(&registry, Resource::Pod, "default", pod("b"));
    let relabel = |name: &str, app: &str| {
        let patch = json!({"metadata": {"labels": {"app": app}}});
        let options = WriteOptions::default();
        registry
            .patch(
                Resource::Pod,
                "default",
                name,
                PatchKind::Merge,
                &patch,
                options,
            )
            .unwrap();
    };
    relabel("b", "a");
    assert_eq!(
        next(&mut watch).await,
        ("ADDED", "b".to_owned()),
        "it enters the selection"
    );
    relabel("a", "x");
    assert_eq!(
        next(&mut watch).await,
        ("DELETED", "a".to_owned()),
        "it leaves the selection"
    );
    registry
        .delete(Resource::Pod, "default", "b", &DeleteOptions::default())
        .unwrap();
    assert_eq!(next(&mut watch).await, ("DELETED", "b".to_owned()));
}

#[tokio::test]
async fn a_watch_from_a_version_misses_nothing_and_one_too_old_is_told() {
    let registry = registry();
    let version = registry.current_version();
    create(&registry, Resource::Pod, "default", pod("a"));
    let from = |version| WatchOptions {
        resource_version: Some(version),
        ..WatchOptions::default()
    };
    let mut watch = registry.watch(Resource::Pod, None, &from(version)).unwrap();
    let mut slow = registry.watch(Resource::Pod, None, &from(version)).unwrap();
    assert_eq!(next(&mut watch).await, ("ADDED", "a".to_owned()));
    for number in 0..9000 {
        let patch = json!({"metadata": {"labels": {"n": number.to_string()}}});
        let options = WriteOptions::default();
        registry
            .patch(
                Resource::Pod,
                "default",
                "a",
                PatchKind::Merge,
                &patch,
                options,
            )
            .unwrap();
    }
    assert_eq!(next(&mut slow).await, ("ERROR", "410".to_owned()));
    assert!(slow.next().await.is_none());
    let error = registry
        .watch(Resource::Pod, None, &from(version))
        .unwrap_err();
    assert_eq!((error.code, error.reason), (410, "Expired"));
}

fn made_pod(name: &str, maker: &str, ips: &[&str]) -> MadePod {
    MadePod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        maker: maker.to_owned(),
        uid: None,
        labels: Some(BTreeMap::from([("app".to_owned(), maker.to_owned())])),
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

#[test]
fn cni_declares_a_pod_and_takes_it_back() {
    let registry = registry();
    let web = made_pod("web", "c1", &["10.244.0.5", "fd00::5"]);
    assert!(registry.check_pod(&web).is_err(), "not there yet");
    registry.declare_pod(&web).unwrap();
    let pod = registry.get(Resource::Pod, "shop", "web").unwrap();
    assert_eq!(
        pod["status"]["podIPs"],
        json!([{"ip": "10.244.0.5"}, {"ip": "fd00::5"}])
    );
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["metadata"]["labels"]["app"], "c1");
    registry.check_pod(&web).unwrap();
    registry.retract_pod(&web).unwrap();
    registry.retract_pod(&web).unwrap();
    assert!(registry.get(Resource::Pod, "shop", "web").is_err());

    create(&registry, Resource::Pod, "shop", super::tests::pod("own"));
    let own = made_pod("own", "c2", &["10.244.0.5"]);
    registry.declare_pod(&own).unwrap();
    let object = registry.get(Resource::Pod, "shop", "own").unwrap();
    assert!(
        object["metadata"]["labels"]["app"] != "c2",
        "somebody had declared it"
    );
    registry.retract_pod(&own).unwrap();
    let object = registry.get(Resource::Pod, "shop", "own").unwrap();
    assert_eq!(object["status"], json!({"phase": "Pending"}));
}

#[test]
fn a_pod_is_that_of_the_container_that_declared_it_last() {
    let registry = registry();
    let namespace = json!({"metadata": {"name": "shop"}});
    create(&registry, Resource::Namespace, "", namespace);
    create(&registry, Resource::Pod, "shop", super::tests::pod("own"));
    for name in ["made", "own"] {
        let first = made_pod(name, "c1", &["10.244.0.5"]);
        let second = made_pod(name, "c2", &["10.244.0.6"]);
        registry.declare_pod(&first).unwrap();
        registry.declare_pod(&second).unwrap();
        assert!(
            registry.check_pod(&first).is_err(),
            "its address is another's"
        );
        registry.retract_pod(&first).unwrap();
        let pod = registry.get(Resource::Pod, "shop", name).unwrap();
        assert_eq!(pod["status"]["podIP"], "10.244.0.6", "{name}");
        registry.check_pod(&second).unwrap();
    }
    let made = registry.get(Resource::Pod, "shop", "made").unwrap();
    assert_eq!(made["metadata"]["labels"]["app"], "c2");
}

#[test]
fn pods_of_containers_that_are_gone_are_deleted_and_no_others() {
    let registry = registry();
    let namespace = json!({"metadata": {"name": "shop"}});
    create(&registry, Resource::Namespace, "", namespace);
    create(&registry, Resource::Pod, "shop", super::tests::pod("own"));
    for maker in ["kept", "lost"] {
        registry.declare_pod(&made_pod(maker, maker, &[])).unwrap();
    }
    let makers = BTreeSet::from(["kept".to_owned()]);
    registry.retain_made_pods(&makers).unwrap();
    let is_there = |name| registry.get(Resource::Pod, "shop", name).is_ok();
    assert!(is_there("kept") && is_there("own") && !is_there("lost"));
}

#[tokio::test]
async fn the_feed_begins_with_everything_and_goes_on_with_changes() {
    let registry = registry();
    create(&registry, Resource::Pod, "default", pod("a"));
    let mut feed = feed(&registry);
    assert_eq!(
        feed.initial.len(),
        3,
        "namespace default, the node and the pod: {:?}",
        feed.initial
    );
    assert_eq!(feed.version(), registry.current_version());
    registry
        .delete(Resource::Pod, "default", "a", &DeleteOptions::default())
        .unwrap();
    let before = crate::clock::instant();
    let changes = feed.next().await.unwrap();
    assert!(matches!(changes.as_slice(), [ClusterChange::PodGone(key)] if key.name == "a"));
    assert!(feed.heard().unwrap() <= before, "it was deleted before");
    assert_eq!(feed.heard(), None, "that was the last call's");
    create(
        &registry,
        Resource::NetworkPolicy,
        "default",
        policy(json!({"podSelector": {}})),
    );
    let changes = feed.next().await.unwrap();
    assert!(
        matches!(changes.as_slice(), [ClusterChange::Policy(_)]),
        "{changes:?}"
    );
}

#[tokio::test]
async fn a_feed_that_fell_behind_tells_what_vanished() {
    let registry = registry();
    create(&registry, Resource::Pod, "default", pod("gone"));
    create(&registry, Resource::Pod, "default", pod("busy"));
    let mut feed = feed(&registry);
    registry
        .delete(Resource::Pod, "default", "gone", &DeleteOptions::default())
        .unwrap();
    for number in 0..9000 {
        let patch = json!({"metadata": {"annotations": {"n": number.to_string()}}});
        let options = WriteOptions::default();
        registry
            .patch(
                Resource::Pod,
                "default",
                "busy",
                PatchKind::Merge,
                &patch,
                options,
            )
            .unwrap();
    }
    let changes = feed.next().await.unwrap();
    let gone = |change: &ClusterChange| matches!(change, ClusterChange::PodGone(key) if key.name == "gone");
    assert!(changes.iter().any(gone), "{changes:?}");
    assert_eq!(feed.version(), registry.current_version());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/.0-9-]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let keys = prop_oneof![
            Just("metadata"),
            Just("spec"),
            Just("status"),
            Just("name"),
            Just("labels"),
            Just("ports"),
            Just("podSelector"),
            Just("ingress"),
            Just("from"),
            Just("ipBlock"),
            Just("cidr"),
            Just("except"),
            Just("containers"),
            Just("port"),
            Just("endPort"),
            Just("$patch"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys.prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_body_and_no_patch_brings_the_registry_down(body in any_json(), patch in any_json()) {
        let registry = registry();
        for info in &RESOURCES {
            let namespace = if info.scope == Scope::Namespaced { "default" } else { "" };
            let _ = registry.create(info.resource, namespace, body.clone(), WriteOptions::default());
        }
        create(&registry, Resource::NetworkPolicy, "default", policy(json!({"podSelector": {}})));
        let (resource, options) = (Resource::NetworkPolicy, WriteOptions::default());
        for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::StrategicMerge] {
            let _ = registry.patch(resource, "default", "p", kind, &patch, options.clone());
            let _ = registry.patch(resource, "default", "q", kind, &patch, options.clone());
        }
        let mut config = policy(json!({"podSelector": {}}));
        config["apiVersion"] = json!("networking.k8s.io/v1");
        config["kind"] = json!("NetworkPolicy");
        for odd in [patch.clone(), json!({"podSelector": patch, "ingress": patch})] {
            config["spec"] = odd;
            let _ = registry.apply(resource, "default", "p", &config, &options);
        }
        let _ = registry.apply(resource, "default", "q", &patch, &options);
        let _ = feed(&registry);
    }
}

#[test]
fn pages_of_a_list_show_the_objects_of_one_version() {
    let registry = registry();
    for name in ["a", "b", "c", "d", "e"] {
        create(&registry, Resource::Pod, "default", pod(name));
    }
    let version = registry.current_version();
    let selection = Selection::default();
    let names = |list: &ObjectList| -> Vec<String> {
        let name = |item: &Arc<Value>| item["metadata"]["name"].as_str().unwrap().to_owned();
        list.items.iter().map(name).collect()
    };
    let list = |start: Option<PageStart>| {
        let page = Page { limit: 2, start };
        registry.list_page(Resource::Pod, Some("default"), &selection, &page)
    };
    let first = list(None).unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    // What changes between two pages is for the watch that follows the list.
    let delete = |name| {
        let options = DeleteOptions::default();
        registry
            .delete(Resource::Pod, "default", name, &options)
            .unwrap();
    };
    delete("c");
    create(&registry, Resource::Pod, "default", pod("bb"));
    let second = list(first.next.clone()).unwrap();
    assert_eq!(names(&second), ["c", "d"]);
    let third = list(second.next.clone()).unwrap();
    assert_eq!(names(&third), ["e"]);
    assert_eq!(third.next, None);
    let remaining = [&first, &second, &third].map(|list| list.remaining);
    assert_eq!(remaining, [Some(3), Some(1), None]);
    let chosen = Selection {
        label_selector: "!absent".to_owned(),
        ..Selection::default()
    };
    let page = Page {
        limit: 2,
        start: None,
    };
    let some = registry.list_page(Resource::Pod, Some("default"), &chosen, &page);
    let some = some.unwrap();
    assert_eq!((names(&some), some.remaining), (names(&first), None));
    assert!(some.next.is_some());
    for list in [&first, &second, &third] {
        assert_eq!(list.resource_version, version);
    }
    let now = registry
        .list(Resource::Pod, Some("default"), &selection)
        .unwrap();
    assert_eq!(names(&now), ["a", "b", "bb", "d", "e"]);
    // A version of a future that never was.
    let mut start = first.next.unwrap();
    start.version += 1_000;
    assert_eq!(list(Some(start)).unwrap_err().code, 410);
}

#[test]
fn large_objects_leave_the_window_before_it_has_no_memory_left() {
    let registry = registry();
    let text = "x".repeat(200 << 10);
    let mut object = pod("large");
    object["metadata"]["annotations"] = json!({ "text": text });
    create(&registry, Resource::Pod, "default", object.clone());
    let before = registry.current_version();
    for round in 0..200 {
        let patch = json!({"metadata": {"labels": {"round": round.to_string()}}});
        let (kind, options) = (PatchKind::Merge, WriteOptions::default());
        registry
            .patch(Resource::Pod, "default", "large", kind, &patch, options)
            .unwrap();
    }
    let watch = |version| {
        let options = WatchOptions {
            resource_version: Some(version),
            ..WatchOptions::default()
        };
        registry.watch(Resource::Pod, None, &options).map(drop)
    };
    // 200 copies of 200 KiB are more than 32 MiB; 100 are less.
    assert_eq!(watch(before).unwrap_err().code, 410);
    assert!(watch(before + 100).is_ok());
}
