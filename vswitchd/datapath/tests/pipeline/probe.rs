//! Probes: what answers is taken in and not sent, the rest is as for any packet, nothing is left.

use std::sync::Arc;

use vswitch_datapath::conntrack::{Direction, Tuple};
use vswitch_datapath::packet::emit::BarePacket;
use vswitch_datapath::probe::{Answer, AnswerKind, Probe};
use vswitch_datapath::{DropReason, MAX_PROBES, Verdict, Watcher};

use crate::kernel_path::World;
use crate::packets::{ACK, Host, RST, SYN, ip, segment, tcp, udp};
use crate::services::{switch_with, vip};
use crate::switch::{GATEWAY_MAC, Pod, TestSwitch};
use crate::transport::{fragment, unreachable};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
/// Source port of probes here.
const PORT: u16 = 61_000;

fn probe(from: Pod, to: Host, proto: u8, port: u16) -> Probe {
    let is_icmp = proto == ICMP;
    let tuple = Tuple {
        src: from.host.ip,
        dst: to.ip,
        proto,
        icmp_type: if is_icmp { 8 } else { 0 },
        tp_src: PORT,
        tp_dst: if is_icmp { PORT } else { port },
    };
    Probe::new(from.port, tuple)
}

/// Watches, and sends the packet of the probe.
fn begin(switch: &mut TestSwitch, from: Pod, probe: Probe) -> (Arc<Probe>, Verdict) {
    let packet = match probe.tuple().proto {
        TCP => BarePacket::Syn { seq: 100 },
        UDP => BarePacket::Datagram,
        _ => BarePacket::EchoRequest,
    };
    let probe = Arc::new(probe);
    let watcher = Watcher::Probe(Arc::clone(&probe));
    switch.dp.begin_watch(&watcher).unwrap();
    let frame = probe.frame(packet, from.host.mac, GATEWAY_MAC).unwrap();
    let verdict = switch.send(from.port, frame.bytes());
    (probe, verdict)
}

fn answers(probe: &Probe) -> Vec<AnswerKind> {
    std::iter::from_fn(|| probe.next())
        .map(|answer: Answer| answer.kind)
        .collect()
}

/// A client that `web` admits to the server's port 80, and a stranger that it does not.
fn isolated() -> (TestSwitch, [Pod; 3]) {
    let mut switch = TestSwitch::new();
    let [client, server, stranger] = [1, 2, 3].map(|n| switch.add_pod(n));
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[server]);
    switch.set("web/from", &[client]);
    (switch, [client, server, stranger])
}

fn end(switch: &TestSwitch, probe: &Arc<Probe>) {
    switch.dp.forget_probe(probe, switch.now);
    switch.dp.end_watch(&Watcher::Probe(Arc::clone(probe)));
}

#[test]
fn a_syn_is_answered_and_reset_and_nothing_is_left() {
    let (mut switch, [client, server, _]) = isolated();
    let of_client = probe(client, server.host, TCP, 80);
    let (probe, verdict) = begin(&mut switch, client, of_client);
    assert_eq!(verdict, Verdict::Forward(server.port));
    assert_eq!(switch.dp.connections(switch.now).len(), 1);
    let syn_ack = segment((80, PORT), SYN | ACK, 500, 101);
    let answer = tcp(server.host, client.host, syn_ack);
    assert_eq!(switch.send(server.port, &answer), Verdict::Taken);
    let flags = SYN | ACK;
    assert_eq!(answers(&probe), [AnswerKind::Segment { flags, ack: 101 }]);

    let reset = BarePacket::Reset { seq: 101 };
    let reset = probe.frame(reset, client.host.mac, GATEWAY_MAC).unwrap();
    assert_eq!(
        switch.send(client.port, reset.bytes()),
        Verdict::Forward(server.port)
    );
    end(&switch, &probe);
    assert_eq!(switch.dp.connections(switch.now), []);
    assert_eq!(
        switch.send(server.port, &answer),
        Verdict::Drop(DropReason::CtInvalid),
        "no longer known"
    );
}

#[test]
fn every_answer_is_taken_and_nothing_else() {
    let (mut switch, [client, server, _]) = isolated();
    let of_client = probe(client, server.host, UDP, 80);
    let (probe, _) = begin(&mut switch, client, of_client);
    let other = udp(client.host, server.host, (5_000, 80), b"x");
    for _ in 0..5 {
        let answer = udp(server.host, client.host, (80, PORT), b"yes");
        assert_eq!(switch.send(server.port, &answer), Verdict::Taken);
        // A connection of the pod's own.
        switch.send(client.port, &other);
        let its = udp(server.host, client.host, (80, 5_000), b"z");
        assert_eq!(
            switch.send(server.port, &its),
            Verdict::Forward(client.port)
        );
    }
    let datagram = AnswerKind::Datagram { payload_bytes: 3 };
    assert_eq!(answers(&probe), [datagram; 5]);
    end(&switch, &probe);
    assert_eq!(switch.dp.connections(switch.now).len(), 1, "the pod's own");
}

#[test]
fn an_answer_in_fragments_is_taken_whatever_their_order() {
    let (mut switch, [client, server, _]) = isolated();
    let of_client = probe(client, server.host, UDP, 80);
    let (probe, _) = begin(&mut switch, client, of_client);
    let whole = udp(server.host, client.host, (80, PORT), &[7; 56]);
    let part = |from: usize, to: usize, more| {
        let offset = u16::try_from((from - 34) / 8).unwrap();
        let payload = &whole[from..to];
        fragment(ip(server.host, client.host, UDP, payload), more, offset)
    };
    let [first, second, third] = [part(34, 58, true), part(58, 82, true), part(82, 98, false)];
    assert_eq!(switch.send(server.port, &third), Verdict::Held);
    assert_eq!(switch.send(server.port, &first), Verdict::Taken);
    assert!(switch.out.followers.is_empty(), "what waited is taken too");
    assert_eq!(switch.send(server.port, &second), Verdict::Taken);
    assert_eq!(answers(&probe).len(), 1);
}

#[test]
fn an_icmp_error_about_it_is_an_answer() {
    let (mut switch, [client, server, _]) = isolated();
    let of_client = probe(client, server.host, UDP, 80);
    let (probe, _) = begin(&mut switch, client, of_client);
    let error = unreachable(server.host, client.host, switch.frame.bytes());
    assert_eq!(switch.send(server.port, &error), Verdict::Taken);
    let (icmp_type, code) = (3, 3);
    assert_eq!(answers(&probe), [AnswerKind::IcmpError { icmp_type, code }]);
}

#[test]
fn an_echo_is_answered() {
    let mut switch = TestSwitch::new();
    let [client, server] = [1, 2].map(|n| switch.add_pod(n));
    let of_client = probe(client, server.host, ICMP, 0);
    let (probe, verdict) = begin(&mut switch, client, of_client);
    assert_eq!(verdict, Verdict::Forward(server.port));
    let [high, low] = PORT.to_be_bytes();
    let mut reply = [0, 0, 0, 0, high, low, 0, 1];
    let sum = pnet_packet::util::checksum(&reply, 1);
    reply[2..4].copy_from_slice(&sum.to_be_bytes());
    let reply = ip(server.host, client.host, ICMP, &reply);
    assert_eq!(switch.send(server.port, &reply), Verdict::Taken);
    assert_eq!(answers(&probe), [AnswerKind::EchoReply]);
}

#[test]
fn a_probe_is_denied_as_the_pod_would_be_and_counts_as_its() {
    let (mut switch, [_, server, stranger]) = isolated();
    let denied = |switch: &TestSwitch| switch.drops().get(&DropReason::PolicyIngress).copied();
    let of_stranger = probe(stranger, server.host, TCP, 80);
    let (probe, verdict) = begin(&mut switch, stranger, of_stranger);
    assert_eq!(verdict, Verdict::Drop(DropReason::PolicyIngress));
    assert_eq!(denied(&switch), Some(1));
    assert_eq!(switch.dp.connections(switch.now), []);
    assert_eq!(switch.dp.forget_probe(&probe, switch.now), None);
}

#[test]
fn what_tells_the_sender_of_a_denial_is_not_sent() {
    let mut switch = TestSwitch::new();
    let [client, server] = [1, 2].map(|n| switch.add_pod(n));
    let table = vswitch_datapath::pipeline::TableId::IngressRule;
    switch.rules(&[(table, 5, "tcp", "reject(policy_ingress)")]);
    let of_client = probe(client, server.host, TCP, 80);
    let (probe, verdict) = begin(&mut switch, client, of_client);
    assert_eq!(verdict, Verdict::Drop(DropReason::PolicyIngress));
    assert!(switch.out.replies.is_empty());
    let [AnswerKind::Segment { flags, .. }] = answers(&probe)[..] else {
        panic!("one reset");
    };
    assert_ne!(flags & RST, 0);
}

#[test]
fn the_answer_of_an_endpoint_is_the_services() {
    let (mut switch, client, servers) = switch_with(1);
    let of_client = probe(client, vip(), TCP, 80);
    let (probe, verdict) = begin(&mut switch, client, of_client);
    assert_eq!(verdict, Verdict::Forward(servers[0].port));
    let syn_ack = segment((8080, PORT), SYN | ACK, 500, 101);
    let answer = tcp(servers[0].host, client.host, syn_ack);
    assert_eq!(switch.send(servers[0].port, &answer), Verdict::Taken);
    assert_eq!(probe.next().unwrap().from, vip().ip);
    let left_with = switch.dp.forget_probe(&probe, switch.now).unwrap();
    let endpoint = (servers[0].host.ip, 8080);
    assert_eq!((left_with.dst, left_with.tp_dst), endpoint);
}

#[test]
fn a_probe_leaves_other_flows_where_they_are() {
    let mut world = World::new();
    world.open_in_kernel();
    let (client, epoch) = (world.client, world.switch.dp.epoch());
    let of_client = probe(client, world.server.host, UDP, 80);
    let (probe, _) = begin(&mut world.switch, client, of_client);
    end(&world.switch, &probe);
    let both = [Direction::Original, Direction::Reply];
    assert_eq!(world.below.followed(), both);
    assert_eq!(world.switch.dp.epoch(), epoch);
}

#[test]
fn only_the_probe_s_own_connection_is_forgotten() {
    let (mut switch, [client, server, _]) = isolated();
    // The server began it: to it, this is no connection of the client.
    switch.send(
        server.port,
        &udp(server.host, client.host, (80, PORT), b"x"),
    );
    let probe = probe(client, server.host, UDP, 80);
    assert_eq!(switch.dp.forget_probe(&probe, switch.now), None);
    assert_eq!(switch.dp.connections(switch.now).len(), 1);
}

#[test]
fn so_many_probes_and_no_more() {
    let (switch, [client, server, _]) = isolated();
    let watch = || {
        let probe = Arc::new(probe(client, server.host, TCP, 80));
        switch.dp.begin_watch(&Watcher::Probe(probe))
    };
    for _ in 0..MAX_PROBES {
        watch().unwrap();
    }
    let refused = watch().unwrap_err().to_string();
    assert!(refused.starts_with("8 probes are under way"), "{refused}");
}
