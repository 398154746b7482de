//! The rules of a table that share a mask and a kind of anchor.

use std::cmp::Reverse;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::{CompiledMatch, Entry, LookupScratch, PackedKey, PreferredAnchor, Rank};
use crate::address_set::SetId;

/// The set that a rule is filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    /// It demands no set.
    None,
    /// The source address's.
    Source(SetId),
    /// The destination address's.
    Destination(SetId),
}

/// The side of an anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    None,
    Source,
    Destination,
}

impl Anchor {
    pub(super) fn choose(matches: &CompiledMatch, prefer: PreferredAnchor) -> Self {
        let src = matches.src_set.map(Self::Source);
        let dst = matches.dst_set.map(Self::Destination);
        match prefer {
            PreferredAnchor::Source => src.or(dst),
            PreferredAnchor::Destination => dst.or(src),
        }
        .unwrap_or(Self::None)
    }

    pub(super) const fn side(self) -> Side {
        match self {
            Self::None => Side::None,
            Self::Source(_) => Side::Source,
            Self::Destination(_) => Side::Destination,
        }
    }

    const fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Source(SetId(id)) | Self::Destination(SetId(id)) => id,
        }
    }
}

/// What makes rules share a subtable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Word index and mask of the words that are looked at.
    pub(super) mask: Vec<(usize, u64)>,
    pub(super) side: Side,
}

/// Rules of one shape, by masked key and anchor.
#[derive(Debug)]
pub(super) struct Subtable<T> {
    shape: Shape,
    best: Rank,
    buckets: HashTable<Bucket<T>>,
}

/// Rules with one masked key and anchor, best first once finished.
#[derive(Debug)]
struct Bucket<T> {
    hash: u64,
    words: Box<[u64]>,
    anchor: u32,
    entries: Vec<Entry<T>>,
}

impl<T> Subtable<T> {
    pub(super) fn new(shape: &Shape) -> Self {
        let lowest = (vswitch_api::Priority(0), Reverse(u64::MAX));
        Self {
            shape: shape.clone(),
            best: lowest,
            buckets: HashTable::new(),
        }
    }

    /// Returns the rank of the best rule.
    pub(super) const fn best(&self) -> Rank {
        self.best
    }

    pub(super) fn add(&mut self, anchor: Anchor, entry: Entry<T>) {
        self.best = self.best.max(entry.rank);
        let (words, anchor) = (entry.matches.value(), anchor.number());
        let hash = hash(words.iter().copied(), anchor);
        let is_same = |bucket: &Bucket<T>| bucket.anchor == anchor && bucket.words == words;
        match self.buckets.find_mut(hash, is_same) {
            Some(bucket) => bucket.entries.push(entry),
            None => {
                let bucket = Bucket {
                    hash,
                    words,
                    anchor,
                    entries: vec![entry],
                };
                self.buckets
                    .insert_unique(hash, bucket, |bucket| bucket.hash);
            }
        }
    }

    /// Brings the rules of each bucket in order, after the last [`Subtable::add`].
    pub(super) fn finish(&mut self) {
        for bucket in self.buckets.iter_mut() {
            bucket.entries.sort_by_key(|entry| Reverse(entry.rank));
        }
    }

    /// Calls `visit` with the rules of each bucket that fits the key under the mask.
    pub(super) fn probe<'a>(
        &'a self,
        key: &PackedKey,
        scratch: &LookupScratch,
        mut visit: impl FnMut(&'a [Entry<T>]),
    ) {
        match self.shape.side {
            Side::None => self.probe_one(key, 0, &mut visit),
            Side::Source => {
                scratch
                    .src_anchors
                    .iter()
                    .for_each(|set| self.probe_one(key, set.0, &mut visit));
            }
            Side::Destination => {
                scratch
                    .dst_anchors
                    .iter()
                    .for_each(|set| self.probe_one(key, set.0, &mut visit));
            }
        }
    }

    fn probe_one<'a>(
        &'a self,
        key: &PackedKey,
        anchor: u32,
        visit: &mut impl FnMut(&'a [Entry<T>]),
    ) {
        let words = || {
            let mask = self.shape.mask.iter();
            mask.map(|(word, mask)| key.0.get(*word).map_or(0, |value| value & mask))
        };
        let is_same = |bucket: &Bucket<T>| {
            bucket.anchor == anchor && bucket.words.iter().copied().eq(words())
        };
        if let Some(bucket) = self.buckets.find(hash(words(), anchor), is_same) {
            visit(&bucket.entries);
        }
    }
}

/// Rules come from the control plane: packets choose what is looked up, not what is filed, so
/// a fixed seed gives nobody a way to lengthen a probe.
fn hash(words: impl Iterator<Item = u64>, anchor: u32) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u32(anchor);
    words.for_each(|word| hasher.write_u64(word));
    hasher.finish()
}
