//! Software offloads, for ports that have none: completes checksums, cuts super-frames into
//! segments.
//!
//! Called for ports without offloads, and for copies that leave the host; a frame between
//! ports with a virtio-net header passes whole.

use std::net::IpAddr;

use vswitch_api::PortNo;

use super::bytes::{put, put_u16, u8_at, u16_at, u32_at};
use super::checksum::{Sum, checksum};
use super::parsed::{ParsedPacket, tcp_flags};
use super::{Frame, VnetHeader, ipv4, ipv6, l4_checksum, parse, sctp, tcp, udp};
use crate::drop_reason::DropReason;
use crate::flow::{ether_type, ip_proto};

/// Most segments of one super-frame. 64 KiB in segments of 32 bytes; TCP's smallest MSS in
/// Linux is 88. A guest that states a smaller size would make one frame into tens of
/// thousands.
pub const MAX_SEGMENTS: usize = 2_048;

/// ECN "congestion window reduced" in the TCP flags (RFC 3168).
const CWR: u8 = 0x80;

/// Why a frame cannot be made plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The frame cannot be taken apart.
    #[error("parse frame: {reason}")]
    Parse {
        /// What is wrong with it.
        reason: DropReason,
    },
    /// The checksum of a super-frame cannot be completed before it is cut.
    #[error("complete checksum of a super-frame")]
    SuperFrame,
    /// Linux has not made such frames since 4.14; ports do not offer the feature to guests.
    #[error("cut legacy UDP fragmentation super-frame")]
    LegacyUfo,
    /// More segments than [`MAX_SEGMENTS`].
    #[error("cut super-frame into {segments} segments")]
    TooManySegments {
        /// How many it would be.
        segments: usize,
    },
}

/// Returns the length of the largest IP packet that the frame will be on a wire: of a
/// super-frame one segment, else the packet itself. For the MTU check.
#[must_use]
pub fn segment_l3_len(frame: &Frame, packet: &ParsedPacket) -> usize {
    let whole = packet.l3_end - packet.l3_offset;
    if !frame.vnet.is_gso() {
        return whole;
    }
    let headers = payload_offset(packet) - packet.l3_offset;
    whole.min(headers + usize::from(frame.vnet.gso_size))
}

/// Completes the checksum that the virtio-net header says is partial, and clears the
/// header. Does nothing to a frame whose checksum is complete.
///
/// # Errors
///
/// Refuses super-frames and frames that do not parse.
pub fn complete_checksum(frame: &mut Frame) -> Result<(), OffloadError> {
    if frame.vnet.is_gso() {
        return Err(OffloadError::SuperFrame);
    }
    if !frame.vnet.needs_csum() {
        return Ok(());
    }
    let packet = parsed(frame)?;
    let vnet = frame.vnet;
    complete(frame.bytes_mut(), vnet, &packet);
    frame.vnet = VnetHeader::default();
    Ok(())
}

/// Gives `sink` the plain frames that `frame` stands for, with all checksums complete: the
/// segments of a super-frame, else the frame itself. Returns how many they were.
///
/// `scratch` is where segments are built; keep it from frame to frame.
///
/// # Errors
///
/// Gives `sink` nothing if the frame does not parse, or cannot or must not be cut.
pub fn segment(
    frame: &Frame,
    scratch: &mut Vec<u8>,
    mut sink: impl FnMut(&[u8]),
) -> Result<usize, OffloadError> {
    if !frame.vnet.is_gso() && !frame.vnet.needs_csum() {
        sink(frame.bytes());
        return Ok(1);
    }
    let packet = parsed(frame)?;
    if !frame.vnet.is_gso() {
        scratch.clear();
        scratch.extend_from_slice(frame.bytes());
        complete(scratch, frame.vnet, &packet);
        sink(scratch);
        return Ok(1);
    }
    if frame.vnet.gso_type & !VnetHeader::GSO_ECN == VnetHeader::GSO_UDP {
        return Err(OffloadError::LegacyUfo);
    }
    cut(frame, &packet, scratch, sink)
}

fn parsed(frame: &Frame) -> Result<ParsedPacket, OffloadError> {
    parse(frame, PortNo::default()).map_err(|reason| OffloadError::Parse { reason })
}

/// Returns where the transport payload starts.
fn payload_offset(packet: &ParsedPacket) -> usize {
    match packet.tcp {
        Some(tcp) => packet
            .l3_end
            .saturating_sub(usize::try_from(tcp.payload_len).unwrap_or(usize::MAX)),
        None => (packet.l4_offset + udp::LEN).min(packet.l3_end),
    }
}

/// Sums from `csum_start` to the end of the packet: the field holds the pseudo-header's sum
/// and counts itself. Padding behind the packet is not covered.
fn complete(bytes: &mut [u8], vnet: VnetHeader, packet: &ParsedPacket) {
    let start = usize::from(vnet.csum_start);
    let at = start + usize::from(vnet.csum_offset);
    let Some(covered) = bytes.get(start..packet.l3_end) else {
        return;
    };
    let is_sctp = packet.key.ip_proto == ip_proto::SCTP && start == packet.l4_offset;
    let _within = if is_sctp {
        // Linux leaves SCTP's CRC partial by the same flag.
        sctp::checksum(covered).and_then(|crc| put(bytes, at, crc))
    } else {
        let sum = Sum::new().bytes(covered).finish();
        put_u16(bytes, at, nonzero(sum))
    };
}

/// RFC 768: zero would say "not computed"; all ones is the same number.
const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { u16::MAX } else { checksum }
}

fn cut(
    frame: &Frame,
    packet: &ParsedPacket,
    scratch: &mut Vec<u8>,
    mut sink: impl FnMut(&[u8]),
) -> Result<usize, OffloadError> {
    let bytes = frame.bytes();
    let at = payload_offset(packet);
    let headers = bytes.get(..at).unwrap_or_default();
    let payload = bytes.get(at..packet.l3_end).unwrap_or_default();
    let size = usize::from(frame.vnet.gso_size);
    let segments = payload.len().div_ceil(size.max(1)).max(1);
    if segments > MAX_SEGMENTS {
        return Err(OffloadError::TooManySegments { segments });
    }
    let has_checksum = frame.vnet.needs_csum()
        || packet.tcp.is_some()
        || u16_at(bytes, packet.l4_offset + udp::CHECKSUM) != Some(0);
    for index in 0..segments {
        let from = index * size;
        let to = payload.len().min(from + size);
        scratch.clear();
        scratch.extend_from_slice(headers);
        scratch.extend_from_slice(payload.get(from..to).unwrap_or_default());
        let position = SegmentPosition {
            index,
            from,
            is_last: index + 1 == segments,
        };
        // The headers were parsed, so every field is there.
        let _whole = patch(scratch, packet, position, has_checksum);
        sink(scratch);
    }
    Ok(segments)
}

/// Where a segment stands in its super-frame.
#[derive(Debug, Clone, Copy)]
struct SegmentPosition {
    index: usize,
    from: usize,
    is_last: bool,
}

fn patch(
    segment: &mut [u8],
    packet: &ParsedPacket,
    position: SegmentPosition,
    has_checksum: bool,
) -> Option<()> {
    match packet.key.eth_type {
        ether_type::IPV4 => patch_ipv4(segment, packet, position)?,
        _ => patch_ipv6(segment, packet)?,
    }
    let field = if packet.key.ip_proto == ip_proto::TCP {
        patch_tcp(segment, packet, position)?;
        tcp::field::CHECKSUM
    } else {
        let len = wire_len(segment.len() - packet.l4_offset);
        put_u16(segment, packet.l4_offset + udp::LENGTH, len)?;
        udp::CHECKSUM
    };
    if has_checksum {
        fill_checksum(segment, packet, packet.l4_offset + field)?;
    }
    Some(())
}

fn patch_ipv4(segment: &mut [u8], packet: &ParsedPacket, position: SegmentPosition) -> Option<()> {
    let ip = packet.l3_offset;
    let id = u16_at(segment, ip + ipv4::field::IDENTIFICATION)?;
    // At most MAX_SEGMENTS, and identifications wrap.
    let index = u16::try_from(position.index).unwrap_or_default();
    put_u16(
        segment,
        ip + ipv4::field::IDENTIFICATION,
        id.wrapping_add(index),
    )?;
    put_u16(
        segment,
        ip + ipv4::field::TOTAL_LEN,
        wire_len(segment.len() - ip),
    )?;
    put_u16(segment, ip + ipv4::field::CHECKSUM, 0)?;
    let header_len = ipv4::header_len(u8_at(segment, ip)?);
    let sum = checksum(segment.get(ip..ip + header_len)?);
    put_u16(segment, ip + ipv4::field::CHECKSUM, sum)
}

fn patch_ipv6(segment: &mut [u8], packet: &ParsedPacket) -> Option<()> {
    let len = wire_len(segment.len() - packet.l3_offset - ipv6::HEADER_LEN);
    put_u16(segment, packet.l3_offset + ipv6::field::PAYLOAD_LEN, len)
}

/// As Linux does it: FIN and PSH belong to the end of the data, CWR to its start.
fn patch_tcp(segment: &mut [u8], packet: &ParsedPacket, position: SegmentPosition) -> Option<()> {
    let at = packet.l4_offset;
    let seq = u32_at(segment, at + tcp::field::SEQ)?;
    let from = u32::try_from(position.from).ok()?;
    put(
        segment,
        at + tcp::field::SEQ,
        seq.wrapping_add(from).to_be_bytes(),
    )?;
    let mut flags = u8_at(segment, at + tcp::field::FLAGS)?;
    if !position.is_last {
        flags &= !(tcp_flags::FIN | tcp_flags::PSH);
    }
    if position.index != 0 {
        flags &= !CWR;
    }
    put(segment, at + tcp::field::FLAGS, [flags])
}

fn fill_checksum(segment: &mut [u8], packet: &ParsedPacket, at: usize) -> Option<()> {
    put_u16(segment, at, 0)?;
    let (src, dst): (IpAddr, IpAddr) = (packet.key.ip_src?, packet.key.ip_dst?);
    let l4 = segment.get(packet.l4_offset..)?;
    let sum = l4_checksum::sum(src, dst, packet.key.ip_proto, l4).finish();
    put_u16(segment, at, nonzero(sum))
}

/// A segment is cut from a frame of at most 64 KiB, so its lengths fit their fields.
fn wire_len(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
