//! The rules of a table that share a mask and a kind of anchor.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use smallvec::SmallVec;
use vswitch_api::Priority;

use super::compiled::BeyondMask;
use super::set_counts::SetCounts;
use super::{CompiledMatch, Membership, PackedKey, PreferredAnchor, Rank};
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

/// Rules that a shard holds before there are twice as many shards. A change copies one shard:
/// few rules make that cheap, many keep the way to a rule short and in the processor's cache.
const SHARD_RULES: usize = 128;

/// Rules of one shape, by masked key and anchor. Versions share the shards that did not change.
#[derive(Debug)]
pub(super) struct Subtable<T> {
    shape: Shape,
    /// How many rules have each priority.
    priorities: BTreeMap<Priority, usize>,
    /// The highest priority.
    highest: Priority,
    rules: usize,
    /// What every rule demands: a key that lacks it need not be looked up.
    common: Common,
    /// Sets that rules are filed under: an address may be in many that only serve as peers.
    anchors: SetCounts,
    shards: Vec<Arc<Shard<T>>>,
}

/// The bits that are the same in all rules of a subtable, with their value: an EtherType, a
/// protocol. They only shrink while rules come; a subtable that empties goes as a whole.
#[derive(Debug, Clone, Default)]
struct Common {
    /// Index, mask and value of each word, those of protocols first; `None` before the first
    /// rule.
    words: Option<SmallVec<[(usize, u64, u64); 3]>>,
}

impl Common {
    fn narrow(&mut self, shape: &Shape, words: &Words) {
        // The last word holds the protocol, the first those that differ between ports.
        let demanded = shape.mask.iter().zip(words).rev();
        match &mut self.words {
            None => {
                let all = demanded.map(|((word, mask), value)| (*word, *mask, *value));
                self.words = Some(all.collect());
            }
            Some(common) => {
                for ((_, value), (_, mask, of_all)) in demanded.zip(common) {
                    *mask &= !(value ^ *of_all);
                    *of_all &= *mask;
                }
            }
        }
    }

    fn is_met(&self, key: &PackedKey) -> bool {
        let mut words = self.words.iter().flatten();
        words.all(|(word, mask, value)| key.0.get(*word).is_some_and(|key| key & mask == *value))
    }
}

type Shard<T> = HashTable<Bucket<T>>;

/// Words of a masked key.
pub(super) type Words = SmallVec<[u64; 2]>;

/// Rules with one masked key and anchor, best first.
#[derive(Debug)]
struct Bucket<T> {
    hash: u64,
    anchor: u32,
    words: Words,
    rules: SmallVec<[Filed<T>; 1]>,
}

/// A rule where a lookup finds it.
#[derive(Debug)]
pub(super) struct Filed<T> {
    pub(super) rank: Rank,
    pub(super) beyond: BeyondMask,
    pub(super) value: Arc<T>,
}

impl<T> Clone for Filed<T> {
    fn clone(&self) -> Self {
        Self {
            rank: self.rank,
            beyond: self.beyond,
            value: Arc::clone(&self.value),
        }
    }
}

impl<T> Clone for Bucket<T> {
    fn clone(&self) -> Self {
        Self {
            hash: self.hash,
            anchor: self.anchor,
            words: self.words.clone(),
            rules: self.rules.clone(),
        }
    }
}

impl<T> Clone for Subtable<T> {
    fn clone(&self) -> Self {
        Self {
            shape: self.shape.clone(),
            priorities: self.priorities.clone(),
            highest: self.highest,
            rules: self.rules,
            common: self.common.clone(),
            anchors: self.anchors.clone(),
            shards: self.shards.clone(),
        }
    }
}

impl<T> Subtable<T> {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            priorities: BTreeMap::new(),
            highest: Priority(0),
            rules: 0,
            common: Common::default(),
            anchors: SetCounts::default(),
            shards: vec![Arc::default()],
        }
    }

    pub(super) const fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn is_empty(&self) -> bool {
        self.priorities.is_empty()
    }

    /// Returns a rank that no rule exceeds.
    pub(super) const fn best(&self) -> Rank {
        (self.highest, Reverse(0))
    }

    fn count(&mut self, priority: Priority, is_more: bool) {
        let count = self.priorities.entry(priority).or_default();
        *count = if is_more { *count + 1 } else { *count - 1 };
        self.rules = if is_more {
            self.rules + 1
        } else {
            self.rules - 1
        };
        if *count == 0 {
            self.priorities.remove(&priority);
        }
        let highest = self.priorities.last_key_value();
        self.highest = highest.map_or(Priority(0), |(priority, _)| *priority);
    }

    pub(super) fn insert(
        &mut self,
        anchor: Anchor,
        rank: Rank,
        matches: &CompiledMatch,
        value: Arc<T>,
    ) {
        let (words, number) = (matches.value(), anchor.number());
        let hash = hash(words.iter().copied(), number);
        self.count(rank.0, true);
        self.spread();
        self.anchors.add(SetId(number));
        self.common.narrow(&self.shape, &words);
        let filed = Filed {
            rank,
            beyond: matches.beyond_mask(anchor),
            value,
        };
        let is_same = |bucket: &Bucket<T>| bucket.anchor == number && bucket.words == words;
        let Some(shard) = self.shard_mut(hash) else {
            return;
        };
        let shard = Arc::make_mut(shard);
        match shard.find_mut(hash, is_same) {
            Some(bucket) => {
                let at = bucket.rules.partition_point(|other| other.rank > rank);
                bucket.rules.insert(at, filed);
            }
            None => {
                let bucket = Bucket {
                    hash,
                    anchor: number,
                    words,
                    rules: SmallVec::from_iter([filed]),
                };
                shard.insert_unique(hash, bucket, |bucket| bucket.hash);
            }
        }
    }

    fn shard_mut(&mut self, hash: u64) -> Option<&mut Arc<Shard<T>>> {
        let shard = shard_of(hash, self.shards.len());
        self.shards.get_mut(shard)
    }

    /// Doubles the shards when they have become large.
    fn spread(&mut self) {
        let shards = self.shards.len();
        if self.rules <= shards * SHARD_RULES {
            return;
        }
        let mut spread = vec![Shard::default(); shards * 2];
        for bucket in self.shards.iter().flat_map(|shard| shard.iter()) {
            if let Some(shard) = spread.get_mut(shard_of(bucket.hash, shards * 2)) {
                shard.insert_unique(bucket.hash, bucket.clone(), |bucket| bucket.hash);
            }
        }
        self.shards = spread.into_iter().map(Arc::new).collect();
    }

    /// Removes the rule of that rank; returns whether it was there.
    pub(super) fn remove(&mut self, anchor: Anchor, rank: Rank, matches: &CompiledMatch) -> bool {
        let (words, number) = (matches.value(), anchor.number());
        let hash = hash(words.iter().copied(), number);
        let is_same = |bucket: &Bucket<T>| bucket.anchor == number && bucket.words == words;
        let is_it = |filed: &Filed<T>| filed.rank == rank;
        let Some(shard) = self.shard_mut(hash) else {
            return false;
        };
        let found = shard.find(hash, is_same);
        let Some(at) = found.and_then(|bucket| bucket.rules.iter().position(is_it)) else {
            return false;
        };
        let Ok(mut bucket) = Arc::make_mut(shard).find_entry(hash, is_same) else {
            return false;
        };
        bucket.get_mut().rules.remove(at);
        if bucket.get().rules.is_empty() {
            bucket.remove();
        }
        self.anchors.remove(SetId(number));
        self.count(rank.0, false);
        true
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
        member_of: &Membership,
        mut visit: impl FnMut(&'a [Filed<T>]),
    ) {
        if !self.common.is_met(key) {
            return;
        }
        let sets = match self.shape.side {
            Side::None => return self.probe_one(key, 0, &mut visit),
            Side::Source => &member_of.src,
            Side::Destination => &member_of.dst,
        };
        for set in sets.iter().filter(|set| self.anchors.contains(**set)) {
            self.probe_one(key, set.0, &mut visit);
        }
    }

    fn probe_one<'a>(
        &'a self,
        key: &PackedKey,
        anchor: u32,
        visit: &mut impl FnMut(&'a [Filed<T>]),
    ) {
        let words = || {
            let mask = self.shape.mask.iter();
            mask.map(|(word, mask)| key.0.get(*word).map_or(0, |value| value & mask))
        };
        let is_same = |bucket: &Bucket<T>| {
            bucket.anchor == anchor && bucket.words.iter().copied().eq(words())
        };
        let found = match self.shards.as_slice() {
            // Most subtables hold a single rule: what every packet passes by.
            [shard] if shard.len() == 1 => shard.iter().next().filter(|bucket| is_same(bucket)),
            shards => {
                let hash = hash(words(), anchor);
                let shard = shards.get(shard_of(hash, shards.len()));
                shard.and_then(|shard| shard.find(hash, is_same))
            }
        };
        if let Some(bucket) = found {
            visit(&bucket.rules);
        }
    }
}

/// The lowest and the highest bits pick the place inside a shard. The number of shards is a
/// power of two.
fn shard_of(hash: u64, shards: usize) -> usize {
    usize::try_from(hash >> 32).unwrap_or(0) & shards.saturating_sub(1)
}

/// Rules come from the control plane: packets choose what is looked up, not what is filed, so
/// a fixed seed gives nobody a way to lengthen a probe.
fn hash(words: impl Iterator<Item = u64>, anchor: u32) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u32(anchor);
    words.for_each(|word| hasher.write_u64(word));
    hasher.finish()
}
