//! NetworkPolicies between pods of different nodes.

use vswitch_tests::eventually;

use crate::{HOST_GW, VXLAN, cluster, hangs, reaches};

const SECURE_POD: &str = include_str!("../../config/samples/secure-pod.yaml");

const PODS: &str = include_str!("../../config/samples/client-and-server.yaml");

const FROM_NAMESPACE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-team, namespace: default}
spec:
  podSelector: {matchLabels: {app: secure-pod}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {team: blue}}}]
";

const SHOPPER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: shopper, namespace: shop}
spec: {nodeName: node-2, containers: [{name: shopper, image: busybox}]}
";

fn story(backend: &'static str) {
    let cluster = cluster(backend);
    let kubectl = |arguments: &[&str]| cluster.api().kubectl(arguments).unwrap();
    cluster.apply(PODS).unwrap();
    cluster.apply(SHOPPER).unwrap();
    let run = |node, namespace, name| {
        let pod = cluster.api().run_pod(cluster.node(node), namespace, name);
        pod.unwrap()
    };
    let server = run(0, "default", "server");
    let client = run(1, "default", "client");
    let shopper = run(2, "shop", "shopper");
    let _web = server.serve(80).unwrap();
    eventually("pods of different nodes talk", || reaches(&client, &server));

    cluster.apply(SECURE_POD).unwrap();
    eventually("the policy blocks", || hangs(&client, &server));
    hangs(&shopper, &server).unwrap();
    kubectl(&["label", "pod", "client", "allow-access=true"]);
    eventually("the label admits", || reaches(&client, &server));
    hangs(&shopper, &server).unwrap();

    cluster.apply(FROM_NAMESPACE).unwrap();
    hangs(&shopper, &server).unwrap();
    kubectl(&["label", "namespace", "shop", "team=blue"]);
    eventually("the label of its namespace admits", || {
        reaches(&shopper, &server)
    });
    kubectl(&["label", "pod", "client", "allow-access-"]);
    eventually("without its label it is kept out", || {
        hangs(&client, &server)
    });
    reaches(&shopper, &server).unwrap();
}

#[test]
fn labels_of_pods_and_namespaces_count_on_other_nodes_by_vxlan() {
    story(VXLAN);
}

#[test]
fn labels_of_pods_and_namespaces_count_on_other_nodes_by_host_gw() {
    story(HOST_GW);
}
