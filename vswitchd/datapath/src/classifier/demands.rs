//! Key bits that have the same value in all rules of a subtable: a packet that differs in one is
//! not looked up there.

use super::PackedKey;
use super::kind::Kind;
use super::words::{ETH_TYPE_WORD, Mask, PROTO_SHIFT, TRANSPORT_WORD, Words};

/// Words of a key that [`Demands`] looks at.
pub(super) const DEMANDED_WORDS: usize = 3;

/// The bits that are the same in all rules of a subtable: an EtherType, a protocol. They only
/// shrink while rules come; a subtable that empties goes as a whole.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demands(pub(super) [Demand; DEMANDED_WORDS]);

/// Bits of one word; the default demands nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    pub(super) mask: u64,
    pub(super) value: u64,
    pub(super) word: usize,
}

impl Demands {
    /// Returns whether a packet of this kind can meet the demands.
    pub(super) fn admit_kind(&self, kind: Kind) -> bool {
        let (eth_type, proto) = kind.common();
        eth_type.is_none_or(|eth_type| self.admit_eth_type(eth_type))
            && proto.is_none_or(|proto| self.admit_ip_proto(proto))
    }

    pub(super) fn of(mask: &Mask, words: &Words) -> Self {
        let mut demands = Self::default();
        // The last word holds the protocol, the first those that differ between ports.
        let all = mask.iter().zip(words).rev();
        for (demand, ((word, mask), value)) in demands.0.iter_mut().zip(all) {
            *demand = Demand {
                mask: *mask,
                value: *value,
                word: *word,
            };
        }
        demands
    }

    /// Returns what both demand; both are of one shape.
    pub(super) fn common(mut self, other: Self) -> Self {
        for (demand, other) in self.0.iter_mut().zip(other.0) {
            demand.mask &= other.mask & !(demand.value ^ other.value);
            demand.value &= demand.mask;
        }
        self
    }

    /// Returns whether packets of that EtherType can meet them.
    fn admit_eth_type(&self, eth_type: u16) -> bool {
        self.admit(ETH_TYPE_WORD, u64::from(eth_type), 0xffff)
    }

    /// Returns whether packets of that protocol can meet them.
    fn admit_ip_proto(&self, proto: u8) -> bool {
        let (value, mask) = (u64::from(proto) << PROTO_SHIFT, 0xff << PROTO_SHIFT);
        self.admit(TRANSPORT_WORD, value, mask)
    }

    /// Returns whether a key with that value under that mask can meet them.
    pub(super) fn admit(&self, word: usize, value: u64, mask: u64) -> bool {
        let mut demands = self.0.iter().filter(|demand| demand.word == word);
        demands.all(|demand| (value ^ demand.value) & demand.mask & mask == 0)
    }

    #[inline]
    pub(super) fn are_met(&self, key: &PackedKey) -> bool {
        // No branch between the words: which of them differs is not to be foretold.
        let differing = |demand: &Demand| (key.word(demand.word) & demand.mask) ^ demand.value;
        self.0.iter().fold(0, |all, demand| all | differing(demand)) == 0
    }
}
