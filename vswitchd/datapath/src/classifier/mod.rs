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
mod membership;
mod packed;
mod rank;
mod set_counts;
mod subtable;
#[cfg(test)]
mod tests;
mod tuple_space;
mod words;

pub(crate) use anchor::PreferredAnchor;
pub(crate) use compiled::CompiledMatch;
pub(crate) use membership::Membership;
pub(crate) use packed::PackedKey;
pub(crate) use rank::Rank;
pub(crate) use tuple_space::Classifier;
