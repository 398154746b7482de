//! The workers with the real datapath between two namespaces.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::channel;
use vswitch_api::{Cookie, PortNo, Priority};
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::pipeline::{
    Origin, PortSpec, PortUpdate, Rule, RuleId, TableId, Transaction,
};
use vswitch_datapath::{Datapath, DatapathConfig, parse_actions};

use super::tests::{assert_super_frames, attach, config, ping, tcp_transfer, tcp_transfer_to};
use super::*;
use crate::clock::MonotonicClock;
use crate::port::testnet::{Sandbox, ifname};
use crate::port::{UNDESCRIBED_FEATURES, disable_features};
use crate::supervise::Supervisor;

fn rule(id: u64, table: TableId, matches: &str, actions: &str) -> Rule {
    Rule {
        id: RuleId(id),
        table,
        priority: Priority(100),
        matches: matches.parse().unwrap(),
        actions: parse_actions(actions).unwrap(),
        cookie: Cookie(1),
        origin: Arc::new(Origin {
            kind: "Pod",
            name: format!("test/{id}"),
            part: String::new(),
        }),
    }
}

/// What makes a pod with 10.9.0.`no` reachable behind port `no`.
fn pod(no: u32) -> Transaction {
    let first = u64::from(no) * 10;
    let mac = format!("02:00:00:00:00:0{no}");
    let from = format!("in_port={no}");
    let own = format!("in_port={no},dl_src={mac}");
    let to = format!("ip,nw_dst=10.9.0.{no}");
    let forward = format!("set_field:{mac}->eth_dst,output:{no},goto_table:75");
    let spec = PortSpec {
        no: PortNo(no),
        class: PortClass::Pod,
        name: format!("test/{no}"),
        mac: mac.parse().unwrap(),
        mtu: 1500,
        midstream_pickup: false,
    };
    Transaction {
        add_rules: vec![
            rule(
                first,
                TableId::Classify,
                &from,
                "set_class:pod,goto_table:10",
            ),
            rule(first + 1, TableId::SpoofGuard, &own, "goto_table:20"),
            rule(
                first + 2,
                TableId::ArpResponder,
                &format!("arp,ip_dst=10.9.0.{no}"),
                &format!("arp_reply({mac})"),
            ),
            rule(first + 3, TableId::Forward, &to, &forward),
        ],
        ports: vec![PortUpdate::Upsert(spec)],
        ..Transaction::default()
    }
}

/// What makes fd00:9::`no` reachable, too.
fn pod6(no: u32) -> Transaction {
    let first = 1000 + u64::from(no) * 10;
    let mac = format!("02:00:00:00:00:0{no}");
    let asked = format!("icmp6,icmp_type=135,nd_target=fd00:9::{no}");
    let to = format!("ipv6,ipv6_dst=fd00:9::{no}");
    let forward = format!("set_field:{mac}->eth_dst,output:{no},goto_table:75");
    Transaction {
        add_rules: vec![
            rule(
                first,
                TableId::ArpResponder,
                &asked,
                &format!("nd_advertise({mac})"),
            ),
            rule(first + 1, TableId::Forward, &to, &forward),
        ],
        ..Transaction::default()
    }
}

/// Two workers and a real datapath between `pod` and `peer`, who reach each other.
fn switch(net: &Sandbox) -> (Arc<Datapath>, WorkerPool) {
    let datapath = Datapath::new(DatapathConfig {
        flow_cache_entries: 1024,
        ..DatapathConfig::default()
    });
    let (events, _notices) = channel(16);
    let pool = WorkerPool::start(&datapath, config(2), events, &Supervisor::default()).unwrap();
    attach(&pool, net, 1, "hpod");
    attach(&pool, net, 2, "hpeer");
    datapath.apply(pod(1));
    datapath.apply(pod(2));
    (datapath, pool)
}

#[test]
fn tcp_over_ipv6_passes_in_super_frames() {
    let net = Sandbox::new();
    for (pod, no) in [("pod", 1), ("peer", 2)] {
        net.sysctl(pod, "net.ipv6.conf.eth0.disable_ipv6=0");
        net.ip(pod, &format!("addr add fd00:9::{no}/64 dev eth0 nodad"));
    }
    let (datapath, pool) = switch(&net);
    datapath.apply(pod6(1));
    datapath.apply(pod6(2));
    let sent = tcp_transfer_to(&net, ("pod", "peer"), "[fd00:9::2]:5000");
    assert_eq!(sent, 1 << 20);
    // TCP over IPv6 in frames larger than the MTU is TSO6; nothing else of size was sent.
    let stats = pool.port_stats();
    assert_super_frames(&stats[0]);
    assert!(
        stats[1].tx_bytes / stats[1].tx_frames > 1514,
        "segmented on the way out: {stats:?}"
    );
    assert_eq!(
        (stats[1].tx_dropped, stats[1].tx_errors),
        (0, 0),
        "{stats:?}"
    );
    let back = tcp_transfer_to(&net, ("peer", "pod"), "[fd00:9::1]:5000");
    assert_eq!(back, 1 << 20);
}

/// The bound is a tenth of the 44 s that this takes when the tunnel is segmented by the veth, and
/// a hundred times what it takes when it is not.
#[test]
fn a_tunnel_inside_a_pod_carries_tcp_at_speed() {
    let net = Sandbox::new();
    for (pod, no, other) in [("pod", 1, 2), ("peer", 2, 1)] {
        disable_features(&ifname("eth0"), Some(&net.open(pod)), &UNDESCRIBED_FEATURES).unwrap();
        let ends = format!("remote 10.9.0.{other} local 10.9.0.{no}");
        net.ip(
            pod,
            &format!("link add vx0 type vxlan id 5 dstport 4789 {ends} dev eth0"),
        );
        net.ip(pod, &format!("addr add 10.10.0.{no}/24 dev vx0"));
        net.ip(pod, "link set vx0 up");
    }
    let (_datapath, _pool) = switch(&net);
    let clock = MonotonicClock::start();
    let sent = tcp_transfer_to(&net, ("pod", "peer"), "10.10.0.2:5000");
    assert_eq!(sent, 1 << 20);
    let took = Duration::from_nanos(clock.now().as_nanos());
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn pods_talk_through_the_tables_until_a_flow_forbids_it() {
    let net = Sandbox::new();
    let datapath = Datapath::new(DatapathConfig {
        flow_cache_entries: 1024,
        ..DatapathConfig::default()
    });
    let (events, _notices) = channel(16);
    let pool = WorkerPool::start(&datapath, config(2), events, &Supervisor::default()).unwrap();
    attach(&pool, &net, 1, "hpod");
    attach(&pool, &net, 2, "hpeer");
    assert!(!ping(&net), "frames passed before any rule was there");
    datapath.apply(pod(1));
    datapath.apply(pod(2));
    // The pod still asks, once a second, for the neighbour that nobody answered for.
    net.ip("pod", "neigh flush dev eth0");
    assert!(ping(&net));
    assert_eq!(tcp_transfer(&net, "pod", "peer"), 1 << 20);
    assert_super_frames(&pool.port_stats()[0]);
    let forbid = rule(99, TableId::Admin, "icmp,in_port=1", "drop(admin_drop)");
    datapath.apply(Transaction {
        add_rules: vec![forbid],
        ..Transaction::default()
    });
    assert!(!ping(&net), "the flow does not cut the pinging pod");
}
