//! Original and reply tuple of a connection, stored compactly.
//!
//! Nearly all connections are of IPv4 and keep their addresses in place; those of IPv6 are
//! behind a pointer, and answers of IPv6 only where they are not the reverse.

use std::net::{IpAddr, Ipv4Addr};

use super::Tuple;

/// Addresses and ports of both tuples of a connection.
#[derive(Debug)]
pub(super) struct Faces {
    addresses: Addresses,
    /// Source and destination port of the original direction, then of the answers.
    ports: [u16; 4],
}

/// What both tuples have in common, and whether one is the reverse of the other. Apart from
/// [`Faces`], so that it takes room that a connection has between its other fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) proto: u8,
    icmp_type: u8,
    pub(super) is_translated: bool,
}

impl Kind {
    /// Returns the kind of a connection with these tuples.
    pub(super) fn of(original: &Tuple, reply: &Tuple) -> Self {
        Self {
            proto: original.proto,
            icmp_type: original.icmp_type,
            is_translated: *reply != original.reversed(),
        }
    }
}

/// Source and destination address of the original direction, then of the answers.
#[derive(Debug)]
enum Addresses {
    V4([Ipv4Addr; 4]),
    Other(Box<[IpAddr; 2]>, Option<Box<[IpAddr; 2]>>),
}

impl Faces {
    /// Returns the faces of a connection whose answers look like `reply`: the reverse of
    /// `original` unless addresses or ports are translated.
    pub(super) fn new(original: &Tuple, reply: &Tuple) -> Self {
        let is_translated = *reply != original.reversed();
        let addresses = match [original.src, original.dst, reply.src, reply.dst] {
            [IpAddr::V4(a), IpAddr::V4(b), IpAddr::V4(c), IpAddr::V4(d)] => {
                Addresses::V4([a, b, c, d])
            }
            [a, b, c, d] => {
                let reply = is_translated.then(|| Box::new([c, d]));
                Addresses::Other(Box::new([a, b]), reply)
            }
        };
        Self {
            addresses,
            ports: [original.tp_src, original.tp_dst, reply.tp_src, reply.tp_dst],
        }
    }

    /// Returns the tuple of the first packet's direction.
    pub(super) fn original(&self, kind: Kind) -> Tuple {
        let (src, dst) = match &self.addresses {
            Addresses::V4([src, dst, ..]) => ((*src).into(), (*dst).into()),
            Addresses::Other(original, _) => pair(original),
        };
        let [tp_src, tp_dst, ..] = self.ports;
        Tuple {
            src,
            dst,
            proto: kind.proto,
            icmp_type: kind.icmp_type,
            tp_src,
            tp_dst,
        }
    }

    /// Returns the tuple that answers carry.
    pub(super) fn reply(&self, kind: Kind) -> Tuple {
        let reversed = self.original(kind).reversed();
        let (src, dst) = match &self.addresses {
            Addresses::V4([_, _, src, dst]) => ((*src).into(), (*dst).into()),
            Addresses::Other(_, Some(reply)) => pair(reply),
            Addresses::Other(_, None) => return reversed,
        };
        let [_, _, tp_src, tp_dst] = self.ports;
        Tuple {
            src,
            dst,
            tp_src,
            tp_dst,
            ..reversed
        }
    }

    /// Returns what the original direction's packets look like when they leave.
    pub(super) fn forwarded(&self, kind: Kind) -> Tuple {
        self.reply(kind).reversed()
    }
}

const fn pair(&[src, dst]: &[IpAddr; 2]) -> (IpAddr, IpAddr) {
    (src, dst)
}
