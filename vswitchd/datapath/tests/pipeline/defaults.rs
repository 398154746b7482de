//! What each table does where no other rule decides.

use std::net::{IpAddr, Ipv4Addr};

use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::packet::Frame;
use vswitch_datapath::pipeline::{RuleId, TableId, Transaction, builtin_rules};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::{Host, arp, ethernet, ping, udp};
use crate::switch::{GATEWAY, GATEWAY_MAC, TestSwitch, rule};

fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

#[test]
fn an_empty_datapath_drops_everything_and_knows_why() {
    let mut switch = TestSwitch::new();
    let (a, b) = (Host::v4(1, [10, 0, 0, 1]), Host::v4(2, [10, 0, 0, 2]));
    let verdict = switch.send(PortNo(7), &udp(a, b, (1, 2), b""));
    assert_eq!(verdict, drop(DropReason::UnknownPort));
    assert_eq!(switch.send(PortNo(7), &[0; 5]), drop(DropReason::Truncated));
    let expected = [(DropReason::Truncated, 1), (DropReason::UnknownPort, 1)];
    assert_eq!(switch.drops(), expected.into());
    assert_eq!(switch.builtin_count(TableId::Classify, ""), 1);
}

#[test]
fn a_pod_may_use_no_address_but_its_own() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let stolen_ip = Host {
        ip: IpAddr::from([10, 0, 0, 9]),
        ..a.host
    };
    let stolen_mac = Host {
        mac: b.host.mac,
        ..a.host
    };
    for liar in [stolen_ip, stolen_mac] {
        let verdict = switch.send(a.port, &udp(liar, b.host, (1, 2), b""));
        assert_eq!(verdict, drop(DropReason::Spoofed));
        let verdict = switch.send(a.port, &arp(liar, 1, Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(verdict, drop(DropReason::Spoofed));
    }
    assert_eq!(switch.builtin_count(TableId::SpoofGuard, ""), 4);
}

#[test]
fn the_switch_answers_arp_for_what_it_knows_and_drops_the_rest() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let request = arp(a.host, 1, Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(switch.send(a.port, &request), Verdict::Answered);
    let [(port, reply)] = &switch.out.replies[..] else {
        panic!("one reply")
    };
    assert_eq!(*port, a.port);
    let reply = pnet_packet::arp::ArpPacket::new(&reply.bytes()[14..]).unwrap();
    assert_eq!(reply.get_operation().0, 2);
    assert_eq!(reply.get_sender_hw_addr(), GATEWAY_MAC.0);
    assert_eq!(IpAddr::V4(reply.get_sender_proto_addr()), b.host.ip);
    assert_eq!(reply.get_target_hw_addr(), a.host.mac.0);

    let unknown = arp(a.host, 1, Ipv4Addr::new(10, 0, 0, 77));
    assert_eq!(switch.send(a.port, &unknown), drop(DropReason::ArpUnknown));
    assert!(switch.out.replies.is_empty());
    let unasked = arp(a.host, 2, Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(switch.send(a.port, &unasked), drop(DropReason::ArpUnknown));
}

#[test]
fn the_answers_to_a_batch_are_collected() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    for (pod, target) in [(a, 2), (b, 1)] {
        let request = arp(pod.host, 1, Ipv4Addr::new(10, 0, 0, target));
        let mut frame = Frame::from_bytes(&request);
        let out = &mut switch.out;
        switch.engine.process(pod.port, &mut frame, switch.now, out);
    }
    let ports: Vec<_> = switch.out.replies.iter().map(|(port, _)| *port).collect();
    assert_eq!(ports, [a.port, b.port]);
}

#[test]
fn a_frame_that_is_not_ip_goes_nowhere() {
    let mut switch = TestSwitch::new();
    switch.add_port(
        PortNo(5),
        PortClass::Pod,
        MacAddr([2, 0, 0, 0, 0, 5]),
        1_500,
    );
    switch.rules(&[
        (
            TableId::Classify,
            10,
            "in_port=5",
            "set_class:pod,goto_table:10",
        ),
        (TableId::SpoofGuard, 10, "in_port=5", "goto_table:20"),
    ]);
    let lldp = ethernet(
        MacAddr([2, 0, 0, 0, 0, 5]),
        MacAddr([2; 6]),
        0x88cc,
        &[0; 46],
    );
    assert_eq!(
        switch.send(PortNo(5), &lldp),
        drop(DropReason::UnsupportedEtherType)
    );
    let host = Host::v4(5, [10, 0, 0, 5]);
    let mut tagged = udp(host, Host::v4(6, [10, 0, 0, 6]), (1, 2), b"");
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    assert_eq!(
        switch.send(PortNo(5), &tagged),
        drop(DropReason::UnsupportedVlan)
    );
    assert_eq!(
        switch.builtin_count(TableId::Conntrack, "vlan_tci=0x1000/0x1000"),
        1
    );
}

#[test]
fn multicast_and_broadcast_are_not_forwarded() {
    let mut switch = TestSwitch::new();
    let a = switch.add_pod(1);
    for address in [[224, 0, 0, 251], [255, 255, 255, 255]] {
        let group = Host {
            mac: MacAddr::BROADCAST,
            ip: IpAddr::from(address),
        };
        let verdict = switch.send(a.port, &udp(a.host, group, (68, 67), b""));
        assert_eq!(verdict, drop(DropReason::MulticastNotForwarded));
    }
}

#[test]
fn what_has_no_route_or_would_go_back_is_dropped() {
    let mut switch = TestSwitch::new();
    let a = switch.add_pod(1);
    let far = Host::v4(9, [192, 0, 2, 1]);
    assert_eq!(
        switch.send(a.port, &udp(a.host, far, (1, 2), b"")),
        Verdict::Forward(GATEWAY)
    );
    let gateway_host = Host {
        mac: GATEWAY_MAC,
        ..far
    };
    let other_far = Host::v4(9, [192, 0, 2, 2]);
    let verdict = switch.send(GATEWAY, &udp(gateway_host, other_far, (1, 2), b""));
    assert_eq!(verdict, drop(DropReason::Hairpin));
    let defaults: Vec<_> = switch
        .dp
        .rules()
        .iter()
        .filter(|s| s.rule.table == TableId::Forward && s.rule.priority.0 == 1)
        .map(|s| s.rule.id)
        .collect();
    switch.remove_rules(defaults);
    assert_eq!(
        switch.send(a.port, &udp(a.host, far, (1, 2), b"")),
        drop(DropReason::NoRoute)
    );
}

#[test]
fn a_neighbour_solicitation_is_answered_for_known_targets_only() {
    let mut switch = TestSwitch::new();
    let a = switch.add_pod_at(1, "fd00::1".parse().unwrap());
    switch.add_pod_at(2, "fd00::2".parse().unwrap());
    for (target, verdict) in [
        ("fd00::2", Verdict::Answered),
        ("fd00::77", drop(DropReason::NdUnknown)),
    ] {
        let bytes = solicitation(a.host, target.parse().unwrap());
        assert_eq!(switch.send(a.port, &bytes), verdict, "{target}");
    }
}

/// RFC 4861 section 4.3, to the target itself.
pub(crate) fn solicitation(from: Host, target: std::net::Ipv6Addr) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1]);
    message.extend(from.mac.0);
    let IpAddr::V6(src) = from.ip else {
        panic!("IPv6 here")
    };
    let packet = pnet_packet::icmpv6::Icmpv6Packet::new(&message).unwrap();
    let checksum = pnet_packet::icmpv6::checksum(&packet, &src, &target);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let to = Host {
        mac: GATEWAY_MAC,
        ip: target.into(),
    };
    crate::packets::ip(from, to, 58, &message)
}

#[test]
fn a_rule_that_decides_nothing_drops_with_its_tables_reason() {
    let cases = [
        (TableId::Classify, DropReason::UnknownPort),
        (TableId::SpoofGuard, DropReason::Spoofed),
        (TableId::ArpResponder, DropReason::ArpUnknown),
        (TableId::Admin, DropReason::AdminDrop),
        (TableId::Conntrack, DropReason::UnsupportedEtherType),
        (TableId::ServiceLb, DropReason::NoRoute),
        (TableId::EgressAdminTier, DropReason::PolicyEgress),
        (TableId::EgressAdminTier2, DropReason::PolicyEgress),
        (TableId::EgressAdminTier3, DropReason::PolicyEgress),
        (TableId::EgressAdminTier4, DropReason::PolicyEgress),
        (TableId::EgressRule, DropReason::PolicyEgress),
        (TableId::EgressDefault, DropReason::PolicyEgress),
        (TableId::EgressBaselineTier, DropReason::PolicyEgress),
        (TableId::EgressBaselineTier2, DropReason::PolicyEgress),
        (TableId::Forward, DropReason::NoRoute),
        (TableId::IngressAdminTier, DropReason::PolicyIngress),
        (TableId::IngressAdminTier2, DropReason::PolicyIngress),
        (TableId::IngressAdminTier3, DropReason::PolicyIngress),
        (TableId::IngressAdminTier4, DropReason::PolicyIngress),
        (TableId::IngressRule, DropReason::PolicyIngress),
        (TableId::IngressDefault, DropReason::PolicyIngress),
        (TableId::IngressBaselineTier, DropReason::PolicyIngress),
        (TableId::IngressBaselineTier2, DropReason::PolicyIngress),
        (TableId::Output, DropReason::NoRoute),
    ];
    for (table, reason) in cases {
        let mut switch = TestSwitch::new();
        let (a, b) = (switch.add_pod(1), switch.add_pod(2));
        switch.rules(&[(table, 65_535, "", "output:2")]);
        assert_eq!(
            switch.send(a.port, &udp(a.host, b.host, (1, 2), b"")),
            drop(reason),
            "{table}"
        );
    }
}

#[test]
fn tables_only_go_up() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    switch.rules(&[(TableId::Admin, 1, "", "goto_table:30")]);
    let verdict = switch.send(a.port, &udp(a.host, b.host, (1, 2), b""));
    assert_eq!(verdict, drop(DropReason::PipelineLoop));
}

#[test]
fn builtin_rules_can_be_neither_removed_nor_replaced() {
    let switch = TestSwitch::new();
    let before = switch.dp.rules();
    let builtin = builtin_rules();
    let id = builtin[0].id;
    let add_rules = vec![rule(id.0, TableId::Classify, 9, "", "drop", "thief")];
    let remove_rules: Vec<RuleId> = builtin.iter().map(|rule| rule.id).collect();
    switch.dp.apply(Transaction {
        remove_rules,
        add_rules,
        ..Transaction::default()
    });
    assert_eq!(switch.dp.rules(), before);
}

#[test]
fn drops_are_counted_by_port_and_outlive_their_engine() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let liar = Host {
        mac: b.host.mac,
        ..a.host
    };
    switch.send(a.port, &udp(liar, b.host, (1, 2), b""));
    switch.engine.count_drop(DropReason::TxFailed);
    switch.engine = switch.dp.engine();
    switch.send(b.port, &ping(a.host, b.host, 1));
    let expected = [(DropReason::Spoofed, 2), (DropReason::TxFailed, 1)];
    assert_eq!(switch.drops(), expected.into());
    let of_a: u64 = switch
        .dp
        .port_drops(a.port)
        .iter()
        .map(|(_, count)| count)
        .sum();
    assert_eq!(of_a, 1);
    assert!(switch.dp.port_drops(PortNo(99)).is_empty());
}
