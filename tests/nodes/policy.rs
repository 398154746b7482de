//! NetworkPolicies between pods of different nodes.

use vswitch_tests::{Cluster, Pod};

use crate::{HOST_GW, VXLAN, cluster};

const SECURE_POD: &str = include_str!("../../config/samples/secure-pod.yaml");

const FROM_NAMESPACE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-team, namespace: default}
spec:
  podSelector: {matchLabels: {app: secure-pod}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {team: blue}}}]
";

const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";

fn label(cluster: &Cluster, node: usize, arguments: &[&str]) {
    let arguments = [&["label", "pod"], arguments].concat();
    cluster.node(node).vsctl(&arguments).unwrap();
    cluster.share().unwrap();
}

fn story(backend: &'static str) {
    let cluster = cluster(backend);
    cluster.apply(NAMESPACE).unwrap();
    let server = Pod::named("server").attach(cluster.node(0)).unwrap();
    let client = Pod::named("client").attach(cluster.node(1)).unwrap();
    let shopper = Pod::named("shopper")
        .namespace("shop")
        .attach(cluster.node(2))
        .unwrap();
    let _web = server.serve(80).unwrap();
    label(&cluster, 0, &["server", "app=secure-pod"]);
    assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");

    cluster.apply(SECURE_POD).unwrap();
    for stranger in [&client, &shopper] {
        let error = format!("{:#}", stranger.fetch(server.ip(), 80).unwrap_err());
        assert!(error.contains("exit Some(28)"), "the fetch hangs: {error}");
    }
    label(&cluster, 1, &["client", "allow-access=true"]);
    assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");
    shopper.fetch(server.ip(), 80).unwrap_err();

    cluster.apply(FROM_NAMESPACE).unwrap();
    shopper.fetch(server.ip(), 80).unwrap_err();
    cluster
        .vsctl(&["label", "namespace", "shop", "team=blue"])
        .unwrap();
    assert_eq!(shopper.fetch(server.ip(), 80).unwrap(), "server");
    label(&cluster, 1, &["client", "allow-access-"]);
    client.fetch(server.ip(), 80).unwrap_err();
}

#[test]
fn labels_of_pods_and_namespaces_count_on_other_nodes_by_vxlan() {
    story(VXLAN);
}

#[test]
fn labels_of_pods_and_namespaces_count_on_other_nodes_by_host_gw() {
    story(HOST_GW);
}
