//! IPv4 header (RFC 791), its fragments and their attacks (RFC 1858, RFC 3128).

use std::net::Ipv4Addr;

use super::bytes::chunk;
use super::checksum::checksum;
use super::parsed::Fragment;
use crate::drop_reason::DropReason;
use crate::flow::ip_proto;

/// Bytes of a header without options.
pub(super) const MIN_HEADER_LEN: usize = 20;

/// Offsets of the fields that are rewritten in place.
pub(super) mod field {
    pub(in super::super) const TOTAL_LEN: usize = 2;
    pub(in super::super) const IDENTIFICATION: usize = 4;
    pub(in super::super) const FRAGMENT: usize = 6;
    pub(in super::super) const TTL: usize = 8;
    pub(in super::super) const CHECKSUM: usize = 10;
    pub(in super::super) const SRC: usize = 12;
    pub(in super::super) const DST: usize = 16;
}

const DONT_FRAGMENT: u16 = 0x4000;
/// In the field at [`field::FRAGMENT`].
pub(super) const MORE_FRAGMENTS: u16 = 0x2000;
/// The rest of the field: units of 8 bytes.
pub(super) const OFFSET_MASK: u16 = 0x1fff;
/// Largest datagram that can be put together again.
const MAX_DATAGRAM: usize = 65_535;

/// Returns the length of a header by its first byte.
pub(super) fn header_len(first: u8) -> usize {
    usize::from(first & 0x0f) * 4
}

/// An IPv4 header whose version and length were checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ipv4View<'a> {
    fixed: &'a [u8; MIN_HEADER_LEN],
}

impl<'a> Ipv4View<'a> {
    /// Checks version and header length, but not what lies behind the header; that is all
    /// that may be asked of a header that an ICMP error quotes.
    pub(super) fn new_quoted(packet: &'a [u8]) -> Result<Self, DropReason> {
        let fixed = chunk(packet, 0).ok_or(DropReason::Truncated)?;
        let view = Self { fixed };
        if fixed[0] >> 4 != 4 || view.header_len() < MIN_HEADER_LEN {
            return Err(DropReason::MalformedIp);
        }
        Ok(view)
    }

    /// Checks the header and its checksum.
    pub(super) fn new_checked(packet: &'a [u8]) -> Result<Self, DropReason> {
        let view = Self::new_quoted(packet)?;
        let header = packet
            .get(..view.header_len())
            .ok_or(DropReason::Truncated)?;
        if checksum(header) == 0 {
            Ok(view)
        } else {
            Err(DropReason::MalformedIp)
        }
    }

    /// Returns the length of the packet, out of `available` bytes.
    ///
    /// A super-frame larger than the field states 0 and ends with the frame (Linux BIG TCP).
    pub(super) fn packet_len(self, available: usize, is_gso: bool) -> Result<usize, DropReason> {
        let stated = usize::from(u16::from_be_bytes([self.fixed[2], self.fixed[3]]));
        let len = if stated == 0 && is_gso {
            available
        } else {
            stated
        };
        if len > available {
            Err(DropReason::Truncated)
        } else if len < self.header_len() {
            Err(DropReason::MalformedIp)
        } else {
            Ok(len)
        }
    }

    /// Returns where the payload starts.
    pub(super) fn header_len(self) -> usize {
        header_len(self.fixed[0])
    }

    pub(super) fn tos(self) -> u8 {
        self.fixed[1]
    }

    pub(super) fn ttl(self) -> u8 {
        self.fixed[8]
    }

    pub(super) fn protocol(self) -> u8 {
        self.fixed[9]
    }

    pub(super) fn src(self) -> Ipv4Addr {
        let b = self.fixed;
        Ipv4Addr::new(b[12], b[13], b[14], b[15])
    }

    pub(super) fn dst(self) -> Ipv4Addr {
        let b = self.fixed;
        Ipv4Addr::new(b[16], b[17], b[18], b[19])
    }

    pub(super) fn dont_fragment(self) -> bool {
        self.fragment_field() & DONT_FRAGMENT != 0
    }

    /// Returns where the packet stands in its datagram.
    pub(super) fn fragment(self) -> Fragment {
        let id = u32::from(u16::from_be_bytes([self.fixed[4], self.fixed[5]]));
        if self.fragment_field() & OFFSET_MASK != 0 {
            Fragment::Later { id }
        } else if self.fragment_field() & MORE_FRAGMENTS != 0 {
            Fragment::First { id }
        } else {
            Fragment::No
        }
    }

    /// Checks that the fragment can be part of a datagram.
    pub(super) fn check_fragment(self, payload_len: usize) -> Result<(), DropReason> {
        let offset = usize::from(self.fragment_field() & OFFSET_MASK) * 8;
        let more = self.fragment_field() & MORE_FRAGMENTS != 0;
        check_fragment(self.protocol(), offset, more, payload_len)
    }

    fn fragment_field(self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }
}

/// Checks offset and length of one fragment, of either IP version; `offset` is in bytes.
pub(super) fn check_fragment(
    proto: u8,
    offset: usize,
    more: bool,
    payload_len: usize,
) -> Result<(), DropReason> {
    if offset == 0 && !more {
        return Ok(());
    }
    // RFC 791: all but the last are multiples of 8 bytes; past 65,535 is the "ping of death".
    let bad_len = payload_len == 0 || (more && !payload_len.is_multiple_of(8));
    let too_far = offset + payload_len > MAX_DATAGRAM;
    // RFC 3128: such a fragment can only be there to overwrite ports or flags that a filter
    // has already judged.
    let overlaps_header = offset != 0 && proto == ip_proto::TCP && offset < super::tcp::MIN_LEN;
    if bad_len || too_far || overlaps_header {
        Err(DropReason::MalformedFragment)
    } else {
        Ok(())
    }
}
