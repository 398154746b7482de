//! Tuple: protocol, addresses and ports of one direction of a connection.
//!
//! Called by the table to find connections. Invariant: reversing a tuple twice gives it back.

use std::hash::{BuildHasher, Hasher as _};
use std::net::IpAddr;

use super::icmp;
use crate::flow::{FlowKey, ip_proto};
use crate::packet::rewrite::Ends;
use crate::packet::{IcmpQuote, ParsedPacket};

/// Both ends of one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol.
    pub proto: u8,
    /// Type of an ICMP or ICMPv6 query, so that two hosts that query each other with the same
    /// identifier have two connections; 0 for other protocols.
    pub icmp_type: u8,
    /// Source port; ICMP echo identifier; 0 for generic protocols.
    pub tp_src: u16,
    /// Destination port; ICMP echo identifier; 0 for generic protocols.
    pub tp_dst: u16,
}

impl From<Tuple> for Ends {
    fn from(tuple: Tuple) -> Self {
        let Tuple {
            src,
            dst,
            tp_src,
            tp_dst,
            ..
        } = tuple;
        Self {
            src,
            dst,
            tp_src,
            tp_dst,
        }
    }
}

/// Which way a packet of a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As the first packet.
    Original,
    /// Against it.
    Reply,
}

impl Direction {
    /// Returns the other direction.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

impl Tuple {
    /// Returns the tuple of a packet, `None` where it has no IP addresses. The ports come from
    /// `key`, which may know more of a later fragment than the packet itself.
    #[must_use]
    pub(crate) fn of_packet(pkt: &ParsedPacket, key: &FlowKey) -> Option<Self> {
        let (src, dst, proto) = (key.ip_src?, key.ip_dst?, key.ip_proto);
        let (icmp_type, tp_src, tp_dst) = match proto {
            ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP => (0, key.tp_src, key.tp_dst),
            ip_proto::ICMP | ip_proto::ICMPV6 => {
                let id = pkt.icmp_echo_id.unwrap_or(0);
                (u8::try_from(key.tp_src).ok()?, id, id)
            }
            _ => (0, 0, 0),
        };
        Some(Self {
            src,
            dst,
            proto,
            icmp_type,
            tp_src,
            tp_dst,
        })
    }

    /// Returns the tuple that a quoted packet had; for ICMP with `icmp_type` as its type.
    #[must_use]
    pub(super) fn of_quote(quote: &IcmpQuote, icmp_type: u8) -> Self {
        let (tp_src, tp_dst) = match quote.proto {
            ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP => (quote.tp_src, quote.tp_dst),
            ip_proto::ICMP | ip_proto::ICMPV6 => (quote.tp_src, quote.tp_src),
            _ => (0, 0),
        };
        Self {
            src: quote.src,
            dst: quote.dst,
            proto: quote.proto,
            icmp_type,
            tp_src,
            tp_dst,
        }
    }

    /// Returns the tuple of what answers this one.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            proto: self.proto,
            icmp_type: icmp::counterpart(self.proto, self.icmp_type).unwrap_or(self.icmp_type),
            tp_src: self.tp_dst,
            tp_dst: self.tp_src,
        }
    }

    /// Returns a hash that is the same for a tuple and its reverse. The hasher's seed is secret,
    /// so that nobody outside can aim at one shard or bucket.
    pub(super) fn symmetric_hash(&self, hasher: &impl BuildHasher) -> u64 {
        // A sum is the same in either order; each end is hashed before, so that no one can know
        // which ends add up to the same.
        let src = end_hash(hasher, self.src, self.tp_src);
        let sum = src.wrapping_add(end_hash(hasher, self.dst, self.tp_dst));
        let mut state = hasher.build_hasher();
        state.write_u64(sum);
        state.write_u64(u64::from(self.proto));
        state.finish()
    }
}

fn end_hash(hasher: &impl BuildHasher, address: IpAddr, port: u16) -> u64 {
    let mut state = hasher.build_hasher();
    match address {
        IpAddr::V4(v4) => state.write_u64(u64::from(v4.to_bits()) << 16 | u64::from(port)),
        IpAddr::V6(v6) => {
            state.write_u128(v6.to_bits());
            state.write_u64(u64::from(port));
        }
    }
    state.finish()
}
