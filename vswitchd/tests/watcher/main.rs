//! The watchers of a cluster against a real API server, the standalone one, over TCP: what they
//! make of servers that go away, forget, stall or are slow.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod absent;
mod events;
mod kit;
mod order;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use vswitchd::objects::{LastKnown, Resource, Selection, feed};
use vswitchd::state::ClusterChange;
use vswitchd::store::{MemoryStore, SharedStore};

use kit::{CountingStore, Hub, Node, answering, api_at, soon, within};

fn memory() -> SharedStore {
    Arc::new(MemoryStore::default())
}

async fn hub_and_node() -> (Hub, Node) {
    let hub = Hub::start().await;
    hub.pod("web", "node-a", &json!({"app": "web"}));
    hub.pod("far", "node-b", &json!({"app": "far"}));
    let mut node = Node::start(&hub.api().await, &memory());
    node.synced().await;
    (hub, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_every_kind_are_heard_and_so_are_their_changes() {
    let hub = Hub::start().await;
    hub.create(
        Resource::Namespace,
        "",
        json!({"metadata": {"name": "shop"}}),
    );
    let node_object =
        json!({"metadata": {"name": "node-a"}, "spec": {"podCIDRs": ["10.9.0.0/24"]}});
    hub.create(Resource::Node, "", node_object);
    hub.pod("web", "node-a", &json!({"app": "web"}));
    let service = json!({"metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    hub.create(Resource::Service, "default", service);
    let policy = json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}}});
    hub.create(Resource::NetworkPolicy, "shop", policy);
    let guard = json!({"metadata": {"name": "guard"}, "spec": {"tier": "Admin", "priority": 1,
        "subject": {"namespaces": {}}}});
    hub.create(Resource::ClusterNetworkPolicy, "", guard);
    let guard = json!({"metadata": {"name": "guard"}, "spec": {"priority": 1, "subject": {"namespaces": {}}}});
    hub.create(Resource::AdminNetworkPolicy, "", guard);
    let base = json!({"metadata": {"name": "default"}, "spec": {"subject": {"namespaces": {}}}});
    hub.create(Resource::BaselineAdminNetworkPolicy, "", base);
    let account = json!({"metadata": {"name": "robot"}});
    hub.create(Resource::ServiceAccount, "shop", account);
    let named = |spec: Value| json!({"metadata": {"name": "of-calico"}, "spec": spec});
    hub.create(Resource::CalicoTier, "", named(json!({"order": 10})));
    let selects = json!({"selector": "all()"});
    hub.create(Resource::GlobalNetworkPolicy, "", named(selects.clone()));
    hub.create(
        Resource::CalicoNetworkPolicy,
        "shop",
        named(selects.clone()),
    );
    hub.create(
        Resource::StagedGlobalNetworkPolicy,
        "",
        named(selects.clone()),
    );
    hub.create(Resource::StagedNetworkPolicy, "shop", named(selects));
    let deletes = json!({"stagedAction": "Delete"});
    hub.create(
        Resource::StagedKubernetesNetworkPolicy,
        "shop",
        named(deletes),
    );
    let nets = json!({"nets": ["192.0.2.0/24"]});
    hub.create(Resource::GlobalNetworkSet, "", named(nets.clone()));
    hub.create(Resource::NetworkSet, "shop", named(nets));
    let guarded = json!({"node": "node-a", "interfaceName": "eth0"});
    hub.create(Resource::HostEndpoint, "", named(guarded));

    let mut node = Node::start(&hub.api().await, &memory());
    node.synced().await;
    let selection = Selection::default();
    for info in &vswitchd::objects::RESOURCES {
        let names = |registry: &vswitchd::objects::Registry| -> Vec<Value> {
            let list = registry.list(info.resource, None, &selection).unwrap();
            let name = |object: &Arc<Value>| object["metadata"]["name"].clone();
            list.items.iter().map(name).collect()
        };
        let there = names(&hub.registry);
        assert!(!there.is_empty(), "{}", info.kind);
        assert_eq!(names(&node.cluster.registry), there, "{}", info.kind);
    }
    hub.label_pod("web", "v2");
    soon("the label is heard", || {
        node.app("web").as_deref() == Some("v2")
    })
    .await;
    hub.delete(Resource::Namespace, "", "shop");
    let policy = || {
        node.cluster
            .registry
            .get(Resource::NetworkPolicy, "shop", "deny")
    };
    soon("the policy is gone", || policy().is_err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_is_heard_again_when_it_is_back() {
    let (mut hub, node) = hub_and_node().await;
    hub.go_away();
    let health = Arc::clone(&node.cluster.health);
    soon("the loss is noticed", || !health.is_live()).await;
    assert!(health.is_synced() && !health.errors().is_empty());
    assert!(health.stale_seconds().is_some());
    assert_eq!(
        node.app("web").as_deref(),
        Some("web"),
        "what is known stays"
    );

    hub.restart().await;
    hub.label_pod("far", "v2");
    hub.delete(Resource::Pod, "default", "web");
    hub.come_back();
    soon("the change is heard", || {
        node.app("far").as_deref() == Some("v2")
    })
    .await;
    soon("the deletion is heard", || node.pod("web").is_none()).await;
    soon("all is live again", || health.is_live()).await;
    assert_eq!(health.stale_seconds(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_made_anew_while_disconnected_is_another_pod() {
    let (hub, node) = hub_and_node().await;
    let old = node.uid("web").unwrap();
    let mut feed = feed(&node.cluster.registry);
    hub.go_away();
    soon("the loss is noticed", || !node.cluster.health.is_live()).await;
    hub.delete(Resource::Pod, "default", "web");
    hub.pod("web", "node-a", &json!({"app": "other"}));
    hub.come_back();
    soon("the new one is heard", || {
        node.uid("web").is_some_and(|uid| uid != old)
    })
    .await;
    assert_eq!(node.app("web").as_deref(), Some("other"));
    let mut told = Vec::new();
    while !told
        .iter()
        .any(|change| matches!(change, ClusterChange::Pod(pod) if pod.uid != old))
    {
        told.extend(feed.next().await.unwrap());
    }
    let gone = told
        .iter()
        .position(|change| matches!(change, ClusterChange::PodGone(_)));
    let present = told
        .iter()
        .position(|change| matches!(change, ClusterChange::Pod(_)));
    assert!(
        gone.unwrap() < present.unwrap(),
        "nothing of the old one stays: {told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_was_forgotten_leads_to_a_new_list() {
    let (hub, node) = hub_and_node().await;
    let (lists, _) = node.pods_heard();
    hub.go_away();
    soon("the loss is noticed", || !node.cluster.health.is_live()).await;
    hub.delete(Resource::Pod, "default", "far");
    // More changes than the server remembers.
    for number in 0..8200 {
        hub.label_pod("web", &format!("v{number}"));
    }
    hub.come_back();
    soon("the last change is heard", || {
        node.app("web").as_deref() == Some("v8199")
    })
    .await;
    soon("what vanished is gone", || node.pod("far").is_none()).await;
    soon("all is live again", || node.cluster.health.is_live()).await;
    assert_eq!(node.pods_heard().0, lists + 1, "410 Gone leads to one list");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_stalls_silently_is_noticed() {
    let (hub, node) = hub_and_node().await;
    let (_, failures) = node.pods_heard();
    hub.stall();
    hub.label_pod("web", "v2");
    // A watch of 2 s, 1 s of grace, and an idle connection that is tried first.
    within("the change is heard", 20, || {
        node.app("web").as_deref() == Some("v2")
    })
    .await;
    within("the stall is counted", 20, || {
        node.pods_heard().1 > failures
    })
    .await;
    within("all is live again", 40, || node.cluster.health.is_live()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_the_server_ends_by_itself_lose_nothing_and_are_no_failure() {
    let (hub, node) = hub_and_node().await;
    // Each lasts two seconds.
    for number in 0..25 {
        let label = format!("v{number}");
        hub.label_pod("web", &label);
        soon("the change is heard", || {
            node.app("web").as_ref() == Some(&label)
        })
        .await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(node.pods_heard(), (1, 0));
    assert!(node.cluster.health.is_live());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_pods_are_heard_and_stored_in_few_commits() {
    let hub = Hub::start().await;
    for number in 0..5000 {
        hub.pod(&format!("p{number}"), "node-b", &json!({"app": "crowd"}));
    }
    let counting = Arc::new(CountingStore::default());
    let store: SharedStore = counting.clone();
    let api = hub.api().await;
    let mut node = Node::start(&api, &store);
    node.synced().await;
    assert!(node.pod("p0").is_some() && node.pod("p4999").is_some());
    soon("it is stored while the node runs", || {
        counting.commits.load(Ordering::Relaxed) > 0
    })
    .await;
    node.stop().await;
    let commits = counting.commits.load(Ordering::Relaxed);
    assert!(commits < 20, "{commits} commits");
    let known = LastKnown::load(&store, api.url()).unwrap().unwrap();
    let pods = known.objects.keys().filter(|id| id.0 == Resource::Pod);
    assert_eq!(pods.count(), 5000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_known_is_there_at_the_next_start_without_the_server() {
    let hub = Hub::start().await;
    hub.pod("web", "node-a", &json!({"app": "web"}));
    hub.pod("old", "node-a", &json!({}));
    let (store, api) = (memory(), hub.api().await);
    let mut node = Node::start(&api, &store);
    node.synced().await;
    soon("everything is live", || node.cluster.health.is_live()).await;
    node.stop().await;

    hub.go_away();
    let mut node = Node::start(&api, &store);
    assert!(node.cluster.has_last_known && !node.cluster.health.is_synced());
    assert_eq!(node.app("web").as_deref(), Some("web"));
    soon("the server is missed", || {
        !node.cluster.health.errors().is_empty()
    })
    .await;
    assert!(node.cluster.health.stale_seconds().is_some());
    hub.delete(Resource::Pod, "default", "old");
    hub.come_back();
    node.synced().await;
    assert!(node.pod("old").is_none(), "what vanished meanwhile is gone");
    assert!(node.pod("web").is_some());

    let other = LastKnown::load(&store, "http://192.0.2.1:6443").unwrap();
    assert_eq!(
        other, None,
        "another API server's objects are another cluster's"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_stored_is_stored_as_soon_as_the_store_takes_it() {
    let hub = Hub::start().await;
    hub.pod("web", "node-a", &json!({"app": "web"}));
    let counting = Arc::new(CountingStore::default());
    let store: SharedStore = counting.clone();
    let api = hub.api().await;
    let mut node = Node::start(&api, &store);
    node.synced().await;
    let known = || LastKnown::load(&store, api.url()).unwrap();
    soon("everything is stored", || known().is_some()).await;

    counting.is_full.store(true, Ordering::Relaxed);
    let before = counting.commits.load(Ordering::Relaxed);
    hub.pod("late", "node-a", &json!({"app": "late"}));
    hub.delete(Resource::Pod, "default", "web");
    soon("a commit is refused", || {
        counting.commits.load(Ordering::Relaxed) > before
    })
    .await;
    let names = || {
        let objects = known().unwrap().objects.into_keys();
        let pods = objects.filter(|id| id.0 == Resource::Pod);
        pods.map(|id| id.2).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["web"], "what is stored is of one moment");
    counting.is_full.store(false, Ordering::Relaxed);
    // Nothing changes any more: the store alone is why it is written now.
    soon("both changes are stored", || names() == ["late"]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_list_that_never_was_complete_is_not_enforced_later() {
    let hub = Hub::start().await;
    let (store, api) = (memory(), hub.api().await);
    hub.go_away();
    let node = Node::start(&api, &store);
    soon("the server is missed", || {
        !node.cluster.health.errors().is_empty()
    })
    .await;
    node.stop().await;
    assert_eq!(LastKnown::load(&store, api.url()).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_in_pages_is_one_list_and_one_forgotten_in_between_begins_anew() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let page = |name: &str, next: &str| {
        let metadata =
            json!({"name": name, "namespace": "default", "uid": name, "resourceVersion": "5"});
        json!({"kind": "PodList", "metadata": {"resourceVersion": "9", "continue": next},
            "items": [{"metadata": metadata}]})
    };
    let address = answering(move |target| {
        let path = target.split('?').next().unwrap();
        let is_pods = path == "/api/v1/pods" && !target.contains("fieldSelector");
        if target.contains("watch=true") {
            return (
                200,
                json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}),
            );
        }
        match (is_pods, target.contains("continue=more")) {
            (true, false) => (200, page("first", "more")),
            (true, true) if counter.fetch_add(1, Ordering::SeqCst) == 0 => {
                let status = json!({"kind": "Status", "status": "Failure", "reason": "Expired",
                    "message": "the continue token is too old", "code": 410});
                (410, status)
            }
            (true, true) => (200, page("second", "")),
            _ => (
                200,
                json!({"metadata": {"resourceVersion": "9"}, "items": []}),
            ),
        }
    })
    .await;
    let mut node = Node::start(&api_at(address).await, &memory());
    node.synced().await;
    assert!(node.pod("first").is_some() && node.pod("second").is_some());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(node.pods_heard().0, 1, "the half list was told nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_refuses_writes_and_watches_and_names_the_server() {
    let (hub, node) = hub_and_node().await;
    let registry = &node.cluster.registry;
    let object = json!({"metadata": {"name": "x"}});
    let error = registry.create(Resource::Namespace, "", object, Default::default());
    let error = error.unwrap_err();
    assert_eq!(error.code, 405);
    assert!(error.message.contains(&hub.address.to_string()), "{error}");
    let watch = registry.watch(Resource::Pod, None, &Default::default());
    assert_eq!(watch.unwrap_err().code, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_condition_of_the_node_is_cleared_once_however_often_it_is_said() {
    let hub = Hub::start().await;
    hub.create(Resource::Node, "", json!({"metadata": {"name": "node-a"}}));
    let api = hub.api().await;
    for time in ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"] {
        api.set_network_available("node-a", time).await.unwrap();
    }
    let node = hub.registry.get(Resource::Node, "", "node-a").unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let of_network = conditions
        .iter()
        .filter(|one| one["type"] == "NetworkUnavailable");
    let of_network: Vec<&Value> = of_network.collect();
    assert_eq!(of_network.len(), 1);
    assert_eq!(of_network[0]["status"], "False");
    assert_eq!(of_network[0]["reason"], "VswitchIsUp");
    let error = api
        .set_network_available("node-x", "2026-01-01T00:00:00Z")
        .await;
    let error = format!("{:#}", error.unwrap_err());
    assert!(
        error.contains("node-x") && error.contains("not found"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_of_another_store_is_gone_and_not_waited_for() {
    let hub = Hub::start().await;
    let options = vswitchd::objects::WatchOptions {
        resource_version: Some(hub.registry.current_version() + 1000),
        ..Default::default()
    };
    let watch = hub.registry.watch(Resource::Pod, None, &options);
    assert_eq!(watch.unwrap_err().code, 410);
}
