//! Kinds come on streams of their own, so their objects come in any order.

use std::sync::Arc;

use serde_json::{Value, json};
use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{Datapath, DatapathConfig};
use vswitchd::config::Deny;
use vswitchd::objects::{ObjectId, Objects, Registry, Resource, feed};
use vswitchd::reconcile::{GatewayPort, PortAttachMode, ReconcileConfig, Reconciler};
use vswitchd::state::Attachment;
use vswitchd::store::{MemoryStore, Store as _};
use vswitchd::supervise::Supervisor;

use crate::kit::registry_config;

type MirrorUpdate = (ObjectId, Option<Value>);

fn object(resource: Resource, namespace: &str, name: &str, mut object: Value) -> MirrorUpdate {
    object["metadata"]["name"] = json!(name);
    object["metadata"]["namespace"] = json!(namespace);
    let id = (resource, namespace.to_owned(), name.to_owned());
    (id, Some(object))
}

fn pod(namespace: &str, name: &str, node: &str, ip: &str, label: (&str, &str)) -> MirrorUpdate {
    let (key, value) = label;
    let pod = json!({"metadata": {"uid": name, "labels": {key: value}}, "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}]}});
    object(Resource::Pod, namespace, name, pod)
}

/// A policy with its pods and their namespaces, and a Service with its endpoint.
fn cluster() -> Vec<MirrorUpdate> {
    let peer = json!({"namespaceSelector": {"matchLabels": {"team": "a"}},
        "podSelector": {"matchLabels": {"role": "client"}}});
    let policy = json!({"spec": {"podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress"], "ingress": [{"from": [peer], "ports": [{"port": 80}]}]}});
    let service = json!({"spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
    let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.77.0.2"]}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
    let team = json!({"metadata": {"labels": {"team": "a"}}});
    vec![
        object(Resource::Namespace, "", "default", json!({})),
        object(Resource::Namespace, "", "shop", team),
        pod("default", "web", "node-a", "10.77.0.2", ("app", "web")),
        pod("shop", "client", "node-b", "10.77.1.5", ("role", "client")),
        object(Resource::NetworkPolicy, "default", "web", policy),
        object(Resource::Service, "default", "web", service),
        object(Resource::EndpointSlice, "default", "web-x", slice),
    ]
}

fn attachment() -> Attachment {
    serde_json::from_value(json!({
        "container_id": "c", "ifname": "eth0", "network": "vswitch", "netns": "/run/netns/web",
        "host_ifname": "vswweb", "port_no": 100, "mac": "02:00:00:00:00:02",
        "addresses": ["10.77.0.2/24"], "mtu": 1500, "delegated_ipam": null,
        "pod": {"namespace": "default", "name": "web"},
    }))
    .unwrap()
}

/// Returns what is in force after each object was told by itself, in this order.
async fn in_force_after(told: Vec<MirrorUpdate>) -> Vec<String> {
    let registry = {
        let losses = MemoryStore::default().losses();
        Registry::mirror_of(
            "http://hub",
            Objects::new(),
            registry_config("node-a"),
            losses,
        )
    };
    let datapath = Datapath::new(DatapathConfig::default());
    let gateway = GatewayPort {
        port_no: vswitch_api::PortNo(1),
        name: "vsw0".to_owned(),
        mac: vswitch_api::MacAddr([2, 0, 0, 0, 0, 1]),
        addresses: vec!["10.77.0.1".parse().unwrap()],
        mtu: 1500,
    };
    let config = ReconcileConfig {
        node_name: "node-a".to_owned(),
        gateway,
        pod_cidrs: vec!["10.77.0.0/24".parse().unwrap()],
        deny: Deny::Drop,
    };
    let (reconcile, thread) =
        Reconciler::start(Arc::clone(&datapath), config, &Supervisor::default()).unwrap();
    reconcile.attach(attachment(), PortAttachMode::default());
    let mut feed = feed(&registry);
    for change in told {
        registry.mirror(vec![change], vswitchd::clock::instant());
        reconcile.cluster(feed.next().await.unwrap());
        reconcile.wait_until_in_force().await.unwrap();
    }
    reconcile.cluster_synced();
    reconcile.wait_until_in_force().await.unwrap();
    reconcile.stop();
    thread.join().unwrap();

    // Numbers of rules and groups are given in the order of arrival.
    let rules = datapath.rules().into_iter().map(|stats| stats.rule);
    let rules = rules
        .filter(|rule| rule.table != TableId::ServiceLb)
        .map(|rule| {
            let at = (rule.table, rule.priority, &rule.matches, &rule.actions);
            format!("{at:?} {:?}", rule.origin)
        });
    let sets = datapath
        .address_sets()
        .into_iter()
        .map(|set| format!("{set:?}"));
    let groups = datapath.groups().into_iter();
    let groups = groups.map(|group| format!("{} {:?}", group.name, group.endpoints));
    let mut all: Vec<String> = rules.chain(sets).chain(groups).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_come_in_any_order_lead_to_the_same_rules() {
    let wanted = in_force_after(cluster()).await;
    let text = wanted.join("\n");
    for part in ["10.77.1.5", "default/web", "10.77.0.2"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let mut backwards = cluster();
    backwards.reverse();
    assert_eq!(in_force_after(backwards).await, wanted);
    for first in 1..cluster().len() {
        let mut rotated = cluster();
        rotated.rotate_left(first);
        assert_eq!(
            in_force_after(rotated).await,
            wanted,
            "beginning with {first}"
        );
    }
}
