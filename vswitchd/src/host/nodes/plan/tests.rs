use std::collections::BTreeMap;

use super::super::peer::node_publication;
use super::*;
use crate::config::VxlanConfig;

fn spec(backend: Backend, pod_cidrs: &[&str]) -> NodesSpec {
    NodesSpec {
        node_name: "here".to_owned(),
        backend,
        vxlan: VxlanConfig {
            vni: 1,
            port: 8472,
            ifname: "vsw-vxlan".parse().unwrap(),
        },
        pod_cidrs: pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        gateway_ifname: "vsw0".parse().unwrap(),
        mtu: 1450,
    }
}

fn underlay(addresses: &[&str]) -> Underlay {
    Underlay::first_of(addresses.iter().map(|ip| ip.parse().unwrap()))
}

/// A node as its own vswitchd would describe it.
fn node(name: &str, backend: Backend, cidrs: &[&str], addresses: &[&str]) -> NodeRecord {
    let spec = NodesSpec {
        node_name: name.to_owned(),
        ..spec(backend, cidrs)
    };
    let told = node_publication(&spec, underlay(addresses));
    let annotations = told.annotations.into_iter();
    NodeRecord {
        name: name.to_owned(),
        pod_cidrs: told.pod_cidrs,
        internal_ips: told.internal_ips,
        annotations: annotations
            .filter_map(|(key, value)| Some((key, value?)))
            .collect(),
        ..NodeRecord::default()
    }
}

fn planned(backend: Backend, cidrs: &[&str], own: &[&str], nodes: &[NodeRecord]) -> NodePlan {
    plan_nodes(&spec(backend, cidrs), underlay(own), nodes)
}

fn texts(problems: &[PeerProblem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

const HERE: &[&str] = &["10.244.0.0/24"];
const OWN: &[&str] = &["192.0.2.1"];

#[test]
fn a_lone_node_needs_nothing() {
    let own = node("here", Backend::Vxlan, HERE, OWN);
    let plan = planned(Backend::Vxlan, HERE, OWN, &[own]);
    assert_eq!(plan, NodePlan::default());
}

#[test]
fn a_node_of_flannel_is_at_the_end_of_a_tunnel() {
    let annotations = [
        ("backend-type", "vxlan"),
        ("backend-data", r#"{"VNI":1,"VtepMAC":"8e:1b:d4:26:5e:0f"}"#),
        ("public-ip", "192.0.2.2"),
        ("kube-subnet-manager", "true"),
    ];
    let annotations = annotations.map(|(key, value)| {
        let key = format!("flannel.alpha.coreos.com/{key}");
        (key, value.to_owned())
    });
    let there = NodeRecord {
        name: "there".to_owned(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        internal_ips: vec!["198.51.100.9".parse().unwrap()],
        annotations: annotations.into_iter().collect(),
        ..NodeRecord::default()
    };
    let plan = planned(Backend::Vxlan, HERE, OWN, &[there]);
    assert_eq!(texts(&plan.problems), [""; 0]);
    let [tunnel] = plan.tunnels.as_slice() else {
        panic!("one tunnel: {plan:?}");
    };
    let mac: MacAddr = "8e:1b:d4:26:5e:0f".parse().unwrap();
    let address: IpAddr = "192.0.2.2".parse().unwrap();
    assert_eq!(tunnel.vteps, BTreeMap::from([(mac, address)]));
    let network: IpNet = "10.244.1.0/24".parse().unwrap();
    assert_eq!(tunnel.networks, BTreeMap::from([(network, mac)]));
    assert_eq!(tunnel.local, "192.0.2.1".parse::<IpAddr>().unwrap());
    let seen_as: IpNet = "10.244.0.0/32".parse().unwrap();
    assert_eq!(tunnel.addresses, BTreeSet::from([seen_as]));
}

#[test]
fn what_a_node_tells_is_what_flannel_reads() {
    let there = node("there", Backend::Vxlan, HERE, &["192.0.2.2", "2001:db8::2"]);
    let get = |key: &str| there.annotations[&format!("flannel.alpha.coreos.com/{key}")].as_str();
    assert_eq!(get("backend-type"), "vxlan");
    assert_eq!(get("kube-subnet-manager"), "true");
    assert_eq!(get("public-ip"), "192.0.2.2");
    assert_eq!(get("public-ipv6"), "2001:db8::2");
    let mac = container_mac("there", &"vsw-vxlan".parse().unwrap());
    assert_eq!(
        get("backend-data"),
        format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#)
    );
    let by_route = node("there", Backend::HostGw, HERE, &["192.0.2.2"]);
    let data = &by_route.annotations["flannel.alpha.coreos.com/backend-data"];
    assert_eq!(data, "null");
    let silent = node("there", Backend::None, HERE, &["192.0.2.2"]);
    assert!(silent.annotations.is_empty(), "they are somebody else's");
}

#[test]
fn each_family_has_the_tunnel_of_its_own_family() {
    let cidrs = ["10.244.1.0/24", "fd00:1::/64"];
    let there = node(
        "there",
        Backend::Vxlan,
        &cidrs,
        &["192.0.2.2", "2001:db8::2"],
    );
    let here = ["10.244.0.0/24", "fd00::/64"];
    let plan = planned(
        Backend::Vxlan,
        &here,
        &["192.0.2.1", "2001:db8::1"],
        &[there],
    );
    let ways: Vec<(&str, bool, bool)> = plan
        .tunnels
        .iter()
        .flat_map(|tunnel| {
            let networks = tunnel.networks.keys();
            networks.map(|net| {
                (
                    tunnel.ifname.as_str(),
                    tunnel.local.is_ipv6(),
                    net.addr().is_ipv6(),
                )
            })
        })
        .collect();
    assert_eq!(
        ways,
        [("vsw-vxlan", false, false), ("vsw-vxlan6", true, true)]
    );
}

#[test]
fn ipv6_pods_go_over_ipv4_where_one_end_has_nothing_else() {
    let cidrs = ["10.244.1.0/24", "fd00:1::/64"];
    let there = node("there", Backend::Vxlan, &cidrs, &["192.0.2.2"]);
    let here = ["10.244.0.0/24", "fd00::/64"];
    let plan = planned(
        Backend::Vxlan,
        &here,
        &["192.0.2.1", "2001:db8::1"],
        &[there],
    );
    assert_eq!(plan.tunnels.len(), 1);
    assert_eq!(plan.tunnels[0].networks.len(), 2);
    assert_eq!(plan.tunnels[0].addresses.len(), 2);
    let by_route = node("there", Backend::HostGw, &cidrs, &["192.0.2.2"]);
    let plan = planned(Backend::HostGw, &here, &["192.0.2.1"], &[by_route]);
    assert_eq!(plan.next_hops.len(), 1, "no route of IPv6 leads to IPv4");
    assert_eq!(plan.networks.len(), 2);
    assert_eq!(plan.problems.len(), 1);
}

#[test]
fn a_host_gateway_is_known_by_its_internal_ip_alone() {
    let there = NodeRecord {
        name: "there".to_owned(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        internal_ips: vec!["192.0.2.2".parse().unwrap()],
        ..NodeRecord::default()
    };
    let plan = planned(Backend::HostGw, HERE, OWN, std::slice::from_ref(&there));
    let network: IpNet = "10.244.1.0/24".parse().unwrap();
    assert_eq!(plan.next_hops[&network].to_string(), "192.0.2.2");
    let plan = planned(Backend::Vxlan, HERE, OWN, &[there]);
    assert!(texts(&plan.problems)[0].contains("no address and VTEP MAC"));
    assert_eq!(plan.networks.len(), 1, "kept out all the same");
}

#[test]
fn networks_that_are_not_a_node_s_own_are_refused() {
    let bad = [
        ("10.244.0.128/25", "overlaps 10.244.0.0/24 of this node"),
        ("0.0.0.0/0", "cannot be the network"),
        ("10.0.0.0/7", "cannot be the network"),
        ("127.0.0.0/8", "cannot be the network"),
        ("224.0.0.0/8", "cannot be the network"),
        ("fe80::/64", "cannot be the network"),
        ("192.0.2.0/24", "the address 192.0.2.1 of a node"),
        ("198.51.100.0/24", "the address 198.51.100.7 of a node"),
        ("10.244.7.0/26", "overlaps 10.244.7.0/24 of node first"),
    ];
    for (cidr, problem) in bad {
        let first = node(
            "first",
            Backend::Vxlan,
            &["10.244.7.0/24"],
            &["198.51.100.7"],
        );
        let there = node("there", Backend::Vxlan, &[cidr], &["192.0.2.2"]);
        let plan = planned(Backend::Vxlan, HERE, OWN, &[first, there]);
        assert_eq!(plan.networks.len(), 1, "{cidr}");
        assert_eq!(plan.tunnels[0].networks.len(), 1, "{cidr}");
        let texts = texts(&plan.problems);
        assert!(texts[0].contains(problem), "{cidr}: {texts:?}");
    }
}

#[test]
fn ends_of_tunnels_that_belong_to_others_are_refused() {
    let first = node("first", Backend::Vxlan, &["10.244.1.0/24"], &["192.0.2.2"]);
    let other = |change: fn(&mut NodeRecord)| {
        let mut there = node("there", Backend::Vxlan, &["10.244.2.0/24"], &["192.0.2.3"]);
        change(&mut there);
        let plan = planned(Backend::Vxlan, HERE, OWN, &[first.clone(), there]);
        assert_eq!(plan.tunnels[0].networks.len(), 1);
        texts(&plan.problems).join(" ")
    };
    fn set(node: &mut NodeRecord, key: &str, value: &str) {
        let key = format!("flannel.alpha.coreos.com/{key}");
        node.annotations.insert(key, value.to_owned());
    }
    let problem = other(|node| set(node, "public-ip", "192.0.2.2"));
    assert!(problem.contains("of another node"), "{problem}");
    let problem = other(|node| set(node, "public-ip", "192.0.2.1"));
    assert!(problem.contains("of another node"), "{problem}");
    let problem = other(|node| set(node, "backend-type", "host-gw"));
    assert!(
        problem.contains("backend host-gw, this node vxlan"),
        "{problem}"
    );
    let mac = r#"{"VNI":7,"VtepMAC":"8e:1b:d4:26:5e:0f"}"#;
    assert_eq!(
        other(|node| set(
            node,
            "backend-data",
            r#"{"VNI":7,"VtepMAC":"8e:1b:d4:26:5e:0f"}"#
        )),
        "node there has VNI 7, this node 1",
        "{mac}"
    );
    for data in [
        "",
        "null",
        "{",
        "[]",
        r#"{"VtepMAC":7}"#,
        r#"{"VtepMAC":"01:00:5e:00:00:01"}"#,
    ] {
        let mut there = node("there", Backend::Vxlan, &["10.244.2.0/24"], &["192.0.2.3"]);
        set(&mut there, "backend-data", data);
        let plan = planned(Backend::Vxlan, HERE, OWN, &[there]);
        assert!(plan.tunnels.is_empty(), "{data}");
        assert!(
            texts(&plan.problems)[0].contains("no address and VTEP MAC"),
            "{data}"
        );
    }
    let ours = container_mac("here", &"vsw-vxlan".parse().unwrap());
    let mut there = node("there", Backend::Vxlan, &["10.244.2.0/24"], &["192.0.2.3"]);
    set(
        &mut there,
        "backend-data",
        &format!(r#"{{"VtepMAC":"{ours}"}}"#),
    );
    let plan = planned(Backend::Vxlan, HERE, OWN, &[there]);
    assert!(texts(&plan.problems)[0].contains("of another node"));
}

#[test]
fn addresses_that_nobody_can_be_sent_to_are_passed_over() {
    let odd = [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:192.0.2.1",
        "0.1.2.3",
    ];
    assert_eq!(underlay(&odd), Underlay::default());
    let both = underlay(&["169.254.1.1", "192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert_eq!(both, underlay(&["192.0.2.1", "2001:db8::1"]));
}

#[test]
fn room_for_the_tunnel_is_kept_in_each_packet() {
    let overhead = |backend, cidrs: &[&str], own: &[&str]| {
        tunnel_overhead(backend, &spec(backend, cidrs).pod_cidrs, underlay(own))
    };
    let dual = ["10.244.0.0/24", "fd00::/64"];
    assert_eq!(overhead(Backend::Vxlan, HERE, OWN), 50);
    assert_eq!(overhead(Backend::Vxlan, HERE, &[]), 50);
    assert_eq!(overhead(Backend::Vxlan, &dual, OWN), 70);
    assert_eq!(overhead(Backend::Vxlan, HERE, &["2001:db8::1"]), 70);
    assert_eq!(overhead(Backend::HostGw, &dual, OWN), 0);
    assert_eq!(overhead(Backend::None, HERE, OWN), 0);
}

#[test]
fn the_mac_of_a_tunnel_stays_over_restarts_and_upgrades() {
    let [(_, v4), (_, v6)] = tunnel_ifnames(&"vsw-vxlan".parse().unwrap());
    assert_ne!(container_mac("here", &v4), container_mac("here", &v6));
    // Golden: other nodes keep it in their neighbour tables.
    assert_eq!(
        container_mac("node-a", &v4).to_string(),
        "3e:fd:ca:c8:da:83"
    );
}
