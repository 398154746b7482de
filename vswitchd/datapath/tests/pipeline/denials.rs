//! What is denied is counted completely, by who, whom and why, in bounded room.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{Denial, DenialVerdict, DropReason, Verdict};

use crate::packets::{ACK, Host, SYN, ping, segment, tcp, udp};
use crate::switch::{GATEWAY, Pod, TestSwitch};

/// Server b admits pod c alone, to port 80.
fn pods() -> (TestSwitch, Pod, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (a, b, c) = (switch.add_pod(1), switch.add_pod(2), switch.add_pod(3));
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[b]);
    switch.set("web/from", &[c]);
    (switch, a, b, c)
}

fn syn(from: Pod, to: Pod, ports: (u16, u16)) -> Vec<u8> {
    tcp(from.host, to.host, segment(ports, SYN, 1, 0))
}

fn fetched(switch: &TestSwitch) -> Vec<Denial> {
    let fetched = switch.dp.fetch_denials();
    assert_eq!(fetched.lost, 0);
    fetched.denials
}

fn origins(denial: &Denial) -> Vec<&str> {
    let rules = denial.rules.iter();
    rules.map(|rule| rule.origin.name.as_str()).collect()
}

#[test]
fn a_flood_is_one_entry_with_who_whom_why_and_when() {
    let (mut switch, a, b, c) = pods();
    let first = switch.now;
    for source_port in 5_000..5_100 {
        let verdict = switch.send(a.port, &syn(a, b, (source_port, 80)));
        assert_eq!(verdict, Verdict::Drop(DropReason::PolicyIngress));
        switch.tick(std::time::Duration::from_millis(1));
    }
    let allowed = switch.send(c.port, &syn(c, b, (5_000, 80)));
    assert_eq!(allowed, Verdict::Forward(b.port));
    let denials = fetched(&switch);
    let [denial] = &denials[..] else {
        panic!("{denials:?}");
    };
    let of = denial.of.unwrap();
    assert_eq!(denial.verdict, DenialVerdict::Denied);
    assert_eq!(denial.reason, DropReason::PolicyIngress);
    assert_eq!(
        (of.ports, of.ends),
        ((a.port, b.port), (a.host.ip, b.host.ip))
    );
    assert_eq!((of.proto, of.number, of.service), (6, 80, None));
    assert_eq!((denial.packets, denial.connections), (100, 0));
    assert_eq!(origins(denial), ["web"]);
    assert_eq!(denial.first, first);
    assert_eq!(denial.last.since(first).as_millis(), 99);
    assert_eq!(fetched(&switch), [], "fetched once");
    assert_eq!(switch.drops()[&DropReason::PolicyIngress], 100);
}

#[test]
fn all_policies_that_isolate_are_named_and_what_changes_until_then_hides_nothing() {
    let (mut switch, a, b, _) = pods();
    let other = switch.named_rules(&[(
        TableId::IngressDefault,
        0,
        "ip_dst=@web/pods",
        "drop(policy_ingress)",
        "second",
    )]);
    switch.send(a.port, &syn(a, b, (5_000, 80)));
    assert_eq!(origins(&fetched(&switch)[0]), ["web", "second"]);
    switch.send(a.port, &syn(a, b, (5_000, 80)));
    switch.remove_rules(other);
    switch.set("web/pods", &[]);
    assert_eq!(origins(&fetched(&switch)[0]), ["web"], "it decided");
}

#[test]
fn a_connection_that_is_cut_is_told_from_one_that_never_was() {
    let (mut switch, _, b, c) = pods();
    let reply = tcp(b.host, c.host, segment((80, 5_000), SYN | ACK, 9, 2));
    switch.send(c.port, &syn(c, b, (5_000, 80)));
    switch.send(b.port, &reply);
    switch.set("web/from", &[]);
    let next = tcp(c.host, b.host, segment((5_000, 80), ACK, 2, 10));
    let dropped = Verdict::Drop(DropReason::PolicyIngress);
    assert_eq!(switch.send(c.port, &next), dropped);
    assert_eq!(switch.send(c.port, &syn(c, b, (5_001, 80))), dropped);
    let counts = |denials: &[Denial]| -> BTreeMap<DenialVerdict, (u64, u64)> {
        let counts = denials.iter();
        counts
            .map(|of| (of.verdict, (of.packets, of.connections)))
            .collect()
    };
    let expected = [
        (DenialVerdict::Denied, (1, 0)),
        (DenialVerdict::Cut, (1, 1)),
    ];
    assert_eq!(counts(&fetched(&switch)), expected.into());
}

#[test]
fn a_cut_of_an_answer_names_who_began_and_is_one_however_many_packets_come() {
    let (mut switch, _, b, c) = pods();
    switch.rules(&[(
        TableId::IngressDefault,
        5,
        "ip_dst=@web/closed",
        "reject(policy_ingress)",
    )]);
    let ports = (5_000, 80);
    switch.send(c.port, &udp(c.host, b.host, ports, b"x"));
    switch.set("web/from", &[]);
    switch.set("web/closed", &[b]);
    for _ in 0..3 {
        let answer = udp(b.host, c.host, (80, 5_000), b"y");
        let verdict = switch.send(b.port, &answer);
        assert_eq!(verdict, Verdict::Drop(DropReason::PolicyIngress));
    }
    let denials = fetched(&switch);
    let [denial] = &denials[..] else {
        panic!("{denials:?}");
    };
    assert_eq!(denial.verdict, DenialVerdict::Cut);
    assert_eq!((denial.packets, denial.connections), (3, 1));
    let of = denial.of.unwrap();
    assert_eq!((of.ends, of.number), ((c.host.ip, b.host.ip), 80));
    assert_eq!(of.ports.0, c.port);
}

#[test]
fn what_nobody_decided_against_is_no_denial() {
    let (mut switch, a, b, _) = pods();
    let stray = tcp(a.host, b.host, segment((5_000, 80), ACK, 7, 7));
    let invalid = Verdict::Drop(DropReason::CtInvalid);
    assert_eq!(switch.send(a.port, &stray), invalid);
    assert_eq!(fetched(&switch), []);
    switch.send(a.port, &ping(a.host, b.host, 7));
    let of: Vec<_> = fetched(&switch).iter().map(|of| of.of.unwrap()).collect();
    assert_eq!((of[0].proto, of[0].number), (1, 8), "an echo request");
    let stolen = Host {
        ip: IpAddr::from([10, 0, 0, 9]),
        ..a.host
    };
    switch.send(a.port, &udp(stolen, b.host, (5_000, 80), b"x"));
    let denials = fetched(&switch);
    assert_eq!(denials[0].reason, DropReason::Spoofed);
    assert_eq!(denials[0].of.unwrap().ports.0, a.port, "who it really is");
}

/// Addresses behind the gateway that try the server.
fn stranger(number: u16) -> Host {
    let [high, low] = number.to_be_bytes();
    Host::v4(0xfe, [172, 16, high, low])
}

#[test]
fn ten_thousand_pairs_and_their_packets_are_counted_exactly() {
    let (mut switch, _, b, _) = pods();
    let (pairs, rounds) = (10_000_u16, 10_u32);
    let mut sum = BTreeMap::<IpAddr, u64>::new();
    for round in 0..rounds {
        for number in 0..pairs {
            // Some send more than others.
            for _ in 0..=number % 2 {
                let datagram = udp(stranger(number), b.host, (5_000, 80), b"x");
                let verdict = switch.send(GATEWAY, &datagram);
                assert_eq!(verdict, Verdict::Drop(DropReason::PolicyIngress));
            }
        }
        if round % 3 == 0 {
            for denial in fetched(&switch) {
                *sum.entry(denial.of.unwrap().ends.0).or_default() += denial.packets;
            }
        }
    }
    for denial in fetched(&switch) {
        *sum.entry(denial.of.unwrap().ends.0).or_default() += denial.packets;
    }
    let expected = (0..pairs).map(|number| {
        let packets = u64::from(rounds) * u64::from(number % 2 + 1);
        (stranger(number).ip, packets)
    });
    assert_eq!(sum, expected.collect());
}

#[test]
fn beyond_the_room_packets_are_counted_by_their_rule() {
    let (mut switch, _, b, _) = pods();
    for number in 0..20_000 {
        switch.send(GATEWAY, &udp(stranger(number), b.host, (5_000, 80), b"x"));
    }
    let denials = fetched(&switch);
    assert_eq!(denials.len(), 16_385);
    let together: Vec<_> = denials.iter().filter(|of| of.of.is_none()).collect();
    assert_eq!(together.len(), 1);
    assert_eq!(together[0].packets, 20_000 - 16_384);
    assert_eq!(origins(together[0]), ["web"]);
    assert_eq!(together[0].reason, DropReason::PolicyIngress);
}
