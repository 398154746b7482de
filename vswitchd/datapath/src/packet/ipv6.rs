//! IPv6 header and extension headers (RFC 8200; AH: RFC 4302).

use std::net::Ipv6Addr;

use super::bytes::{chunk, u8_at, u16_at, u32_at};
use super::ipv4::check_fragment;
use super::parsed::Fragment;
use crate::drop_reason::DropReason;

/// Bytes of the fixed header.
pub(super) const HEADER_LEN: usize = 40;

/// Offsets of the fields that are rewritten in place.
pub(super) mod field {
    pub(in super::super) const PAYLOAD_LEN: usize = 4;
    pub(in super::super) const HOP_LIMIT: usize = 7;
    pub(in super::super) const SRC: usize = 8;
    pub(in super::super) const DST: usize = 24;
}

/// Longest chain of extension headers; a bound on the work that one packet can cause.
const MAX_EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// An IPv6 header whose version was checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ipv6View<'a> {
    fixed: &'a [u8; HEADER_LEN],
}

impl<'a> Ipv6View<'a> {
    /// Checks that the header is whole.
    pub(super) fn new_checked(packet: &'a [u8]) -> Result<Self, DropReason> {
        let fixed: &[u8; HEADER_LEN] = chunk(packet, 0).ok_or(DropReason::Truncated)?;
        if fixed[0] >> 4 == 6 {
            Ok(Self { fixed })
        } else {
            Err(DropReason::MalformedIp)
        }
    }

    /// Returns the length of the packet, out of `available` bytes.
    ///
    /// A super-frame larger than the field states 0 and ends with the frame (RFC 2675,
    /// Linux BIG TCP).
    pub(super) fn packet_len(self, available: usize, is_gso: bool) -> Result<usize, DropReason> {
        let stated = usize::from(u16::from_be_bytes([self.fixed[4], self.fixed[5]]));
        let len = if stated == 0 && is_gso {
            available
        } else {
            HEADER_LEN + stated
        };
        if len > available {
            Err(DropReason::Truncated)
        } else {
            Ok(len)
        }
    }

    /// Returns the traffic class.
    pub(super) fn traffic_class(self) -> u8 {
        self.fixed[0] << 4 | self.fixed[1] >> 4
    }

    pub(super) fn next_header(self) -> u8 {
        self.fixed[6]
    }

    pub(super) fn hop_limit(self) -> u8 {
        self.fixed[7]
    }

    pub(super) fn src(self) -> Ipv6Addr {
        self.address(field::SRC)
    }

    pub(super) fn dst(self) -> Ipv6Addr {
        self.address(field::DST)
    }

    fn address(self, offset: usize) -> Ipv6Addr {
        chunk::<16>(self.fixed, offset).map_or(Ipv6Addr::UNSPECIFIED, |b| Ipv6Addr::from(*b))
    }
}

/// What stands behind the extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UpperLayer {
    /// Its protocol. Of a later fragment the one that the fragment header names.
    pub(super) proto: u8,
    /// Where it starts, from the IPv6 header; the end of the packet if there is none.
    pub(super) offset: usize,
    pub(super) fragment: Fragment,
    /// Whether there is a fragment header at all (RFC 6946 "atomic" fragments included).
    pub(super) has_fragment_header: bool,
}

/// How strictly a chain is to be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Of a packet on its way.
    Whole,
    /// Of a packet cut short inside an ICMPv6 error: lengths of fragments are not checked.
    Quoted,
}

/// Follows the extension headers of `packet`, which starts with an IPv6 header.
pub(super) fn walk(packet: &[u8], first: u8, chain: Chain) -> Result<UpperLayer, DropReason> {
    let mut upper = UpperLayer {
        proto: first,
        offset: HEADER_LEN,
        fragment: Fragment::No,
        has_fragment_header: false,
    };
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let len = match upper.proto {
            // RFC 8200 section 4.1: only directly behind the IPv6 header.
            HOP_BY_HOP if upper.offset != HEADER_LEN => break,
            HOP_BY_HOP | DESTINATION_OPTIONS => extension_len(packet, upper)?,
            ROUTING => routing_len(packet, upper)?,
            AUTHENTICATION => authentication_len(packet, upper)?,
            FRAGMENT if upper.has_fragment_header => break,
            FRAGMENT => {
                enter_fragment(packet, &mut upper, chain)?;
                if matches!(upper.fragment, Fragment::Later { .. }) {
                    return Ok(upper);
                }
                continue;
            }
            NO_NEXT_HEADER => {
                upper.offset = packet.len();
                return Ok(upper);
            }
            _ => return Ok(upper),
        };
        upper.proto = u8_at(packet, upper.offset).ok_or_else(|| cut(upper))?;
        upper.offset += len;
        if upper.offset > packet.len() {
            return Err(cut(upper));
        }
    }
    Err(DropReason::MalformedExtensionHeader)
}

/// Returns the reason of a chain that ends too early. RFC 7112: a first fragment must hold
/// the whole chain, else a filter could not see the ports.
fn cut(upper: UpperLayer) -> DropReason {
    match upper.fragment {
        Fragment::First { .. } => DropReason::MalformedFragment,
        Fragment::No | Fragment::Later { .. } => DropReason::MalformedExtensionHeader,
    }
}

fn extension_len(packet: &[u8], upper: UpperLayer) -> Result<usize, DropReason> {
    let len = u8_at(packet, upper.offset + 1).ok_or_else(|| cut(upper))?;
    Ok((usize::from(len) + 1) * 8)
}

fn routing_len(packet: &[u8], upper: UpperLayer) -> Result<usize, DropReason> {
    let [_, _, kind, segments_left]: [u8; 4] =
        *chunk(packet, upper.offset).ok_or_else(|| cut(upper))?;
    // RFC 5095: type 0 is not processed any more, it would reach hosts past their policies.
    if kind == 0 && segments_left != 0 {
        return Err(DropReason::MalformedExtensionHeader);
    }
    extension_len(packet, upper)
}

fn authentication_len(packet: &[u8], upper: UpperLayer) -> Result<usize, DropReason> {
    let len = u8_at(packet, upper.offset + 1).ok_or_else(|| cut(upper))?;
    // RFC 4302 section 2.2: in 32-bit words, minus 2.
    Ok((usize::from(len) + 2) * 4)
}

fn enter_fragment(packet: &[u8], upper: &mut UpperLayer, chain: Chain) -> Result<(), DropReason> {
    const LEN: usize = 8;
    let malformed = DropReason::MalformedExtensionHeader;
    let at = upper.offset;
    let next = u8_at(packet, at).ok_or(malformed)?;
    let field = u16_at(packet, at + 2).ok_or(malformed)?;
    let id = u32_at(packet, at + 4).ok_or(malformed)?;
    let (offset, more) = (usize::from(field & 0xfff8), field & 1 != 0);
    if chain == Chain::Whole {
        check_fragment(next, offset, more, packet.len() - (at + LEN))?;
    }
    upper.proto = next;
    upper.offset = at + LEN;
    upper.has_fragment_header = true;
    upper.fragment = match (offset, more) {
        (0, false) => Fragment::No,
        (0, true) => Fragment::First { id },
        _ => Fragment::Later { id },
    };
    Ok(())
}
