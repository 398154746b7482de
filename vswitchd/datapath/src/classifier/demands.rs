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
pub(super) struct Demands {
    masks: [u64; DEMANDED_WORDS],
    values: [u64; DEMANDED_WORDS],
    words: [u8; DEMANDED_WORDS],
}

/// Bits of one word; the default demands nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    mask: u64,
    value: u64,
    word: usize,
}

impl Demands {
    /// Returns whether a packet of this kind can meet the demands.
    pub(super) fn admit_kind(&self, kind: Kind) -> bool {
        let (eth_type, proto) = kind.common();
        eth_type.is_none_or(|eth_type| self.admit_eth_type(eth_type))
            && proto.is_none_or(|proto| self.admit_ip_proto(proto))
    }

    pub(super) fn of(mask: &Mask, words: &Words) -> Self {
        let mut demands = [Demand::default(); DEMANDED_WORDS];
        // The last word holds the protocol, the first those that differ between ports.
        let all = mask.iter().zip(words).rev();
        for (demand, ((word, mask), value)) in demands.iter_mut().zip(all) {
            *demand = Demand {
                mask: *mask,
                value: *value,
                word: *word,
            };
        }
        Self::of_each(demands)
    }

    fn of_each(each: [Demand; DEMANDED_WORDS]) -> Self {
        Self {
            masks: each.map(|demand| demand.mask),
            values: each.map(|demand| demand.value),
            // There are WORDS of them.
            words: each.map(|demand| u8::try_from(demand.word).unwrap_or(u8::MAX)),
        }
    }

    #[inline]
    fn each(&self) -> [Demand; DEMANDED_WORDS] {
        let ([m0, m1, m2], [v0, v1, v2], [w0, w1, w2]) = (self.masks, self.values, self.words);
        [(m0, v0, w0), (m1, v1, w1), (m2, v2, w2)].map(|(mask, value, word)| Demand {
            mask,
            value,
            word: usize::from(word),
        })
    }

    /// Returns the masks of the words it looks at, the last word's first.
    pub(super) const fn masks(&self) -> &[u64; DEMANDED_WORDS] {
        &self.masks
    }

    /// Returns what both demand; both are of one shape.
    pub(super) fn common(self, other: Self) -> Self {
        let mut all = self.each();
        for (demand, other) in all.iter_mut().zip(other.each()) {
            demand.mask &= other.mask & !(demand.value ^ other.value);
            demand.value &= demand.mask;
        }
        Self::of_each(all)
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
        let mut demands = self.each().into_iter().filter(|demand| demand.word == word);
        demands.all(|demand| (value ^ demand.value) & demand.mask & mask == 0)
    }

    #[inline]
    pub(super) fn are_met(&self, key: &PackedKey) -> bool {
        // No branch between the words: which of them differs is not to be foretold.
        let differing = |demand: &Demand| (key.word(demand.word) & demand.mask) ^ demand.value;
        self.each()
            .iter()
            .fold(0, |all, demand| all | differing(demand))
            == 0
    }
}
