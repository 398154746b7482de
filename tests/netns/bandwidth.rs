//! The annotations kubernetes.io/ingress-bandwidth and kubernetes.io/egress-bandwidth.

use serde_json::{Value, json};
use vswitch_tests::{Daemon, Iperf, Megabits, Pod};

use crate::daemon;

fn annotate(daemon: &Daemon, pod: &str, annotations: &Value) {
    let mut object = daemon.vsctl_json(&["get", "pods", pod]).unwrap();
    object["metadata"]["annotations"] = annotations.clone();
    daemon.apply(&object.to_string()).unwrap();
}

fn port_of(daemon: &Daemon, pod: &str) -> Value {
    let ports = daemon.vsctl_json(&["show"]).unwrap();
    let name = format!("default/{pod}");
    let is_its = |port: &&Value| port["pod"] == name.as_str();
    ports
        .as_array()
        .unwrap()
        .iter()
        .find(is_its)
        .unwrap()
        .clone()
}

#[track_caller]
fn assert_rate(measured: Megabits, limit: f64) {
    assert!(
        measured.at_most >= 0.85 * limit && measured.at_least <= 1.05 * limit,
        "{measured:?} of {limit} Mbit/s"
    );
}

#[test]
fn tcp_gets_the_rate_of_the_annotations_and_no_more() {
    let daemon = daemon();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let iperf = Iperf::serve(&server.netns).unwrap();
    annotate(
        &daemon,
        "server",
        &json!({"kubernetes.io/ingress-bandwidth": "50M"}),
    );
    assert_rate(iperf.megabits(&client.netns, server.ip()).unwrap(), 50.0);
    let port = port_of(&daemon, "server");
    assert_eq!(port["ingress_bps"], 50_000_000);
    assert!(
        port["drops"]["bandwidth_exceeded"].as_u64().unwrap() > 0,
        "{port}"
    );

    annotate(
        &daemon,
        "client",
        &json!({"kubernetes.io/egress-bandwidth": "10M"}),
    );
    assert_rate(iperf.megabits(&client.netns, server.ip()).unwrap(), 10.0);
    let shown = daemon.vsctl(&["show"]).unwrap();
    assert!(shown.contains("10M") && shown.contains("50M"), "{shown}");

    for pod in ["client", "server"] {
        annotate(&daemon, pod, &json!({}));
        assert_eq!(port_of(&daemon, pod).get("ingress_bps"), None);
    }
    let free = iperf.megabits(&client.netns, server.ip()).unwrap();
    assert!(free.at_least > 100.0, "{free:?} without a limit");
}

#[test]
fn what_a_pod_sends_to_its_node_is_limited_as_well() {
    let daemon = daemon();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let iperf = Iperf::serve(daemon.node()).unwrap();
    annotate(
        &daemon,
        "client",
        &json!({"kubernetes.io/egress-bandwidth": "20M"}),
    );
    assert_rate(
        iperf
            .megabits(&client.netns, "10.244.0.1".parse().unwrap())
            .unwrap(),
        20.0,
    );
}

#[test]
fn a_bandwidth_that_is_no_quantity_is_refused_with_the_annotation_named() {
    let daemon = daemon();
    let _pod = Pod::named("client").attach(&daemon).unwrap();
    let mut object = daemon.vsctl_json(&["get", "pods", "client"]).unwrap();
    object["metadata"]["annotations"] = json!({"kubernetes.io/egress-bandwidth": "10Mbit"});
    let refused = format!("{:#}", daemon.apply(&object.to_string()).unwrap_err());
    assert!(
        refused.contains("kubernetes.io/egress-bandwidth"),
        "{refused}"
    );
}
