//! The rules of a table that share a mask and a kind of anchor.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;
use vswitch_api::Priority;

use super::anchor::{Anchor, Side};
use super::beyond_mask::BeyondMask;
use super::demands::{DEMANDED_WORDS, Demands};
use super::set_counts::SetCounts;
use super::words::{Mask, Words};
use super::{CompiledMatch, Membership, PackedKey, Rank};
use crate::address_set::SetId;
use crate::fixed_hash;

/// What makes rules share a subtable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) mask: Mask,
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
    /// Sets that rules are filed under: an address may be in many that only serve as peers.
    anchors: SetCounts,
    shards: Vec<Arc<Shard<T>>>,
    /// `None` before the first rule.
    demands: Option<Demands>,
    rules: usize,
    /// How many rules have each priority.
    priorities: BTreeMap<Priority, usize>,
}

type Shard<T> = HashTable<Bucket<T>>;

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
            anchors: self.anchors.clone(),
            shards: self.shards.clone(),
            demands: self.demands,
            rules: self.rules,
            priorities: self.priorities.clone(),
        }
    }
}

impl<T> Subtable<T> {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            anchors: SetCounts::default(),
            shards: vec![Arc::default()],
            demands: None,
            rules: 0,
            priorities: BTreeMap::new(),
        }
    }

    pub(super) const fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) const fn len(&self) -> usize {
        self.rules
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// Returns a rank that no rule exceeds.
    pub(super) fn ceiling(&self) -> Rank {
        let highest = self.priorities.last_key_value();
        highest.map_or(Rank::NONE, |(priority, _)| Rank::ceiling(*priority))
    }

    /// Returns what every rule demands.
    pub(super) fn demands(&self) -> Demands {
        self.demands.unwrap_or_default()
    }

    /// Returns the only rule, if what it demands of the key is in [`Self::demands`]; its anchor
    /// is among what it demands besides.
    pub(super) fn sole(&self) -> Option<Filed<T>> {
        if self.rules != 1 || self.shape.mask.len() > DEMANDED_WORDS {
            return None;
        }
        let bucket = self.shards.iter().flat_map(|shard| shard.iter()).next()?;
        let mut sole = bucket.rules.first()?.clone();
        let anchor = SetId(bucket.anchor);
        sole.beyond = match self.shape.side {
            Side::None => sole.beyond,
            Side::Source => sole.beyond.with_src_set(anchor),
            Side::Destination => sole.beyond.with_dst_set(anchor),
        };
        // Rules that went may have demanded less.
        self.demands()
            .0
            .iter()
            .zip(self.shape.mask.iter().rev())
            .all(|(demand, (_, mask))| demand.mask == *mask)
            .then_some(sole)
    }

    fn count(&mut self, priority: Priority, is_more: bool) {
        let count = self.priorities.entry(priority).or_default();
        if is_more {
            *count += 1;
            self.rules += 1;
        } else {
            *count -= 1;
            self.rules -= 1;
        }
        if *count == 0 {
            self.priorities.remove(&priority);
        }
    }

    pub(super) fn insert(
        &mut self,
        anchor: Anchor,
        rank: Rank,
        matches: &CompiledMatch,
        value: Arc<T>,
    ) {
        let (words, number) = (matches.value(), anchor.number());
        let hash = hash(fold_words(words.iter().copied()), number);
        self.count(rank.priority(), true);
        self.spread();
        self.anchors.add(SetId(number));
        let demands = Demands::of(&self.shape.mask, &words);
        self.demands = Some(self.demands.map_or(demands, |all| all.common(demands)));
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

    /// Doubles the shards when they have become large. They stay when rules go: who had so many
    /// rules will have them again, and an empty shard costs a pointer.
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
        let hash = hash(fold_words(words.iter().copied()), number);
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
        self.count(rank.priority(), false);
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
        member_of: &Membership<'_>,
        mut visit: impl FnMut(&'a [Filed<T>]),
    ) {
        let of_words = || fold_words(self.masked(key));
        let sets = match self.shape.side {
            Side::None => return self.probe_one(key, hash(of_words(), 0), 0, &mut visit),
            Side::Source => &member_of.src,
            Side::Destination => &member_of.dst,
        };
        let mut anchors = sets.iter().filter(|set| self.anchors.contains(**set));
        if let Some(first) = anchors.next() {
            let of_words = of_words();
            for SetId(anchor) in [first].into_iter().chain(anchors) {
                self.probe_one(key, hash(of_words, *anchor), *anchor, &mut visit);
            }
        }
    }

    /// Returns the key's words under the mask.
    #[inline]
    fn masked(&self, key: &PackedKey) -> impl Iterator<Item = u64> {
        let mask = self.shape.mask.iter();
        mask.map(|(word, mask)| key.word(*word) & mask)
    }

    #[inline]
    fn probe_one<'a>(
        &'a self,
        key: &PackedKey,
        hash: u64,
        anchor: u32,
        visit: &mut impl FnMut(&'a [Filed<T>]),
    ) {
        let shard = self.shards.get(shard_of(hash, self.shards.len()));
        let is_same = |bucket: &Bucket<T>| {
            bucket.anchor == anchor && self.masked(key).eq(bucket.words.iter().copied())
        };
        if let Some(bucket) = shard.and_then(|shard| shard.find(hash, is_same)) {
            visit(&bucket.rules);
        }
    }
}

/// The lowest and the highest bits pick the place inside a shard. The number of shards is a
/// power of two.
fn shard_of(hash: u64, shards: usize) -> usize {
    usize::try_from(hash >> 32).unwrap_or(0) & shards.saturating_sub(1)
}

/// Packets choose what is looked up, but only the control plane what is filed.
fn fold_words(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0, fixed_hash::mix)
}

fn hash(of_words: u64, anchor: u32) -> u64 {
    fixed_hash::mix(of_words, u64::from(anchor))
}
