//! Who reaches whom, under which address, and with how large packets.

use std::net::IpAddr;

use vswitch_tests::{Cluster, Pod, eventually, fetch, serve};

use crate::{HOST_GW, VXLAN, cluster, dual_stack, pings};

fn pod(cluster: &Cluster, node: usize, name: &str) -> Pod {
    cluster.pod(node, name).unwrap()
}

/// Echo requests of this many bytes at IP, which may not be fragmented.
fn passes_whole(from: &Pod, to: IpAddr, bytes: usize) -> bool {
    let headers = if to.is_ipv6() { 48 } else { 28 };
    let size = (bytes - headers).to_string();
    let to = to.to_string();
    let ping = [
        "ping", "-n", "-M", "do", "-c", "1", "-W", "2", "-s", &size, &to,
    ];
    from.run(&ping).unwrap().code == Some(0)
}

fn sees_the_pod_s_own_address(backend: &'static str) {
    let cluster = dual_stack(backend);
    let (near, far) = (pod(&cluster, 0, "near"), pod(&cluster, 1, "far"));
    for to in &far.addresses {
        eventually("a pod answers", || pings(&near, *to));
    }
    let connections = cluster.node(1).vsctl_json(&["dump-conntrack"]).unwrap();
    let sources: Vec<&str> = connections
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|connection| connection["src"].as_str())
        .collect();
    for from in &near.addresses {
        assert!(
            sources.contains(&from.to_string().as_str()),
            "{from} in {connections}"
        );
    }
}

#[test]
fn a_pod_is_seen_under_its_own_address_on_other_nodes_by_vxlan() {
    sees_the_pod_s_own_address(VXLAN);
}

#[test]
fn a_pod_is_seen_under_its_own_address_on_other_nodes_by_host_gw() {
    sees_the_pod_s_own_address(HOST_GW);
}

fn node_reaches_pods_everywhere(backend: &'static str) {
    let cluster = dual_stack(backend);
    let far = pod(&cluster, 2, "far");
    let _web = far.serve(80).unwrap();
    for to in &far.addresses {
        let fetched = || fetch(cluster.node(0).node(), *to, 80);
        let page = eventually("a node reaches a pod", fetched);
        assert_eq!(page, "far");
    }
}

#[test]
fn a_node_reaches_pods_of_other_nodes_by_vxlan() {
    node_reaches_pods_everywhere(VXLAN);
}

#[test]
fn a_node_reaches_pods_of_other_nodes_by_host_gw() {
    node_reaches_pods_everywhere(HOST_GW);
}

#[test]
fn the_world_outside_sees_the_node_s_address() {
    let cluster = cluster(VXLAN);
    let near = pod(&cluster, 0, "near");
    let _web = serve(cluster.underlay(), "outside", 80).unwrap();
    let outside: IpAddr = "192.0.2.254".parse().unwrap();
    // The bridge has no way to pods: only a translated connection is answered.
    assert_eq!(near.fetch(outside, 80).unwrap(), "outside");
}

fn largest_packet(backend: &'static str, mtu: usize) {
    let cluster = cluster(backend);
    let (near, far) = (pod(&cluster, 0, "near"), pod(&cluster, 1, "far"));
    assert_eq!(near.netns.link("eth0").unwrap()["mtu"], mtu);
    eventually("the pods talk", || pings(&near, far.ip()));
    // The host ends of the underlay refuse more than 1500 bytes.
    assert!(passes_whole(&near, far.ip(), mtu), "{mtu} bytes pass");
    let wider = (mtu + 1).to_string();
    for pod in [&near, &far] {
        pod.netns
            .ip(&["link", "set", "eth0", "mtu", &wider])
            .unwrap();
    }
    assert!(
        !passes_whole(&near, far.ip(), mtu + 1),
        "{wider} bytes do not"
    );
    assert!(passes_whole(&near, far.ip(), mtu), "{mtu} bytes still pass");
}

#[test]
fn the_largest_packet_fills_the_underlay_exactly_by_vxlan() {
    largest_packet(VXLAN, 1450);
}

#[test]
fn the_largest_packet_fills_the_underlay_exactly_by_host_gw() {
    largest_packet(HOST_GW, 1500);
}

#[test]
fn the_largest_packet_of_ipv6_has_room_for_its_tunnel() {
    let cluster = dual_stack(VXLAN);
    let (near, far) = (pod(&cluster, 0, "near"), pod(&cluster, 1, "far"));
    let sent = || {
        let link = cluster.node(0).node().link("eth0").unwrap();
        link["stats64"]["tx"]["bytes"].as_u64().unwrap()
    };
    eventually("the pods talk", || pings(&near, far.addresses[1]));
    let before = sent();
    assert!(passes_whole(&near, far.addresses[1], 1430));
    // 1430 + 70 for the tunnel + 14 of Ethernet: one frame, and nothing left to put in.
    assert!(sent() - before >= 1514, "the tunnel is the one over IPv6");
}
