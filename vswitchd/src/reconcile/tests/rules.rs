//! What the tables do with the packets of pods, the node and strangers.

use vswitch_api::{Cookie, MacAddr, PortNo, Priority};
use vswitch_datapath::flow::{CtState, FlowKey, Match, ether_type, ip_proto};
use vswitch_datapath::pipeline::{TraceInput, TracePacket, TraceVerdict};
use vswitch_datapath::{Action, Datapath, DatapathConfig, DropReason, Timestamp};

use super::walker::{Outcome, walk};
use super::{GATEWAY, GATEWAY_MAC, RecordedModel, attachment, deny_all, mac, pod, two_pods};
use crate::reconcile::model::ModelInput;
use crate::reconcile::{AdminFlow, PortAttachMode};

/// Walks the key, and has the datapath trace it too, where it is the first of its connection.
fn outcome(switch: &RecordedModel, key: FlowKey) -> Outcome {
    let walked = walk(&switch.policies, key);
    if key.ct_state == CtState::default() {
        assert_eq!(traced(switch, key), walked, "{key:?}");
    }
    walked
}

fn traced(switch: &RecordedModel, key: FlowKey) -> Outcome {
    let datapath = Datapath::new(DatapathConfig::default());
    datapath.apply(switch.everything());
    let input = TraceInput {
        in_port: key.in_port,
        packet: TracePacket::Key(key),
    };
    let trace = datapath.trace(&input, Timestamp::default());
    match trace.verdict {
        TraceVerdict::Forward(port) => Outcome::Sent(port, trace.key.unwrap().eth_dst),
        TraceVerdict::Answered(mac) => Outcome::Answered(mac),
        TraceVerdict::Drop(reason) => Outcome::Dropped(reason),
    }
}

/// A TCP segment from a port, with that port's own MAC.
fn tcp(port: u32, from: &str, to: &str) -> FlowKey {
    let is_v4 = from.contains('.');
    FlowKey {
        in_port: PortNo(port),
        eth_src: mac(port),
        eth_type: if is_v4 {
            ether_type::IPV4
        } else {
            ether_type::IPV6
        },
        ip_proto: ip_proto::TCP,
        ip_src: Some(from.parse().unwrap()),
        ip_dst: Some(to.parse().unwrap()),
        tp_dst: 80,
        ..FlowKey::default()
    }
}

fn from_gateway(from: &str, to: &str) -> FlowKey {
    FlowKey {
        in_port: GATEWAY,
        eth_src: GATEWAY_MAC,
        ..tcp(1, from, to)
    }
}

fn arp(port: u32, op: u8, sender: &str, target: &str) -> FlowKey {
    let eth_type = ether_type::ARP;
    FlowKey {
        eth_type,
        ip_proto: op,
        arp_sha: mac(port),
        tp_dst: 0,
        ..tcp(port, sender, target)
    }
}

fn nd(port: u32, icmp_type: u16, from: &str, target: &str) -> FlowKey {
    FlowKey {
        ip_proto: ip_proto::ICMPV6,
        tp_src: icmp_type,
        tp_dst: 0,
        nd_target: Some(target.parse().unwrap()),
        arp_sha: mac(port),
        ..tcp(port, from, "ff02::1")
    }
}

const TO_B: Outcome = Outcome::Sent(PortNo(11), MacAddr([2, 0, 0, 0, 0, 11]));
const TO_GATEWAY: Outcome = Outcome::Sent(GATEWAY, GATEWAY_MAC);
const SPOOFED: Outcome = Outcome::Dropped(DropReason::Spoofed);

fn dropped(reason: DropReason) -> Outcome {
    Outcome::Dropped(reason)
}

#[test]
fn pods_reach_each_other_the_node_and_through_it_the_rest() {
    let w = two_pods();
    assert_eq!(outcome(&w, tcp(10, "10.0.0.10", "10.0.0.11")), TO_B);
    assert_eq!(outcome(&w, tcp(10, "fd00::10", "fd00::11")), TO_B);
    for to in ["10.0.0.1", "8.8.8.8", "10.0.1.7"] {
        assert_eq!(outcome(&w, tcp(10, "10.0.0.10", to)), TO_GATEWAY, "{to}");
    }
    assert_eq!(outcome(&w, tcp(10, "fd00::10", "2001:db8::1")), TO_GATEWAY);
    assert_eq!(outcome(&w, from_gateway("10.0.0.1", "10.0.0.11")), TO_B);
    assert_eq!(outcome(&w, from_gateway("8.8.8.8", "10.0.0.11")), TO_B);
}

#[test]
fn what_is_nowhere_has_no_route() {
    let w = two_pods();
    let no_route = dropped(DropReason::NoRoute);
    assert_eq!(outcome(&w, tcp(10, "10.0.0.10", "10.0.0.99")), no_route);
    assert_eq!(outcome(&w, tcp(10, "fd00::10", "fd00::99")), no_route);
    assert_eq!(outcome(&w, tcp(10, "fd00::10", "fe80::1")), no_route);
    assert_eq!(outcome(&w, from_gateway("10.0.0.1", "8.8.8.8")), no_route);
}

#[test]
fn nothing_is_sent_to_addresses_that_are_on_no_wire() {
    let w = two_pods();
    let martian = dropped(DropReason::MartianDestination);
    for to in [
        "127.0.0.1",
        "127.255.255.255",
        "0.0.0.0",
        "0.1.2.3",
        "240.0.0.1",
        "255.255.255.254",
        "169.254.86.1",
        "169.254.86.2",
        "169.254.86.77",
    ] {
        assert_eq!(outcome(&w, tcp(10, "10.0.0.10", to)), martian, "{to}");
        assert_eq!(outcome(&w, from_gateway("8.8.8.8", to)), martian, "{to}");
    }
    for to in [
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "fd56:5357:4954:4348::1",
        "fd56:5357:4954:4348::2",
        "fd56:5357:4954:4348::77",
    ] {
        assert_eq!(outcome(&w, tcp(10, "fd00::10", to)), martian, "{to}");
    }
    // What clouds tell their machines about themselves is a real destination.
    let metadata = tcp(10, "10.0.0.10", "169.254.169.254");
    assert_eq!(outcome(&w, metadata), TO_GATEWAY);
}

#[test]
fn groups_are_not_forwarded() {
    let w = two_pods();
    let not_forwarded = dropped(DropReason::MulticastNotForwarded);
    for to in ["224.0.0.251", "255.255.255.255"] {
        assert_eq!(outcome(&w, tcp(10, "10.0.0.10", to)), not_forwarded, "{to}");
    }
    assert_eq!(outcome(&w, tcp(10, "fd00::10", "ff02::fb")), not_forwarded);
    assert_eq!(outcome(&w, nd(10, 133, "fe80::77", "::")), not_forwarded);
    assert_eq!(outcome(&w, nd(10, 143, "::", "::")), not_forwarded);
}

#[test]
fn an_unknown_port_sends_nothing() {
    let unknown = dropped(DropReason::UnknownPort);
    assert_eq!(
        outcome(&two_pods(), tcp(12, "10.0.0.10", "10.0.0.11")),
        unknown
    );
}

#[test]
fn a_pod_uses_its_own_mac_and_addresses_only() {
    let w = two_pods();
    assert_eq!(outcome(&w, tcp(10, "10.0.0.11", "8.8.8.8")), SPOOFED);
    assert_eq!(outcome(&w, tcp(10, "10.0.0.1", "10.0.0.11")), SPOOFED);
    assert_eq!(outcome(&w, tcp(10, "fd00::11", "fd00::1")), SPOOFED);
    assert_eq!(
        outcome(&w, tcp(10, "fe80::77", "fd00::11")),
        SPOOFED,
        "policies know it not"
    );
    let other_mac = FlowKey {
        eth_src: mac(11),
        ..tcp(10, "10.0.0.10", "10.0.0.11")
    };
    assert_eq!(outcome(&w, other_mac), SPOOFED);
}

#[test]
fn the_gateway_does_not_send_as_a_local_pod() {
    let w = two_pods();
    assert_eq!(outcome(&w, from_gateway("10.0.0.10", "10.0.0.11")), SPOOFED);
}

#[test]
fn a_pod_speaks_arp_of_itself_only() {
    let w = two_pods();
    let answered = Outcome::Answered(mac(11));
    assert_eq!(outcome(&w, arp(10, 1, "10.0.0.10", "10.0.0.11")), answered);
    assert_eq!(
        outcome(&w, arp(10, 1, "0.0.0.0", "10.0.0.11")),
        answered,
        "a probe"
    );
    assert_eq!(outcome(&w, arp(10, 1, "10.0.0.1", "10.0.0.11")), SPOOFED);
    let other_sha = FlowKey {
        arp_sha: mac(11),
        ..arp(10, 1, "10.0.0.10", "10.0.0.11")
    };
    assert_eq!(outcome(&w, other_sha), SPOOFED);
    assert_eq!(outcome(&w, arp(10, 2, "0.0.0.0", "10.0.0.11")), SPOOFED);
}

#[test]
fn arp_is_answered_for_known_addresses_and_to_nobody_about_its_own() {
    let w = two_pods();
    let unknown = dropped(DropReason::ArpUnknown);
    assert_eq!(
        outcome(&w, arp(10, 1, "10.0.0.10", "10.0.0.1")),
        Outcome::Answered(GATEWAY_MAC)
    );
    assert_eq!(outcome(&w, arp(10, 1, "10.0.0.10", "10.0.0.99")), unknown);
    assert_eq!(
        outcome(&w, arp(10, 1, "0.0.0.0", "10.0.0.10")),
        unknown,
        "its own probe"
    );
    assert_eq!(
        outcome(&w, arp(10, 1, "10.0.0.10", "10.0.0.10")),
        unknown,
        "an announcement"
    );
    assert_eq!(
        outcome(&w, arp(10, 2, "10.0.0.10", "10.0.0.1")),
        unknown,
        "a reply"
    );
    let node_asks = FlowKey {
        in_port: GATEWAY,
        ..arp(1, 1, "10.0.0.1", "10.0.0.11")
    };
    assert_eq!(outcome(&w, node_asks), Outcome::Answered(mac(11)));
}

#[test]
fn neighbour_discovery_is_answered_also_to_link_local_sources() {
    let w = two_pods();
    for from in ["fd00::10", "fe80::77"] {
        assert_eq!(
            outcome(&w, nd(10, 135, from, "fd00::11")),
            Outcome::Answered(mac(11))
        );
        assert_eq!(
            outcome(&w, nd(10, 135, from, "fd00::1")),
            Outcome::Answered(GATEWAY_MAC)
        );
    }
    let bare = FlowKey {
        arp_sha: MacAddr::default(),
        ..nd(10, 135, "fd00::10", "fd00::11")
    };
    assert_eq!(outcome(&w, bare), Outcome::Answered(mac(11)));
}

#[test]
fn duplicate_address_detection_finds_others_and_not_oneself() {
    let w = two_pods();
    let probe = |target| FlowKey {
        arp_sha: MacAddr::default(),
        ..nd(10, 135, "::", target)
    };
    assert_eq!(
        outcome(&w, probe("fd00::10")),
        dropped(DropReason::NdUnknown)
    );
    assert_eq!(
        outcome(&w, probe("fe80::77")),
        dropped(DropReason::NdUnknown)
    );
    assert_eq!(outcome(&w, probe("fd00::11")), Outcome::Answered(mac(11)));
}

#[test]
fn a_pod_forges_no_neighbour_discovery() {
    let w = two_pods();
    assert_eq!(outcome(&w, nd(10, 135, "fd00::11", "fd00::1")), SPOOFED);
    let other_mac = FlowKey {
        arp_sha: mac(11),
        ..nd(10, 135, "fd00::10", "fd00::1")
    };
    assert_eq!(outcome(&w, other_mac), SPOOFED);
    assert_eq!(
        outcome(&w, nd(10, 136, "fd00::10", "fd00::11")),
        SPOOFED,
        "another's address"
    );
    assert_eq!(
        outcome(&w, nd(10, 136, "fd00::10", "fd00::1")),
        SPOOFED,
        "the gateway's"
    );
    assert_eq!(
        outcome(&w, nd(10, 136, "fd00::10", "fd00::10")),
        dropped(DropReason::NdUnknown)
    );
    for icmp_type in [134, 137] {
        assert_eq!(
            outcome(&w, nd(10, icmp_type, "fd00::10", "::")),
            SPOOFED,
            "{icmp_type}"
        );
        assert_eq!(
            outcome(&w, nd(10, icmp_type, "fe80::77", "::")),
            SPOOFED,
            "{icmp_type}"
        );
    }
}

#[test]
fn replies_and_related_errors_pass_isolation_and_invalid_packets_pass_nothing() {
    let mut w = two_pods();
    w.apply(vec![deny_all()]).flush();
    let with = |state| FlowKey {
        ct_state: state,
        ..tcp(10, "10.0.0.10", "10.0.0.11")
    };
    assert_eq!(
        outcome(&w, with(CtState::TRK | CtState::NEW)),
        dropped(DropReason::PolicyEgress)
    );
    assert_eq!(
        outcome(&w, with(CtState::TRK | CtState::EST)),
        dropped(DropReason::PolicyEgress)
    );
    assert_eq!(
        outcome(&w, with(CtState::TRK | CtState::EST | CtState::RPL)),
        TO_B
    );
    assert_eq!(outcome(&w, with(CtState::TRK | CtState::REL)), TO_B);
    let invalid = with(CtState::TRK | CtState::INV | CtState::RPL);
    assert_eq!(outcome(&w, invalid), dropped(DropReason::CtInvalid));
}

#[test]
fn the_node_reaches_an_isolated_pod_and_a_stranger_through_it_does_not() {
    let mut w = two_pods();
    w.apply(vec![deny_all()]).flush();
    let node = ["192.168.0.1".parse().unwrap()].into();
    w.take(ModelInput::NodeAddresses(node)).flush();
    assert_eq!(outcome(&w, from_gateway("10.0.0.1", "10.0.0.11")), TO_B);
    assert_eq!(outcome(&w, from_gateway("192.168.0.1", "10.0.0.11")), TO_B);
    let stranger = from_gateway("192.168.0.2", "10.0.0.11");
    assert_eq!(outcome(&w, stranger), dropped(DropReason::PolicyIngress));
}

#[test]
fn an_address_belongs_to_the_port_that_was_attached_last() {
    let mut w = two_pods();
    w.apply(vec![pod("n", &[])]);
    w.attach(
        attachment(12, "n", &["10.0.0.10/24"]),
        PortAttachMode::default(),
    )
    .flush();
    let to_new = Outcome::Sent(PortNo(12), mac(12));
    assert_eq!(outcome(&w, tcp(11, "10.0.0.11", "10.0.0.10")), to_new);
    assert_eq!(outcome(&w, tcp(10, "10.0.0.10", "10.0.0.11")), SPOOFED);
    assert_eq!(
        outcome(&w, tcp(10, "fd00::10", "fd00::11")),
        TO_B,
        "the other it keeps"
    );
    w.take(ModelInput::Detach(PortNo(10))).flush();
    assert_eq!(outcome(&w, tcp(11, "10.0.0.11", "10.0.0.10")), to_new);
}

#[test]
fn no_pod_gets_the_gateways_address() {
    let mut w = two_pods();
    w.attach(
        attachment(12, "b", &["10.0.0.1/24"]),
        PortAttachMode::default(),
    )
    .flush();
    assert_eq!(outcome(&w, tcp(12, "10.0.0.1", "10.0.0.10")), SPOOFED);
    assert_eq!(outcome(&w, tcp(10, "10.0.0.10", "10.0.0.1")), TO_GATEWAY);
}

#[test]
fn an_admin_flow_that_decides_nothing_lets_the_packet_go_on() {
    let mut w = two_pods();
    let flow = |actions| AdminFlow {
        name: "f".to_owned(),
        priority: Priority(10),
        matches: Match {
            tp_dst: None,
            in_port: Some(PortNo(10)),
            ..Match::default()
        },
        actions,
        cookie: Cookie(7),
    };
    let mirror = vec![flow(vec![Action::Mirror(PortNo(9))])];
    w.take(ModelInput::AdminFlows(mirror)).flush();
    assert_eq!(outcome(&w, tcp(10, "10.0.0.10", "10.0.0.11")), TO_B);
    let drop = vec![flow(vec![Action::Drop(DropReason::AdminDrop)])];
    w.take(ModelInput::AdminFlows(drop)).flush();
    let admin_drop = dropped(DropReason::AdminDrop);
    assert_eq!(outcome(&w, tcp(10, "10.0.0.10", "10.0.0.11")), admin_drop);
    let rules = w.policies.rules.values();
    let cookies = rules.filter(|rule| rule.cookie == Cookie(7));
    assert_eq!(cookies.count(), 1);
}
