//! Which rule of a table wins for a packet: priority-ordered tuple space search.
//!
//! **What.** A [`Classifier`] holds the rules of one table. Rules that look at the same bits
//! of the key (same mask) share a *subtable*, a hash table of masked keys, so a lookup costs
//! one probe for each distinct mask, whatever the number of rules. Subtables are ordered by
//! their best rule; the search ends when no later one can win. A *lane* for each holds what
//! tells, in one or two cache lines, whether the subtable is worth a probe, and only the lanes
//! for the packet's *kind* (EtherType, protocol) are looked at.
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

mod anchor;
mod beyond_mask;
mod compiled;
mod demands;
mod kind;
mod lane;
mod packed;
mod rank;
mod set_counts;
mod subtable;
#[cfg(test)]
mod tests;
mod words;

use std::cmp::Reverse;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::address_set::SetIds;
use kind::Kind;
use lane::Lane;
use subtable::{Filed, Shape, Subtable};

pub(crate) use compiled::CompiledMatch;
pub(crate) use packed::PackedKey;
pub(crate) use rank::Rank;

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
    pub(crate) src: SetIds,
    /// Sets of the destination address.
    pub(crate) dst: SetIds,
}

/// The rules of one table. A clone shares all of them; a change copies what it touches.
#[derive(Debug)]
pub(crate) struct Classifier<T> {
    prefer: PreferredAnchor,
    /// Best first.
    lanes: Vec<Lane<T>>,
    /// Which lanes are for packets of each kind, best first.
    by_kind: [SmallVec<[u32; 8]>; Kind::COUNT],
    /// Rules that tell a connection's first packet from its later ones.
    state_dependent: usize,
}

impl<T> Clone for Classifier<T> {
    fn clone(&self) -> Self {
        Self {
            prefer: self.prefer,
            lanes: self.lanes.clone(),
            by_kind: self.by_kind.clone(),
            state_dependent: self.state_dependent,
        }
    }
}

impl<T> Classifier<T> {
    /// Returns a table without rules.
    pub(crate) fn new(prefer: PreferredAnchor) -> Self {
        Self {
            prefer,
            lanes: Vec::new(),
            by_kind: Default::default(),
            state_dependent: 0,
        }
    }

    /// Files a rule; its rank must be nobody else's.
    pub(crate) fn insert(&mut self, rank: Rank, matches: &CompiledMatch, value: Arc<T>) {
        let anchor = matches.anchor(self.prefer);
        self.state_dependent += usize::from(matches.tells_new_from_established());
        let mut subtable = self.take(&Shape::of(matches, anchor));
        Arc::make_mut(&mut subtable).insert(anchor, rank, matches, value);
        self.put(subtable);
    }

    /// Removes the rule of that rank with that match, if it is there.
    pub(crate) fn remove(&mut self, rank: Rank, matches: &CompiledMatch) {
        let anchor = matches.anchor(self.prefer);
        let mut subtable = self.take(&Shape::of(matches, anchor));
        let was_there = Arc::make_mut(&mut subtable).remove(anchor, rank, matches);
        self.state_dependent -= usize::from(was_there && matches.tells_new_from_established());
        self.put(subtable);
    }

    /// Takes out the rules of a shape, to be changed and [put](Self::put) back.
    fn take(&mut self, shape: &Shape) -> Arc<Subtable<T>> {
        let is_it = |lane: &Lane<T>| lane.subtable().shape() == shape;
        match self.lanes.iter().position(is_it) {
            Some(at) => self.lanes.remove(at).into_subtable(),
            None => Arc::new(Subtable::new(shape.clone())),
        }
    }

    fn put(&mut self, subtable: Arc<Subtable<T>>) {
        if !subtable.is_empty() {
            let lane = Lane::new(subtable);
            let is_before = |other: &Lane<T>| other.ceiling() >= lane.ceiling();
            let at = self.lanes.partition_point(is_before);
            self.lanes.insert(at, lane);
        }
        for (kind, lanes) in Kind::all().zip(&mut self.by_kind) {
            let numbered = (0..).zip(&self.lanes);
            let is_for = |(number, lane): (u32, &Lane<T>)| lane.is_for(kind).then_some(number);
            lanes.clear();
            lanes.extend(numbered.filter_map(is_for));
        }
    }

    /// Returns the lanes whose rules the packet may match.
    #[inline]
    fn lanes_for(&self, key: &PackedKey) -> impl Iterator<Item = &Lane<T>> {
        let numbers = self.by_kind.get(key.kind().index());
        let numbers = numbers.map_or(&[][..], SmallVec::as_slice);
        numbers
            .iter()
            .filter_map(|number| self.lanes.get(*number as usize))
    }

    /// Returns whether any rule tells a connection's first packet from its later ones.
    pub(crate) const fn tells_new_from_established(&self) -> bool {
        self.state_dependent > 0
    }

    /// Returns the winning rule.
    pub(crate) fn lookup(&self, key: &PackedKey, member_of: &Membership) -> Option<&Arc<T>> {
        let mut best: Option<&Filed<T>> = None;
        let mut floor = Rank::NONE;
        for lane in self.lanes_for(key) {
            if floor > lane.ceiling() {
                break;
            }
            lane.probe(key, member_of, |bucket| {
                let mut better = bucket.iter().take_while(|filed| filed.rank > floor);
                if let Some(filed) = better.find(|filed| filed.beyond.is_met(key, member_of)) {
                    (best, floor) = (Some(filed), filed.rank);
                }
            });
        }
        best.map(|filed| &filed.value)
    }

    /// Returns every rule that matches, best first. For explanations, not for packets.
    pub(crate) fn lookup_all(&self, key: &PackedKey, member_of: &Membership) -> Vec<Arc<T>> {
        let mut found = Vec::new();
        for lane in self.lanes_for(key) {
            lane.probe(key, member_of, |bucket| {
                let matching = bucket
                    .iter()
                    .filter(|filed| filed.beyond.is_met(key, member_of));
                found.extend(matching);
            });
        }
        found.sort_by_key(|filed| Reverse(filed.rank));
        found
            .into_iter()
            .map(|filed| Arc::clone(&filed.value))
            .collect()
    }
}
