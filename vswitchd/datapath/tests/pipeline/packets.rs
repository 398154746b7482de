//! Frames as a pod's stack would send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet_packet::Packet;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, MutableArpPacket};
use pnet_packet::ethernet::{EtherType, MutableEthernetPacket};
use pnet_packet::icmp::{self, IcmpTypes, echo_request::MutableEchoRequestPacket};
use pnet_packet::ip::IpNextHeaderProtocol;
use pnet_packet::ipv4::{self, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;
use pnet_packet::tcp::{self, MutableTcpPacket};
use pnet_packet::udp::{self, MutableUdpPacket};
use vswitch_api::MacAddr;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const RST: u8 = 0x04;

/// A host with its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) mac: MacAddr,
    pub(crate) ip: IpAddr,
}

impl Host {
    pub(crate) fn v4(mac: u8, ip: [u8; 4]) -> Self {
        Self {
            mac: MacAddr([2, 0, 0, 0, 0, mac]),
            ip: ip.into(),
        }
    }
}

/// A TCP segment's header fields that matter here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) ports: (u16, u16),
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
}

pub(crate) fn segment(ports: (u16, u16), flags: u8, seq: u32, ack: u32) -> Segment {
    Segment {
        ports,
        flags,
        seq,
        ack,
    }
}

pub(crate) fn ethernet(src: MacAddr, dst: MacAddr, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = MutableEthernetPacket::new(&mut bytes).unwrap();
    frame.set_source(src.0.into());
    frame.set_destination(dst.0.into());
    frame.set_ethertype(EtherType(ether_type));
    frame.set_payload(payload);
    bytes
}

/// Puts a transport packet into IP and Ethernet.
pub(crate) fn ip(from: Host, to: Host, proto: u8, payload: &[u8]) -> Vec<u8> {
    match (from.ip, to.ip) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ethernet(from.mac, to.mac, 0x0800, &ipv4(src, dst, proto, payload))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ethernet(from.mac, to.mac, 0x86dd, &ipv6(src, dst, proto, payload))
        }
        _ => panic!("one family"),
    }
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + payload.len()];
    let mut packet = MutableIpv4Packet::new(&mut bytes).unwrap();
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length(u16::try_from(20 + payload.len()).unwrap());
    packet.set_ttl(64);
    packet.set_flags(2);
    packet.set_next_level_protocol(IpNextHeaderProtocol(proto));
    packet.set_source(src);
    packet.set_destination(dst);
    packet.set_payload(payload);
    packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
    bytes
}

fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 40 + payload.len()];
    let mut packet = MutableIpv6Packet::new(&mut bytes).unwrap();
    packet.set_version(6);
    packet.set_payload_length(u16::try_from(payload.len()).unwrap());
    packet.set_hop_limit(255);
    packet.set_next_header(IpNextHeaderProtocol(proto));
    packet.set_source(src);
    packet.set_destination(dst);
    packet.set_payload(payload);
    bytes
}

pub(crate) fn udp(from: Host, to: Host, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + payload.len()];
    let mut packet = MutableUdpPacket::new(&mut bytes).unwrap();
    packet.set_source(ports.0);
    packet.set_destination(ports.1);
    packet.set_length(u16::try_from(8 + payload.len()).unwrap());
    packet.set_payload(payload);
    let checksum = match (from.ip, to.ip) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            udp::ipv4_checksum(&packet.to_immutable(), &src, &dst)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            udp::ipv6_checksum(&packet.to_immutable(), &src, &dst)
        }
        _ => panic!("one family"),
    };
    packet.set_checksum(checksum);
    ip(from, to, 17, &bytes)
}

pub(crate) fn tcp(from: Host, to: Host, segment: Segment) -> Vec<u8> {
    tcp_with(from, to, segment, &[])
}

/// A TCP segment with a payload.
pub(crate) fn tcp_with(from: Host, to: Host, segment: Segment, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + payload.len()];
    let mut packet = MutableTcpPacket::new(&mut bytes).unwrap();
    packet.set_source(segment.ports.0);
    packet.set_destination(segment.ports.1);
    packet.set_data_offset(5);
    packet.set_flags(segment.flags);
    packet.set_sequence(segment.seq);
    packet.set_acknowledgement(segment.ack);
    packet.set_window(65_535);
    packet.set_payload(payload);
    let checksum = match (from.ip, to.ip) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            tcp::ipv4_checksum(&packet.to_immutable(), &src, &dst)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            tcp::ipv6_checksum(&packet.to_immutable(), &src, &dst)
        }
        _ => panic!("one family"),
    };
    packet.set_checksum(checksum);
    ip(from, to, 6, &bytes)
}

pub(crate) fn ping(from: Host, to: Host, id: u16) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    let mut packet = MutableEchoRequestPacket::new(&mut bytes).unwrap();
    packet.set_icmp_type(IcmpTypes::EchoRequest);
    packet.set_identifier(id);
    let checksum = icmp::checksum(&icmp::IcmpPacket::new(packet.packet()).unwrap());
    packet.set_checksum(checksum);
    ip(from, to, 1, &bytes)
}

/// Who has `target`? Or, with operation 2, `from` has its address.
pub(crate) fn arp(from: Host, operation: u16, target: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    let mut packet = MutableArpPacket::new(&mut bytes).unwrap();
    packet.set_hardware_type(ArpHardwareTypes::Ethernet);
    packet.set_protocol_type(EtherType(0x0800));
    packet.set_hw_addr_len(6);
    packet.set_proto_addr_len(4);
    packet.set_operation(ArpOperation(operation));
    packet.set_sender_hw_addr(from.mac.0.into());
    let IpAddr::V4(ip) = from.ip else {
        panic!("IPv4 here")
    };
    packet.set_sender_proto_addr(ip);
    packet.set_target_proto_addr(target);
    ethernet(from.mac, MacAddr::BROADCAST, 0x0806, &bytes)
}
