//! The workers with the real datapath between two namespaces.

use std::sync::Arc;

use tokio::sync::mpsc::channel;
use vswitch_api::{Cookie, PortNo, Priority};
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::pipeline::{
    Origin, PortSpec, PortUpdate, Rule, RuleId, TableId, Transaction,
};
use vswitch_datapath::{Datapath, DatapathConfig, parse_actions};

use super::tests::{assert_super_frames, attach, config, ping, tcp_transfer};
use super::*;
use crate::port::testnet::Sandbox;

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
    let forward = format!("set_field:{mac}->eth_dst,output:{no},goto_table:80");
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

#[test]
fn pods_talk_through_the_tables_until_a_flow_forbids_it() {
    let net = Sandbox::new();
    let datapath = Datapath::new(DatapathConfig {
        flow_cache_entries: 1024,
        ..DatapathConfig::default()
    });
    let (events, _notices) = channel(16);
    let pool = WorkerPool::start(&datapath, config(2), events).unwrap();
    attach(&pool, &net, 1, "hpod");
    attach(&pool, &net, 2, "hpeer");
    assert!(!ping(&net), "frames passed before any rule was there");
    datapath.apply(pod(1));
    datapath.apply(pod(2));
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
