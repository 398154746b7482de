//! Live traces: which packets are in one, what is said of them, and that nothing else is different.

use std::sync::Arc;

use vswitch_api::Epoch;
use vswitch_datapath::conntrack::Direction;
use vswitch_datapath::live_trace::{LiveTrace, TracedFlow, TracedPacket};
use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{DropReason, MAX_LIVE_TRACES, Verdict, Watcher};

use crate::kernel_path::{PLENTY, World};
use crate::packets::{ACK, Host, SYN, segment, tcp, tcp_with, udp};
use crate::services::{switch_with, vip};
use crate::switch::{Pod, TestSwitch};
use crate::transport::unreachable;

const TCP: u8 = 6;
const UDP: u8 = 17;

fn flow(from: Pod, to: &[(Host, u16)], proto: u8) -> TracedFlow {
    TracedFlow {
        sources: [from.host.ip].into(),
        destinations: to.iter().map(|(host, port)| (host.ip, *port)).collect(),
        proto,
        src_port: None,
    }
}

fn begin(switch: &TestSwitch, from: Pod, flow: TracedFlow, count: u32) -> Arc<LiveTrace> {
    let trace = Arc::new(LiveTrace::new(from.port, flow, count));
    let watcher = Watcher::LiveTrace(Arc::clone(&trace));
    switch.dp.begin_watch(&watcher).unwrap();
    trace
}

fn taken(trace: &LiveTrace) -> Vec<TracedPacket> {
    std::iter::from_fn(|| trace.next())
        .map(|packet| *packet)
        .collect()
}

/// A client that `web` admits to the server, and a stranger that it does not.
fn isolated() -> (TestSwitch, [Pod; 3]) {
    let mut switch = TestSwitch::new();
    let [client, server, stranger] = [1, 2, 3].map(|n| switch.add_pod(n));
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[server]);
    switch.set("web/from", &[client]);
    (switch, [client, server, stranger])
}

/// Names of the objects whose rules a packet met.
fn met(packet: &TracedPacket) -> Vec<(TableId, &str)> {
    let steps = packet.trace.steps.iter();
    let rules = steps.filter_map(|step| Some((step.table, step.rule.as_ref()?)));
    rules
        .map(|(table, rule)| (table, rule.origin.name.as_str()))
        .filter(|(_, name)| !name.is_empty())
        .collect()
}

#[test]
fn both_directions_are_traced_with_the_rule_that_allows_them() {
    let (mut switch, [client, server, _]) = isolated();
    let trace = begin(&switch, client, flow(client, &[(server.host, 80)], TCP), 10);
    let syn = segment((5_000, 80), SYN, 100, 0);
    switch.send(client.port, &tcp(client.host, server.host, syn));
    let syn_ack = segment((80, 5_000), SYN | ACK, 500, 101);
    switch.send(server.port, &tcp(server.host, client.host, syn_ack));
    let [asks, answers] = &taken(&trace)[..] else {
        panic!("two packets");
    };
    assert_eq!(
        (asks.direction, asks.in_port, asks.verdict),
        (
            Direction::Original,
            client.port,
            Verdict::Forward(server.port)
        )
    );
    assert!(met(asks).contains(&(TableId::IngressRule, "web")));
    assert_eq!(asks.came.tcp.unwrap().seq, 100);
    let left = asks.left.unwrap();
    assert_eq!(
        (left.key.ip_dst, left.tcp),
        (Some(server.host.ip), asks.came.tcp)
    );
    assert_eq!(answers.direction, Direction::Reply);
    assert!(
        met(answers).contains(&(TableId::IngressRule, "web")),
        "which allows what it answers"
    );
}

#[test]
fn packets_of_a_connection_that_goes_on_are_traced_and_no_others() {
    let (mut switch, [client, server, _]) = isolated();
    let ask = udp(client.host, server.host, (5_000, 80), b"x");
    for _ in 0..3 {
        switch.send(client.port, &ask);
    }
    let trace = begin(&switch, client, flow(client, &[(server.host, 80)], UDP), 2);
    for _ in 0..3 {
        let other = udp(client.host, server.host, (5_000, 81), b"x");
        switch.send(client.port, &other);
        switch.send(client.port, &ask);
    }
    let packets = taken(&trace);
    assert_eq!(packets.len(), 2, "as many as were wanted");
    assert!(trace.is_over());
    assert!(packets.iter().all(|packet| packet.came.key.tp_dst == 80));
}

#[test]
fn a_denied_packet_says_which_rule_denied_it() {
    let (mut switch, [_, server, stranger]) = isolated();
    let trace = begin(
        &switch,
        stranger,
        flow(stranger, &[(server.host, 80)], UDP),
        1,
    );
    let ask = udp(stranger.host, server.host, (5_000, 80), b"x");
    switch.send(stranger.port, &ask);
    let [packet] = &taken(&trace)[..] else {
        panic!("one packet");
    };
    assert_eq!(packet.verdict, Verdict::Drop(DropReason::PolicyIngress));
    assert_eq!(packet.left, None);
    assert_eq!(met(packet).last(), Some(&(TableId::IngressDefault, "web")));
}

#[test]
fn of_a_service_the_packet_is_known_before_and_behind_it() {
    let (mut switch, client, servers) = switch_with(1);
    let server = servers[0];
    let ends = [(vip(), 80), (server.host, 8080)];
    let trace = begin(&switch, client, flow(client, &ends, TCP), 10);
    let syn = segment((5_000, 80), SYN, 100, 0);
    switch.send(client.port, &tcp(client.host, vip(), syn));
    let answer = segment((8080, 5_000), SYN | ACK, 500, 101);
    switch.send(server.port, &tcp(server.host, client.host, answer));
    let ends = |packet: &TracedPacket| {
        let left = packet.left.unwrap().key;
        (packet.came.key.ip_dst, left.ip_src, left.ip_dst)
    };
    let [asks, answers] = &taken(&trace)[..] else {
        panic!("two packets");
    };
    let (client_ip, server_ip) = (Some(client.host.ip), Some(server.host.ip));
    assert_eq!(ends(asks), (Some(vip().ip), client_ip, server_ip));
    assert_eq!(ends(answers), (client_ip, Some(vip().ip), client_ip));
    assert!(asks.trace.translation.is_some());
}

#[test]
fn an_icmp_error_is_traced_with_what_it_is_about() {
    let (mut switch, [client, server, _]) = isolated();
    let ask = udp(client.host, server.host, (5_000, 80), b"x");
    let trace = begin(&switch, client, flow(client, &[(server.host, 80)], UDP), 10);
    switch.send(client.port, &ask);
    let error = unreachable(server.host, client.host, &ask);
    switch.send(server.port, &error);
    let directions: Vec<_> = taken(&trace).iter().map(|of| of.direction).collect();
    assert_eq!(directions, [Direction::Original, Direction::Reply]);
}

#[test]
fn a_connection_that_the_kernel_forwards_comes_back_to_be_traced() {
    let mut world = World::new();
    world.open_in_kernel();
    let described = flow(world.client, &[(world.server.host, 80)], TCP);
    let trace = begin(&world.switch, world.client, described, 1_000);
    assert_eq!(world.below.followed(), [], "revoked");
    for _ in 0..PLENTY {
        world.client_sends(ACK, 101, 501);
        world.server_sends(ACK, 501, 101);
    }
    let packets = taken(&trace);
    assert_eq!(packets.len(), 2 * PLENTY as usize);
    assert!(packets[0].was_in_kernel);
    assert_eq!(world.below.followed(), [], "not offered again");

    world
        .switch
        .dp
        .end_watch(&Watcher::LiveTrace(Arc::clone(&trace)));
    for _ in 0..PLENTY {
        world.client_sends(ACK, 101, 501);
        world.server_sends(ACK, 501, 101);
    }
    let both = [Direction::Original, Direction::Reply];
    assert_eq!(world.below.followed(), both);
    assert!(taken(&trace).is_empty());
}

#[test]
fn the_payload_tells_packets_apart_and_not_what_a_way_changes() {
    let (mut switch, [client, server, _]) = isolated();
    let trace = begin(&switch, client, flow(client, &[(server.host, 80)], TCP), 10);
    let first = segment((5_000, 80), SYN, 100, 0);
    switch.send(
        client.port,
        &tcp_with(client.host, server.host, first, b"abc"),
    );
    switch.send(
        client.port,
        &tcp_with(client.host, server.host, first, b"abd"),
    );
    let packets = taken(&trace);
    let of = |packet: &TracedPacket| (packet.came.payload_bytes, packet.came.payload_checksum);
    assert_eq!(of(&packets[0]).0, 3);
    assert_ne!(of(&packets[0]), of(&packets[1]));
    let left = packets[0].left.unwrap();
    assert_eq!((left.payload_bytes, left.payload_checksum), of(&packets[0]));
}

/// Connection table, drops and counts of rules after the same packets.
fn traces_of(is_traced: bool) -> impl PartialEq + std::fmt::Debug {
    let (mut switch, [client, server, stranger]) = isolated();
    if is_traced {
        begin(&switch, client, flow(client, &[(server.host, 80)], UDP), 7);
    }
    for n in 0..20 {
        for (from, to, ports) in [
            (client, server, (5_000, 80)),
            (server, client, (80, 5_000)),
            (stranger, server, (5_000 + n, 80)),
        ] {
            switch.send(from.port, &udp(from.host, to.host, ports, b"x"));
        }
    }
    let rules = switch.dp.rules().into_iter();
    let counts: Vec<_> = rules
        .map(|stats| (stats.rule.id, stats.packets, stats.bytes))
        .collect();
    let mut connections = switch.dp.connections(switch.now);
    for connection in &mut connections {
        connection.judged = Epoch(0);
    }
    (connections, switch.drops(), counts)
}

#[test]
fn a_live_trace_changes_no_decision_no_connection_and_no_counter() {
    assert_eq!(traces_of(true), traces_of(false));
}

#[test]
fn so_many_live_traces_and_no_more() {
    let (switch, [client, server, _]) = isolated();
    let described = || flow(client, &[(server.host, 80)], UDP);
    for _ in 0..MAX_LIVE_TRACES {
        begin(&switch, client, described(), 1);
    }
    let one_more = Arc::new(LiveTrace::new(client.port, described(), 1));
    let refused = switch.dp.begin_watch(&Watcher::LiveTrace(one_more));
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.starts_with("4 live traces are under way"),
        "{refused}"
    );
}
