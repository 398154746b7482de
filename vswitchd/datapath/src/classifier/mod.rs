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
mod set_counts;
mod subtable;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::Arc;

use vswitch_api::Priority;

use crate::address_set::SetIds;
use subtable::{Anchor, Filed, Shape, Subtable};

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
    pub(crate) src: SetIds,
    /// Sets of the destination address.
    pub(crate) dst: SetIds,
}

/// The rules of one table. A clone shares all of them; a change copies what it touches.
#[derive(Debug)]
pub(crate) struct Classifier<T> {
    prefer: PreferredAnchor,
    /// Best first.
    subtables: Vec<Arc<Subtable<T>>>,
    /// Rules that tell a connection's first packet from its later ones.
    state_dependent: usize,
}

impl<T> Clone for Classifier<T> {
    fn clone(&self) -> Self {
        Self {
            prefer: self.prefer,
            subtables: self.subtables.clone(),
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
            state_dependent: 0,
        }
    }

    /// Files a rule; its rank must be nobody else's.
    pub(crate) fn insert(&mut self, rank: Rank, matches: &CompiledMatch, value: Arc<T>) {
        let anchor = Anchor::choose(matches, self.prefer);
        self.state_dependent += usize::from(matches.tells_new_from_established());
        let shape = Shape::of(matches, anchor);
        let found = self.subtables.iter().position(|s| *s.shape() == shape);
        let at = found.unwrap_or_else(|| {
            self.subtables.push(Arc::new(Subtable::new(shape)));
            self.subtables.len() - 1
        });
        if let Some(subtable) = self.subtables.get_mut(at) {
            Arc::make_mut(subtable).insert(anchor, rank, matches, value);
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
        if !subtable.remove(anchor, rank, matches) {
            return;
        }
        if subtable.is_empty() {
            self.subtables.remove(at);
        }
        self.state_dependent -= usize::from(matches.tells_new_from_established());
        self.sort();
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
    pub(crate) fn lookup(&self, key: &PackedKey, member_of: &Membership) -> Option<&Arc<T>> {
        let mut best: Option<&Filed<T>> = None;
        for subtable in &self.subtables {
            if best.is_some_and(|best| best.rank > subtable.best()) {
                break;
            }
            subtable.probe(key, member_of, |bucket| {
                let floor = best.map(|best| best.rank);
                let candidate = bucket
                    .iter()
                    .take_while(|filed| Some(filed.rank) > floor)
                    .find(|filed| filed.beyond.is_met(key, member_of));
                best = candidate.or(best);
            });
        }
        best.map(|filed| &filed.value)
    }

    /// Returns every rule that matches, best first. For explanations, not for packets.
    pub(crate) fn lookup_all(&self, key: &PackedKey, member_of: &Membership) -> Vec<Arc<T>> {
        let mut found = Vec::new();
        for subtable in &self.subtables {
            subtable.probe(key, member_of, |bucket| {
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
