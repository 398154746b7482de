//! Which rule of a table wins for a packet: priority-ordered tuple space search.
//!
//! **What.** A [`Classifier`] holds the rules of one table. Rules that look at the same bits
//! of the key (same mask) share a *subtable*, a hash table of masked keys, so a lookup costs
//! one probe for each distinct mask, whatever the number of rules. Subtables are ordered by
//! their best rule; the search ends when no later one can win.
//!
//! **Address sets.** A rule may demand that an address is a member of a set. Such a rule is
//! filed under (masked key, *anchor* set), so that a lookup probes only the sets the packet's
//! address belongs to and never walks the rules of other pods. The anchor is the side that
//! selects the fewest rules: the sender in egress tables, the receiver in ingress tables.
//! A second set and port ranges are checked on the few rules that a probe finds.
//!
//! **Publication.** Readers share a version that does not change; the writer changes a clone,
//! which copies only the shards that the change touches. Translation calls it; it knows
//! nothing of actions (`T` is the caller's).
//!
//! Invariant: [`Classifier::lookup`] returns what a scan of all rules, highest priority
//! first and lowest id among equals, would return.

mod compiled;
mod packed;
mod subtable;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::Arc;

use vswitch_api::Priority;

use crate::address_set::SetId;
use subtable::{Anchor, Shape, Subtable};

pub(crate) use compiled::CompiledMatch;
pub(crate) use packed::PackedKey;

/// Order of rules: the greater one wins.
pub(crate) type Rank = (Priority, Reverse<u64>);

/// Side whose set a rule with two sets is filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreferredAnchor {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
}

/// The sets that a packet's addresses are members of; each list is sorted.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    /// Sets of the source address.
    pub(crate) src: Vec<SetId>,
    /// Sets of the destination address.
    pub(crate) dst: Vec<SetId>,
}

/// Room for a lookup to work in, reused from lookup to lookup.
#[derive(Debug, Default)]
pub(crate) struct LookupScratch {
    src_anchors: Vec<SetId>,
    dst_anchors: Vec<SetId>,
}

/// A rule as it is filed.
#[derive(Debug)]
struct Entry<T> {
    rank: Rank,
    matches: CompiledMatch,
    value: Arc<T>,
}

/// The rules of one table. A clone shares all of them; a change copies what it touches.
#[derive(Debug)]
pub(crate) struct Classifier<T> {
    prefer: PreferredAnchor,
    /// Best first.
    subtables: Vec<Arc<Subtable<T>>>,
    src_anchors: SetCounts,
    dst_anchors: SetCounts,
    /// Rules that tell a connection's first packet from its later ones.
    state_dependent: usize,
}

impl<T> Clone for Classifier<T> {
    fn clone(&self) -> Self {
        Self {
            prefer: self.prefer,
            subtables: self.subtables.clone(),
            src_anchors: self.src_anchors.clone(),
            dst_anchors: self.dst_anchors.clone(),
            state_dependent: self.state_dependent,
        }
    }
}

impl<T> Classifier<T> {
    /// Returns a table without rules.
    pub(crate) fn new(prefer: PreferredAnchor) -> Self {
        Self {
            prefer,
            subtables: Vec::new(),
            src_anchors: SetCounts::default(),
            dst_anchors: SetCounts::default(),
            state_dependent: 0,
        }
    }

    /// Files a rule; its rank must be nobody else's.
    pub(crate) fn insert(&mut self, rank: Rank, matches: CompiledMatch, value: Arc<T>) {
        let anchor = Anchor::choose(&matches, self.prefer);
        self.count_anchor(anchor, SetCounts::add);
        self.state_dependent += usize::from(matches.tells_new_from_established());
        let shape = Shape::of(&matches, anchor);
        let found = self.subtables.iter().position(|s| *s.shape() == shape);
        let at = found.unwrap_or_else(|| {
            self.subtables.push(Arc::new(Subtable::new(shape)));
            self.subtables.len() - 1
        });
        let entry = Arc::new(Entry {
            rank,
            matches,
            value,
        });
        if let Some(subtable) = self.subtables.get_mut(at) {
            Arc::make_mut(subtable).insert(anchor, entry);
        }
        self.sort();
    }

    /// Removes the rule of that rank with that match, if it is there.
    pub(crate) fn remove(&mut self, rank: Rank, matches: &CompiledMatch) {
        let anchor = Anchor::choose(matches, self.prefer);
        let shape = Shape::of(matches, anchor);
        let Some(at) = self.subtables.iter().position(|s| *s.shape() == shape) else {
            return;
        };
        let Some(subtable) = self.subtables.get_mut(at).map(Arc::make_mut) else {
            return;
        };
        let Some(entry) = subtable.remove(anchor, rank, matches) else {
            return;
        };
        if subtable.is_empty() {
            self.subtables.remove(at);
        }
        self.count_anchor(anchor, SetCounts::remove);
        self.state_dependent -= usize::from(entry.matches.tells_new_from_established());
        self.sort();
    }

    fn count_anchor(&mut self, anchor: Anchor, count: impl FnOnce(&mut SetCounts, SetId)) {
        match anchor {
            Anchor::None => {}
            Anchor::Source(set) => count(&mut self.src_anchors, set),
            Anchor::Destination(set) => count(&mut self.dst_anchors, set),
        }
    }

    /// Few subtables, nearly always in order already.
    fn sort(&mut self) {
        self.subtables
            .sort_by_key(|subtable| Reverse(subtable.best()));
    }

    /// Returns whether any rule tells a connection's first packet from its later ones.
    pub(crate) const fn tells_new_from_established(&self) -> bool {
        self.state_dependent > 0
    }

    /// Returns the winning rule.
    pub(crate) fn lookup(
        &self,
        key: &PackedKey,
        member_of: &Membership,
        scratch: &mut LookupScratch,
    ) -> Option<&Arc<T>> {
        self.filter_anchors(member_of, scratch);
        let mut best: Option<&Arc<Entry<T>>> = None;
        for subtable in &self.subtables {
            if best.is_some_and(|best| best.rank > subtable.best()) {
                break;
            }
            subtable.probe(key, scratch, |bucket| {
                let floor = best.map(|best| best.rank);
                let candidate = bucket
                    .iter()
                    .take_while(|entry| Some(entry.rank) > floor)
                    .find(|entry| entry.matches.is_met_beyond_mask(key, member_of));
                best = candidate.or(best);
            });
        }
        best.map(|entry| &entry.value)
    }

    /// Returns every rule that matches, best first. For explanations, not for packets.
    pub(crate) fn lookup_all(
        &self,
        key: &PackedKey,
        member_of: &Membership,
        scratch: &mut LookupScratch,
    ) -> Vec<Arc<T>> {
        self.filter_anchors(member_of, scratch);
        let mut found = Vec::new();
        for subtable in &self.subtables {
            subtable.probe(key, scratch, |bucket| {
                found.extend(
                    bucket
                        .iter()
                        .filter(|entry| entry.matches.is_met_beyond_mask(key, member_of)),
                );
            });
        }
        found.sort_by_key(|entry| Reverse(entry.rank));
        found
            .into_iter()
            .map(|entry| Arc::clone(&entry.value))
            .collect()
    }

    /// An address may be in many sets that only serve as peers: they anchor nothing here.
    fn filter_anchors(&self, member_of: &Membership, scratch: &mut LookupScratch) {
        self.src_anchors
            .filter(&member_of.src, &mut scratch.src_anchors);
        self.dst_anchors
            .filter(&member_of.dst, &mut scratch.dst_anchors);
    }
}

/// How many rules are filed under each set; set numbers are dense.
#[derive(Debug, Clone, Default)]
struct SetCounts {
    /// One bit a set, for lookups.
    bits: Arc<Vec<u64>>,
    /// In pages, so that a change copies one of them.
    counts: Vec<Arc<[u32; PAGE]>>,
}

const PAGE: usize = 256;

impl SetCounts {
    fn add(&mut self, id: SetId) {
        if let Some(count) = self.count_mut(id) {
            *count += 1;
            if *count == 1 {
                self.flip(id);
            }
        }
    }

    fn remove(&mut self, id: SetId) {
        if let Some(count) = self.count_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.flip(id);
            }
        }
    }

    fn count_mut(&mut self, SetId(id): SetId) -> Option<&mut u32> {
        let id = id as usize;
        let page = id / PAGE;
        while self.counts.len() <= page {
            self.counts.push(Arc::new([0; PAGE]));
        }
        Arc::make_mut(self.counts.get_mut(page)?).get_mut(id % PAGE)
    }

    fn flip(&mut self, id: SetId) {
        let (word, bit) = Self::place(id);
        let bits = Arc::make_mut(&mut self.bits);
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        if let Some(word) = bits.get_mut(word) {
            *word ^= bit;
        }
    }

    fn filter(&self, ids: &[SetId], into: &mut Vec<SetId>) {
        into.clear();
        if !self.bits.is_empty() {
            into.extend(ids.iter().filter(|id| self.contains(**id)));
        }
    }

    fn contains(&self, id: SetId) -> bool {
        let (word, bit) = Self::place(id);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    const fn place(SetId(id): SetId) -> (usize, u64) {
        ((id / 64) as usize, 1 << (id % 64))
    }
}
