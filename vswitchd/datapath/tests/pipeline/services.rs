//! Connections to Services: an endpoint for each, and nobody notices.

use std::net::IpAddr;
use std::time::Duration;

use vswitch_api::PortNo;
use vswitch_datapath::flow::FlowKey;
use vswitch_datapath::group::{
    Endpoint, Group, GroupId, GroupUpdate, LostEndpoint, ServiceAddress,
};
use vswitch_datapath::packet::{Frame, ParsedPacket, parse, verify_l4_checksum};
use vswitch_datapath::pipeline::{TableId, TraceInput, TracePacket, TraceVerdict, Transaction};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::{ACK, Host, RST, SYN, ip, ping, segment, tcp, tcp_with, udp};
use crate::switch::{GATEWAY, GATEWAY_MAC, Pod, TestSwitch};
use crate::transport::{fragment, unreachable};

const VIP: [u8; 4] = [10, 96, 0, 10];
const HAIRPIN: [u8; 4] = [169, 254, 86, 1];

fn service(vip: IpAddr) -> Host {
    Host {
        mac: GATEWAY_MAC,
        ip: vip,
    }
}

pub(crate) fn vip() -> Host {
    service(VIP.into())
}

fn at(pod: Pod, port: u16) -> Endpoint {
    Endpoint {
        ip: pod.host.ip,
        port,
    }
}

fn group(endpoints: &[Endpoint]) -> Group {
    let is_v6 = endpoints
        .first()
        .is_some_and(|endpoint| endpoint.ip.is_ipv6());
    Group {
        id: GroupId(1),
        name: "default/web:80/TCP".into(),
        endpoints: endpoints.into(),
        entrances: [].into(),
        affinity: None,
        hairpin_source: if is_v6 {
            "fd56::1".parse().unwrap()
        } else {
            HAIRPIN.into()
        },
    }
}

fn set(switch: &TestSwitch, group: Group) {
    switch.dp.apply(Transaction {
        groups: vec![GroupUpdate::Set(group)],
        ..Transaction::default()
    });
}

fn forget(switch: &TestSwitch, proto: u8, endpoint: Endpoint) {
    let service = Endpoint {
        ip: VIP.into(),
        port: 80,
    };
    let lost = LostEndpoint {
        proto,
        service,
        endpoint,
    };
    switch.dp.apply(Transaction {
        forget_endpoints: vec![lost],
        ..Transaction::default()
    });
}

/// A client (1) and servers (2, 3, …) behind TCP and UDP port 80 of the Service.
pub(crate) fn switch_with(servers: u8) -> (TestSwitch, Pod, Vec<Pod>) {
    let mut switch = TestSwitch::new();
    let client = switch.add_pod(1);
    let servers: Vec<Pod> = (2..2 + servers).map(|n| switch.add_pod(n)).collect();
    for l4 in ["tcp", "udp", "sctp"] {
        let matches = format!("{l4},ip_dst=10.96.0.10,tp_dst=80");
        switch.rules(&[(TableId::ServiceLb, 100, &matches, "group:1,goto_table:55")]);
    }
    let endpoints: Vec<Endpoint> = servers.iter().map(|pod| at(*pod, 8080)).collect();
    set(&switch, group(&endpoints));
    (switch, client, servers)
}

/// Sends what must be forwarded; returns the port it left through and what it looked like.
#[track_caller]
fn forwarded(switch: &mut TestSwitch, port: PortNo, bytes: &[u8]) -> (PortNo, FlowKey) {
    let Verdict::Forward(out) = switch.send(port, bytes) else {
        panic!("dropped: {:?}", switch.drops());
    };
    (out, reparsed(&switch.frame).key)
}

/// Reading it verifies the checksum of an IPv4 header.
#[track_caller]
fn reparsed(frame: &Frame) -> ParsedPacket {
    let packet = parse(frame, PortNo(9)).unwrap();
    assert!(verify_l4_checksum(frame, &packet));
    packet
}

fn ends(key: &FlowKey) -> (IpAddr, u16, IpAddr, u16) {
    (
        key.ip_src.unwrap(),
        key.tp_src,
        key.ip_dst.unwrap(),
        key.tp_dst,
    )
}

fn server_at(servers: &[Pod], port: PortNo) -> Pod {
    *servers.iter().find(|pod| pod.port == port).unwrap()
}

#[test]
fn a_connection_keeps_its_endpoint_and_the_client_sees_only_the_service() {
    let (mut switch, client, servers) = switch_with(3);
    for source in 5000..5020 {
        let there = (source, 80);
        let syn = tcp(client.host, vip(), segment(there, SYN, 0, 0));
        let (port, key) = forwarded(&mut switch, client.port, &syn);
        let server = server_at(&servers, port);
        let expected = (client.host.ip, source, server.host.ip, 8080);
        assert_eq!(ends(&key), expected);
        let answer = segment((8080, source), SYN | ACK, 0, 1);
        let syn_ack = tcp(server.host, client.host, answer);
        let (port, key) = forwarded(&mut switch, server.port, &syn_ack);
        assert_eq!(port, client.port);
        assert_eq!(ends(&key), (VIP.into(), 80, client.host.ip, source));
        // The first by translation, the second by the FlowCache.
        for seq in [1, 2] {
            let data = segment(there, ACK, seq, 1);
            let data = tcp_with(client.host, vip(), data, b"x");
            let (port, key) = forwarded(&mut switch, client.port, &data);
            assert_eq!((port, ends(&key)), (server.port, expected));
            let back = segment((8080, source), ACK, seq, 2);
            let back = tcp_with(server.host, client.host, back, b"y");
            let (_, key) = forwarded(&mut switch, server.port, &back);
            assert_eq!(ends(&key), (VIP.into(), 80, client.host.ip, source));
        }
    }
    assert!(switch.dp.cache_stats().hits >= 40);
    assert_eq!(switch.dp.connections(switch.now).len(), 20);
}

#[test]
fn an_endpoint_added_or_removed_moves_no_connection_that_is_there() {
    let (mut switch, client, servers) = switch_with(1);
    let first = udp(client.host, vip(), (5000, 80), b"x");
    assert_eq!(
        forwarded(&mut switch, client.port, &first).0,
        servers[0].port
    );
    let late = switch.add_pod(9);
    set(&switch, group(&[at(late, 8080)]));
    assert_eq!(
        forwarded(&mut switch, client.port, &first).0,
        servers[0].port
    );
    let other = udp(client.host, vip(), (5001, 80), b"x");
    assert_eq!(forwarded(&mut switch, client.port, &other).0, late.port);
}

#[test]
fn a_lost_endpoint_s_flows_move_at_once() {
    let (mut switch, client, servers) = switch_with(2);
    let first = udp(client.host, vip(), (5000, 80), b"x");
    let (port, _) = forwarded(&mut switch, client.port, &first);
    let lost = server_at(&servers, port);
    let left = *servers.iter().find(|pod| pod.port != port).unwrap();
    set(&switch, group(&[at(left, 8080)]));
    forget(&switch, 6, at(lost, 8080));
    assert_eq!(
        forwarded(&mut switch, client.port, &first).0,
        lost.port,
        "another protocol"
    );
    forget(&switch, 17, at(lost, 8080));
    assert_eq!(forwarded(&mut switch, client.port, &first).0, left.port);
}

#[test]
fn egress_policies_judge_the_endpoint_and_ingress_policies_the_client() {
    let (mut switch, client, servers) = switch_with(1);
    let server = servers[0];
    switch.egress_policy("out");
    switch.set("out/pods", &[client]);
    switch.set("out/to", &[]);
    let first = udp(client.host, vip(), (5000, 80), b"x");
    let egress = Verdict::Drop(DropReason::PolicyEgress);
    assert_eq!(switch.send(client.port, &first), egress);
    switch.set("out/to", &[server]);
    forwarded(&mut switch, client.port, &first);

    switch.ingress_policy("in", 8080);
    switch.set("in/pods", &[server]);
    switch.set("in/from", &[]);
    let ingress = Verdict::Drop(DropReason::PolicyIngress);
    let back = udp(server.host, client.host, (8080, 5000), b"y");
    assert_eq!(
        switch.send(server.port, &back),
        ingress,
        "the reply of a denied connection"
    );
    assert_eq!(switch.send(client.port, &first), ingress);
    switch.set("in/from", &[client]);
    forwarded(&mut switch, client.port, &first);
    let (_, key) = forwarded(&mut switch, server.port, &back);
    assert_eq!(ends(&key), (VIP.into(), 80, client.host.ip, 5000));
}

#[test]
fn a_pod_reaches_itself_through_its_service_whatever_its_policies() {
    let (mut switch, _, servers) = switch_with(1);
    let server = servers[0];
    switch.egress_policy("out");
    switch.set("out/pods", &[server]);
    let first = tcp(server.host, vip(), segment((5000, 80), SYN, 0, 0));
    for _again in 0..2 {
        let (port, key) = forwarded(&mut switch, server.port, &first);
        assert_eq!(port, server.port);
        assert_eq!(ends(&key), (HAIRPIN.into(), 5000, server.host.ip, 8080));
    }
    let hairpin = service(HAIRPIN.into());
    let back = tcp(server.host, hairpin, segment((8080, 5000), SYN | ACK, 0, 1));
    let (port, key) = forwarded(&mut switch, server.port, &back);
    assert_eq!(port, server.port);
    assert_eq!(ends(&key), (VIP.into(), 80, server.host.ip, 5000));
    // Without the Service it stays as it was.
    let direct = tcp(server.host, server.host, segment((5001, 8080), SYN, 0, 0));
    assert_eq!(
        switch.send(server.port, &direct),
        Verdict::Drop(DropReason::PolicyEgress)
    );
}

#[test]
fn an_endpoint_behind_the_gateway_serves_the_gateway_s_own_clients() {
    let (mut switch, client, _) = switch_with(0);
    let outside = Endpoint {
        ip: [192, 0, 2, 7].into(),
        port: 6443,
    };
    set(&switch, group(&[outside]));
    let node = Host::v4(0xfe, [10, 0, 0, 100]);
    let first = tcp(node, vip(), segment((5000, 80), SYN, 0, 0));
    let (port, key) = forwarded(&mut switch, GATEWAY, &first);
    assert_eq!(port, GATEWAY);
    assert_eq!(ends(&key), (HAIRPIN.into(), 5000, outside.ip, 6443));
    let outer = Host::v4(0xfe, [192, 0, 2, 7]);
    let back = tcp(
        outer,
        service(HAIRPIN.into()),
        segment((6443, 5000), SYN | ACK, 0, 1),
    );
    let (port, key) = forwarded(&mut switch, GATEWAY, &back);
    assert_eq!(port, GATEWAY);
    assert_eq!(ends(&key), (VIP.into(), 80, node.ip, 5000));
    // A pod keeps its own address.
    let first = tcp(client.host, vip(), segment((5000, 80), SYN, 0, 0));
    let (port, key) = forwarded(&mut switch, client.port, &first);
    assert_eq!(port, GATEWAY);
    assert_eq!(ends(&key), (client.host.ip, 5000, outside.ip, 6443));
}

#[test]
fn icmp_errors_quote_what_their_receiver_sent() {
    let (mut switch, client, servers) = switch_with(1);
    let server = servers[0];
    let first = udp(client.host, vip(), (5000, 80), b"question");
    forwarded(&mut switch, client.port, &first);
    // The server's port is closed.
    let seen = switch.frame.bytes().to_vec();
    let error = unreachable(server.host, client.host, &seen);
    let (port, key) = forwarded(&mut switch, server.port, &error);
    assert_eq!(port, client.port);
    assert_eq!(key.ip_src, Some(VIP.into()));
    let quote = reparsed(&switch.frame).icmp_quote.unwrap();
    assert_eq!((quote.src, quote.tp_src), (client.host.ip, 5000));
    assert_eq!((quote.dst, quote.tp_dst), (VIP.into(), 80));
    // What is quoted is what the client sent, to the last checksum; only the TTL may differ.
    let quoted = &switch.frame.bytes()[quote.offset..];
    assert_eq!(quoted, &first[14..14 + quoted.len()]);

    // And the other way: a router before the client cannot deliver the answer.
    let answer = udp(server.host, client.host, (8080, 5000), b"answer");
    forwarded(&mut switch, server.port, &answer);
    let seen = switch.frame.bytes().to_vec();
    let error = unreachable(client.host, vip(), &seen);
    let (port, key) = forwarded(&mut switch, client.port, &error);
    assert_eq!((port, key.ip_dst), (server.port, Some(server.host.ip)));
    let quote = reparsed(&switch.frame).icmp_quote.unwrap();
    let quoted = &switch.frame.bytes()[quote.offset..];
    assert_eq!(quoted, &answer[14..14 + quoted.len()]);
}

#[test]
fn answers_that_would_look_alike_get_another_source_port() {
    let (mut switch, client, servers) = switch_with(1);
    let server = servers[0];
    let direct = udp(client.host, server.host, (5000, 8080), b"x");
    let through = udp(client.host, vip(), (5000, 80), b"x");
    for order in [[&direct, &through], [&through, &direct]] {
        switch.dp.flush_connections(|_| true);
        let mut sources = Vec::new();
        for bytes in order {
            let (port, key) = forwarded(&mut switch, client.port, bytes);
            assert_eq!(port, server.port);
            assert_eq!((key.ip_src, key.tp_dst), (Some(client.host.ip), 8080));
            sources.push(key.tp_src);
        }
        assert_eq!(sources[0], 5000);
        assert_ne!(sources[1], 5000);
        let mut asked = Vec::new();
        for source in sources {
            let back = udp(server.host, client.host, (8080, source), b"y");
            let (_, key) = forwarded(&mut switch, server.port, &back);
            assert_eq!(key.tp_dst, 5000);
            asked.push((key.ip_src.unwrap(), key.tp_src));
        }
        let (vip, server) = ((VIP.into(), 80), (server.host.ip, 8080));
        let expected = if order[0] == &direct {
            [server, vip]
        } else {
            [vip, server]
        };
        assert_eq!(asked, expected);
    }
}

/// A client takes a source port again whose connection is in TIME_WAIT (RFC 6191).
#[test]
fn a_reopened_connection_keeps_its_source_port() {
    const FIN: u8 = 0x01;
    let (mut switch, client, servers) = switch_with(1);
    let server = servers[0];
    for isn in [1_000, 2_000_000] {
        let mut send = |from: Pod, to: Host, ports, flags, seq, ack| {
            let bytes = tcp(from.host, to, segment(ports, flags, seq, ack));
            forwarded(&mut switch, from.port, &bytes).1
        };
        let (there, back) = ((5000, 80), (8080, 5000));
        let key = send(client, vip(), there, SYN, isn, 0);
        assert_eq!(ends(&key), (client.host.ip, 5000, server.host.ip, 8080));
        send(server, client.host, back, SYN | ACK, 7, isn + 1);
        send(client, vip(), there, ACK, isn + 1, 8);
        send(client, vip(), there, FIN | ACK, isn + 1, 8);
        send(server, client.host, back, FIN | ACK, 8, isn + 2);
        send(client, vip(), there, ACK, isn + 2, 9);
    }
    assert_eq!(switch.dp.connections(switch.now).len(), 1);
}

#[test]
fn a_client_with_affinity_stays_until_its_time_is_over_or_its_endpoint_gone() {
    let (mut switch, client, servers) = switch_with(20);
    let endpoints: Vec<Endpoint> = servers.iter().map(|pod| at(*pod, 8080)).collect();
    let sticky = |endpoints: &[Endpoint]| Group {
        affinity: Some(Duration::from_secs(60)),
        ..group(endpoints)
    };
    set(&switch, sticky(&endpoints));
    let mut source = 5000;
    let mut connect = |switch: &mut TestSwitch| {
        source += 1;
        let first = udp(client.host, vip(), (source, 80), b"x");
        forwarded(switch, client.port, &first).0
    };
    let first = connect(&mut switch);
    for _ in 0..20 {
        switch.tick(Duration::from_secs(59));
        assert_eq!(connect(&mut switch), first);
    }
    let left: Vec<Endpoint> = servers
        .iter()
        .filter(|pod| pod.port != first)
        .map(|pod| at(*pod, 8080))
        .collect();
    set(&switch, sticky(&left));
    let second = connect(&mut switch);
    assert_ne!(second, first);
    set(&switch, sticky(&endpoints));
    assert_eq!(connect(&mut switch), second);
    let mut seen = Vec::new();
    for _ in 0..20 {
        switch.tick(Duration::from_secs(60));
        seen.push(connect(&mut switch));
    }
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 5, "{seen:?}");
}

#[test]
fn a_service_without_endpoints_answers_at_once() {
    let (mut switch, client, _) = switch_with(0);
    let refused = Verdict::Drop(DropReason::ServiceNoEndpoints);
    let first = tcp(client.host, vip(), segment((5000, 80), SYN, 7, 0));
    assert_eq!(switch.send(client.port, &first), refused);
    let (port, answer) = switch.out.replies.pop().unwrap();
    let packet = reparsed(&answer);
    assert_eq!(port, client.port);
    assert_eq!(ends(&packet.key), (VIP.into(), 80, client.host.ip, 5000));
    let tcp = packet.tcp.unwrap();
    assert_eq!((tcp.flags, tcp.ack), (RST | ACK, 8));
    let first = udp(client.host, vip(), (5000, 80), b"x");
    assert_eq!(switch.send(client.port, &first), refused);
    let (_, answer) = switch.out.replies.pop().unwrap();
    let key = reparsed(&answer).key;
    assert_eq!((key.tp_src, key.tp_dst), (3, 3));
    assert_eq!(key.ip_src, Some(VIP.into()));
    assert_eq!(switch.dp.connections(switch.now), []);
}

/// A client's datagrams, all from one socket, before and after there is a Service.
#[test]
fn what_was_sent_to_an_address_before_it_was_a_service_s_does_not_stay_untranslated() {
    let mut switch = TestSwitch::new();
    let (client, server) = (switch.add_pod(1), switch.add_pod(2));
    let datagram = udp(client.host, vip(), (5000, 80), b"x");
    let become_served = |switch: &TestSwitch, port| {
        let service = Endpoint {
            ip: VIP.into(),
            port,
        };
        switch.dp.apply(Transaction {
            forget_untranslated: vec![ServiceAddress { proto: 17, service }],
            ..Transaction::default()
        });
    };
    assert_eq!(
        switch.send(client.port, &datagram),
        Verdict::Forward(GATEWAY)
    );
    set(&switch, group(&[at(server, 8080)]));
    let leads = (
        TableId::ServiceLb,
        100,
        "udp,ip_dst=10.96.0.10,tp_dst=80",
        "group:1,goto_table:55",
    );
    switch.rules(&[leads]);
    become_served(&switch, 81);
    assert_eq!(
        switch.send(client.port, &datagram),
        Verdict::Forward(GATEWAY),
        "another port"
    );
    become_served(&switch, 80);
    let (port, key) = forwarded(&mut switch, client.port, &datagram);
    assert_eq!((port, key.ip_dst), (server.port, Some(server.host.ip)));
    // What is translated stays.
    become_served(&switch, 80);
    assert_eq!(switch.dp.connections(switch.now).len(), 1);
}

#[test]
fn of_tcp_only_what_nobody_answered_is_forgotten_for_a_service() {
    for is_answered in [false, true] {
        let mut switch = TestSwitch::new();
        let client = switch.add_pod(1);
        let syn = tcp(client.host, vip(), segment((5000, 80), SYN, 7, 0));
        assert_eq!(switch.send(client.port, &syn), Verdict::Forward(GATEWAY));
        if is_answered {
            let answer = tcp(vip(), client.host, segment((80, 5000), SYN | ACK, 70, 8));
            assert_eq!(switch.send(GATEWAY, &answer), Verdict::Forward(client.port));
        }
        let service = Endpoint {
            ip: VIP.into(),
            port: 80,
        };
        switch.dp.apply(Transaction {
            forget_untranslated: vec![ServiceAddress { proto: 6, service }],
            ..Transaction::default()
        });
        let left = switch.dp.connections(switch.now).len();
        assert_eq!(left, usize::from(is_answered));
    }
}

#[test]
fn fragments_follow_their_first_one_to_the_endpoint() {
    let (mut switch, client, servers) = switch_with(3);
    let whole = udp(client.host, vip(), (5000, 80), &[7; 64]);
    let part =
        |bytes: &[u8], more, offset| fragment(ip(client.host, vip(), 17, bytes), more, offset);
    let first = part(&whole[34..58], true, 0);
    let later = part(&whole[58..], false, 3);
    let (port, key) = forwarded(&mut switch, client.port, &first);
    let server = server_at(&servers, port);
    assert_eq!(ends(&key), (client.host.ip, 5000, server.host.ip, 8080));
    let start = switch.frame.bytes()[34..].to_vec();
    let (port, key) = forwarded(&mut switch, client.port, &later);
    assert_eq!((port, key.ip_dst), (server.port, Some(server.host.ip)));
    // Put together again they are the datagram with another destination.
    let payload = [&start[..], &switch.frame.bytes()[34..]].concat();
    let expected = udp(
        client.host,
        Host {
            mac: GATEWAY_MAC,
            ..server.host
        },
        (5000, 8080),
        &[7; 64],
    );
    assert_eq!(payload, expected[34..]);
}

#[test]
fn fragments_that_come_before_their_first_one_follow_it_to_the_endpoint() {
    let (mut switch, client, servers) = switch_with(3);
    let whole = udp(client.host, vip(), (5000, 80), &[7; 64]);
    let part =
        |bytes: &[u8], more, offset| fragment(ip(client.host, vip(), 17, bytes), more, offset);
    let later = part(&whole[58..], false, 3);
    assert_eq!(switch.send(client.port, &later), Verdict::Held);
    let first = part(&whole[34..58], true, 0);
    let (port, _) = forwarded(&mut switch, client.port, &first);
    let server = server_at(&servers, port);
    let followers = std::mem::take(&mut switch.out.followers);
    let [(port, follower)] = followers.as_slice() else {
        panic!("{followers:?}")
    };
    let key = reparsed(follower).key;
    assert_eq!((*port, key.ip_dst), (server.port, Some(server.host.ip)));
}

/// An INIT (RFC 9260 section 3.3.2) with its checksum.
fn sctp_init(from: Host, to: Host, ports: (u16, u16)) -> Vec<u8> {
    let mut packet = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    packet.extend([0, 0, 0, 9, 0, 0, 255, 255, 0, 1, 0, 1, 0, 0, 0, 7]);
    let crc = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&crc);
    ip(from, to, 132, &packet)
}

/// CRC32c, bit by bit (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !bytes.iter().fold(u32::MAX, byte)
}

#[test]
fn sctp_associations_are_translated_with_a_right_checksum() {
    let (mut switch, client, servers) = switch_with(3);
    for source in [5000, 5001, 5002] {
        let init = sctp_init(client.host, vip(), (source, 80));
        let (port, key) = forwarded(&mut switch, client.port, &init);
        let server = server_at(&servers, port);
        assert_eq!(ends(&key), (client.host.ip, source, server.host.ip, 8080));
        let expected = sctp_init(client.host, server.host, (source, 8080));
        assert_eq!(switch.frame.bytes()[34..], expected[34..]);
    }
    // Of a fragment nobody can tell the checksum: better none than a wrong one.
    let init = sctp_init(client.host, vip(), (6000, 80));
    let first = fragment(init, true, 0);
    let unsupported = Verdict::Drop(DropReason::NatUnsupported);
    assert_eq!(switch.send(client.port, &first), unsupported);
}

#[test]
fn ipv6_connections_are_translated_alike() {
    let mut switch = TestSwitch::new();
    let (client, server) = (
        switch.add_pod_at(1, "fd00::1".parse().unwrap()),
        switch.add_pod_at(2, "fd00::2".parse().unwrap()),
    );
    let v6: IpAddr = "fd96::10".parse().unwrap();
    switch.rules(&[(
        TableId::ServiceLb,
        100,
        "tcp6,ipv6_dst=fd96::10,tp_dst=80",
        "group:1,goto_table:55",
    )]);
    set(&switch, group(&[at(server, 8080)]));
    let syn = tcp(client.host, service(v6), segment((5000, 80), SYN, 0, 0));
    let (port, key) = forwarded(&mut switch, client.port, &syn);
    assert_eq!(port, server.port);
    assert_eq!(ends(&key), (client.host.ip, 5000, server.host.ip, 8080));
    let back = tcp(
        server.host,
        client.host,
        segment((8080, 5000), SYN | ACK, 0, 1),
    );
    let (_, key) = forwarded(&mut switch, server.port, &back);
    assert_eq!(ends(&key), (v6, 80, client.host.ip, 5000));
}

#[test]
fn a_trace_names_the_group_and_changes_nothing() {
    let (switch, client, servers) = switch_with(1);
    let key = FlowKey {
        ip_proto: 6,
        eth_type: 0x0800,
        eth_src: client.host.mac,
        ip_src: Some(client.host.ip),
        ip_dst: Some(VIP.into()),
        tp_src: 5000,
        tp_dst: 80,
        ..FlowKey::default()
    };
    let input = TraceInput {
        in_port: client.port,
        packet: TracePacket::Key(key),
    };
    let trace = switch.dp.trace(&input, switch.now);
    assert_eq!(trace.verdict, TraceVerdict::Forward(servers[0].port));
    assert_eq!(trace.key.unwrap().ip_dst, Some(servers[0].host.ip));
    let translation = trace.translation.unwrap();
    assert_eq!(translation.group.id, GroupId(1));
    assert_eq!(translation.endpoint, at(servers[0], 8080));
    assert_eq!(switch.dp.connections(switch.now), []);
}

#[test]
fn a_ping_to_a_service_is_not_translated() {
    let (mut switch, client, _) = switch_with(1);
    let (port, key) = forwarded(&mut switch, client.port, &ping(client.host, vip(), 7));
    assert_eq!((port, key.ip_dst), (GATEWAY, Some(VIP.into())));
}
