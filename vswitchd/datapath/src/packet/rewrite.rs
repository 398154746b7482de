//! Changes a parsed frame in place and keeps its checksums right, by increments (RFC 1624).
//!
//! Only the offsets, protocol and fragment state of the [`ParsedPacket`] are used, the old
//! values come from the frame: one parse serves several rewrites. What the transport
//! checksum field holds depends on the virtio-net header: with NEEDS_CSUM only the sum of
//! the pseudo-header, so that addresses count and ports do not.

use std::net::IpAddr;

use vswitch_api::MacAddr;

use super::bytes::{chunk, put, put_u16, u16_at};
use super::checksum::{self, Sum};
use super::parsed::{Fragment, IcmpQuote, ParsedPacket};
use super::{Frame, icmp, ipv4, ipv6, sctp, tcp, udp};
use crate::flow::{FlowKey, ether_type, ip_proto};

/// Bytes of the source and destination port.
const QUOTED_PORTS: usize = 4;

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Src,
    /// Where it goes.
    Dst,
}

/// Addresses and ports of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port; ignored where the protocol has none.
    pub tp_src: u16,
    /// Destination port; ignored where the protocol has none.
    pub tp_dst: u16,
}

/// Writes the source MAC; does nothing to a frame without one.
pub fn set_eth_src(frame: &mut Frame, mac: MacAddr) {
    // A frame too short for addresses was dropped by parsing.
    let _too_short = put(frame.bytes_mut(), 6, mac.0);
}

/// Writes the destination MAC; does nothing to a frame without one.
pub fn set_eth_dst(frame: &mut Frame, mac: MacAddr) {
    let _too_short = put(frame.bytes_mut(), 0, mac.0);
}

/// Writes destination and source MAC; does nothing to a frame without them.
#[inline]
pub fn set_macs(frame: &mut Frame, macs: [u8; 12]) {
    let _too_short = put(frame.bytes_mut(), 0, macs);
}

/// Writes an address of the IP header and mends the IPv4 and transport checksums.
///
/// Returns whether it was written: the address must be of the packet's family.
pub fn set_ip(frame: &mut Frame, packet: &ParsedPacket, end: End, ip: IpAddr) -> bool {
    match (packet.key.eth_type, ip) {
        (ether_type::IPV4, IpAddr::V4(new)) => {
            let field = if end == End::Src {
                ipv4::field::SRC
            } else {
                ipv4::field::DST
            };
            set_address(frame, packet, packet.l3_offset + field, new.octets())
        }
        (ether_type::IPV6, IpAddr::V6(new)) => {
            let field = if end == End::Src {
                ipv6::field::SRC
            } else {
                ipv6::field::DST
            };
            set_address(frame, packet, packet.l3_offset + field, new.octets())
        }
        _ => false,
    }
}

/// Writes a TCP, UDP or SCTP port and mends the checksum.
///
/// Returns whether it was written: later fragments and other protocols have no ports.
/// Of a fragmented SCTP packet the CRC cannot be mended, as it covers bytes not at hand.
pub fn set_port(frame: &mut Frame, packet: &ParsedPacket, end: End, port: u16) -> bool {
    let is_sctp = packet.key.ip_proto == ip_proto::SCTP;
    let has_ports = is_sctp || matches!(packet.key.ip_proto, ip_proto::TCP | ip_proto::UDP);
    let is_fit = match packet.fragment {
        Fragment::No => true,
        Fragment::First { .. } => !is_sctp,
        Fragment::Later { .. } => false,
    };
    if !is_ip(packet) || !has_ports || !is_fit {
        return false;
    }
    let at = packet.l4_offset + if end == End::Src { 0 } else { 2 };
    let Some(old) = u16_at(frame.bytes(), at) else {
        return false;
    };
    let _present = put_u16(frame.bytes_mut(), at, port);
    if is_sctp {
        return mend_sctp(frame, packet).is_some();
    }
    mend_l4(
        frame,
        packet,
        Sum::new().word(old),
        Sum::new().word(port),
        Covered::Payload,
    );
    true
}

/// Takes one from the TTL or hop limit; returns `false` and changes nothing if none is left
/// for the next hop (the packet must not be forwarded).
pub fn decrement_ttl(frame: &mut Frame, packet: &ParsedPacket) -> bool {
    let field = match packet.key.eth_type {
        ether_type::IPV4 => ipv4::field::TTL,
        ether_type::IPV6 => ipv6::field::HOP_LIMIT,
        _ => return false,
    };
    let at = packet.l3_offset + field;
    let Some(&[ttl]) = chunk::<1>(frame.bytes(), at) else {
        return false;
    };
    if ttl <= 1 {
        return false;
    }
    if packet.key.eth_type == ether_type::IPV4 {
        // The TTL is the high octet of its word; the low one stays.
        let (old, new) = (
            Sum::new().word(u16::from(ttl) << 8),
            Sum::new().word(u16::from(ttl - 1) << 8),
        );
        mend_ipv4(frame, packet, old, new);
    }
    put(frame.bytes_mut(), at, [ttl - 1]).is_some()
}

/// Writes both addresses, and both ports where the packet has them.
pub fn set_ends(frame: &mut Frame, packet: &ParsedPacket, ends: &Ends) {
    let (src, dst) = (
        packet.key.ip_src != Some(ends.src),
        packet.key.ip_dst != Some(ends.dst),
    );
    if src {
        set_ip(frame, packet, End::Src, ends.src);
    }
    if dst {
        set_ip(frame, packet, End::Dst, ends.dst);
    }
    if packet.key.tp_src != ends.tp_src {
        set_port(frame, packet, End::Src, ends.tp_src);
    }
    if packet.key.tp_dst != ends.tp_dst {
        set_port(frame, packet, End::Dst, ends.tp_dst);
    }
}

/// Writes addresses and ports of the packet that an ICMP error quotes, and mends the checksums
/// of the quoted headers and of the error. What a quote is too short for is left out; of SCTP
/// the CRC stays as it is, since it covers bytes that are not quoted.
pub fn set_quoted_ends(frame: &mut Frame, packet: &ParsedPacket, ends: &Ends) {
    let Some(quote) = &packet.icmp_quote else {
        return;
    };
    let quoted = frame.bytes().get(quote.offset..packet.l3_end);
    let Some(old) = quoted.map(|bytes| Sum::new().bytes(bytes)) else {
        return;
    };
    if write_quote(frame, packet, quote, ends).is_none() {
        return;
    }
    let quoted = frame.bytes().get(quote.offset..packet.l3_end);
    let new = Sum::new().bytes(quoted.unwrap_or_default());
    let at = packet.l4_offset + icmp::CHECKSUM;
    if !is_partial(frame, packet, icmp::CHECKSUM)
        && let Some(stored) = u16_at(frame.bytes(), at)
    {
        let _present = put_u16(frame.bytes_mut(), at, checksum::update(stored, old, new));
    }
}

/// Writes what a quote has room for; `None` if not even an IP header is there.
fn write_quote(
    frame: &mut Frame,
    packet: &ParsedPacket,
    quote: &IcmpQuote,
    ends: &Ends,
) -> Option<()> {
    let bytes = frame.bytes().get(..packet.l3_end)?;
    let (eth_type, l4_offset) = match (quote.src, ends.src) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let ip = ipv4::Ipv4View::new_quoted(bytes.get(quote.offset..)?).ok()?;
            (ether_type::IPV4, quote.offset + ip.header_len())
        }
        (IpAddr::V6(_), IpAddr::V6(_)) => {
            let packet = bytes.get(quote.offset..)?;
            let ip = ipv6::Ipv6View::new_checked(packet).ok()?;
            let upper = ipv6::walk(packet, ip.next_header(), ipv6::Chain::Quoted).ok()?;
            (ether_type::IPV6, quote.offset + upper.offset)
        }
        _ => return None,
    };
    // The quoted packet as if it stood alone: the same rewriting serves it.
    let key = FlowKey {
        eth_type,
        ip_proto: quote.proto,
        ip_src: Some(quote.src),
        ip_dst: Some(quote.dst),
        tp_src: quote.tp_src,
        tp_dst: quote.tp_dst,
        ..FlowKey::default()
    };
    let is_short = bytes.len() < l4_offset + QUOTED_PORTS;
    let is_sctp = quote.proto == ip_proto::SCTP;
    let alone = ParsedPacket {
        key,
        l3_offset: quote.offset,
        l4_offset,
        // Later fragments have neither ports nor a checksum to write.
        fragment: if is_short {
            Fragment::Later { id: 0 }
        } else {
            Fragment::No
        },
        icmp_quote: None,
        tcp: None,
        sctp: None,
        icmp_echo_id: None,
        ..*packet
    };
    if is_sctp && !is_short {
        set_ip(frame, &alone, End::Src, ends.src);
        set_ip(frame, &alone, End::Dst, ends.dst);
        put_u16(frame.bytes_mut(), l4_offset, ends.tp_src)?;
        return put_u16(frame.bytes_mut(), l4_offset + 2, ends.tp_dst);
    }
    set_ends(frame, &alone, ends);
    Some(())
}

fn set_address<const N: usize>(
    frame: &mut Frame,
    packet: &ParsedPacket,
    at: usize,
    new: [u8; N],
) -> bool {
    let Some(&old) = chunk::<N>(frame.bytes(), at) else {
        return false;
    };
    let _present = put(frame.bytes_mut(), at, new);
    let (old, new) = (Sum::new().bytes(&old), Sum::new().bytes(&new));
    if packet.key.eth_type == ether_type::IPV4 {
        mend_ipv4(frame, packet, old, new);
    }
    mend_l4(frame, packet, old, new, Covered::PseudoHeader);
    true
}

fn mend_ipv4(frame: &mut Frame, packet: &ParsedPacket, old: Sum, new: Sum) {
    let at = packet.l3_offset + ipv4::field::CHECKSUM;
    if let Some(stored) = u16_at(frame.bytes(), at) {
        let _present = put_u16(frame.bytes_mut(), at, checksum::update(stored, old, new));
    }
}

/// What part of a transport checksum the changed words belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Covered {
    PseudoHeader,
    Payload,
}

fn mend_l4(frame: &mut Frame, packet: &ParsedPacket, old: Sum, new: Sum, covered: Covered) {
    let Some(offset) = checksum_offset(packet) else {
        return;
    };
    let at = packet.l4_offset + offset;
    let Some(stored) = u16_at(frame.bytes(), at) else {
        return;
    };
    let mended = if is_partial(frame, packet, offset) {
        match covered {
            Covered::PseudoHeader => checksum::update_partial(stored, old, new),
            // Whoever completes the checksum will sum the new words.
            Covered::Payload => return,
        }
    } else if packet.key.ip_proto == ip_proto::UDP {
        match (stored, checksum::update(stored, old, new)) {
            // RFC 768: zero says "not computed"; a sum of zero is sent as all ones.
            (0, _) => return,
            (_, 0) => u16::MAX,
            (_, mended) => mended,
        }
    } else {
        checksum::update(stored, old, new)
    };
    let _present = put_u16(frame.bytes_mut(), at, mended);
}

/// Returns where in the transport header a checksum with a pseudo-header stands.
fn checksum_offset(packet: &ParsedPacket) -> Option<usize> {
    if matches!(packet.fragment, Fragment::Later { .. }) {
        return None;
    }
    match (packet.key.eth_type, packet.key.ip_proto) {
        (_, ip_proto::TCP) => Some(tcp::field::CHECKSUM),
        (_, ip_proto::UDP) => Some(udp::CHECKSUM),
        (ether_type::IPV6, ip_proto::ICMPV6) => Some(icmp::CHECKSUM),
        _ => None,
    }
}

/// Returns whether this packet's own transport checksum is still to be completed (and not
/// that of a packet tunnelled in it).
fn is_partial(frame: &Frame, packet: &ParsedPacket, offset: usize) -> bool {
    frame.vnet.needs_csum()
        && usize::from(frame.vnet.csum_start) == packet.l4_offset
        && usize::from(frame.vnet.csum_offset) == offset
}

fn mend_sctp(frame: &mut Frame, packet: &ParsedPacket) -> Option<()> {
    if is_partial(frame, packet, sctp::CHECKSUM) {
        return Some(());
    }
    let right = sctp::checksum(frame.bytes().get(packet.l4_offset..packet.l3_end)?)?;
    put(frame.bytes_mut(), packet.l4_offset + sctp::CHECKSUM, right)
}

fn is_ip(packet: &ParsedPacket) -> bool {
    matches!(packet.key.eth_type, ether_type::IPV4 | ether_type::IPV6)
}
