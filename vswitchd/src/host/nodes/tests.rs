//! Plans against real kernels: namespaces that are nodes, and what is in them afterwards.

use std::collections::BTreeMap;

use super::*;
use crate::config::{Backend, VxlanConfig};
use crate::host::NftTable;
use crate::host::testing::{Pod, in_new_netns, run};
use crate::state::NodeRecord;

fn spec(name: &str, backend: Backend, cidr: &str) -> NodesSpec {
    NodesSpec {
        node_name: name.to_owned(),
        backend,
        vxlan: VxlanConfig {
            vni: 1,
            port: 8472,
            ifname: "vsw-vxlan".parse().unwrap(),
        },
        pod_cidrs: vec![cidr.parse().unwrap()],
        gateway_ifname: "vsw0".parse().unwrap(),
        mtu: 1450,
    }
}

fn underlay(ip: &str) -> Underlay {
    Underlay::first_of([ip.parse().unwrap()])
}

fn node(name: &str, backend: Backend, cidr: &str, ip: &str) -> NodeRecord {
    let told = node_publication(&spec(name, backend, cidr), underlay(ip));
    let annotations = told.annotations.into_iter();
    NodeRecord {
        name: name.to_owned(),
        pod_cidrs: told.pod_cidrs,
        annotations: annotations
            .filter_map(|(key, value)| Some((key, value?)))
            .collect::<BTreeMap<_, _>>(),
        ..NodeRecord::default()
    }
}

/// This node's uplink, and another machine behind it.
fn other_machine() -> Pod {
    let other = Pod::new();
    run(&format!(
        "ip link add up0 type veth peer name eth0 netns {}
         ip addr add 192.0.2.1/24 dev up0; ip link set up0 up
         echo 1 > /proc/sys/net/ipv4/ip_forward",
        other.path().display()
    ))
    .unwrap();
    other
        .run("ip link set lo up; ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up")
        .unwrap();
    other
}

fn apply(network: &mut NodeNetwork, spec: &NodesSpec, nodes: &[NodeRecord]) {
    let plan = plan_nodes(spec, underlay("192.0.2.1"), nodes);
    let problems = network.apply(&plan);
    let problems: Vec<String> = problems
        .into_iter()
        .map(|problem| crate::errors::chain(&problem))
        .collect();
    assert_eq!(problems, [""; 0]);
}

fn state() -> String {
    run(
        "ip -d link; ip -br addr show dev vsw-vxlan; ip route show proto 86
         bridge fdb show dev vsw-vxlan; ip neigh show dev vsw-vxlan nud permanent
         nft list ruleset",
    )
    .unwrap_or_else(|error| error)
}

#[test]
fn tunnels_follow_nodes_that_come_change_and_go() {
    in_new_netns(|| {
        let _other = other_machine();
        let spec = spec("here", Backend::Vxlan, "10.244.0.0/24");
        let mut network = NodeNetwork::new(spec.clone(), &NftTable::default());
        run("nft add table inet other; ip route add 10.9.0.0/16 via 192.0.2.2 proto static")
            .unwrap();
        let before = state();
        apply(&mut network, &spec, &[]);
        assert_eq!(state(), before, "a lone node changes nothing");

        let there = node("there", Backend::Vxlan, "10.244.1.0/24", "192.0.2.2");
        let third = node("third", Backend::Vxlan, "10.244.2.0/24", "192.0.2.3");
        apply(&mut network, &spec, &[there.clone(), third]);
        let now = state();
        for part in [
            "vxlan id 1 local 192.0.2.1",
            "dstport 8472",
            "nolearning",
            "mtu 1450",
            "10.244.0.0/32",
            "10.244.1.0/24 via 10.244.1.0 dev vsw-vxlan onlink",
            "10.244.2.0/24 via 10.244.2.0 dev vsw-vxlan onlink",
            "dst 192.0.2.2 self permanent",
            "dst 192.0.2.3 self permanent",
            "10.244.1.0 lladdr",
            "inet vswitch_nodes",
        ] {
            assert!(now.contains(part), "{part} in {now}");
        }

        let moved = node("there", Backend::Vxlan, "10.244.7.0/24", "192.0.2.9");
        apply(&mut network, &spec, std::slice::from_ref(&moved));
        let now = state();
        assert!(now.contains("10.244.7.0/24 via 10.244.7.0"), "{now}");
        assert!(now.contains("dst 192.0.2.9 self"), "{now}");
        for part in ["10.244.1.0", "10.244.2.0", "192.0.2.3"] {
            assert!(!now.contains(part), "{part} in {now}");
        }

        // Another daemon of that name finds it all, and somebody has been at it.
        run("ip route flush proto 86; bridge fdb flush dev vsw-vxlan 2>/dev/null
             ip neigh flush nud permanent dev vsw-vxlan; nft flush ruleset; nft add table inet other")
        .unwrap();
        apply(&mut network, &spec, std::slice::from_ref(&moved));
        assert_eq!(state(), now, "what was removed is put back");
        run("ip link del vsw-vxlan").unwrap();
        apply(&mut network, &spec, std::slice::from_ref(&moved));
        let mut anew = NodeNetwork::new(spec.clone(), &NftTable::default());
        apply(&mut anew, &spec, &[moved]);
        assert!(state().contains("10.244.7.0/24 via 10.244.7.0"));

        apply(&mut anew, &spec, &[]);
        assert_eq!(state(), before, "the last one out leaves nothing");
        apply(&mut anew, &spec, &[there]);
        let removed = NodeNetwork::remove(&spec.vxlan.ifname, &NftTable::default());
        assert!(removed.is_empty(), "{removed:?}");
        assert_eq!(state(), before);
    });
}

#[test]
fn a_device_that_cannot_be_changed_is_made_anew_and_others_are_left_alone() {
    in_new_netns(|| {
        let _other = other_machine();
        let spec = spec("here", Backend::Vxlan, "10.244.0.0/24");
        let there = node("there", Backend::Vxlan, "10.244.1.0/24", "192.0.2.2");
        let mut network = NodeNetwork::new(spec.clone(), &NftTable::default());
        run("ip link add vsw-vxlan type vxlan id 9 dstport 8472 local 192.0.2.1").unwrap();
        apply(&mut network, &spec, std::slice::from_ref(&there));
        assert!(state().contains("vxlan id 1 "), "{}", state());

        run("ip link del vsw-vxlan; ip link add vsw-vxlan type bridge").unwrap();
        let plan = plan_nodes(&spec, underlay("192.0.2.1"), [&there]);
        let problems = network.apply(&plan);
        assert!(
            problems
                .iter()
                .any(|problem| problem.to_string().contains("vsw-vxlan is no VXLAN device")),
            "{problems:?}"
        );
        let routes = run("ip route show proto 86").unwrap();
        assert_eq!(routes, "", "no way through somebody else's device");

        run("ip link del vsw-vxlan").unwrap();
        apply(&mut network, &spec, std::slice::from_ref(&there));
        let now = state();
        assert!(now.contains("10.244.1.0/24 via 10.244.1.0"), "{now}");
    });
}

#[test]
fn a_route_of_somebody_else_is_told_of_and_left_alone() {
    in_new_netns(|| {
        let _other = other_machine();
        let spec = spec("here", Backend::HostGw, "10.244.0.0/24");
        let there = node("there", Backend::HostGw, "10.244.1.0/24", "192.0.2.2");
        run("ip route add 10.244.1.0/24 via 192.0.2.7").unwrap();
        let mut network = NodeNetwork::new(spec.clone(), &NftTable::default());
        let plan = plan_nodes(&spec, underlay("192.0.2.1"), [&there]);
        let problems = network.apply(&plan);
        let text = format!("{:#}", anyhow::anyhow!("{:?}", problems));
        assert!(text.contains("10.244.1.0/24 via 192.0.2.2"), "{text}");
        let routes = run("ip route").unwrap();
        assert!(routes.contains("10.244.1.0/24 via 192.0.2.7"), "{routes}");

        run("ip route del 10.244.1.0/24").unwrap();
        apply(&mut network, &spec, std::slice::from_ref(&there));
        let routes = run("ip route").unwrap();
        assert!(routes.contains("10.244.1.0/24 via 192.0.2.2"), "{routes}");
    });
}

/// Sends one packet with a source from the other machine and returns what was dropped for it.
fn dropped(network: &NodeNetwork) -> BTreeMap<&'static str, u64> {
    let drops = network.drops().unwrap().into_iter();
    drops
        .map(|(reason, count)| (reason.name(), count))
        .collect()
}

#[test]
fn a_host_gateway_s_pods_are_heard_from_its_mac_only() {
    in_new_netns(|| {
        let other = other_machine();
        run(
            "ip link add vsw0 type bridge; ip addr add 10.244.0.1/24 dev vsw0; ip link set vsw0 up",
        )
        .unwrap();
        other
            .run(
                "ip addr add 10.244.1.5/24 dev lo; ip addr add 10.244.0.77/32 dev lo
                   ip addr add 10.244.2.5/32 dev lo; ip route add 10.244.0.0/24 via 192.0.2.1",
            )
            .unwrap();
        let spec = spec("here", Backend::HostGw, "10.244.0.0/24");
        let there = node("there", Backend::HostGw, "10.244.1.0/24", "192.0.2.2");
        let third = node("third", Backend::HostGw, "10.244.2.0/24", "192.0.2.3");
        let nodes = [there, third];
        let plan = plan_nodes(&spec, underlay("192.0.2.1"), &nodes);
        let mut network = NodeNetwork::new(spec.clone(), &NftTable::default());
        let ping = |source: &str| other.run(&format!("ping -n -c 1 -W 1 -I {source} 10.244.0.1"));
        apply(&mut network, &spec, &nodes);
        run("ping -n -c 1 -W 1 192.0.2.2").unwrap();
        apply(&mut network, &spec, &nodes);
        assert!(!network.sees_all(&plan), "the third node does not answer");

        ping("10.244.1.5").expect("a pod of the node behind that MAC");
        assert_eq!(dropped(&network)["uplink_spoofed"], 0);
        ping("10.244.2.5").expect_err("a pod of a node that was not seen there");
        ping("10.244.0.77").expect_err("a pod of this node comes from no other");
        assert_eq!(dropped(&network)["uplink_spoofed"], 2);

        other.run("ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77; ip link set eth0 up
                   ip route add 10.244.0.0/24 via 192.0.2.1 || true").unwrap();
        ping("10.244.1.5").expect_err("another MAC is another machine");
        assert_eq!(dropped(&network)["uplink_spoofed"], 3);
        run("ip neigh flush dev up0; ping -n -c 1 -W 1 192.0.2.2").unwrap();
        apply(&mut network, &spec, &nodes);
        ping("10.244.1.5").expect("the node has another network card");
        assert_eq!(
            dropped(&network)["uplink_spoofed"],
            3,
            "counters outlive a change"
        );
    });
}

#[test]
fn a_tunnel_brings_a_node_s_own_pods_from_its_own_address_only() {
    in_new_netns(|| {
        let other = other_machine();
        run(
            "ip link add vsw0 type bridge; ip addr add 10.244.0.1/24 dev vsw0; ip link set vsw0 up",
        )
        .unwrap();
        let spec = spec("here", Backend::Vxlan, "10.244.0.0/24");
        let there = node("there", Backend::Vxlan, "10.244.1.0/24", "192.0.2.2");
        let third = node("third", Backend::Vxlan, "10.244.2.0/24", "192.0.2.3");
        let mut network = NodeNetwork::new(spec.clone(), &NftTable::default());
        apply(&mut network, &spec, &[there, third]);
        let mac_of = |name: &str| crate::host::container_mac(name, &spec.vxlan.ifname);
        // The other machine as flannel would set it up.
        other
            .run(&format!(
            "ip link add f1 address {theirs} type vxlan id 1 dstport 8472 local 192.0.2.2 nolearning
             ip addr add 10.244.1.0/32 dev f1; ip link set f1 up
             ip addr add 10.244.1.5/32 dev lo; ip addr add 10.244.2.5/32 dev lo
             ip addr add 10.244.0.77/32 dev lo; ip addr add 192.0.2.66/24 dev eth0
             ip route add 10.244.0.0/24 via 10.244.0.0 dev f1 onlink
             ip neigh add 10.244.0.0 lladdr {ours} dev f1 nud permanent
             bridge fdb append {ours} dev f1 dst 192.0.2.1 self permanent",
            theirs = mac_of("there"), ours = mac_of("here"),
        ))
            .unwrap();
        let ping = |source: &str| other.run(&format!("ping -n -c 1 -W 1 -I {source} 10.244.0.1"));
        ping("10.244.1.5").expect("a pod of the node");
        ping("10.244.1.0").expect("the node itself");
        let none = BTreeMap::from([
            ("tunnel_from_stranger", 0),
            ("tunnel_spoofed", 0),
            ("uplink_spoofed", 0),
        ]);
        assert_eq!(dropped(&network), none);
        for source in ["10.244.2.5", "10.244.0.77", "192.0.2.2"] {
            ping(source).expect_err("not the address of a pod of that node");
        }
        assert_eq!(dropped(&network)["tunnel_spoofed"], 3);
        other.run("ip link set f1 type vxlan local 192.0.2.66 2>/dev/null || { ip link del f1; exit 1; }").unwrap_or_else(|_| {
            other.run(&format!(
                "ip link add f1 address {theirs} type vxlan id 1 dstport 8472 local 192.0.2.66 nolearning
                 ip addr add 10.244.1.0/32 dev f1; ip link set f1 up
                 ip route add 10.244.0.0/24 via 10.244.0.0 dev f1 onlink
                 ip neigh add 10.244.0.0 lladdr {ours} dev f1 nud permanent
                 bridge fdb append {ours} dev f1 dst 192.0.2.1 self permanent",
                theirs = mac_of("there"), ours = mac_of("here"),
            )).unwrap()
        });
        ping("10.244.1.5").expect_err("no node has that address");
        assert_eq!(dropped(&network)["tunnel_from_stranger"], 1);
        other
            .run("ip link del f1; ip route add 10.244.0.0/24 via 192.0.2.1")
            .unwrap();
        ping("10.244.1.5").expect_err("a pod's address outside of the tunnel");
        assert_eq!(dropped(&network)["uplink_spoofed"], 1);
    });
}
