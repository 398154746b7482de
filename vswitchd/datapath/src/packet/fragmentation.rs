//! Cuts IPv4 packets into fragments (RFC 791 section 3.2, RFC 1812 section 4.2.2.7).
//!
//! Only where their sender allows it, by leaving out DF. A fragment is cut like a whole packet:
//! its parts keep its place in the datagram. Routers never fragment IPv6 (RFC 8200 section 5).

use super::bytes::{put_u16, u16_at};
use super::checksum::checksum;
use super::parsed::ParsedPacket;
use super::{Frame, ipv4, offload};
use crate::flow::ether_type;

/// Types of IPv4 options (RFC 791 section 3.1).
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    /// In the type of one that every fragment has.
    pub(super) const COPIED: u8 = 0x80;
}

/// Returns whether the packet may be cut into fragments.
#[must_use]
pub fn may_fragment(packet: &ParsedPacket) -> bool {
    packet.key.eth_type == ether_type::IPV4 && !packet.dont_fragment
}

/// Returns the packet as frames of which none has more than `mtu` bytes from the IP header on; a
/// super-frame is cut into its segments first. `None` if that cannot be done: an MTU with no room
/// for eight bytes, or a damaged super-frame.
#[must_use]
pub fn fragment(frame: &Frame, packet: &ParsedPacket, mtu: u16) -> Option<Vec<Frame>> {
    if !may_fragment(packet) {
        return None;
    }
    let (mut frames, mut is_whole) = (Vec::new(), true);
    let cut = |plain: &[u8]| is_whole &= fragment_plain(plain, packet, mtu, &mut frames).is_some();
    offload::segment(frame, &mut Vec::new(), cut).ok()?;
    is_whole.then_some(frames)
}

/// Adds the fragments of a frame whose checksums are complete.
fn fragment_plain(
    plain: &[u8],
    packet: &ParsedPacket,
    mtu: u16,
    frames: &mut Vec<Frame>,
) -> Option<()> {
    let (ethernet, ip) = plain.split_at_checked(packet.l3_offset)?;
    let total = usize::from(u16_at(ip, ipv4::field::TOTAL_LEN)?);
    let (header, payload) = ip
        .get(..total)?
        .split_at_checked(ipv4::header_len(*ip.first()?))?;
    let room = usize::from(mtu).checked_sub(header.len())?;
    if payload.len() <= room {
        frames.push(Frame::from_bytes(&[ethernet, header, payload].concat()));
        return Some(());
    }
    // All but the last are multiples of 8 bytes.
    let size = Some(room & !7).filter(|size| *size > 0)?;
    let later = later_header(header);
    let parts = payload.chunks(size);
    let count = parts.len();
    for (index, part) in parts.enumerate() {
        let header = if index == 0 { header } else { &later };
        let mut bytes = [ethernet, header, part].concat();
        let ip = bytes.get_mut(packet.l3_offset..)?;
        place(ip, header.len(), index * size, index + 1 == count)?;
        frames.push(Frame::from_bytes(&bytes));
    }
    Some(())
}

/// Writes where a part stands in its datagram, `offset` bytes behind the packet that it is of.
fn place(ip: &mut [u8], header_len: usize, offset: usize, is_last: bool) -> Option<()> {
    let field = u16_at(ip, ipv4::field::FRAGMENT)?;
    let units = (field & ipv4::OFFSET_MASK).checked_add(u16::try_from(offset / 8).ok()?)?;
    // The last part of a fragment that is not the last one is not the last one either.
    let more = if is_last {
        field & ipv4::MORE_FRAGMENTS
    } else {
        ipv4::MORE_FRAGMENTS
    };
    let reserved = field & !(ipv4::OFFSET_MASK | ipv4::MORE_FRAGMENTS);
    if units > ipv4::OFFSET_MASK {
        return None;
    }
    put_u16(ip, ipv4::field::FRAGMENT, reserved | more | units)?;
    let total = u16::try_from(ip.len()).ok()?;
    put_u16(ip, ipv4::field::TOTAL_LEN, total)?;
    put_u16(ip, ipv4::field::CHECKSUM, 0)?;
    let sum = checksum(ip.get(..header_len)?);
    put_u16(ip, ipv4::field::CHECKSUM, sum)
}

/// Returns the header of parts behind the first: options that only the first one has are left
/// out, by no-operations in their place, as Linux does it.
fn later_header(header: &[u8]) -> Vec<u8> {
    let mut later = header.to_vec();
    let mut options = later.get_mut(ipv4::MIN_HEADER_LEN..).unwrap_or_default();
    while let Some((len, is_copied)) = first_option(options) {
        let (option, rest) = options.split_at_mut(len);
        if !is_copied {
            option.fill(option::NO_OPERATION);
        }
        options = rest;
    }
    later
}

/// Returns the length of the first option, and whether every fragment has it. What is behind the
/// end, or has an impossible length, counts as one that only the first fragment has.
fn first_option(options: &[u8]) -> Option<(usize, bool)> {
    match *options {
        [] => None,
        [option::NO_OPERATION, ..] => Some((1, false)),
        [kind, len, ..] if kind != option::END && (2..=options.len()).contains(&len.into()) => {
            Some((len.into(), kind & option::COPIED != 0))
        }
        _ => Some((options.len(), false)),
    }
}
