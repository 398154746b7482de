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
//! **Publication.** A classifier is immutable: readers share it, the writer builds another.
//! Translation calls it; it knows nothing of actions (`T` is the caller's).
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

/// The rules of one table.
#[derive(Debug)]
pub(crate) struct Classifier<T> {
    /// Best rank first.
    subtables: Vec<Subtable<T>>,
    src_anchors: SetBits,
    dst_anchors: SetBits,
    tells_new_from_established: bool,
}

impl<T> Classifier<T> {
    /// Files the rules.
    pub(crate) fn build(
        prefer: PreferredAnchor,
        rules: impl IntoIterator<Item = (Rank, CompiledMatch, Arc<T>)>,
    ) -> Self {
        let mut subtables = std::collections::HashMap::<Shape, Subtable<T>>::new();
        let (mut src_anchors, mut dst_anchors) = (SetBits::default(), SetBits::default());
        let mut tells_new_from_established = false;
        for (rank, matches, value) in rules {
            let anchor = Anchor::choose(&matches, prefer);
            match anchor {
                Anchor::None => {}
                Anchor::Source(set) => src_anchors.set(set),
                Anchor::Destination(set) => dst_anchors.set(set),
            }
            tells_new_from_established |= matches.tells_new_from_established();
            let shape = Shape {
                mask: matches.mask(),
                side: anchor.side(),
            };
            let subtable = subtables.entry(shape).or_insert_with_key(Subtable::new);
            subtable.add(
                anchor,
                Entry {
                    rank,
                    matches,
                    value,
                },
            );
        }
        let mut subtables: Vec<_> = subtables.into_values().collect();
        subtables.iter_mut().for_each(Subtable::finish);
        subtables.sort_by_key(|subtable| Reverse(subtable.best()));
        Self {
            subtables,
            src_anchors,
            dst_anchors,
            tells_new_from_established,
        }
    }

    /// Returns whether any rule tells a connection's first packet from its later ones.
    pub(crate) const fn tells_new_from_established(&self) -> bool {
        self.tells_new_from_established
    }

    /// Returns the winning rule.
    pub(crate) fn lookup(
        &self,
        key: &PackedKey,
        member_of: &Membership,
        scratch: &mut LookupScratch,
    ) -> Option<&Arc<T>> {
        self.filter_anchors(member_of, scratch);
        let mut best: Option<&Entry<T>> = None;
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

/// A set of set numbers, one bit each: they are dense.
#[derive(Debug, Default)]
struct SetBits(Vec<u64>);

impl SetBits {
    fn set(&mut self, id: SetId) {
        let (word, bit) = Self::place(id);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn filter(&self, ids: &[SetId], into: &mut Vec<SetId>) {
        into.clear();
        if !self.0.is_empty() {
            into.extend(ids.iter().filter(|id| self.contains(**id)));
        }
    }

    fn contains(&self, id: SetId) -> bool {
        let (word, bit) = Self::place(id);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    const fn place(SetId(id): SetId) -> (usize, u64) {
        ((id / 64) as usize, 1 << (id % 64))
    }
}
