//! The rules of a table that share a mask and a kind of anchor.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use vswitch_api::Priority;

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

impl Shape {
    pub(super) fn of(matches: &CompiledMatch, anchor: Anchor) -> Self {
        Self {
            mask: matches.mask(),
            side: anchor.side(),
        }
    }
}

/// Shards of a subtable. A change copies one of them: of 10,000 rules some 160, and of those
/// only the references.
const SHARDS: usize = 64;

/// Rules of one shape, by masked key and anchor. Versions share the shards that did not change.
#[derive(Debug)]
pub(super) struct Subtable<T> {
    shape: Shape,
    /// How many rules have each priority.
    priorities: BTreeMap<Priority, usize>,
    shards: Vec<Arc<Shard<T>>>,
}

type Shard<T> = HashTable<Bucket<T>>;

/// Rules with one masked key and anchor, best first.
#[derive(Debug)]
struct Bucket<T> {
    hash: u64,
    words: Arc<[u64]>,
    anchor: u32,
    entries: Vec<Arc<Entry<T>>>,
}

impl<T> Clone for Bucket<T> {
    fn clone(&self) -> Self {
        Self {
            hash: self.hash,
            words: Arc::clone(&self.words),
            anchor: self.anchor,
            entries: self.entries.clone(),
        }
    }
}

impl<T> Clone for Subtable<T> {
    fn clone(&self) -> Self {
        Self {
            shape: self.shape.clone(),
            priorities: self.priorities.clone(),
            shards: self.shards.clone(),
        }
    }
}

impl<T> Subtable<T> {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            priorities: BTreeMap::new(),
            shards: vec![Arc::default(); SHARDS],
        }
    }

    pub(super) const fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn is_empty(&self) -> bool {
        self.priorities.is_empty()
    }

    /// Returns a rank that no rule exceeds.
    pub(super) fn best(&self) -> Rank {
        let highest = self.priorities.last_key_value();
        (
            highest.map_or(Priority(0), |(priority, _)| *priority),
            Reverse(0),
        )
    }

    pub(super) fn insert(&mut self, anchor: Anchor, entry: Arc<Entry<T>>) {
        let (words, anchor) = (entry.matches.value(), anchor.number());
        let hash = hash(words.iter().copied(), anchor);
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else {
            return;
        };
        *self.priorities.entry(entry.rank.0).or_default() += 1;
        let is_same = |bucket: &Bucket<T>| bucket.anchor == anchor && *bucket.words == *words;
        let shard = Arc::make_mut(shard);
        match shard.find_mut(hash, is_same) {
            Some(bucket) => {
                let better = |other: &Arc<Entry<T>>| other.rank > entry.rank;
                let at = bucket.entries.partition_point(better);
                bucket.entries.insert(at, entry);
            }
            None => {
                let bucket = Bucket {
                    hash,
                    words: words.into(),
                    anchor,
                    entries: vec![entry],
                };
                shard.insert_unique(hash, bucket, |bucket| bucket.hash);
            }
        }
    }

    /// Removes the rule of that rank; returns it if it was there.
    pub(super) fn remove(
        &mut self,
        anchor: Anchor,
        rank: Rank,
        matches: &CompiledMatch,
    ) -> Option<Arc<Entry<T>>> {
        let (words, anchor) = (matches.value(), anchor.number());
        let hash = hash(words.iter().copied(), anchor);
        let is_same = |bucket: &Bucket<T>| bucket.anchor == anchor && *bucket.words == *words;
        let shard = self.shards.get_mut(shard_of(hash))?;
        let at = shard
            .find(hash, is_same)?
            .entries
            .iter()
            .position(|entry| entry.rank == rank)?;
        let mut bucket = Arc::make_mut(shard).find_entry(hash, is_same).ok()?;
        let entry = bucket.get_mut().entries.remove(at);
        if bucket.get().entries.is_empty() {
            bucket.remove();
        }
        if let Some(count) = self.priorities.get_mut(&rank.0) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&rank.0);
            }
        }
        Some(entry)
    }

    /// Returns how many shards are not shared with another version.
    #[cfg(test)]
    pub(super) fn shards_unlike(&self, other: &Self) -> usize {
        let pairs = self.shards.iter().zip(&other.shards);
        pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count()
    }

    /// Calls `visit` with the rules of each bucket that fits the key under the mask.
    pub(super) fn probe<'a>(
        &'a self,
        key: &PackedKey,
        scratch: &LookupScratch,
        mut visit: impl FnMut(&'a [Arc<Entry<T>>]),
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
        visit: &mut impl FnMut(&'a [Arc<Entry<T>>]),
    ) {
        let words = || {
            let mask = self.shape.mask.iter();
            mask.map(|(word, mask)| key.0.get(*word).map_or(0, |value| value & mask))
        };
        let is_same = |bucket: &Bucket<T>| {
            bucket.anchor == anchor && bucket.words.iter().copied().eq(words())
        };
        let hash = hash(words(), anchor);
        let shard = self.shards.get(shard_of(hash));
        if let Some(bucket) = shard.and_then(|shard| shard.find(hash, is_same)) {
            visit(&bucket.entries);
        }
    }
}

/// The lowest and the highest bits pick the place inside a shard.
fn shard_of(hash: u64) -> usize {
    usize::try_from(hash >> 32).unwrap_or(0) % SHARDS
}

/// Rules come from the control plane: packets choose what is looked up, not what is filed, so
/// a fixed seed gives nobody a way to lengthen a probe.
fn hash(words: impl Iterator<Item = u64>, anchor: u32) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u32(anchor);
    words.for_each(|word| hasher.write_u64(word));
    hasher.finish()
}
