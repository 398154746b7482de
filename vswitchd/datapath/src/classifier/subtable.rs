//! The rules of a table that share a mask and a kind of anchor.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;
use vswitch_api::Priority;

use super::anchor::{Anchor, Side};
use super::beyond_mask::BeyondMask;
use super::demands::{DEMANDED_WORDS, Demands};
use super::rank::Ceiling;
use super::set_counts::SetCounts;
use super::words::{Mask, Words};
use super::{CompiledMatch, Membership, PackedKey, Rank};
use crate::address_set::SetId;
use crate::fixed_hash;
use crate::shared_map::SharedMap;

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

/// Rules of one shape, by masked key and anchor.
#[derive(Debug)]
pub(super) struct Subtable<T> {
    shape: Shape,
    /// Sets that rules are filed under: an address may be in many that only serve as peers.
    anchors: SetCounts,
    buckets: SharedMap<Bucket<T>>,
    /// `None` before the first rule.
    demands: Option<Demands>,
    rules: usize,
    /// How many rules have each priority.
    priorities: BTreeMap<Priority, usize>,
}

/// Rules with one masked key and anchor, best first. What a lookup compares comes first, up to what
/// the best rule demands: with the hash before it, it is one cache line.
#[derive(Debug)]
#[repr(C)]
struct Bucket<T> {
    anchor: u32,
    words: Words,
    rules: SmallVec<[Filed<T>; 1]>,
}

/// A rule where a lookup finds it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Filed<T> {
    pub(super) beyond: BeyondMask,
    pub(super) rank: Rank,
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
            buckets: self.buckets.clone(),
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
            buckets: SharedMap::default(),
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

    /// Returns the highest priority of its rules.
    pub(super) fn ceiling(&self) -> Ceiling {
        let highest = self.priorities.last_key_value();
        highest.map_or(Ceiling::default(), |(priority, _)| Ceiling::of(*priority))
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
        let bucket = self.buckets.iter().next()?;
        let mut sole = bucket.rules.first()?.clone();
        let anchor = SetId(bucket.anchor);
        sole.beyond = match self.shape.side {
            Side::None => sole.beyond,
            Side::Source => sole.beyond.with_src_set(anchor),
            Side::Destination => sole.beyond.with_dst_set(anchor),
        };
        // Rules that went may have demanded less.
        self.demands()
            .masks()
            .iter()
            .zip(self.shape.mask.iter().rev())
            .all(|(demanded, (_, mask))| demanded == mask)
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
        self.anchors.add(SetId(number));
        let demands = Demands::of(&self.shape.mask, &words);
        self.demands = Some(self.demands.map_or(demands, |all| all.common(demands)));
        let filed = Filed {
            rank,
            beyond: matches.beyond_mask(anchor),
            value,
        };
        let bucket = self.buckets.get_or_insert(
            hash,
            |bucket| bucket.anchor == number && bucket.words == words,
            || Bucket {
                anchor: number,
                words: words.clone(),
                rules: SmallVec::new(),
            },
        );
        if let Some(bucket) = bucket {
            let at = bucket.rules.partition_point(|other| other.rank > rank);
            bucket.rules.insert(at, filed);
        }
    }

    /// Removes the rule of that rank; returns whether it was there.
    pub(super) fn remove(&mut self, anchor: Anchor, rank: Rank, matches: &CompiledMatch) -> bool {
        let (words, number) = (matches.value(), anchor.number());
        let hash = hash(fold_words(words.iter().copied()), number);
        let is_same = |bucket: &Bucket<T>| bucket.anchor == number && bucket.words == words;
        let Some(bucket) = self.buckets.get_mut(hash, is_same) else {
            return false;
        };
        let Some(at) = bucket.rules.iter().position(|filed| filed.rank == rank) else {
            return false;
        };
        bucket.rules.remove(at);
        if bucket.rules.is_empty() {
            self.buckets.remove(hash, is_same);
        }
        self.anchors.remove(SetId(number));
        self.count(rank.priority(), false);
        true
    }

    /// Returns how many shards are not shared with another version.
    #[cfg(test)]
    pub(super) fn shards_unlike(&self, other: &Self) -> usize {
        self.buckets.shards_unlike(&other.buckets)
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
        let is_same = |bucket: &Bucket<T>| {
            bucket.anchor == anchor && self.masked(key).eq(bucket.words.iter().copied())
        };
        if let Some(bucket) = self.buckets.get(hash, is_same) {
            visit(&bucket.rules);
        }
    }
}

/// Packets choose what is looked up, but only the control plane what is filed.
fn fold_words(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0, fixed_hash::mix)
}

fn hash(of_words: u64, anchor: u32) -> u64 {
    fixed_hash::mix(of_words, u64::from(anchor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lookup_compares_is_one_cache_line() {
        let filed = Filed {
            beyond: BeyondMask::NONE,
            rank: Rank::NONE,
            value: Arc::new(()),
        };
        let bucket = Bucket {
            anchor: 1,
            words: Words::new(),
            rules: SmallVec::from_iter([filed]),
        };
        let best = &raw const bucket.rules[0].beyond;
        let end = best.addr() + size_of::<BeyondMask>() - (&raw const bucket).addr();
        assert!(size_of::<u64>() + end <= 64, "{end}");
        assert_eq!(SharedMap::<Bucket<()>>::slot_size(), 128);
    }
}
