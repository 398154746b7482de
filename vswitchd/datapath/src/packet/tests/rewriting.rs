//! Rewriting keeps every checksum as pnet_packet would sum it anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use vswitch_api::{MacAddr, PortNo};

use super::frames::*;
use crate::flow::{ether_type, ip_proto};
use crate::packet::rewrite::{self, End};
use crate::packet::{Frame, VnetHeader, checksum, offload, parse, verify_l4_checksum};

/// Parses again, which verifies the IPv4 header checksum, and verifies the transport's.
#[track_caller]
fn assert_valid(frame: &Frame) -> crate::packet::ParsedPacket {
    let packet = parse(frame, PortNo(1)).unwrap();
    assert!(
        verify_l4_checksum(frame, &packet),
        "transport checksum after rewriting"
    );
    packet
}

fn new_ip(name: &str, seed: [u8; 16]) -> IpAddr {
    if name.ends_with('4') {
        IpAddr::V4(Ipv4Addr::new(seed[0], seed[1], seed[2], seed[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(seed))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn rewritten_addresses_and_ports_verify(
        name in prop::sample::select(vec!["tcp4", "udp4", "sctp4", "tcp6", "udp6"]),
        src: [u8; 16], dst: [u8; 16], ports: (u16, u16),
    ) {
        let mut frame = Frame::from_bytes(&valid(name));
        let packet = parse(&frame, PortNo(1)).unwrap();
        let (src, dst) = (new_ip(name, src), new_ip(name, dst));
        prop_assert!(rewrite::set_ip(&mut frame, &packet, End::Src, src));
        prop_assert!(rewrite::set_ip(&mut frame, &packet, End::Dst, dst));
        prop_assert!(rewrite::set_port(&mut frame, &packet, End::Src, ports.0));
        prop_assert!(rewrite::set_port(&mut frame, &packet, End::Dst, ports.1));
        prop_assert!(rewrite::decrement_ttl(&mut frame, &packet));
        let key = assert_valid(&frame).key;
        prop_assert_eq!((key.ip_src, key.ip_dst), (Some(src), Some(dst)));
        prop_assert_eq!((key.tp_src, key.tp_dst, key.ip_ttl), (ports.0, ports.1, 60));
    }

    #[test]
    fn a_partial_checksum_stays_the_pseudo_header_sum(
        name in prop::sample::select(vec!["tcp4", "udp4", "tcp6", "udp6"]),
        dst: [u8; 16], port: u16,
    ) {
        let mut frame = partial(name);
        let packet = parse(&frame, PortNo(1)).unwrap();
        let dst = new_ip(name, dst);
        prop_assert!(rewrite::set_ip(&mut frame, &packet, End::Dst, dst));
        prop_assert!(rewrite::set_port(&mut frame, &packet, End::Dst, port));
        offload::complete_checksum(&mut frame).unwrap();
        prop_assert_eq!(frame.vnet, VnetHeader::default());
        let key = assert_valid(&frame).key;
        prop_assert_eq!((key.ip_dst, key.tp_dst), (Some(dst), port));
    }
}

/// Returns the frame as a local stack sends it to an offloading port.
fn partial(name: &str) -> Frame {
    let bytes = valid(name);
    let packet = parse_bytes(&bytes).unwrap();
    let key = packet.key;
    let offset = if key.ip_proto == ip_proto::TCP { 16 } else { 6 };
    let vnet = VnetHeader {
        flags: VnetHeader::F_NEEDS_CSUM,
        csum_start: u16::try_from(packet.l4_offset).unwrap(),
        csum_offset: offset,
        ..VnetHeader::default()
    };
    let mut frame = frame_with(&bytes, vnet);
    let len = packet.l3_end - packet.l4_offset;
    let sum = checksum::pseudo_header(key.ip_src.unwrap(), key.ip_dst.unwrap(), key.ip_proto, len);
    let at = packet.l4_offset + usize::from(offset);
    frame.bytes_mut()[at..at + 2].copy_from_slice(&sum.fold().to_be_bytes());
    frame
}

#[test]
fn icmpv6_counts_the_addresses_and_icmp_does_not() {
    let mut frame = Frame::from_bytes(&valid("icmp6 echo"));
    let packet = parse(&frame, PortNo(1)).unwrap();
    assert!(rewrite::set_ip(
        &mut frame,
        &packet,
        End::Dst,
        Ipv6Addr::LOCALHOST.into()
    ));
    assert_valid(&frame);
    let mut frame = Frame::from_bytes(&valid("icmp echo"));
    let packet = parse(&frame, PortNo(1)).unwrap();
    assert!(rewrite::set_ip(
        &mut frame,
        &packet,
        End::Dst,
        Ipv4Addr::new(1, 2, 3, 4).into()
    ));
    assert_valid(&frame);
}

#[test]
fn a_udp_checksum_of_zero_stays_not_computed() {
    let mut frame = Frame::from_bytes(&ipv4(ip_proto::UDP, &udp(b"no sum")));
    let packet = parse(&frame, PortNo(1)).unwrap();
    rewrite::set_ip(
        &mut frame,
        &packet,
        End::Dst,
        Ipv4Addr::new(9, 9, 9, 9).into(),
    );
    rewrite::set_port(&mut frame, &packet, End::Dst, 9);
    assert_eq!(
        frame.bytes()[packet.l4_offset + 6..packet.l4_offset + 8],
        [0, 0]
    );
}

#[test]
fn a_udp_checksum_never_becomes_not_computed() {
    let mut frame = Frame::from_bytes(&valid("udp4"));
    let packet = parse(&frame, PortNo(1)).unwrap();
    // Some port makes the sum zero.
    for port in 0..=u16::MAX {
        rewrite::set_port(&mut frame, &packet, End::Src, port);
        assert_ne!(
            frame.bytes()[packet.l4_offset + 6..packet.l4_offset + 8],
            [0, 0],
            "{port}"
        );
    }
    assert_valid(&frame);
}

#[test]
fn a_later_fragment_has_no_transport_header_to_mend() {
    let bytes = valid("later4");
    let mut frame = Frame::from_bytes(&bytes);
    let packet = parse(&frame, PortNo(1)).unwrap();
    assert!(!rewrite::set_port(&mut frame, &packet, End::Dst, 9));
    assert!(rewrite::set_ip(
        &mut frame,
        &packet,
        End::Dst,
        Ipv4Addr::new(9, 9, 9, 9).into()
    ));
    assert_eq!(frame.bytes()[34..], bytes[34..]);
    parse(&frame, PortNo(1)).unwrap();
}

#[test]
fn an_address_of_the_other_family_is_refused() {
    let mut frame = Frame::from_bytes(&valid("tcp4"));
    let packet = parse(&frame, PortNo(1)).unwrap();
    assert!(!rewrite::set_ip(&mut frame, &packet, End::Dst, DST6.into()));
    assert_eq!(frame.bytes(), valid("tcp4"));
}

#[test]
fn the_last_hop_is_not_taken() {
    let mut bytes = valid("tcp6");
    bytes[14 + 7] = 1;
    let mut frame = Frame::from_bytes(&bytes);
    let packet = parse(&frame, PortNo(1)).unwrap();
    assert!(!rewrite::decrement_ttl(&mut frame, &packet));
    assert_eq!(frame.bytes(), bytes);
}

#[test]
fn macs_are_written_where_they_stand() {
    let mut frame = Frame::from_bytes(&valid("vlan"));
    rewrite::set_eth_src(&mut frame, MacAddr([2, 0, 0, 0, 0, 8]));
    rewrite::set_eth_dst(&mut frame, MacAddr([2, 0, 0, 0, 0, 9]));
    let key = parse(&frame, PortNo(1)).unwrap().key;
    assert_eq!(key.eth_src, MacAddr([2, 0, 0, 0, 0, 8]));
    assert_eq!(key.eth_dst, MacAddr([2, 0, 0, 0, 0, 9]));
}

#[test]
fn a_vlan_tag_moves_the_offload_offsets_in_and_out() {
    let mut frame = partial("tcp4");
    let before = frame.clone();
    frame.insert_vlan_tag(ether_type::VLAN, 100);
    assert_eq!(
        parse(&frame, PortNo(1)).unwrap().l4_offset,
        usize::from(frame.vnet.csum_start)
    );
    assert_eq!(frame.remove_vlan_tag(), Some((ether_type::VLAN, 100)));
    assert_eq!((frame.bytes(), frame.vnet), (before.bytes(), before.vnet));
    assert_eq!(frame.remove_vlan_tag(), None);
}
