//! Valid frames, built by hand and summed by pnet_packet, so that no code under test makes
//! its own input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet_packet::ip::IpNextHeaderProtocol;
use pnet_packet::util;
use vswitch_api::MacAddr;

use crate::flow::{ether_type, ip_proto};
use crate::packet::{Frame, ParsedPacket, VnetHeader, parse, tcp_flags};
use crate::{DropReason, packet::crc32c};

pub(super) const SRC_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(super) const DST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
pub(super) const SRC4: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
pub(super) const DST4: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 250);
pub(super) const SRC6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, 0xffff);
pub(super) const DST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x22);
pub(super) const SRC_PORT: u16 = 40_000;
pub(super) const DST_PORT: u16 = 8_080;

pub(super) fn parse_bytes(bytes: &[u8]) -> Result<ParsedPacket, DropReason> {
    parse(&Frame::from_bytes(bytes), vswitch_api::PortNo(7))
}

pub(super) fn frame_with(bytes: &[u8], vnet: VnetHeader) -> Frame {
    let mut frame = Frame::from_bytes(bytes);
    frame.vnet = vnet;
    frame
}

pub(super) fn ethernet(tags: &[(u16, u16)], eth_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [DST_MAC.0, SRC_MAC.0].concat();
    for (tpid, tci) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(eth_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Builds an IPv4 packet; `fragment` is the whole 16-bit field with its flags.
pub(super) fn ipv4_with(options: &[u8], fragment: u16, proto: u8, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let total_len = u16::try_from(header_len + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header_len / 4).unwrap(), 0x2a];
    packet.extend(total_len.to_be_bytes());
    packet.extend(0x1234u16.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([61, proto, 0, 0]);
    packet.extend(SRC4.octets());
    packet.extend(DST4.octets());
    packet.extend(options);
    let sum = util::checksum(&packet, 5);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

pub(super) fn ipv4(proto: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(
        &[],
        ether_type::IPV4,
        &ipv4_with(&[], 0x4000, proto, payload),
    )
}

pub(super) fn ipv6_with(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    hop_limit: u8,
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x62, 0xa0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    packet
}

pub(super) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(
        &[],
        ether_type::IPV6,
        &ipv6_with(SRC6, DST6, 61, next, payload),
    )
}

/// Returns the complete checksum of a transport header with pseudo-header.
pub(super) fn l4_sum(src: IpAddr, dst: IpAddr, proto: u8, l4: &[u8], field: usize) -> u16 {
    let proto = IpNextHeaderProtocol(proto);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            util::ipv4_checksum(l4, field / 2, &[], &src, &dst, proto)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            util::ipv6_checksum(l4, field / 2, &[], &src, &dst, proto)
        }
        _ => unreachable!("tests use one family"),
    }
}

fn seal(src: IpAddr, dst: IpAddr, proto: u8, mut l4: Vec<u8>, field: usize) -> Vec<u8> {
    let sum = l4_sum(src, dst, proto, &l4, field);
    l4[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    l4
}

pub(super) fn seal4(proto: u8, l4: Vec<u8>, field: usize) -> Vec<u8> {
    seal(SRC4.into(), DST4.into(), proto, l4, field)
}

pub(super) fn seal6(proto: u8, l4: Vec<u8>, field: usize) -> Vec<u8> {
    seal(SRC6.into(), DST6.into(), proto, l4, field)
}

/// Builds a TCP segment with checksum 0; `options` are padded by the caller.
pub(super) fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut segment = [SRC_PORT.to_be_bytes(), DST_PORT.to_be_bytes()].concat();
    segment.extend(0xffff_fff0u32.to_be_bytes());
    segment.extend(0x0102_0304u32.to_be_bytes());
    let words = u8::try_from((20 + options.len()) / 4).unwrap();
    segment.extend([words << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(payload);
    segment
}

pub(super) fn udp(payload: &[u8]) -> Vec<u8> {
    let mut datagram = [SRC_PORT.to_be_bytes(), DST_PORT.to_be_bytes()].concat();
    datagram.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

pub(super) fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(payload);
    let sum = util::checksum(&message, 1);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

pub(super) fn icmp6(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(payload);
    seal6(ip_proto::ICMPV6, message, 2)
}

/// Builds a whole frame of neighbour discovery.
pub(super) fn nd(src: Ipv6Addr, dst: Ipv6Addr, hop_limit: u8, message: Vec<u8>) -> Vec<u8> {
    let message = seal(src.into(), dst.into(), ip_proto::ICMPV6, message, 2);
    let packet = ipv6_with(src, dst, hop_limit, ip_proto::ICMPV6, &message);
    ethernet(&[], ether_type::IPV6, &packet)
}

pub(super) fn nd_message(kind: u8, flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend(options);
    message
}

pub(super) const SOURCE_LINK_LAYER: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 1];

pub(super) fn solicited_node() -> Ipv6Addr {
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x22)
}

pub(super) fn sctp() -> Vec<u8> {
    let mut packet = [SRC_PORT.to_be_bytes(), DST_PORT.to_be_bytes()].concat();
    packet.extend(0xdead_beefu32.to_be_bytes());
    packet.extend([0; 4]);
    // INIT with its fixed parameters.
    packet.extend([1, 0, 0, 20]);
    packet.extend([0x11; 16]);
    let crc = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&crc);
    packet
}

pub(super) fn arp(operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(SRC_MAC.0);
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    ethernet(&[], ether_type::ARP, &packet)
}

pub(super) fn tcp4(flags: u8, payload: &[u8]) -> Vec<u8> {
    ipv4(
        ip_proto::TCP,
        &seal4(ip_proto::TCP, tcp(flags, &[], payload), 16),
    )
}

pub(super) fn udp4(payload: &[u8]) -> Vec<u8> {
    ipv4(ip_proto::UDP, &seal4(ip_proto::UDP, udp(payload), 6))
}

pub(super) fn tcp6(flags: u8, payload: &[u8]) -> Vec<u8> {
    ipv6(
        ip_proto::TCP,
        &seal6(ip_proto::TCP, tcp(flags, &[], payload), 16),
    )
}

pub(super) fn udp6(payload: &[u8]) -> Vec<u8> {
    ipv6(ip_proto::UDP, &seal6(ip_proto::UDP, udp(payload), 6))
}

/// Hop-by-hop and destination options before `proto`, both of padding.
pub(super) fn with_extensions(proto: u8, payload: &[u8]) -> Vec<u8> {
    [
        &[60, 0, 1, 4, 0, 0, 0, 0, proto, 0, 1, 4, 0, 0, 0, 0],
        payload,
    ]
    .concat()
}

pub(super) fn fragment_header(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let field = offset | u16::from(more);
    let mut header = vec![next, 0];
    header.extend(field.to_be_bytes());
    header.extend(0xcafe_f00du32.to_be_bytes());
    header
}

/// One valid frame of every kind.
pub(super) fn valid_frames() -> Vec<(&'static str, Vec<u8>)> {
    let quoted4 = udp4(b"quoted")[14..].to_vec();
    let quoted6 = tcp6(tcp_flags::ACK, b"quoted")[14..].to_vec();
    let syn_options = [2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7, 1, 1];
    let syn = seal4(ip_proto::TCP, tcp(tcp_flags::SYN, &syn_options, &[]), 16);
    let udp_v6 = seal6(ip_proto::UDP, udp(b"data"), 6);
    let first = [fragment_header(ip_proto::UDP, 0, true), udp(&[7; 16])].concat();
    let later = [fragment_header(ip_proto::UDP, 24, false), vec![7; 5]].concat();
    let vlan = &[(ether_type::VLAN, 0x2064)];
    let qinq = &[(ether_type::QINQ, 5), (ether_type::VLAN, 6)];
    let ns = nd_message(135, 0, DST6, &SOURCE_LINK_LAYER);
    let na = nd_message(136, 0x60, SRC6, &[2, 1, 2, 0, 0, 0, 0, 1]);
    vec![
        ("arp", arp(1, SRC4, DST4)),
        ("tcp4", tcp4(tcp_flags::ACK, b"hello")),
        ("tcp4 syn", ipv4(ip_proto::TCP, &syn)),
        ("udp4", udp4(b"hello")),
        (
            "icmp echo",
            ipv4(ip_proto::ICMP, &icmp(8, 0, [0xab, 0xcd, 0, 1], b"ping")),
        ),
        (
            "icmp error",
            ipv4(ip_proto::ICMP, &icmp(3, 4, [0, 0, 5, 0], &quoted4)),
        ),
        ("sctp4", ipv4(ip_proto::SCTP, &sctp())),
        (
            "first4",
            ethernet(
                &[],
                ether_type::IPV4,
                &ipv4_with(&[], 0x2000, 17, &udp(&[1; 16])),
            ),
        ),
        (
            "later4",
            ethernet(&[], ether_type::IPV4, &ipv4_with(&[], 0x0003, 17, &[9; 13])),
        ),
        (
            "options4",
            ethernet(&[], ether_type::IPV4, &ipv4_with(&[1, 1, 1, 0], 0, 6, &syn)),
        ),
        (
            "vlan",
            ethernet(vlan, ether_type::IPV4, &tcp4(tcp_flags::ACK, b"x")[14..]),
        ),
        ("qinq", ethernet(qinq, ether_type::IPV6, &udp6(b"x")[14..])),
        ("tcp6", tcp6(tcp_flags::ACK, b"hello")),
        ("udp6", udp6(b"hello")),
        (
            "extensions6",
            ipv6(0, &with_extensions(ip_proto::UDP, &udp_v6)),
        ),
        ("first6", ipv6(44, &first)),
        ("later6", ipv6(44, &later)),
        (
            "icmp6 echo",
            ipv6(58, &icmp6(128, 0, [0xab, 0xcd, 0, 1], b"ping")),
        ),
        (
            "icmp6 error",
            ipv6(58, &icmp6(2, 0, [0, 0, 5, 0], &quoted6)),
        ),
        ("ns", nd(SRC6, solicited_node(), 255, ns)),
        ("na", nd(SRC6, DST6, 255, na)),
        ("esp6", ipv6(50, &[0x55; 24])),
        ("lldp", ethernet(&[], 0x88cc, &[2, 7, 4])),
    ]
}

pub(super) fn valid(name: &str) -> Vec<u8> {
    let frames = valid_frames();
    frames
        .into_iter()
        .find(|(n, _)| *n == name)
        .map(|(_, frame)| frame)
        .unwrap()
}
