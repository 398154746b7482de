//! Frames that the switch itself makes: ARP and neighbour discovery answers, ICMP errors, TCP
//! resets. Built with `smoltcp::wire`; the VLAN tags of what is answered are kept.
//!
//! Every function takes the frame that is answered with its [`ParsedPacket`], and returns
//! `None` where the standards forbid an answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags,
    NdiscRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};
use vswitch_api::MacAddr;

use super::bytes::put_u16;
use super::checksum::checksum;
use super::parsed::{Fragment, ParsedPacket, tcp_flags};
use super::rewrite::Ends;
use super::{Frame, arp, icmp, ipv4, ipv6, l4_checksum, nd, rewrite};
use crate::flow::{ether_type, ip_proto};

/// Hop limit of what is not neighbour discovery (RFC 1700).
const HOP_LIMIT: u8 = 64;
/// RFC 4861 section 7.1.2: what came through a router has less.
const ND_HOP_LIMIT: u8 = 255;
/// RFC 1812 section 4.3.2.3: as much of the original as fits in 576 bytes.
const MAX_ICMPV4_ERROR: usize = 576;
/// RFC 4443 section 2.4 (c): as much of the original as fits in the smallest MTU.
const MAX_ICMPV6_ERROR: usize = 1_280;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// Types and codes of the errors that the switch sends.
mod error {
    pub(super) const V4_UNREACHABLE: u8 = 3;
    pub(super) const V4_PORT_UNREACHABLE: u8 = 3;
    pub(super) const V4_FRAGMENTATION_NEEDED: u8 = 4;
    pub(super) const V4_ADMIN_PROHIBITED: u8 = 13;
    pub(super) const V6_UNREACHABLE: u8 = 1;
    pub(super) const V6_ADMIN_PROHIBITED: u8 = 1;
    pub(super) const V6_PORT_UNREACHABLE: u8 = 4;
    pub(super) const V6_TOO_BIG: u8 = 2;
}

/// Returns the answer to an ARP request: the asked address is at `mac`.
///
/// A gratuitous request asks nobody and gets none.
#[must_use]
pub fn arp_reply(request: &Frame, packet: &ParsedPacket, mac: MacAddr) -> Option<Frame> {
    let key = &packet.key;
    let (Some(IpAddr::V4(asker)), Some(IpAddr::V4(asked))) = (key.ip_src, key.ip_dst) else {
        return None;
    };
    let is_request = key.eth_type == ether_type::ARP && key.ip_proto == arp::REQUEST;
    if !is_request || asker == asked {
        return None;
    }
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(mac.0),
        source_protocol_addr: asked,
        target_hardware_addr: EthernetAddress(key.arp_sha.0),
        target_protocol_addr: asker,
    };
    let mut reply = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut reply));
    answer(request, packet, mac, key.eth_src, &reply)
}

/// Returns the answer to a neighbour solicitation: the target is at `mac`.
///
/// Duplicate address detection (source `::`) is answered to all nodes, and unsolicited
/// (RFC 4861 section 7.2.4).
#[must_use]
pub fn neighbor_advertisement(
    solicitation: &Frame,
    packet: &ParsedPacket,
    mac: MacAddr,
) -> Option<Frame> {
    let key = &packet.key;
    let (Some(IpAddr::V6(asker)), Some(target)) = (key.ip_src, key.nd_target) else {
        return None;
    };
    if key.tp_src != u16::from(nd::kind::NEIGHBOR_SOLICITATION) {
        return None;
    }
    let is_dad = asker.is_unspecified();
    let solicited = if is_dad {
        NdiscNeighborFlags::empty()
    } else {
        NdiscNeighborFlags::SOLICITED
    };
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE | solicited,
        target_addr: target,
        lladdr: Some(EthernetAddress(mac.0).into()),
    });
    let (dst, dst_mac) = if is_dad {
        (ALL_NODES, ALL_NODES_MAC)
    } else {
        (asker, key.eth_src)
    };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(
        &target,
        &dst,
        &mut Icmpv6Packet::new_unchecked(message.as_mut_slice()),
        &ChecksumCapabilities::default(),
    );
    let ip = wrap_ipv6(target, dst, IpProtocol::Icmpv6, ND_HOP_LIMIT, &message);
    answer(solicitation, packet, mac, dst_mac, &ip)
}

/// Returns the error that tells the sender of `original` to make its packets at most
/// `mtu` bytes: fragmentation needed (RFC 1191) or packet too big (RFC 4443 section 3.2).
#[must_use]
pub fn icmp_too_big(
    original: &Frame,
    packet: &ParsedPacket,
    mtu: u16,
    from: IpAddr,
) -> Option<Frame> {
    let [m0, m1] = mtu.to_be_bytes();
    let header = match from {
        IpAddr::V4(_) => [
            error::V4_UNREACHABLE,
            error::V4_FRAGMENTATION_NEEDED,
            0,
            0,
            0,
            0,
            m0,
            m1,
        ],
        IpAddr::V6(_) => [error::V6_TOO_BIG, 0, 0, 0, 0, 0, m0, m1],
    };
    icmp_error(original, packet, from, header)
}

/// Why a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A policy forbids it.
    Prohibited,
    /// Nobody serves this port.
    NobodyListens,
}

/// Returns the error that tells the sender of `original` that it cannot be delivered, and why.
#[must_use]
pub fn icmp_unreachable(
    original: &Frame,
    packet: &ParsedPacket,
    refusal: Refusal,
    from: IpAddr,
) -> Option<Frame> {
    let (kind, code) = match (from, refusal) {
        (IpAddr::V4(_), Refusal::Prohibited) => (error::V4_UNREACHABLE, error::V4_ADMIN_PROHIBITED),
        (IpAddr::V4(_), Refusal::NobodyListens) => {
            (error::V4_UNREACHABLE, error::V4_PORT_UNREACHABLE)
        }
        (IpAddr::V6(_), Refusal::Prohibited) => (error::V6_UNREACHABLE, error::V6_ADMIN_PROHIBITED),
        (IpAddr::V6(_), Refusal::NobodyListens) => {
            (error::V6_UNREACHABLE, error::V6_PORT_UNREACHABLE)
        }
    };
    icmp_error(original, packet, from, [kind, code, 0, 0, 0, 0, 0, 0])
}

/// Returns what tells the sender of `original` that it is refused, as if its receiver said so:
/// a reset for TCP, unreachable for all else.
#[must_use]
pub fn rejection(original: &Frame, packet: &ParsedPacket, refusal: Refusal) -> Option<Frame> {
    if packet.key.ip_proto == ip_proto::TCP {
        tcp_reset(original, packet)
    } else {
        icmp_unreachable(original, packet, refusal, packet.key.ip_dst?)
    }
}

/// Returns the reset that answers the segment `original` (RFC 9293 section 3.10.7.1), as if
/// its receiver had sent it; there is none to a reset.
#[must_use]
pub fn tcp_reset(original: &Frame, packet: &ParsedPacket) -> Option<Frame> {
    let key = &packet.key;
    let tcp = packet.tcp.filter(|tcp| tcp.flags & tcp_flags::RST == 0)?;
    let (src, dst) = (key.ip_dst?, key.ip_src?);
    if packet.fragment != Fragment::No || !may_answer(packet) {
        return None;
    }
    let is_set = |flag| u32::from(tcp.flags & flag != 0);
    let (seq, ack) = if tcp.flags & tcp_flags::ACK != 0 {
        (tcp.ack, None)
    } else {
        let len = tcp.payload_len + is_set(tcp_flags::SYN) + is_set(tcp_flags::FIN);
        (0, Some(seq_number(tcp.seq.wrapping_add(len))))
    };
    let ends = Ends {
        src,
        dst,
        tp_src: key.tp_dst,
        tp_dst: key.tp_src,
    };
    let ip = bare_tcp(&ends, TcpControl::Rst, seq, ack, 0)?;
    answer(original, packet, key.eth_dst, key.eth_src, &ip)
}

/// Returns a TCP segment without data or options, with its IP header.
fn bare_tcp(
    ends: &Ends,
    control: TcpControl,
    seq: u32,
    ack_number: Option<TcpSeqNumber>,
    window_len: u16,
) -> Option<Vec<u8>> {
    let repr = TcpRepr {
        src_port: ends.tp_src,
        dst_port: ends.tp_dst,
        control,
        seq_number: seq_number(seq),
        ack_number,
        window_len,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut segment = vec![0; repr.buffer_len()];
    repr.emit(
        &mut TcpPacket::new_unchecked(segment.as_mut_slice()),
        &ends.src.into(),
        &ends.dst.into(),
        &ChecksumCapabilities::default(),
    );
    wrap_ip(ends.src, ends.dst, IpProtocol::Tcp, &segment)
}

/// A packet without data that an end of a connection may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarePacket {
    /// A UDP datagram.
    Datagram,
    /// The segment that opens a TCP connection.
    Syn {
        /// Its sequence number.
        seq: u32,
    },
    /// The segment that ends a TCP connection at once.
    Reset {
        /// Its sequence number.
        seq: u32,
    },
    /// An echo request; its identifier is the source port.
    EchoRequest,
    /// A segment of an open TCP connection.
    Ack {
        /// Its sequence number.
        seq: u32,
        /// What it acknowledges.
        ack: u32,
        /// The window that it offers, as the header has it.
        window: u16,
    },
}

/// Returns the frame of a bare packet from one end to the other.
#[must_use]
pub fn bare_packet(
    packet: BarePacket,
    ends: &Ends,
    eth_src: MacAddr,
    eth_dst: MacAddr,
) -> Option<Frame> {
    let ip = match packet {
        BarePacket::Datagram => {
            let repr = UdpRepr {
                src_port: ends.tp_src,
                dst_port: ends.tp_dst,
            };
            let mut datagram = vec![0; repr.header_len()];
            repr.emit(
                &mut UdpPacket::new_unchecked(datagram.as_mut_slice()),
                &ends.src.into(),
                &ends.dst.into(),
                0,
                |_| {},
                &ChecksumCapabilities::default(),
            );
            wrap_ip(ends.src, ends.dst, IpProtocol::Udp, &datagram)?
        }
        BarePacket::Syn { seq } => bare_tcp(ends, TcpControl::Syn, seq, None, 0)?,
        BarePacket::Reset { seq } => bare_tcp(ends, TcpControl::Rst, seq, None, 0)?,
        BarePacket::EchoRequest => echo_request(ends)?,
        BarePacket::Ack { seq, ack, window } => {
            let ack = Some(seq_number(ack));
            bare_tcp(ends, TcpControl::None, seq, ack, window)?
        }
    };
    let eth_type = match ends.src {
        IpAddr::V4(_) => ether_type::IPV4,
        IpAddr::V6(_) => ether_type::IPV6,
    };
    let frame = [&eth_dst.0[..], &eth_src.0, &eth_type.to_be_bytes(), &ip].concat();
    Some(Frame::from_bytes(&frame))
}

/// Returns an echo request without data, with its IP header.
fn echo_request(ends: &Ends) -> Option<Vec<u8>> {
    let (ident, seq_no, data) = (ends.tp_src, 1, &[][..]);
    let checksums = ChecksumCapabilities::default();
    match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let repr = Icmpv4Repr::EchoRequest {
                ident,
                seq_no,
                data,
            };
            let mut message = vec![0; repr.buffer_len()];
            let mut packet = Icmpv4Packet::new_unchecked(message.as_mut_slice());
            repr.emit(&mut packet, &checksums);
            Some(wrap_ipv4(src, dst, IpProtocol::Icmp, &message))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let repr = Icmpv6Repr::EchoRequest {
                ident,
                seq_no,
                data,
            };
            let mut message = vec![0; repr.buffer_len()];
            let mut packet = Icmpv6Packet::new_unchecked(message.as_mut_slice());
            repr.emit(&src, &dst, &mut packet, &checksums);
            let proto = IpProtocol::Icmpv6;
            Some(wrap_ipv6(src, dst, proto, HOP_LIMIT, &message))
        }
        _ => None,
    }
}

fn seq_number(number: u32) -> TcpSeqNumber {
    TcpSeqNumber(number.cast_signed())
}

fn icmp_error(
    original: &Frame,
    packet: &ParsedPacket,
    from: IpAddr,
    header: [u8; icmp::HEADER_LEN],
) -> Option<Frame> {
    let to = packet.key.ip_src?;
    if !may_answer(packet) || is_icmp_error(packet) || from.is_ipv4() != to.is_ipv4() {
        return None;
    }
    let (proto, max) = match from {
        IpAddr::V4(_) => (IpProtocol::Icmp, MAX_ICMPV4_ERROR - ipv4::MIN_HEADER_LEN),
        IpAddr::V6(_) => (IpProtocol::Icmpv6, MAX_ICMPV6_ERROR - ipv6::HEADER_LEN),
    };
    // Quoted byte for byte, with the options and the identification by which the sender
    // may know its packet: smoltcp's representation of a quote would lose them.
    let quoted = original.bytes().get(packet.l3_offset..packet.l3_end)?;
    let quoted = quoted.get(..max - icmp::HEADER_LEN).unwrap_or(quoted);
    let mut message = [&header, quoted].concat();
    let sum = match from {
        IpAddr::V4(_) => checksum(&message),
        IpAddr::V6(_) => l4_checksum::sum(from, to, ip_proto::ICMPV6, &message).finish(),
    };
    put_u16(&mut message, icmp::CHECKSUM, sum)?;
    let ip = wrap_ip(from, to, proto, &message)?;
    answer(
        original,
        packet,
        packet.key.eth_dst,
        packet.key.eth_src,
        &ip,
    )
}

/// RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e): no answer to groups, to a later
/// fragment, or to a source that is not one host. Nor one for a destination that is none: the
/// answer would come from there.
fn may_answer(packet: &ParsedPacket) -> bool {
    let key = &packet.key;
    let is_later = matches!(packet.fragment, Fragment::Later { .. });
    let is_link_group = key.eth_dst.is_multicast() || key.eth_src.is_multicast();
    let is_ip = matches!(key.eth_type, ether_type::IPV4 | ether_type::IPV6);
    is_ip
        && !is_later
        && !is_link_group
        && key.ip_src.is_some_and(is_one_host)
        && key.ip_dst.is_some_and(is_one_host)
}

fn is_group(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

fn is_one_host(ip: IpAddr) -> bool {
    const CLASS_E: u8 = 240;
    let is_reserved = matches!(ip, IpAddr::V4(v4) if v4.octets()[0] >= CLASS_E);
    !is_group(ip) && !ip.is_unspecified() && !ip.is_loopback() && !is_reserved
}

/// Returns whether the packet is an ICMP error; of ICMPv6 every type below 128 is one
/// (RFC 4443 section 2.1), and a redirect counts as one (its section 2.4 (e.2)).
fn is_icmp_error(packet: &ParsedPacket) -> bool {
    let key = &packet.key;
    let is_v6_error = key.eth_type == ether_type::IPV6
        && key.ip_proto == ip_proto::ICMPV6
        && (key.tp_src < 128 || key.tp_src == u16::from(nd::kind::REDIRECT));
    packet.icmp_quote.is_some() || is_v6_error
}

fn wrap_ip(src: IpAddr, dst: IpAddr, proto: IpProtocol, payload: &[u8]) -> Option<Vec<u8>> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Some(wrap_ipv4(src, dst, proto, payload)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some(wrap_ipv6(src, dst, proto, HOP_LIMIT, payload)),
        _ => None,
    }
}

fn wrap_ipv4(src: Ipv4Addr, dst: Ipv4Addr, proto: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: proto,
        payload_len: payload.len(),
        hop_limit: HOP_LIMIT,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(
        &mut Ipv4Packet::new_unchecked(bytes.as_mut_slice()),
        &ChecksumCapabilities::default(),
    );
    bytes.extend_from_slice(payload);
    bytes
}

fn wrap_ipv6(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    proto: IpProtocol,
    hop_limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let repr = Ipv6Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: proto,
        payload_len: payload.len(),
        hop_limit,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut Ipv6Packet::new_unchecked(bytes.as_mut_slice()));
    bytes.extend_from_slice(payload);
    bytes
}

/// Puts `payload` behind the Ethernet header and the tags of `asked`, with these addresses.
fn answer(
    asked: &Frame,
    packet: &ParsedPacket,
    src: MacAddr,
    dst: MacAddr,
    payload: &[u8],
) -> Option<Frame> {
    let ethernet = asked.bytes().get(..packet.l3_offset)?;
    let mut frame = Frame::from_bytes(&[ethernet, payload].concat());
    rewrite::set_eth_src(&mut frame, src);
    rewrite::set_eth_dst(&mut frame, dst);
    Some(frame)
}
