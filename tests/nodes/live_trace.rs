//! Packets and probes from node to node.

use serde_json::Value;
use vswitch_tests::{LiveTrace, eventually};

use crate::{HOST_GW, VXLAN, pings, start};

const SECURE_POD: &str = include_str!("../../config/samples/secure-pod.yaml");

fn met(hop: &Value, table: u64, named: &str) -> bool {
    let steps = hop["steps"].as_array().into_iter().flatten();
    steps
        .filter(|step| step["table"] == table)
        .any(|step| step["flow"].to_string().contains(named))
}

fn across_nodes(backend: &'static str) {
    let cluster = start(backend, 2, false);
    let near = cluster.pod(0, "near").unwrap();
    let far = cluster.pod(1, "far").unwrap();
    let _web = far.serve(80).unwrap();
    let kubectl = |arguments: &[&str]| cluster.api().kubectl(arguments).unwrap();
    kubectl(&["label", "pod", "far", "app=secure-pod"]);
    kubectl(&["label", "pod", "near", "allow-access=true"]);
    cluster.apply(SECURE_POD).unwrap();
    eventually("a page is fetched", || near.fetch(far.ip(), 80));
    // Near's node makes nothing of the policy; far's node does.
    eventually("the policy is in force", || {
        anyhow::ensure!(near.fetch(far.ip(), 81).is_err());
        anyhow::ensure!(pings(&near, far.ip()).is_err(), "it is not");
        Ok(())
    });

    let peer = format!("unix://{}", cluster.node(1).socket().display());
    let asked = ["near", "far:80", "--count", "3", "--peer", &peer];
    let trace = LiveTrace::begin(cluster.node(0), &asked);
    near.fetch(far.ip(), 80).unwrap();
    let packets = trace.finish();
    let way_there = format!("node node-1, by vsw0 and {backend}");
    let way_back = format!("node node-0, by vsw0 and {backend}");
    for (packet, flags) in packets.iter().zip(["SYN", "SYN,ACK", "ACK"]) {
        let hops = packet["hops"].as_array().unwrap();
        let [first, second] = &hops[..] else {
            panic!("two nodes: {packets:#?}");
        };
        assert_eq!(first["packet"]["tcp_flags"], flags);
        assert_eq!(first["left_as"], second["packet"], "it is the same");
        assert!(first["time"].as_str() < second["time"].as_str());
        let nodes = [&first["node"], &second["node"]];
        if flags == "SYN,ACK" {
            assert_eq!(nodes, ["node-1", "node-0"]);
            assert_eq!(first["way"], way_back);
            assert_eq!(second["way"], "default/near");
            assert!(met(first, 80, "default/secure-pod"), "{first}");
        } else {
            assert_eq!(nodes, ["node-0", "node-1"]);
            assert_eq!(first["way"], way_there);
            assert_eq!(second["in_port"], "vsw0");
            assert_eq!(second["way"], "default/far");
            assert!(met(second, 80, "default/secure-pod"), "{second}");
        }
    }

    let probe = |to: &str| cluster.node(0).vsctl_json(&["ping", "near", to]).unwrap();
    let answered = probe("far:80");
    assert_eq!(answered[0]["outcome"], "answered", "{answered}");
    assert_eq!(answered[0]["way"], way_there);
    let denied = cluster.node(0).vsctl(&["ping", "near", "far:81"]);
    let denied = format!("{:#}", denied.unwrap_err());
    assert!(denied.contains("exit Some(4)"), "{denied}");
    assert!(
        denied.contains("policies that another node applies: denied: pod default/far"),
        "{denied}"
    );
    let foreign = cluster.node(0).vsctl(&["ping", "far", "near:80"]);
    let foreign = format!("{:#}", foreign.unwrap_err());
    assert!(
        foreign.contains("the pod runs on node node-1: ask there"),
        "{foreign}"
    );
    for node in [0, 1] {
        let connections = cluster.node(node).vsctl_json(&["dump-conntrack"]).unwrap();
        let all = connections.as_array().unwrap();
        let of_probes = all
            .iter()
            .filter(|of| of["src_port"].as_u64() >= Some(61_000));
        let open = of_probes.filter(|of| of["state"] != "CLOSE" && of["protocol"] == "tcp");
        assert_eq!(open.count(), 0, "node {node}: {connections}");
    }
}

#[test]
fn a_packet_is_traced_across_nodes_and_a_probe_answered_by_vxlan() {
    across_nodes(VXLAN);
}

#[test]
fn a_packet_is_traced_across_nodes_and_a_probe_answered_by_host_gw() {
    across_nodes(HOST_GW);
}
