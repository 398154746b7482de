//! The first frame of a connection, as a client's stack would send it.

use std::net::IpAddr;

use pnet_packet::icmp::{self, IcmpTypes, MutableIcmpPacket};
use pnet_packet::icmpv6::{self, Icmpv6Types, MutableIcmpv6Packet};
use pnet_packet::ip::IpNextHeaderProtocol;
use pnet_packet::ipv4::{self, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;
use pnet_packet::tcp::{self, MutableTcpPacket, TcpFlags};
use pnet_packet::udp::{self, MutableUdpPacket};
use vswitch_api::MacAddr;
use vswitch_datapath::flow::{ether_type, ip_proto};
use vswitch_datapath::packet::{Frame, crc32c};

use super::ports::Protocol;

/// What the first frame of a connection says.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Source port; identifier of an echo request.
    pub src_port: u16,
    /// Destination port; none for an echo request.
    pub dst_port: u16,
}

/// Builds a TCP SYN, a UDP datagram, an SCTP INIT (RFC 9260 section 3.3.2) or an echo request.
#[must_use]
pub fn first_frame(packet: &Packet, from: MacAddr, to: MacAddr) -> Frame {
    let payload = match packet.protocol {
        Protocol::Tcp => syn(packet),
        Protocol::Udp => datagram(packet),
        Protocol::Sctp => init(packet),
        Protocol::Icmp => echo(packet),
    };
    let (kind, datagram) = match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => (
            ether_type::IPV4,
            ipv4(src, dst, packet.protocol.number(), &payload),
        ),
        (src, dst) => (ether_type::IPV6, ipv6(src, dst, packet.protocol, &payload)),
    };
    let mut bytes = [to.0, from.0].concat();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(datagram);
    Frame::from_bytes(&bytes)
}

fn ipv4(src: std::net::Ipv4Addr, dst: std::net::Ipv4Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; MutableIpv4Packet::minimum_packet_size()];
    let total = bytes.len() + payload.len();
    if let Some(mut header) = MutableIpv4Packet::new(&mut bytes) {
        header.set_version(4);
        header.set_header_length(5);
        header.set_total_length(u16::try_from(total).unwrap_or(u16::MAX));
        header.set_ttl(64);
        header.set_next_level_protocol(IpNextHeaderProtocol(proto));
        header.set_source(src);
        header.set_destination(dst);
        let sum = ipv4::checksum(&header.to_immutable());
        header.set_checksum(sum);
    }
    bytes.extend_from_slice(payload);
    bytes
}

fn ipv6(src: IpAddr, dst: IpAddr, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; MutableIpv6Packet::minimum_packet_size()];
    if let (Some(mut header), IpAddr::V6(src), IpAddr::V6(dst)) =
        (MutableIpv6Packet::new(&mut bytes), src, dst)
    {
        let proto = match protocol {
            Protocol::Icmp => ip_proto::ICMPV6,
            other => other.number(),
        };
        header.set_version(6);
        header.set_payload_length(u16::try_from(payload.len()).unwrap_or(u16::MAX));
        header.set_next_header(IpNextHeaderProtocol(proto));
        header.set_hop_limit(64);
        header.set_source(src);
        header.set_destination(dst);
    }
    bytes.extend_from_slice(payload);
    bytes
}

fn syn(packet: &Packet) -> Vec<u8> {
    let mut bytes = vec![0; MutableTcpPacket::minimum_packet_size()];
    if let Some(mut segment) = MutableTcpPacket::new(&mut bytes) {
        segment.set_source(packet.src_port);
        segment.set_destination(packet.dst_port);
        segment.set_sequence(1);
        segment.set_data_offset(5);
        segment.set_flags(TcpFlags::SYN);
        segment.set_window(u16::MAX);
        let sum = match (packet.src, packet.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                tcp::ipv4_checksum(&segment.to_immutable(), &src, &dst)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                tcp::ipv6_checksum(&segment.to_immutable(), &src, &dst)
            }
            _ => 0,
        };
        segment.set_checksum(sum);
    }
    bytes
}

fn datagram(packet: &Packet) -> Vec<u8> {
    let mut bytes = vec![0; MutableUdpPacket::minimum_packet_size()];
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    if let Some(mut header) = MutableUdpPacket::new(&mut bytes) {
        header.set_source(packet.src_port);
        header.set_destination(packet.dst_port);
        header.set_length(length);
        let sum = match (packet.src, packet.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                udp::ipv4_checksum(&header.to_immutable(), &src, &dst)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                udp::ipv6_checksum(&header.to_immutable(), &src, &dst)
            }
            _ => 0,
        };
        header.set_checksum(sum);
    }
    bytes
}

fn init(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(packet.src_port.to_be_bytes());
    bytes.extend(packet.dst_port.to_be_bytes());
    // The verification tag of an INIT is 0; the checksum follows when all is there.
    bytes.extend([0; 8]);
    // Chunk INIT, no flags, 20 bytes: tag, window, streams out and in, first TSN.
    bytes.extend([1, 0, 0, 20]);
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend(65_535_u32.to_be_bytes());
    bytes.extend([0, 1, 0, 1]);
    bytes.extend(1_u32.to_be_bytes());
    // RFC 9260 appendix A: the CRC goes on the wire least significant byte first.
    let sum = crc32c(&bytes).to_le_bytes();
    if let Some(field) = bytes.get_mut(8..12) {
        field.copy_from_slice(&sum);
    }
    bytes
}

/// The source port serves as identifier, so that each request is a connection of its own.
fn echo(packet: &Packet) -> Vec<u8> {
    let [high, low] = packet.src_port.to_be_bytes();
    let mut bytes = vec![0, 0, 0, 0, high, low, 0, 1];
    match (packet.src, packet.dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            if let Some(mut request) = MutableIcmpv6Packet::new(&mut bytes) {
                request.set_icmpv6_type(Icmpv6Types::EchoRequest);
                let sum = icmpv6::checksum(&request.to_immutable(), &src, &dst);
                request.set_checksum(sum);
            }
        }
        _ => {
            if let Some(mut request) = MutableIcmpPacket::new(&mut bytes) {
                request.set_icmp_type(IcmpTypes::EchoRequest);
                let sum = icmp::checksum(&request.to_immutable());
                request.set_checksum(sum);
            }
        }
    }
    bytes
}
