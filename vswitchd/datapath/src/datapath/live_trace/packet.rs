//! A packet of a live trace, and what it is known by on other nodes.

use vswitch_api::PortNo;

use crate::conntrack::Direction;
use crate::datapath::verdict::Verdict;
use crate::flow::{FlowKey, ether_type, ip_proto};
use crate::packet::checksum::checksum;
use crate::packet::{Fragment, Frame, ParsedPacket, TcpSegment};
use crate::pipeline::Trace;
use crate::time::Timestamp;

/// What happened to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedPacket {
    /// When the batch began that it was in.
    pub time: Timestamp,
    /// Which way it goes.
    pub direction: Direction,
    /// Where it came in.
    pub in_port: PortNo,
    /// As it came in.
    pub came: PacketSummary,
    /// As it was sent, if it was.
    pub left: Option<PacketSummary>,
    /// What became of it.
    pub verdict: Verdict,
    /// What the tables say of it.
    pub trace: Trace,
    /// Packets of its connection may have gone by below the engine until it came.
    pub was_in_kernel: bool,
    /// Its sender was told that it was refused.
    pub is_told: bool,
}

/// What the same packet has on each node: a router in between changes its TTL and the checksum of
/// its header, an interface fills in the checksum of its transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketSummary {
    /// Addresses and ports.
    pub key: FlowKey,
    /// IPv4 identification.
    pub ip_id: Option<u16>,
    /// Numbers and flags of TCP.
    pub tcp: Option<TcpSegment>,
    /// Bytes behind the transport header.
    pub payload_bytes: usize,
    /// Their sum (RFC 1071).
    pub payload_checksum: u16,
}

impl PacketSummary {
    /// Returns that of a frame.
    pub(in crate::datapath) fn of(parsed: &ParsedPacket, frame: &Frame) -> Self {
        let bytes = frame.bytes();
        let number = |at: usize| {
            let field = bytes.get(at..)?.first_chunk::<2>()?;
            Some(u16::from_be_bytes(*field))
        };
        /// Where IPv4 has its identification (RFC 791 section 3.1).
        const ID: usize = 4;
        let is_ipv4 = parsed.key.eth_type == ether_type::IPV4;
        let start = parsed.l4_offset + transport_header_len(parsed, bytes);
        let payload = bytes.get(start..parsed.l3_end).unwrap_or_default();
        Self {
            key: parsed.key,
            ip_id: number(parsed.l3_offset + ID).filter(|_| is_ipv4),
            tcp: parsed.tcp,
            payload_bytes: payload.len(),
            payload_checksum: checksum(payload),
        }
    }
}

fn transport_header_len(parsed: &ParsedPacket, bytes: &[u8]) -> usize {
    if matches!(parsed.fragment, Fragment::Later { .. }) {
        return 0;
    }
    match parsed.key.ip_proto {
        // The data offset, in words, stands in the upper half of the byte (RFC 9293 section 3.1).
        ip_proto::TCP => {
            let offset = bytes.get(parsed.l4_offset + 12).copied().unwrap_or(0);
            usize::from(offset >> 4) * 4
        }
        ip_proto::SCTP => 12,
        // Identifier and sequence number of an echo tell it from others.
        ip_proto::ICMP | ip_proto::ICMPV6 => 4,
        _ => 8,
    }
}
