//! Slices that the registry makes of its Services and Pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{MANAGED_BY, OURSELVES, SERVICE_NAME};
use crate::objects::tests::kit::*;
use crate::objects::{DeleteOptions, Registry, Resource, WatchEvent, WatchOptions, WriteOptions};
use crate::store::{MemoryStore, SharedStore};

/// Creates a Pod of app `web` that has a port "http".
fn web_pod(registry: &Registry, name: &str, port: u16) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web", "name": name}},
        "spec": {"containers": [{"name": "c", "image": "i",
            "ports": [{"name": "http", "containerPort": port}]}]}});
    create(registry, Resource::Pod, pod);
}

fn runs(registry: &Registry, name: &str, ips: &[&str]) {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"phase": "Running", "podIPs": ips});
    set_status(registry, Resource::Pod, name, status);
}

fn web_service(registry: &Registry, mut spec: Value) -> Value {
    spec["selector"] = json!({"app": "web"});
    spec_of(registry, "web", spec)
}

fn slices(registry: &Registry) -> Vec<Arc<Value>> {
    list(registry, Resource::EndpointSlice)
}

/// The only slice.
fn slice(registry: &Registry) -> Arc<Value> {
    let mut slices = slices(registry);
    assert_eq!(slices.len(), 1, "{slices:?}");
    slices.remove(0)
}

/// Names of the Pods of a slice.
fn pods(slice: &Value) -> Vec<&str> {
    let endpoints = slice["endpoints"].as_array().unwrap().iter();
    endpoints
        .map(|endpoint| endpoint["targetRef"]["name"].as_str().unwrap())
        .collect()
}

fn foreign(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80}]})
}

#[test]
fn a_running_pod_is_an_endpoint_of_its_service() {
    let registry = registry(V4);
    web_pod(&registry, "a", 8080);
    runs(&registry, "a", &["10.244.0.5"]);
    web_service(
        &registry,
        json!({"ports": [{"name": "w", "port": 80, "targetPort": 8080}]}),
    );
    let slice = slice(&registry);
    let pod = registry.get(Resource::Pod, "default", "a").unwrap();
    let service = registry.get(Resource::Service, "default", "web").unwrap();
    let metadata = &slice["metadata"];
    let name = metadata["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_eq!(
        metadata["labels"],
        json!({SERVICE_NAME: "web", MANAGED_BY: OURSELVES})
    );
    assert_eq!(
        metadata["ownerReferences"][0]["uid"],
        service["metadata"]["uid"]
    );
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(
        slice["endpoints"],
        json!([{
            "addresses": ["10.244.0.5"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-a",
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "a",
                "uid": pod["metadata"]["uid"]},
        }])
    );
    assert_eq!(
        slice["ports"],
        json!([{"name": "w", "protocol": "TCP", "port": 8080}])
    );
}

#[test]
fn slices_are_valid_objects_that_can_be_written_back() {
    let registry = registry(V4);
    web_pod(&registry, "a", 8080);
    runs(&registry, "a", &["10.244.0.5"]);
    web_service(&registry, json!({}));
    let before = slice(&registry);
    let name = before["metadata"]["name"].as_str().unwrap();
    let options = WriteOptions {
        field_validation: crate::objects::FieldValidation::Strict,
        ..WriteOptions::default()
    };
    let object = (*before).clone();
    let written = registry.update(Resource::EndpointSlice, "default", name, object, options);
    assert_eq!(written.unwrap().object, before);
    assert_eq!(slice(&registry), before);
}

#[test]
fn endpoints_follow_pods_as_they_come_change_and_go() {
    let registry = registry(V4);
    web_service(&registry, json!({}));
    let empty = slice(&registry);
    assert_eq!(empty["endpoints"], json!([]));
    web_pod(&registry, "a", 80);
    assert_eq!(slice(&registry), empty, "a pod without an address is none");
    runs(&registry, "a", &["10.244.0.5"]);
    web_pod(&registry, "b", 80);
    runs(&registry, "b", &["10.244.0.6"]);
    assert_eq!(pods(&slice(&registry)), ["a", "b"]);
    assert_eq!(
        slice(&registry)["metadata"]["uid"],
        empty["metadata"]["uid"]
    );
    let relabelled = json!({"metadata": {"labels": {"app": "db"}}});
    patch(&registry, Resource::Pod, "a", relabelled);
    assert_eq!(pods(&slice(&registry)), ["b"]);
    delete(&registry, Resource::Pod, "b");
    assert_eq!(slice(&registry)["endpoints"], json!([]));
}

#[test]
fn a_finished_pod_leaves() {
    let registry = registry(V4);
    web_service(&registry, json!({}));
    for (name, phase) in [("a", "Succeeded"), ("b", "Failed")] {
        web_pod(&registry, name, 80);
        runs(&registry, name, &["10.244.0.5"]);
        assert_eq!(pods(&slice(&registry)), [name]);
        set_status(&registry, Resource::Pod, name, json!({"phase": phase}));
        assert!(pods(&slice(&registry)).is_empty());
    }
}

#[test]
fn conditions_say_whether_a_pod_is_ready_serves_and_goes() {
    let registry = registry(V4);
    web_service(&registry, json!({}));
    let pod = json!({"metadata": {"name": "a", "labels": {"app": "web"}, "finalizers": ["x.io/y"]},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    create(&registry, Resource::Pod, pod);
    let conditions = || slice(&registry)["endpoints"][0]["conditions"].clone();
    let expected = |ready: bool, serving: bool, terminating: bool| json!({"ready": ready, "serving": serving, "terminating": terminating});
    let ips = json!([{"ip": "10.244.0.5"}]);
    let status = |phase: &str| json!({"phase": phase, "podIPs": ips});
    set_status(&registry, Resource::Pod, "a", status("Pending"));
    assert_eq!(conditions(), expected(false, false, false));
    set_status(&registry, Resource::Pod, "a", status("Running"));
    assert_eq!(conditions(), expected(true, true, false));
    let ready = |state: &str| json!({"conditions": [{"type": "Ready", "status": state}]});
    set_status(&registry, Resource::Pod, "a", ready("False"));
    assert_eq!(conditions(), expected(false, false, false));
    let publish = |all: bool| {
        let change = json!({"spec": {"publishNotReadyAddresses": all}});
        patch(&registry, Resource::Service, "web", change);
    };
    publish(true);
    assert_eq!(conditions(), expected(true, false, false));
    publish(false);
    set_status(&registry, Resource::Pod, "a", ready("True"));
    delete(&registry, Resource::Pod, "a");
    assert_eq!(conditions(), expected(false, true, true));
    publish(true);
    assert_eq!(conditions(), expected(true, true, true));
}

#[test]
fn pods_with_other_numbers_under_a_name_are_in_slices_of_their_own() {
    let registry = registry(V4);
    for (name, port, ip) in [
        ("a", 80, "10.244.0.5"),
        ("b", 8080, "10.244.0.6"),
        ("c", 80, "10.244.0.7"),
    ] {
        web_pod(&registry, name, port);
        runs(&registry, name, &[ip]);
    }
    let ports = json!([{"name": "w", "port": 80, "targetPort": "http"},
        {"name": "m", "port": 90, "targetPort": "metrics"}, {"name": "s", "port": 443}]);
    web_service(&registry, json!({"ports": ports}));
    let slices = slices(&registry);
    let found: BTreeMap<i64, Vec<&str>> = slices
        .iter()
        .map(|slice| (slice["ports"][0]["port"].as_i64().unwrap(), pods(slice)))
        .collect();
    assert_eq!(
        found,
        BTreeMap::from([(80, vec!["a", "c"]), (8080, vec!["b"])])
    );
    for slice in &slices {
        let names: Vec<&Value> = slice["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| &p["name"])
            .collect();
        assert_eq!(names, ["w", "s"], "no pod has a port called metrics");
    }
    delete(&registry, Resource::Pod, "b");
    assert_eq!(list(&registry, Resource::EndpointSlice).len(), 1);
}

#[test]
fn dual_stack_services_have_a_slice_for_each_family() {
    let registry = registry(DUAL);
    web_pod(&registry, "a", 80);
    runs(&registry, "a", &["10.244.0.5", "fd00::5"]);
    web_pod(&registry, "b", 80);
    runs(&registry, "b", &["10.244.0.6"]);
    web_service(&registry, json!({"ipFamilyPolicy": "RequireDualStack"}));
    let slices = slices(&registry);
    let found: BTreeMap<&str, Vec<&str>> = slices
        .iter()
        .map(|slice| (slice["addressType"].as_str().unwrap(), pods(slice)))
        .collect();
    assert_eq!(
        found,
        BTreeMap::from([("IPv4", vec!["a", "b"]), ("IPv6", vec!["a"])])
    );
    let six = slices.iter().find(|slice| slice["addressType"] == "IPv6");
    let six = &six.unwrap()["endpoints"][0];
    assert_eq!(six["addresses"], json!(["fd00::5"]));
}

#[test]
fn a_headless_service_without_families_has_those_of_its_pods() {
    let registry = registry(&[]);
    let spec = web_service(&registry, json!({"clusterIP": "None"}));
    assert!(spec.get("ipFamilies").is_none(), "{spec}");
    assert_eq!(slice(&registry)["addressType"], "IPv4");
    web_pod(&registry, "a", 80);
    runs(&registry, "a", &["fd00::5"]);
    assert_eq!(slice(&registry)["addressType"], "IPv6");
    runs(&registry, "a", &["10.244.0.5", "fd00::5"]);
    assert_eq!(slices(&registry).len(), 2);
}

#[test]
fn slices_go_with_their_service_or_its_selector() {
    let registry = registry(V4);
    web_service(&registry, json!({}));
    delete(&registry, Resource::Service, "web");
    assert!(slices(&registry).is_empty());
    web_service(&registry, json!({}));
    let change = json!({"spec": {"selector": null}});
    patch(&registry, Resource::Service, "web", change);
    assert!(slices(&registry).is_empty());
    let change = json!({"spec": {"selector": {"app": "web"}}});
    patch(&registry, Resource::Service, "web", change);
    assert_eq!(slices(&registry).len(), 1);
    let change = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    patch(&registry, Resource::Service, "web", change);
    assert!(slices(&registry).is_empty());
}

#[test]
fn a_service_with_slices_of_others_is_left_to_them() {
    let registry = registry(V4);
    web_service(&registry, json!({}));
    let ours = slice(&registry);
    let by_hand = foreign("by-hand", json!({SERVICE_NAME: "web"}));
    create(&registry, Resource::EndpointSlice, by_hand);
    assert_eq!(slice(&registry)["metadata"]["name"], "by-hand");
    web_pod(&registry, "a", 80);
    runs(&registry, "a", &["10.244.0.5"]);
    assert_eq!(slices(&registry).len(), 1);
    delete(&registry, Resource::EndpointSlice, "by-hand");
    let again = slice(&registry);
    assert_eq!(again["metadata"]["name"], ours["metadata"]["name"]);
    assert_eq!(pods(&again), ["a"]);
    // Slices of other Services, and of none, do not matter.
    for (name, labels) in [("x", json!({SERVICE_NAME: "other"})), ("y", json!({}))] {
        create(&registry, Resource::EndpointSlice, foreign(name, labels));
    }
    assert_eq!(slices(&registry).len(), 3);
}

#[test]
fn slices_written_before_the_service_are_left_alone() {
    let registry = registry(V4);
    let labels = json!({SERVICE_NAME: "web", MANAGED_BY: "somebody"});
    create(
        &registry,
        Resource::EndpointSlice,
        foreign("theirs", labels),
    );
    web_service(&registry, json!({}));
    assert_eq!(slice(&registry)["metadata"]["name"], "theirs");
    delete(&registry, Resource::Service, "web");
    assert_eq!(slice(&registry)["metadata"]["name"], "theirs");
}

#[test]
fn a_name_that_is_taken_is_avoided() {
    let registry = registry(V4);
    web_service(&registry, json!({}));
    let name = slice(&registry)["metadata"]["name"].clone();
    delete(&registry, Resource::Service, "web");
    let other = foreign(name.as_str().unwrap(), json!({}));
    create(&registry, Resource::EndpointSlice, other);
    web_service(&registry, json!({}));
    let names: BTreeSet<String> = slices(&registry)
        .iter()
        .map(|slice| slice["metadata"]["name"].to_string())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&name.to_string()));
}

#[test]
fn what_others_do_to_our_slices_is_undone() {
    let registry = registry(V4);
    web_pod(&registry, "a", 80);
    runs(&registry, "a", &["10.244.0.5"]);
    web_service(&registry, json!({}));
    let name = slice(&registry)["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let change = json!({"endpoints": [], "metadata": {"labels": {"note": "mine"}}});
    patch(&registry, Resource::EndpointSlice, &name, change);
    let after = slice(&registry);
    assert_eq!(pods(&after), ["a"]);
    assert_eq!(after["metadata"]["labels"]["note"], "mine");
    delete(&registry, Resource::EndpointSlice, &name);
    assert_eq!(pods(&slice(&registry)), ["a"]);
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let registry = open(Arc::clone(&store), V4);
    web_service(&registry, json!({}));
    web_pod(&registry, "a", 80);
    runs(&registry, "a", &["10.244.0.5"]);
    let before = slice(&registry);
    let version = registry.current_version();
    let annotated = json!({"metadata": {"annotations": {"x": "y"}}});
    patch(&registry, Resource::Pod, "a", annotated);
    assert_eq!(registry.current_version(), version + 1);
    assert_eq!(slice(&registry), before);
    drop(registry);
    let registry = open(store, V4);
    assert_eq!(registry.current_version(), version + 1);
    assert_eq!(slice(&registry), before);
}

#[tokio::test]
async fn a_change_and_its_slices_are_one_step_of_which_watches_see_each_part() {
    let registry = registry(V4);
    web_service(&registry, json!({}));
    web_pod(&registry, "a", 80);
    let version = registry.current_version();
    let options = WatchOptions {
        resource_version: Some(version),
        ..WatchOptions::default()
    };
    let mut watch = registry
        .watch(Resource::EndpointSlice, None, &options)
        .unwrap();
    runs(&registry, "a", &["10.244.0.5"]);
    assert_eq!(registry.current_version(), version + 2);
    let event = watch.next().await.unwrap();
    let WatchEvent::Modified(slice) = event else {
        panic!("{event:?}");
    };
    assert_eq!(
        slice["metadata"]["resourceVersion"],
        (version + 2).to_string()
    );
}

#[test]
fn pods_that_cni_declares_are_endpoints() {
    let registry = registry(V4);
    web_service(&registry, json!({}));
    let pod = crate::objects::MadePod {
        namespace: "default".to_owned(),
        name: "a".to_owned(),
        maker: "c1/eth0".to_owned(),
        uid: None,
        labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
        ips: vec!["10.244.0.5".parse().unwrap()],
    };
    registry.declare_pod(&pod).unwrap();
    let endpoint = slice(&registry)["endpoints"][0].clone();
    assert_eq!(endpoint["addresses"], json!(["10.244.0.5"]));
    assert_eq!(endpoint["conditions"]["ready"], true);
    registry.retract_pod(&pod).unwrap();
    assert_eq!(slice(&registry)["endpoints"], json!([]));
}

#[test]
fn a_namespace_takes_its_slices_with_it() {
    let registry = registry(V4);
    let options = WriteOptions::default();
    let shop = json!({"metadata": {"name": "shop"}});
    registry
        .create(Resource::Namespace, "", shop, options.clone())
        .unwrap();
    let object = service("web", json!({"selector": {"app": "web"}}));
    registry
        .create(Resource::Service, "shop", object, options)
        .unwrap();
    let all = || {
        let selection = crate::objects::Selection::default();
        let slices = registry.list(Resource::EndpointSlice, None, &selection);
        slices.unwrap().items.len()
    };
    assert_eq!(all(), 1);
    registry
        .delete(Resource::Namespace, "", "shop", &DeleteOptions::default())
        .unwrap();
    assert_eq!(all(), 0);
}

#[test]
fn a_dry_run_makes_no_slices() {
    let registry = registry(V4);
    let options = WriteOptions {
        dry_run: true,
        ..WriteOptions::default()
    };
    let object = service("web", json!({"selector": {"app": "web"}}));
    let written = registry.create(Resource::Service, "default", object, options);
    assert!(written.unwrap().object["spec"]["clusterIP"].is_string());
    assert!(slices(&registry).is_empty());
}

#[test]
fn more_endpoints_than_a_slice_may_have_are_in_several() {
    let registry = registry(&[]);
    for number in 0..1001 {
        let name = format!("p{number:04}");
        let ip = format!("10.1.{}.{}", number / 250, number % 250 + 1);
        web_pod(&registry, &name, 80);
        runs(&registry, &name, &[&ip]);
    }
    web_service(&registry, json!({}));
    let mut sizes: Vec<usize> = slices(&registry).iter().map(|s| pods(s).len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1000]);
}

#[test]
fn copies_of_large_slices_are_not_remembered_without_end() {
    let registry = registry(V4);
    let version = registry.current_version();
    let mut large = foreign("large", json!({}));
    large["endpoints"] = json!(vec![json!({"addresses": ["192.0.2.1"]}); 1000]);
    create(&registry, Resource::EndpointSlice, large);
    let from = |version| WatchOptions {
        resource_version: Some(version),
        ..WatchOptions::default()
    };
    let watch = |version| registry.watch(Resource::EndpointSlice, None, &from(version));
    assert!(watch(version).is_ok());
    for number in 0..40 {
        let change = json!({"metadata": {"annotations": {"n": number.to_string()}}});
        patch(&registry, Resource::EndpointSlice, "large", change);
    }
    assert_eq!(watch(version).unwrap_err().code, 410);
    assert!(watch(registry.current_version() - 30).is_ok());
}

#[test]
fn written_slices_are_completed_and_validated() {
    let registry = registry(V4);
    let slice = create(&registry, Resource::EndpointSlice, foreign("a", json!({})));
    assert_eq!(
        slice["ports"],
        json!([{"name": "", "port": 80, "protocol": "TCP"}])
    );
    assert!(slice["endpoints"][0]["conditions"].get("ready").is_none());
    let change = json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}]});
    let error = try_patch(&registry, Resource::EndpointSlice, "a", change, false).unwrap_err();
    let expected = "addressType: Invalid value: \"IPv6\": field is immutable";
    assert!(error.message.contains(expected), "{error}");
    let mut large = foreign("b", json!({}));
    large["endpoints"] = json!(vec![json!({"addresses": ["192.0.2.1"]}); 1001]);
    large["ports"] = json!(
        (1..102)
            .map(|port| json!({"port": port}))
            .collect::<Vec<_>>()
    );
    let error = try_create(&registry, Resource::EndpointSlice, large).unwrap_err();
    for expected in [
        "endpoints: Too many: 1001: must have at most 1000 items",
        "ports: Too many: 101: must have at most 100 items",
    ] {
        assert!(error.message.contains(expected), "{error}");
    }
}

#[test]
fn traffic_distribution_becomes_hints_that_follow_the_node_s_zone() {
    let registry = registry(V4);
    let options = WriteOptions::default();
    let node = |zone: &str| json!({"metadata": {"name": "n", "labels": {super::ZONE: zone}}});
    registry
        .create(Resource::Node, "", node("a"), options.clone())
        .unwrap();
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    create(&registry, Resource::Pod, pod);
    runs(&registry, "p", &["10.244.0.5"]);
    web_service(&registry, json!({}));
    let endpoint = || slice(&registry)["endpoints"][0].clone();
    assert_eq!(endpoint()["zone"], "a");
    assert!(endpoint().get("hints").is_none());
    let prefer = |distribution: &str| {
        let change = json!({"spec": {"trafficDistribution": distribution}});
        try_patch(&registry, Resource::Service, "web", change, false)
    };
    let zones = |zone: &str| json!([{"name": zone}]);
    for distribution in ["PreferClose", "PreferSameZone"] {
        prefer(distribution).unwrap();
        assert_eq!(endpoint()["hints"], json!({"forZones": zones("a")}));
    }
    prefer("PreferSameNode").unwrap();
    let both = |zone: &str| json!({"forZones": zones(zone), "forNodes": [{"name": "n"}]});
    assert_eq!(endpoint()["hints"], both("a"));
    let patch = (crate::objects::PatchKind::Merge, node("b"));
    registry
        .patch(Resource::Node, "", "n", patch.0, &patch.1, options)
        .unwrap();
    assert_eq!(endpoint()["hints"], both("b"));
    set_status(&registry, Resource::Pod, "p", json!({"phase": "Pending"}));
    assert!(endpoint().get("hints").is_none(), "it is not ready");
    let error = prefer("Near").unwrap_err();
    assert!(
        error.message.contains("spec.trafficDistribution"),
        "{error}"
    );
}
