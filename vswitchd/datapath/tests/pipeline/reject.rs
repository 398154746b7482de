//! What policies deny is answered: how, when, and when not.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::packet::{
    Frame, ParsedPacket, TcpSegment, VnetHeader, parse, tcp_flags, verify_l4_checksum,
};
use vswitch_datapath::pipeline::{TableId, TraceInput, TracePacket, TraceVerdict};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::{ACK, Host, RST, SYN, arp, ip, ping, segment, tcp, tcp_with, udp};
use crate::switch::{Pod, TestSwitch};
use crate::transport::{fragment, unreachable};

const INGRESS: Verdict = Verdict::Drop(DropReason::PolicyIngress);
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const THERE: (u16, u16) = (5000, 80);
const BACK: (u16, u16) = (80, 5000);

/// A client and a server, which only members of `web/from` may reach; the rest is rejected.
fn rejecting() -> (TestSwitch, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (client, server) = (switch.add_pod(1), switch.add_pod(2));
    isolate(&mut switch, "reject(policy_ingress)");
    switch.set("web/pods", &[server]);
    (switch, client, server)
}

fn isolate(switch: &mut TestSwitch, deny: &str) {
    switch.rules(&[
        (
            TableId::IngressRule,
            100,
            "ip_src=@web/from,ip_dst=@web/pods",
            "goto_table:90",
        ),
        (TableId::IngressDefault, 0, "ip_dst=@web/pods", deny),
    ]);
}

/// A switch whose operator rejects all that comes from the client, before tracking.
fn admin_rejecting() -> (TestSwitch, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (client, server) = (switch.add_pod(1), switch.add_pod(2));
    switch.rules(&[(TableId::Admin, 5, "in_port=1", "reject(policy_ingress)")]);
    (switch, client, server)
}

/// Sends what must be rejected and returns the answer, whole and taken apart.
#[track_caller]
fn answer_to(switch: &mut TestSwitch, from: Pod, to: Pod, bytes: &[u8]) -> (Vec<u8>, ParsedPacket) {
    assert_eq!(switch.send(from.port, bytes), INGRESS);
    let [(port, answer)] = &switch.out.replies[..] else {
        panic!("one answer, not {}", switch.out.replies.len())
    };
    assert_eq!(*port, from.port);
    assert_eq!(answer.vnet, VnetHeader::default());
    // Reading it verifies the checksum of an IPv4 header.
    let parsed = parse(answer, PortNo(9)).unwrap();
    assert!(verify_l4_checksum(answer, &parsed));
    let key = parsed.key;
    assert_eq!((key.eth_src, key.eth_dst), (to.host.mac, from.host.mac));
    assert_eq!(
        (key.ip_src, key.ip_dst),
        (Some(to.host.ip), Some(from.host.ip))
    );
    (answer.bytes().to_vec(), parsed)
}

#[track_caller]
fn reset_to(switch: &mut TestSwitch, from: Pod, to: Pod, bytes: &[u8]) -> TcpSegment {
    let (_, answer) = answer_to(switch, from, to, bytes);
    let asked = parse(&Frame::from_bytes(bytes), from.port).unwrap().key;
    let ports = (answer.key.tp_src, answer.key.tp_dst);
    assert_eq!(ports, (asked.tp_dst, asked.tp_src));
    let tcp = answer.tcp.expect("a TCP segment");
    assert_eq!((tcp.payload_len, tcp.window), (0, 0));
    tcp
}

fn fields(tcp: TcpSegment) -> (u8, u32, u32) {
    (tcp.flags, tcp.seq, tcp.ack)
}

/// Opens a TCP connection: the client is at 11, the server at 51.
fn handshake(switch: &mut TestSwitch, client: Pod, server: Pod) {
    for (from, to, segment) in [
        (client, server, segment(THERE, SYN, 10, 0)),
        (server, client, segment(BACK, SYN | ACK, 50, 11)),
        (client, server, segment(THERE, ACK, 11, 51)),
        // Once more each, so that both directions are in the cache.
        (server, client, segment(BACK, ACK, 51, 11)),
        (client, server, segment(THERE, ACK, 11, 51)),
        (server, client, segment(BACK, ACK, 51, 11)),
    ] {
        let verdict = switch.send(from.port, &tcp(from.host, to.host, segment));
        assert_eq!(verdict, Verdict::Forward(to.port));
    }
}

#[test]
fn a_syn_is_reset_at_once_each_time() {
    let (mut switch, client, server) = rejecting();
    let syn = tcp(client.host, server.host, segment(THERE, SYN, 4_000, 0));
    for _ in 0..3 {
        let reset = reset_to(&mut switch, client, server, &syn);
        assert_eq!(fields(reset), (RST | ACK, 0, 4_001));
    }
    let last = segment(THERE, SYN, u32::MAX, 0);
    let wrapping = tcp(client.host, server.host, last);
    let reset = reset_to(&mut switch, client, server, &wrapping);
    assert_eq!(fields(reset), (RST | ACK, 0, 0));
    assert_eq!(switch.dp.connections(switch.now), []);
}

#[test]
fn a_segment_with_ack_is_reset_where_its_sender_expects_to_go_on() {
    let (mut switch, client, server) = admin_rejecting();
    let data = segment(THERE, PSH | ACK, 100, 7_000);
    let bytes = tcp_with(client.host, server.host, data, b"hello");
    let reset = reset_to(&mut switch, client, server, &bytes);
    assert_eq!(fields(reset), (RST, 7_000, 0));
}

#[test]
fn a_super_frame_counts_with_all_its_bytes() {
    let (mut switch, client, server) = admin_rejecting();
    for (flags, len) in [(PSH, 9_000), (PSH | FIN, 9_001), (SYN | FIN, 9_002)] {
        let data = segment(THERE, flags, 100, 0);
        let bytes = tcp_with(client.host, server.host, data, &[7; 9_000]);
        let mut frame = Frame::from_bytes(&bytes);
        frame.vnet = VnetHeader {
            flags: VnetHeader::F_NEEDS_CSUM,
            gso_type: VnetHeader::GSO_TCPV4,
            hdr_len: 54,
            gso_size: 1_400,
            csum_start: 34,
            csum_offset: 16,
        };
        switch.out.replies.clear();
        let (engine, out) = (&mut switch.engine, &mut switch.out);
        let verdict = engine.process(client.port, &mut frame, switch.now, out);
        assert_eq!(verdict, INGRESS);
        let reset = parse(&out.replies[0].1, PortNo(9)).unwrap().tcp.unwrap();
        assert_eq!(fields(reset), (RST | ACK, 0, 100 + len));
    }
}

#[test]
fn a_connection_that_a_change_cuts_is_reset_at_both_ends() {
    for client_first in [true, false] {
        let (mut switch, client, server) = rejecting();
        switch.set("web/from", &[client]);
        handshake(&mut switch, client, server);
        switch.set("web/from", &[]);
        let data = segment(THERE, PSH | ACK, 11, 51);
        let ask = tcp_with(client.host, server.host, data, b"GET /");
        let data = segment(BACK, PSH | ACK, 51, 11);
        let reply = tcp_with(server.host, client.host, data, b"200");
        let mut sides = [(client, server, ask, 51), (server, client, reply, 11)];
        if !client_first {
            sides.reverse();
        }
        // Repeatedly: an end whose stream went on meanwhile takes only a later reset.
        for (from, to, bytes, seq) in sides.iter().chain(&sides) {
            let reset = reset_to(&mut switch, *from, *to, bytes);
            assert_eq!(fields(reset), (tcp_flags::RST, *seq, 0));
        }
        let counted = switch.dp.port_drops(server.port);
        assert!(counted.contains(&(DropReason::PolicyIngress, 2)));
    }
}

#[test]
fn a_cut_connection_is_forgotten_before_long_however_much_comes() {
    let (mut switch, client, server) = rejecting();
    switch.set("web/from", &[client]);
    handshake(&mut switch, client, server);
    switch.set("web/from", &[]);
    let data = tcp(server.host, client.host, segment(BACK, ACK, 51, 11));
    for _ in 0..5 {
        reset_to(&mut switch, server, client, &data);
        switch.tick(Duration::from_secs(60));
    }
    assert_eq!(switch.dp.connections(switch.now), []);
    assert_eq!(
        switch.send(server.port, &data),
        Verdict::Drop(DropReason::CtInvalid)
    );
}

#[test]
fn a_cut_exchange_of_datagrams_is_answered_at_both_ends() {
    let (mut switch, client, server) = rejecting();
    switch.set("web/from", &[client]);
    let query = udp(client.host, server.host, THERE, b"?");
    let reply = udp(server.host, client.host, BACK, b"!");
    for _ in 0..2 {
        switch.send(client.port, &query);
        assert_eq!(
            switch.send(server.port, &reply),
            Verdict::Forward(client.port)
        );
    }
    switch.set("web/from", &[]);
    for _ in 0..2 {
        let (_, error) = answer_to(&mut switch, server, client, &reply);
        assert_eq!((error.key.tp_src, error.key.tp_dst), (3, 13));
        let (_, error) = answer_to(&mut switch, client, server, &query);
        assert_eq!((error.key.tp_src, error.key.tp_dst), (3, 13));
    }
}

#[test]
fn datagrams_are_answered_with_themselves_quoted() {
    for family_is_v6 in [false, true] {
        let mut switch = TestSwitch::new();
        let at = |n: u8| match family_is_v6 {
            true => IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into())),
            false => IpAddr::from([10, 0, 0, n]),
        };
        let (client, server) = (switch.add_pod_at(1, at(1)), switch.add_pod_at(2, at(2)));
        isolate(&mut switch, "reject(policy_ingress)");
        switch.set("web/pods", &[server]);
        for _ in 0..2 {
            let bytes = udp(client.host, server.host, THERE, b"question");
            let (answer, error) = answer_to(&mut switch, client, server, &bytes);
            let expected = if family_is_v6 { (1, 1) } else { (3, 13) };
            assert_eq!((error.key.tp_src, error.key.tp_dst), expected);
            let quote = error.icmp_quote.unwrap();
            assert_eq!((quote.src, quote.dst), (client.host.ip, server.host.ip));
            assert_eq!((quote.proto, quote.tp_src, quote.tp_dst), (17, 5000, 80));
            assert_eq!(answer[quote.offset..], bytes[14..]);
            let quoted = [&bytes[..14], &answer[quote.offset..]].concat();
            let again = parse(&Frame::from_bytes(&quoted), client.port).unwrap();
            let original = parse(&Frame::from_bytes(&bytes), client.port).unwrap();
            assert_eq!(again, original);
        }
    }
}

#[test]
fn queries_other_protocols_and_first_fragments_are_answered_too() {
    let (mut switch, client, server) = rejecting();
    let (a, b) = (client.host, server.host);
    let first = fragment(udp(a, b, THERE, &[1; 24]), true, 0);
    for bytes in [ping(a, b, 1), ip(a, b, 47, &[0; 8]), first] {
        let (_, error) = answer_to(&mut switch, client, server, &bytes);
        assert_eq!((error.key.tp_src, error.key.tp_dst), (3, 13));
        let quote = error.icmp_quote.unwrap();
        assert_eq!((quote.src, quote.dst), (a.ip, b.ip));
    }
}

#[test]
fn a_reset_an_error_and_a_later_fragment_get_no_answer() {
    let (mut switch, client, server) = admin_rejecting();
    let (a, b) = (client.host, server.host);
    let about = udp(b, a, BACK, b"x");
    let redirect = {
        let mut message = unreachable(a, b, &about);
        message[34..36].copy_from_slice(&[5, 1]);
        message[36..38].fill(0);
        let sum = pnet_packet::util::checksum(&message[34..], 1);
        message[36..38].copy_from_slice(&sum.to_be_bytes());
        message
    };
    for (case, bytes) in [
        ("reset", tcp(a, b, segment(THERE, RST, 1, 0))),
        ("reset", tcp(a, b, segment(THERE, RST | ACK, 1, 1))),
        ("error", unreachable(a, b, &about)),
        ("redirect", redirect),
        ("fragment", fragment(ip(a, b, 17, &[2; 8]), false, 4)),
        ("damaged", damaged(udp(a, b, THERE, b"x"))),
        ("damaged", damaged(tcp(a, b, segment(THERE, SYN, 1, 0)))),
    ] {
        assert_eq!(switch.send(client.port, &bytes), INGRESS, "{case}");
        assert!(switch.out.replies.is_empty(), "{case}");
    }
    // None of them counts against the limit.
    let syn = tcp(a, b, segment(THERE, SYN, 1, 0));
    assert_eq!(answered(&mut switch, client, &syn, 200), 100);
}

fn damaged(mut bytes: Vec<u8>) -> Vec<u8> {
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

#[test]
fn groups_and_addresses_that_are_no_host_get_no_answer() {
    let mut switch = TestSwitch::new();
    switch.add_pod(1);
    let anything = [(TableId::Classify, 20, "", "reject(policy_ingress)")];
    switch.rules(&anything);
    let host = |mac, ip: [u8; 4]| Host::v4(mac, ip);
    let (a, b) = (host(1, [10, 0, 0, 1]), host(2, [10, 0, 0, 2]));
    let to_all = Host {
        mac: MacAddr::BROADCAST,
        ..b
    };
    for (from, to) in [
        (a, to_all),
        (a, host(2, [224, 0, 0, 5])),
        (a, host(2, [255; 4])),
        (a, host(2, [0; 4])),
        (host(1, [224, 0, 0, 5]), b),
        (host(1, [255; 4]), b),
        (host(1, [0; 4]), b),
    ] {
        for bytes in [
            udp(from, to, THERE, b"x"),
            tcp(from, to, segment(THERE, SYN, 1, 0)),
        ] {
            assert_eq!(switch.send(PortNo(1), &bytes), INGRESS);
            assert!(switch.out.replies.is_empty(), "{from:?} {to:?}");
        }
    }
    let at = |mac, ip: &str| Host {
        mac: MacAddr([2, 0, 0, 0, 0, mac]),
        ip: ip.parse().unwrap(),
    };
    for (from, to) in [("fd00::1", "ff02::5"), ("fd00::1", "::"), ("::", "fd00::2")] {
        let bytes = udp(at(1, from), at(2, to), THERE, b"x");
        assert_eq!(switch.send(PortNo(1), &bytes), INGRESS);
        assert!(switch.out.replies.is_empty(), "{from} {to}");
    }
    let mut request = arp(a, 1, [10, 0, 0, 2].into());
    request[..6].copy_from_slice(&b.mac.0);
    assert_eq!(switch.send(PortNo(1), &request), INGRESS);
    assert!(switch.out.replies.is_empty());
    switch.send(PortNo(1), &udp(a, b, THERE, b"x"));
    assert_eq!(switch.out.replies.len(), 1, "between hosts there is one");
}

#[test]
fn an_answer_keeps_the_vlan_tag() {
    let (mut switch, client, server) = admin_rejecting();
    for bytes in [
        udp(client.host, server.host, THERE, b"x"),
        tcp(client.host, server.host, segment(THERE, SYN, 1, 0)),
    ] {
        let tagged = [&bytes[..12], &[0x81, 0, 0, 5], &bytes[12..]].concat();
        let (_, answer) = answer_to(&mut switch, client, server, &tagged);
        assert_eq!(answer.key.vlan_tci, 0x1005);
    }
}

/// Returns how many of the packets were answered.
fn answered(switch: &mut TestSwitch, from: Pod, bytes: &[u8], packets: usize) -> usize {
    (0..packets)
        .map(|_| {
            assert_eq!(switch.send(from.port, bytes), INGRESS);
            switch.out.replies.len()
        })
        .sum()
}

#[test]
fn answers_are_limited_for_each_engine_and_the_limit_refills() {
    let (mut switch, client, server) = rejecting();
    let syn = tcp(client.host, server.host, segment(THERE, SYN, 1, 0));
    let datagram = udp(client.host, server.host, THERE, b"x");
    assert_eq!(answered(&mut switch, client, &syn, 60), 60);
    assert_eq!(answered(&mut switch, client, &datagram, 60), 40);
    switch.tick(Duration::from_millis(50));
    assert_eq!(answered(&mut switch, client, &syn, 60), 5);
    switch.tick(Duration::from_secs(60));
    assert_eq!(answered(&mut switch, client, &syn, 200), 100);
    assert_eq!(switch.drops(), [(DropReason::PolicyIngress, 380)].into());
    switch.engine = switch.dp.engine();
    assert_eq!(answered(&mut switch, client, &syn, 1), 1);
}

#[test]
fn what_is_rejected_counts_as_what_is_dropped() {
    let figures = |deny: &str| {
        let mut switch = TestSwitch::new();
        let (client, server) = (switch.add_pod(1), switch.add_pod(2));
        isolate(&mut switch, deny);
        // A second policy that isolates the same pod: a trace names both.
        switch.rules(&[(TableId::IngressDefault, 0, "ip_dst=@web/pods", deny)]);
        switch.set("web/pods", &[server]);
        switch.set("web/from", &[client]);
        handshake(&mut switch, client, server);
        switch.set("web/from", &[]);
        for bytes in [
            udp(client.host, server.host, THERE, b"x"),
            tcp(client.host, server.host, segment((5001, 80), SYN, 1, 0)),
            tcp(client.host, server.host, segment(THERE, ACK, 11, 51)),
        ] {
            assert_eq!(switch.send(client.port, &bytes), INGRESS);
        }
        let frame = Frame::from_bytes(&udp(client.host, server.host, THERE, b"x"));
        let input = TraceInput {
            in_port: client.port,
            packet: TracePacket::Frame(frame),
        };
        let trace = switch.dp.trace(&input, switch.now);
        assert_eq!(trace.verdict, TraceVerdict::Drop(DropReason::PolicyIngress));
        let deciding: Vec<_> = trace.deciding.iter().map(|rule| rule.id).collect();
        let rules = switch.dp.rules();
        let counted: Vec<_> = rules
            .iter()
            .map(|stats| (stats.rule.id, stats.packets, stats.bytes))
            .collect();
        let drops = (switch.drops(), switch.dp.port_drops(client.port));
        (counted, drops, deciding, switch.dp.cache_stats())
    };
    let rejected = figures("reject(policy_ingress)");
    assert_eq!(rejected, figures("drop(policy_ingress)"));
    assert_eq!(rejected.2.len(), 2);
}

#[test]
fn a_trace_answers_nobody_and_cuts_nothing() {
    let (mut switch, client, server) = rejecting();
    switch.set("web/from", &[client]);
    handshake(&mut switch, client, server);
    switch.set("web/from", &[]);
    let before = switch.dp.connections(switch.now);
    let data = tcp(client.host, server.host, segment(THERE, ACK, 11, 51));
    let input = TraceInput {
        in_port: client.port,
        packet: TracePacket::Frame(Frame::from_bytes(&data)),
    };
    let trace = switch.dp.trace(&input, switch.now);
    assert_eq!(trace.verdict, TraceVerdict::Drop(DropReason::PolicyIngress));
    assert_eq!(switch.dp.connections(switch.now), before);
    assert_eq!(answered(&mut switch, client, &data, 200), 100);
}
