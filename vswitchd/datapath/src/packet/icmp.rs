//! ICMP (RFC 792) and ICMPv6 (RFC 4443) headers, and the packets that errors quote.

use std::net::IpAddr;

use super::bytes::{chunk, u8_at, u16_at};
use super::ipv4::Ipv4View;
use super::ipv6::{self, Chain, Ipv6View};
use super::parsed::{Fragment, IcmpQuote};
use crate::flow::ip_proto;

/// Bytes of an ICMP header, and of an ICMPv6 echo or error header.
pub(super) const HEADER_LEN: usize = 8;
/// Where the checksum stands.
pub(super) const CHECKSUM: usize = 2;

/// Bytes of what all ICMPv6 messages share.
const V6_MIN_LEN: usize = 4;

/// Which ICMP it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IcmpVersion {
    V4,
    V6,
}

/// The header of an ICMP or ICMPv6 message.
#[derive(Debug, Clone, Copy)]
pub(super) struct IcmpView<'a> {
    message: &'a [u8],
    version: IcmpVersion,
    kind: u8,
    code: u8,
}

impl<'a> IcmpView<'a> {
    /// Reads the header if it is whole.
    pub(super) fn new_checked(message: &'a [u8], version: IcmpVersion) -> Option<Self> {
        let &[kind, code, ..] = chunk::<V6_MIN_LEN>(message, 0)?;
        let view = Self {
            message,
            version,
            kind,
            code,
        };
        let needs_rest = version == IcmpVersion::V4 || view.is_echo() || view.is_error();
        (!needs_rest || message.len() >= HEADER_LEN).then_some(view)
    }

    pub(super) fn kind(self) -> u8 {
        self.kind
    }

    pub(super) fn code(self) -> u8 {
        self.code
    }

    /// Returns the identifier of an echo request or reply.
    pub(super) fn echo_id(self) -> Option<u16> {
        if self.is_echo() {
            u16_at(self.message, 4)
        } else {
            None
        }
    }

    fn is_echo(self) -> bool {
        is_echo(self.version, self.kind)
    }

    /// Returns whether the message is an error that quotes a packet.
    pub(super) fn is_error(self) -> bool {
        is_error(self.version, self.kind)
    }

    /// Returns the quoted packet; `offset` is where this message starts in the frame.
    pub(super) fn quote(self, offset: usize) -> Option<IcmpQuote> {
        let packet = self.message.get(HEADER_LEN..)?;
        let offset = offset + HEADER_LEN;
        match self.version {
            IcmpVersion::V4 => quote_v4(packet, offset),
            IcmpVersion::V6 => quote_v6(packet, offset),
        }
    }
}

/// Returns whether the type is an error that quotes a packet: unreachable, source quench,
/// redirect, time exceeded, parameter problem; unreachable, too big, time exceeded,
/// parameter problem.
pub(super) const fn is_error(version: IcmpVersion, kind: u8) -> bool {
    match version {
        IcmpVersion::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
        IcmpVersion::V6 => matches!(kind, 1..=4),
    }
}

const fn is_echo(version: IcmpVersion, kind: u8) -> bool {
    match version {
        IcmpVersion::V4 => matches!(kind, 0 | 8),
        IcmpVersion::V6 => matches!(kind, 128 | 129),
    }
}

fn quote_v4(packet: &[u8], offset: usize) -> Option<IcmpQuote> {
    let ip = Ipv4View::new_quoted(packet).ok()?;
    let has_header = !matches!(ip.fragment(), Fragment::Later { .. });
    let (tp_src, tp_dst) = if has_header {
        quoted_ports(
            IcmpVersion::V4,
            ip.protocol(),
            packet.get(ip.header_len()..)?,
        )?
    } else {
        (0, 0)
    };
    let (src, dst) = (IpAddr::V4(ip.src()), IpAddr::V4(ip.dst()));
    Some(IcmpQuote {
        src,
        dst,
        proto: ip.protocol(),
        tp_src,
        tp_dst,
        offset,
    })
}

fn quote_v6(packet: &[u8], offset: usize) -> Option<IcmpQuote> {
    let ip = Ipv6View::new_checked(packet).ok()?;
    let upper = ipv6::walk(packet, ip.next_header(), Chain::Quoted).ok()?;
    let has_header = !matches!(upper.fragment, Fragment::Later { .. });
    let (tp_src, tp_dst) = if has_header {
        quoted_ports(IcmpVersion::V6, upper.proto, packet.get(upper.offset..)?)?
    } else {
        (0, 0)
    };
    let (src, dst) = (IpAddr::V6(ip.src()), IpAddr::V6(ip.dst()));
    Some(IcmpQuote {
        src,
        dst,
        proto: upper.proto,
        tp_src,
        tp_dst,
        offset,
    })
}

/// Reads ports or the echo identifier of a quoted transport header (RFC 792: at least its
/// first eight bytes are there).
///
/// No more is asked of it than the parser asks of the packet itself, so that a valid packet
/// can be quoted: ICMPv6 messages end after four bytes but for echo and errors, and the ICMP
/// of the other family is a protocol like any other.
fn quoted_ports(version: IcmpVersion, proto: u8, transport: &[u8]) -> Option<(u16, u16)> {
    match (version, proto) {
        (_, ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP) => {
            Some((u16_at(transport, 0)?, u16_at(transport, 2)?))
        }
        (IcmpVersion::V4, ip_proto::ICMP) | (IcmpVersion::V6, ip_proto::ICMPV6) => {
            quoted_echo(version, transport)
        }
        _ => Some((0, 0)),
    }
}

fn quoted_echo(version: IcmpVersion, message: &[u8]) -> Option<(u16, u16)> {
    if !is_echo(version, u8_at(message, 0)?) {
        return Some((0, 0));
    }
    let id = u16_at(message, 4)?;
    Some((id, id))
}
