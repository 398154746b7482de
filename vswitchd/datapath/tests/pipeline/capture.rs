//! Captures: which packets are in one, what they look like, what is said of them; and that nothing
//! else is different while one is under way.

use std::sync::Arc;

use vswitch_api::{Epoch, PortNo};
use vswitch_datapath::capture::{Capture, CaptureFilter, CapturedPacket, Outcome, Way};
use vswitch_datapath::conntrack::Direction;
use vswitch_datapath::flow::FlowKey;
use vswitch_datapath::packet::{Frame, VnetHeader, parse};
use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{DropReason, MAX_CAPTURES, Verdict, Watcher};

use crate::kernel_path::{PLENTY, World};
use crate::packets::{ACK, SYN, arp, segment, tcp, udp};
use crate::services::{switch_with, vip};
use crate::switch::{GATEWAY_MAC, Pod, TestSwitch};

fn begin_filtered(switch: &TestSwitch, port: PortNo, filter: &str) -> Arc<Capture> {
    let filter: CaptureFilter = filter.parse().unwrap();
    let capture = Arc::new(Capture::new(port, filter, 1_600));
    let watcher = Watcher::Capture(Arc::clone(&capture));
    switch.dp.begin_watch(&watcher).unwrap();
    capture
}

fn begin(switch: &TestSwitch, port: PortNo) -> Arc<Capture> {
    begin_filtered(switch, port, "")
}

fn taken(capture: &Capture) -> Vec<CapturedPacket> {
    let next = || {
        let packet = capture.next()?;
        let taken = CapturedPacket::clone(&packet);
        capture.give_back(packet);
        Some(taken)
    };
    std::iter::from_fn(next).collect()
}

/// Sends what the engine has a short way for: a packet whose checksum the kernel vouches for.
fn send_plain(switch: &mut TestSwitch, port: PortNo, bytes: &[u8]) {
    switch.frame = Frame::from_bytes(bytes);
    switch.frame.vnet.flags = VnetHeader::F_DATA_VALID;
    let (frame, out) = (&mut switch.frame, &mut switch.out);
    switch.engine.process(port, frame, switch.now, out);
}

fn decided(from: Pod, verdict: Verdict) -> Outcome {
    let in_port = from.port;
    Outcome::Decided { in_port, verdict }
}

fn key(packet: &CapturedPacket) -> FlowKey {
    parse(&Frame::from_bytes(&packet.bytes), PortNo(9))
        .unwrap()
        .key
}

fn policies(switch: &TestSwitch, packet: &CapturedPacket) -> Vec<String> {
    let rules = switch.dp.deciding_rules(packet);
    rules.iter().map(|rule| rule.origin.name.clone()).collect()
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

#[test]
fn both_directions_are_captured_with_verdict_and_policy() {
    let (mut switch, [client, server, _]) = isolated();
    let capture = begin(&switch, client.port);
    let syn = tcp(client.host, server.host, segment((5000, 80), SYN, 100, 0));
    let answer = tcp(
        server.host,
        client.host,
        segment((80, 5000), SYN | ACK, 500, 101),
    );
    switch.send(client.port, &syn);
    switch.send(server.port, &answer);
    let [sent, received] = &taken(&capture)[..] else {
        panic!("two packets");
    };
    let forwarded = |to: Pod| Verdict::Forward(to.port);
    assert_eq!(
        (sent.way, sent.outcome),
        (Way::Outbound, decided(client, forwarded(server)))
    );
    assert_eq!(sent.bytes, syn, "as the pod sent it");
    assert_eq!(policies(&switch, sent), ["web"]);
    assert!(!sent.decision.is_reply);
    let outcome = decided(server, forwarded(client));
    assert_eq!((received.way, received.outcome), (Way::Inbound, outcome));
    assert_eq!(key(received).eth_src, GATEWAY_MAC, "as it is delivered");
    assert_eq!(
        policies(&switch, received),
        ["web"],
        "which allows what it answers"
    );
    assert!(received.decision.is_reply);
}

#[test]
fn a_denied_packet_is_in_the_captures_of_both_ends_with_all_policies_that_isolate() {
    let (mut switch, [_, server, stranger]) = isolated();
    switch.ingress_policy("more", 443);
    switch.set("more/pods", &[server]);
    let (at_server, at_stranger) = (begin(&switch, server.port), begin(&switch, stranger.port));
    switch.send(
        stranger.port,
        &udp(stranger.host, server.host, (5000, 80), b"x"),
    );
    let outcome = decided(stranger, Verdict::Drop(DropReason::PolicyIngress));
    for (capture, way) in [(at_server, Way::Inbound), (at_stranger, Way::Outbound)] {
        let [packet] = &taken(&capture)[..] else {
            panic!("one packet");
        };
        assert_eq!((packet.way, packet.outcome), (way, outcome));
        assert_eq!(policies(&switch, packet), ["web", "more"]);
    }
}

#[test]
fn what_the_switch_makes_and_what_it_cannot_read_is_captured_too() {
    let (mut switch, [client, server, _]) = isolated();
    let capture = begin(&switch, client.port);
    let std::net::IpAddr::V4(asked) = server.host.ip else {
        unreachable!("pods have IPv4 addresses");
    };
    switch.send(client.port, &arp(client.host, 1, asked));
    switch.send(client.port, &[0; 9]);
    let outcomes: Vec<_> = taken(&capture)
        .iter()
        .map(|packet| (packet.way, packet.outcome))
        .collect();
    let truncated = Verdict::Drop(DropReason::Truncated);
    assert_eq!(
        outcomes,
        [
            (Way::Outbound, decided(client, Verdict::Answered)),
            (Way::Inbound, Outcome::Made),
            (Way::Outbound, decided(client, truncated)),
        ]
    );
}

#[test]
fn of_a_connection_to_a_service_the_client_sees_the_service_and_the_endpoint_itself() {
    let (mut switch, client, servers) = switch_with(1);
    let server = servers[0];
    let (at_client, at_server) = (begin(&switch, client.port), begin(&switch, server.port));
    let ask = udp(client.host, vip(), (5000, 80), b"x");
    for _ in 0..3 {
        switch.send(client.port, &ask);
    }
    let seen = |capture: &Capture| -> Vec<_> {
        let packets = taken(capture);
        packets.iter().map(|packet| key(packet).ip_dst).collect()
    };
    assert_eq!(seen(&at_client), [Some(vip().ip); 3]);
    assert_eq!(seen(&at_server), [Some(server.host.ip); 3]);
}

#[test]
fn a_filter_admits_what_it_says_and_only_what_is_dropped_if_asked_for() {
    let (mut switch, [client, server, _]) = isolated();
    let dropped = begin_filtered(&switch, client.port, "dropped");
    let port_53 = begin_filtered(&switch, client.port, "udp and port 53");
    for port in [53, 80, 81] {
        switch.send(
            client.port,
            &udp(client.host, server.host, (5000, port), b"x"),
        );
    }
    let ports = |capture: &Capture| -> Vec<_> {
        let packets = taken(capture);
        packets.iter().map(|packet| key(packet).tp_dst).collect()
    };
    assert_eq!(ports(&dropped), [53, 81]);
    assert_eq!(ports(&port_53), [53]);
}

/// Connection table, drops and counts of rules after the same packets.
fn traces_of(is_captured: bool) -> impl PartialEq + std::fmt::Debug {
    let (mut switch, [client, server, stranger]) = isolated();
    if is_captured {
        begin(&switch, server.port);
    }
    for n in 0..20 {
        switch.send(
            client.port,
            &udp(client.host, server.host, (5000, 80), b"x"),
        );
        switch.send(
            server.port,
            &udp(server.host, client.host, (80, 5000), b"y"),
        );
        switch.send(
            stranger.port,
            &udp(stranger.host, server.host, (5000 + n, 80), b"z"),
        );
        switch.send(
            client.port,
            &udp(client.host, stranger.host, (5000, 80), b"x"),
        );
    }
    let rules = switch.dp.rules().into_iter();
    let counts: Vec<_> = rules
        .map(|stats| (stats.rule.id, stats.packets, stats.bytes))
        .collect();
    // All but the number of the publication that each was judged by.
    let mut connections = switch.dp.connections(switch.now);
    for connection in &mut connections {
        connection.judged = Epoch(0);
    }
    connections.sort_by_key(|connection| connection.original.dst);
    (connections, switch.drops(), counts)
}

#[test]
fn a_capture_changes_no_decision_no_connection_and_no_counter() {
    assert_eq!(traces_of(true), traces_of(false));
}

#[test]
fn while_a_port_is_captured_its_flows_leave_the_kernel_and_come_back_afterwards() {
    let mut world = World::new();
    world.open_in_kernel();
    let capture = begin(&world.switch, world.server.port);
    assert_eq!(world.below.followed(), [], "revoked");
    let both_send = |world: &mut World| {
        for _ in 0..PLENTY {
            world.client_sends(ACK, 101, 501);
            world.server_sends(ACK, 501, 101);
        }
    };
    both_send(&mut world);
    assert_eq!(world.below.followed(), [], "not offered again");
    assert_eq!(taken(&capture).len(), 2 * PLENTY as usize);

    let watcher = Watcher::Capture(Arc::clone(&capture));
    world.switch.dp.end_watch(&watcher);
    both_send(&mut world);
    let both = [Direction::Original, Direction::Reply];
    assert_eq!(world.below.followed(), both);
    assert_eq!(taken(&capture), []);
}

#[test]
fn flows_of_other_ports_stay_in_the_kernel() {
    let mut world = World::new();
    let other = world.switch.add_pod(3);
    begin(&world.switch, other.port);
    world.open_in_kernel();
}

#[test]
fn what_takes_the_short_way_is_captured_from_the_first_packet_to_the_last() {
    let (mut switch, [client, server, _]) = isolated();
    let ask = udp(client.host, server.host, (5000, 80), b"x");
    for _ in 0..3 {
        send_plain(&mut switch, client.port, &ask);
    }
    let capture = begin(&switch, server.port);
    for _ in 0..3 {
        send_plain(&mut switch, client.port, &ask);
    }
    assert_eq!(taken(&capture).len(), 3);
}

#[test]
fn an_operators_flow_is_named_and_decides_alone() {
    let (mut switch, [client, server, _]) = isolated();
    switch.named_rules(&[(
        TableId::Admin,
        9,
        "in_port=1",
        "drop(admin_drop)",
        "quarantine",
    )]);
    let capture = begin(&switch, client.port);
    switch.send(
        client.port,
        &udp(client.host, server.host, (5000, 80), b"x"),
    );
    let packets = taken(&capture);
    assert!(packets[0].is_dropped());
    assert_eq!(policies(&switch, &packets[0]), ["quarantine"]);
}

#[test]
fn so_many_captures_and_no_more() {
    let (switch, [client, ..]) = isolated();
    let captures: Vec<_> = (0..MAX_CAPTURES)
        .map(|_| begin(&switch, client.port))
        .collect();
    let one_more = Arc::new(Capture::new(client.port, CaptureFilter::default(), 64));
    let one_more = Watcher::Capture(one_more);
    let refused = switch.dp.begin_watch(&one_more).unwrap_err();
    assert!(refused.to_string().starts_with("4 captures are under way"));
    let first = Watcher::Capture(Arc::clone(&captures[0]));
    switch.dp.end_watch(&first);
    assert_eq!(switch.dp.begin_watch(&one_more), Ok(()));
}
