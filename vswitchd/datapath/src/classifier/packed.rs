//! A flow key as a few machine words, so that masking and hashing touch no field twice.

use std::net::IpAddr;

use vswitch_api::MacAddr;

use super::kind::Kind;
use super::words::{PROTO_SHIFT, TRANSPORT_WORD, WORDS};
use crate::flow::FlowKey;

/// Bits of the lowest half word: facts that are not numbers.
pub(super) mod flag {
    pub(crate) const LATER_FRAGMENT: u64 = 1;
    pub(crate) const SRC_V4: u64 = 1 << 1;
    pub(crate) const SRC_V6: u64 = 1 << 2;
    pub(crate) const DST_V4: u64 = 1 << 3;
    pub(crate) const DST_V6: u64 = 1 << 4;
    pub(crate) const ND_TARGET: u64 = 1 << 5;
}

/// The matchable part of a [`FlowKey`] in [`WORDS`] words:
///
/// ```text
/// 0 in_port:32 out_port:32          4,5 ip_src (IPv4 in the low 32 bits)
/// 1 eth_src:48 class:8 ct_state:8   6,7 ip_dst
/// 2 eth_dst:48 vlan_tci:16          8,9 nd_target
/// 3 arp_sha:48 eth_type:16          10  tp_src:16 tp_dst:16 ip_proto:16 flags:16
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct PackedKey {
    words: [u64; ROOM],
    kind: Kind,
}

/// Words of a key as it is kept: a power of two, so that an index needs no check but a mask.
const ROOM: usize = WORDS.next_power_of_two();

impl PackedKey {
    /// Packs a key.
    pub(crate) fn of(key: &FlowKey) -> Self {
        let (src, src_flag) = address(key.ip_src, flag::SRC_V4, flag::SRC_V6);
        let (dst, dst_flag) = address(key.ip_dst, flag::DST_V4, flag::DST_V6);
        let (nd, nd_flag) = key
            .nd_target
            .map_or(([0, 0], 0), |t| (split(t.to_bits()), flag::ND_TARGET));
        let later = if key.is_later_fragment {
            flag::LATER_FRAGMENT
        } else {
            0
        };
        let flags = later | src_flag | dst_flag | nd_flag;
        let [s0, s1] = src;
        let [d0, d1] = dst;
        let [n0, n1] = nd;
        let mut words = [0; ROOM];
        words[..WORDS].copy_from_slice(&[
            word_of_ports(key),
            word_of_source(key),
            word_of_destination(key),
            mac(key.arp_sha) | u64::from(key.eth_type),
            s0,
            s1,
            d0,
            d1,
            n0,
            n1,
            word_of_transport(key) | flags,
        ]);
        Self {
            words,
            kind: Kind::of(key.eth_type, key.ip_proto),
        }
    }

    /// Returns the word with that index.
    #[inline]
    pub(super) fn word(&self, index: usize) -> u64 {
        #[expect(clippy::indexing_slicing, reason = "the mask keeps it inside")]
        self.words[index & (ROOM - 1)]
    }

    /// Returns what kind of packet it is.
    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Takes over what tables may have changed since the key was packed: all but addresses and
    /// the fields of ARP and neighbour discovery.
    #[inline]
    pub(crate) fn refresh(&mut self, key: &FlowKey) {
        let [
            ports,
            source,
            destination,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            transport,
            ..,
        ] = &mut self.words;
        *ports = word_of_ports(key);
        *source = word_of_source(key);
        *destination = word_of_destination(key);
        *transport = word_of_transport(key) | (*transport & 0xffff);
    }

    /// Returns the source port.
    pub(super) fn tp_src(&self) -> u16 {
        let last = self.word(TRANSPORT_WORD);
        (last >> 48) as u16
    }

    /// Returns the destination port.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the 16 bits out of the word"
    )]
    pub(super) fn tp_dst(&self) -> u16 {
        let last = self.word(TRANSPORT_WORD);
        (last >> 32) as u16
    }
}

fn word_of_ports(key: &FlowKey) -> u64 {
    u64::from(key.in_port.0) << 32 | u64::from(key.out_port.0)
}

fn word_of_source(key: &FlowKey) -> u64 {
    mac(key.eth_src) | u64::from(key.class as u8) << 8 | u64::from(key.ct_state.0)
}

fn word_of_destination(key: &FlowKey) -> u64 {
    mac(key.eth_dst) | u64::from(key.vlan_tci)
}

fn word_of_transport(key: &FlowKey) -> u64 {
    let (tp_src, tp_dst) = (u64::from(key.tp_src), u64::from(key.tp_dst));
    tp_src << 48 | tp_dst << 32 | u64::from(key.ip_proto) << PROTO_SHIFT
}

/// Returns the MAC in the upper 48 bits.
pub(super) fn mac(MacAddr([a, b, c, d, e, f]): MacAddr) -> u64 {
    u64::from_be_bytes([a, b, c, d, e, f, 0, 0])
}

/// Returns the upper and the lower half.
pub(super) fn split(bits: u128) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bits.to_be_bytes();
    [
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes([i, j, k, l, m, n, o, p]),
    ]
}

fn address(address: Option<IpAddr>, v4_flag: u64, v6_flag: u64) -> ([u64; 2], u64) {
    match address {
        None => ([0, 0], 0),
        Some(IpAddr::V4(v4)) => ([0, u64::from(v4.to_bits())], v4_flag),
        Some(IpAddr::V6(v6)) => (split(v6.to_bits()), v6_flag),
    }
}
