//! Frames that the switch makes: smoltcp reads them, and no answer goes where none may.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, Icmpv4Packet, Icmpv6Packet,
    Ipv4Packet, Ipv6Packet, NdiscNeighborFlags, TcpPacket,
};
use vswitch_api::{MacAddr, PortNo};

use super::frames::*;
use crate::flow::{ether_type, ip_proto};
use crate::packet::{Frame, ParsedPacket, emit, parse, tcp_flags, verify_l4_checksum};

const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
const GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1));

fn parsed(bytes: &[u8]) -> (Frame, ParsedPacket) {
    let frame = Frame::from_bytes(bytes);
    let packet = parse(&frame, PortNo(1)).unwrap();
    (frame, packet)
}

/// Parses the answer, which must be valid with its checksums.
#[track_caller]
fn reparsed(answer: &Frame) -> ParsedPacket {
    let packet = parse(answer, PortNo(1)).unwrap();
    assert!(verify_l4_checksum(answer, &packet));
    assert_eq!(packet.l3_end, answer.len());
    packet
}

fn too_big(bytes: &[u8], from: IpAddr) -> Option<Frame> {
    let (frame, packet) = parsed(bytes);
    emit::icmp_too_big(&frame, &packet, 1_400, from)
}

#[test]
fn an_arp_request_is_answered_with_the_mac() {
    let (frame, packet) = parsed(&valid("arp"));
    let reply = emit::arp_reply(&frame, &packet, GATEWAY_MAC).unwrap();
    let ethernet = EthernetFrame::new_checked(reply.bytes()).unwrap();
    assert_eq!(ethernet.dst_addr(), EthernetAddress(SRC_MAC.0));
    assert_eq!(ethernet.src_addr(), EthernetAddress(GATEWAY_MAC.0));
    let arp = ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap()).unwrap();
    let expected = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC.0),
        source_protocol_addr: DST4,
        target_hardware_addr: EthernetAddress(SRC_MAC.0),
        target_protocol_addr: SRC4,
    };
    assert_eq!(arp, expected);
}

#[test]
fn replies_and_gratuitous_requests_get_no_arp_reply() {
    for bytes in [arp(2, SRC4, DST4), arp(1, SRC4, SRC4), valid("tcp4")] {
        let (frame, packet) = parsed(&bytes);
        assert!(emit::arp_reply(&frame, &packet, GATEWAY_MAC).is_none());
    }
}

#[test]
fn an_answer_keeps_the_vlan_tags_of_the_request() {
    let tags = [(ether_type::QINQ, 5), (ether_type::VLAN, 6)];
    let (frame, packet) = parsed(&ethernet(&tags, ether_type::ARP, &valid("arp")[14..]));
    let reply = emit::arp_reply(&frame, &packet, GATEWAY_MAC).unwrap();
    assert_eq!(reply.bytes()[12..22], frame.bytes()[12..22]);
    assert_eq!(reparsed(&reply).key.arp_sha, GATEWAY_MAC);
}

#[test]
fn a_solicitation_is_answered_to_the_asker() {
    let (frame, packet) = parsed(&valid("ns"));
    let answer = emit::neighbor_advertisement(&frame, &packet, GATEWAY_MAC).unwrap();
    let key = reparsed(&answer).key;
    assert_eq!((key.eth_src, key.eth_dst), (GATEWAY_MAC, SRC_MAC));
    assert_eq!(
        (key.ip_src, key.ip_dst),
        (Some(DST6.into()), Some(SRC6.into()))
    );
    assert_eq!(
        (key.nd_target, key.arp_sha, key.tp_src),
        (Some(DST6), GATEWAY_MAC, 136)
    );
    let icmp = Icmpv6Packet::new_checked(&answer.bytes()[54..]).unwrap();
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    assert_eq!(icmp.neighbor_flags(), flags);
}

#[test]
fn duplicate_address_detection_is_answered_to_all_nodes() {
    let probe = nd_message(135, 0, DST6, &[]);
    let (frame, packet) = parsed(&nd(Ipv6Addr::UNSPECIFIED, solicited_node(), 255, probe));
    let answer = emit::neighbor_advertisement(&frame, &packet, GATEWAY_MAC).unwrap();
    let key = reparsed(&answer).key;
    assert_eq!(key.eth_dst, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(key.ip_dst, Some("ff02::1".parse().unwrap()));
    let icmp = Icmpv6Packet::new_checked(&answer.bytes()[54..]).unwrap();
    assert_eq!(icmp.neighbor_flags(), NdiscNeighborFlags::OVERRIDE);
    let (frame, packet) = parsed(&valid("na"));
    assert!(emit::neighbor_advertisement(&frame, &packet, GATEWAY_MAC).is_none());
}

#[test]
fn too_big_over_ipv4_states_the_mtu_and_quotes_the_packet() {
    let original = udp4(&[0x5a; 1_450]);
    let answer = too_big(&original, GATEWAY4).unwrap();
    let packet = reparsed(&answer);
    assert_eq!((packet.key.eth_src, packet.key.eth_dst), (DST_MAC, SRC_MAC));
    assert_eq!(
        (packet.key.ip_src, packet.key.ip_dst),
        (Some(GATEWAY4), Some(SRC4.into()))
    );
    assert_eq!((packet.key.tp_src, packet.key.tp_dst), (3, 4));
    assert_eq!(answer.len(), 14 + 576);
    let ip = Ipv4Packet::new_checked(&answer.bytes()[14..]).unwrap();
    assert!(ip.verify_checksum());
    assert!(
        Icmpv4Packet::new_checked(ip.payload())
            .unwrap()
            .verify_checksum()
    );
    assert_eq!(ip.payload()[4..8], [0, 0, 0x05, 0x78]);
    assert_eq!(ip.payload()[8..], original[14..14 + 548]);
}

#[test]
fn too_big_over_ipv6_states_the_mtu_and_fits_the_smallest_one() {
    let original = udp6(&[0x5a; 1_450]);
    let answer = too_big(&original, GATEWAY6).unwrap();
    let packet = reparsed(&answer);
    assert_eq!((packet.key.tp_src, packet.key.tp_dst), (2, 0));
    assert_eq!(answer.len(), 14 + 1_280);
    let ip = Ipv6Packet::new_checked(&answer.bytes()[14..]).unwrap();
    assert_eq!(ip.payload()[4..8], [0, 0, 0x05, 0x78]);
    let quote = packet.icmp_quote.unwrap();
    assert_eq!((quote.src, quote.tp_dst), (SRC6.into(), DST_PORT));
}

#[test]
fn an_unreachable_says_why_and_quotes_a_short_packet_whole() {
    use emit::Refusal::{NobodyListens, Prohibited};
    for (name, from, refusal, icmp) in [
        ("udp4", GATEWAY4, Prohibited, (3, 13)),
        ("udp6", GATEWAY6, Prohibited, (1, 1)),
        ("udp4", GATEWAY4, NobodyListens, (3, 3)),
        ("udp6", GATEWAY6, NobodyListens, (1, 4)),
    ] {
        let (frame, packet) = parsed(&valid(name));
        let answer = emit::icmp_unreachable(&frame, &packet, refusal, from).unwrap();
        let key = reparsed(&answer).key;
        assert_eq!((key.tp_src, key.tp_dst), icmp, "{name}");
        assert!(answer.bytes().ends_with(&frame.bytes()[14..]), "{name}");
    }
}

#[test]
fn no_icmp_error_answers_an_error_a_later_fragment_or_the_other_family() {
    let redirect = nd("fe80::1".parse().unwrap(), SRC6, 255, {
        let mut message = nd_message(137, 0, DST6, &[]);
        message.extend(DST6.octets());
        message
    });
    for (case, bytes, from) in [
        ("error", valid("icmp error"), GATEWAY4),
        ("error", valid("icmp6 error"), GATEWAY6),
        (
            "unknown error",
            ipv6(58, &icmp6(100, 0, [0; 4], &[])),
            GATEWAY6,
        ),
        ("redirect", redirect, GATEWAY6),
        ("fragment", valid("later4"), GATEWAY4),
        ("fragment", valid("later6"), GATEWAY6),
        ("family", valid("udp4"), GATEWAY6),
        ("ARP", valid("arp"), GATEWAY4),
    ] {
        assert!(too_big(&bytes, from).is_none(), "{case}");
    }
    assert!(
        too_big(&valid("first4"), GATEWAY4).is_some(),
        "a first fragment may be answered"
    );
}

#[test]
fn no_icmp_error_answers_groups_or_sources_that_are_no_host() {
    let mut to_group = valid("udp4");
    to_group[0] |= 1;
    assert!(too_big(&to_group, GATEWAY4).is_none());
    for (at, ip) in [
        (12, [224, 0, 0, 1]),
        (12, [255, 255, 255, 255]),
        (12, [0, 0, 0, 0]),
        (12, [127, 0, 0, 1]),
        (12, [240, 0, 0, 1]),
        (16, [239, 1, 1, 1]),
        (16, [255, 255, 255, 255]),
    ] {
        let mut bytes = valid("udp4");
        bytes[14 + at..18 + at].copy_from_slice(&ip);
        let sum = pnet_packet::util::checksum(&bytes[14..34], 5);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(too_big(&bytes, GATEWAY4).is_none(), "{ip:?}");
    }
    let from_any = ipv6_with(Ipv6Addr::UNSPECIFIED, DST6, 9, 17, &udp(b"x"));
    assert!(too_big(&ethernet(&[], ether_type::IPV6, &from_any), GATEWAY6).is_none());
}

#[test]
fn a_segment_with_ack_is_reset_at_what_it_acknowledges() {
    for bytes in [tcp4(tcp_flags::ACK, b"data"), tcp6(tcp_flags::ACK, b"data")] {
        let (frame, packet) = parsed(&bytes);
        let answer = emit::tcp_reset(&frame, &packet).unwrap();
        let reset = reparsed(&answer);
        let tcp = reset.tcp.unwrap();
        assert_eq!(
            (tcp.flags, tcp.seq, tcp.payload_len),
            (tcp_flags::RST, 0x0102_0304, 0)
        );
        assert_eq!(
            (reset.key.ip_src, reset.key.ip_dst),
            (packet.key.ip_dst, packet.key.ip_src)
        );
        assert_eq!((reset.key.tp_src, reset.key.tp_dst), (DST_PORT, SRC_PORT));
        assert_eq!((reset.key.eth_src, reset.key.eth_dst), (DST_MAC, SRC_MAC));
    }
}

#[test]
fn a_syn_is_reset_with_an_ack_past_itself() {
    let (frame, packet) = parsed(&tcp4(tcp_flags::SYN, &[0; 20]));
    let answer = emit::tcp_reset(&frame, &packet).unwrap();
    let tcp = TcpPacket::new_checked(&answer.bytes()[34..]).unwrap();
    assert!(tcp.rst() && tcp.ack());
    assert_eq!((tcp.seq_number().0, tcp.ack_number().0), (0, 5));
}

#[test]
fn a_reset_and_what_is_not_tcp_get_no_reset() {
    let fragment = ipv4_with(
        &[],
        0x2000,
        ip_proto::TCP,
        &tcp(tcp_flags::ACK, &[], &[0; 4]),
    );
    for bytes in [
        tcp4(tcp_flags::RST, &[]),
        valid("udp4"),
        ethernet(&[], ether_type::IPV4, &fragment),
    ] {
        let (frame, packet) = parsed(&bytes);
        assert!(emit::tcp_reset(&frame, &packet).is_none());
    }
}
