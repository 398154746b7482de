//! A port that is over its share: what is refused before the walk, and what counts as waste.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use vswitch_datapath::fairness::Work;
use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{DropReason, Verdict};

use crate::defaults::solicitation;
use crate::packets::{Host, SYN, arp, ip, ping, segment, tcp, udp};
use crate::switch::{GATEWAY, Pod, TestSwitch};
use crate::transport::fragment;

const OVER: Verdict = Verdict::Drop(DropReason::OverShare);

/// Two pods and a pod of IPv6.
fn pods() -> (TestSwitch, Pod, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let six = switch.add_pod_at(3, "fd00::3".parse().unwrap());
    (switch, a, b, six)
}

/// What a pod can flood a switch with, by name.
fn floods(a: Pod, b: Pod, six: Pod) -> Vec<(&'static str, Pod, Vec<u8>)> {
    let group = Host {
        ip: IpAddr::from([224, 0, 0, 251]),
        ..b.host
    };
    let stolen = Host {
        ip: IpAddr::from([10, 0, 0, 9]),
        ..a.host
    };
    vec![
        ("SYN", a, tcp(a.host, b.host, segment((4000, 9), SYN, 1, 0))),
        ("UDP", a, udp(a.host, b.host, (4000, 9), b"x")),
        ("echo request", a, ping(a.host, b.host, 77)),
        ("ARP", a, arp(a.host, 1, Ipv4Addr::new(10, 0, 0, 2))),
        (
            "neighbour solicitation",
            six,
            solicitation(six.host, "fd00::9".parse().unwrap()),
        ),
        (
            "first fragment",
            a,
            fragment(udp(a.host, b.host, (4001, 9), &[1; 24]), true, 0),
        ),
        (
            "later fragment",
            a,
            fragment(ip(a.host, b.host, 17, &[2; 8]), false, 4),
        ),
        ("multicast", a, udp(a.host, group, (5353, 5353), b"x")),
        ("spoofed", a, udp(stolen, b.host, (4000, 9), b"x")),
        ("truncated", a, vec![2; 13]),
    ]
}

#[test]
fn everything_that_comes_to_nothing_counts_as_waste() {
    let (mut switch, a, b, six) = pods();
    for (kind, from, bytes) in floods(a, b, six) {
        switch.engine.take_work();
        switch.send(from.port, &bytes);
        let work = switch.engine.take_work();
        assert_eq!((work.wasted, work.refused), (1, 0), "{kind}");
    }
}

#[test]
fn packets_of_connections_are_no_waste_and_answers_are_known_for_such() {
    let (mut switch, a, b, _) = pods();
    let (question, answer) = ((4000, 53), (53, 4000));
    switch.send(a.port, &udp(a.host, b.host, question, b"x"));
    switch.engine.take_work();
    switch.send(b.port, &udp(b.host, a.host, answer, b"y"));
    let answered = Work {
        answers: 1,
        walked: 1,
        ..Work::default()
    };
    assert_eq!(switch.engine.take_work(), answered);
    switch.send(b.port, &udp(b.host, a.host, answer, b"y"));
    switch.send(a.port, &udp(a.host, b.host, question, b"x"));
    assert_eq!(switch.engine.take_work(), Work::default());
}

#[test]
fn a_refusing_engine_lets_known_connections_pass_and_walks_for_nothing_else() {
    let (mut switch, a, b, six) = pods();
    let known = udp(a.host, b.host, (4000, 53), b"x");
    switch.send(a.port, &known);
    let walks = switch.builtin_count(TableId::Output, "");
    switch.engine.set_refusing(true);
    switch.engine.take_work();
    for (kind, from, bytes) in floods(a, b, six) {
        let verdict = switch.send(from.port, &bytes);
        if kind == "truncated" {
            assert_eq!(verdict, Verdict::Drop(DropReason::Truncated));
        } else {
            assert_eq!(verdict, OVER, "{kind}");
        }
        assert!(switch.out.replies.is_empty(), "{kind} is answered");
    }
    let work = switch.engine.take_work();
    assert_eq!((work.wasted, work.refused), (10, 9));
    assert_eq!(switch.builtin_count(TableId::Output, ""), walks);
    assert_eq!(switch.send(a.port, &known), Verdict::Forward(b.port));
    // Also what the FlowCache no longer knows: the rules are of another generation.
    switch.rules(&[(TableId::Admin, 1, "tp_dst=1", "drop")]);
    assert_eq!(switch.send(a.port, &known), Verdict::Forward(b.port));
    let answer = udp(b.host, a.host, (53, 4000), b"y");
    assert_eq!(switch.send(b.port, &answer), Verdict::Forward(a.port));

    switch.engine.set_refusing(false);
    let fresh = udp(a.host, b.host, (4000, 9), b"x");
    assert_eq!(switch.send(a.port, &fresh), Verdict::Forward(b.port));
    let drops = switch.dp.port_drops(a.port);
    assert!(drops.contains(&(DropReason::OverShare, 8)), "{drops:?}");
}

#[test]
fn the_gateway_is_the_way_of_many_and_has_no_share() {
    let (mut switch, a, ..) = pods();
    assert!(switch.engine.port_share(a.port).1);
    assert!(!switch.engine.port_share(GATEWAY).1);
}

#[test]
fn ports_over_their_share_are_named_for_a_while() {
    let (mut switch, a, ..) = pods();
    switch.engine.port_share(a.port).0.note_refusal(switch.now);
    let named = |switch: &TestSwitch| {
        let ports = switch.dp.ports_over_share(switch.now).into_iter();
        ports.map(|port| port.no).collect::<Vec<_>>()
    };
    assert_eq!(named(&switch), [a.port]);
    switch.tick(Duration::from_secs(6));
    assert_eq!(named(&switch), []);
}

#[test]
fn a_flow_cache_lets_go_of_connections_that_are_gone() {
    let (mut switch, a, b, _) = pods();
    for port in 1..200 {
        switch.send(a.port, &udp(a.host, b.host, (4000, port), b"x"));
    }
    // Some may have had to make room in their set.
    let entries = switch.dp.cache_stats().entries;
    assert!(entries > 150, "{entries}");
    switch.engine.tidy();
    assert_eq!(switch.dp.cache_stats().entries, entries);
    switch.dp.flush_connections(|_| true);
    switch.engine.tidy();
    assert_eq!(switch.dp.cache_stats().entries, 0);
}
