//! Lanes: for each subtable, one or two cache lines that show whether a packet has to be looked
//! up in it.

use std::sync::Arc;

use super::PackedKey;
use super::beyond_mask::BeyondMask;
use super::demands::Demands;
use super::kind::Kind;
use super::rank::Ceiling;
use super::subtable::{Filed, Subtable};

/// A subtable as lookups pass it by. Lanes lie side by side: most are turned down by what all
/// of their rules demand, or hold a single rule, and the subtable itself is not touched.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Lane<T> {
    /// What every rule demands: a key that lacks it need not be looked up.
    demands: Demands,
    /// No rule has a higher priority.
    ceiling: Ceiling,
    /// The only rule, if it demands nothing but `demands` and what stands beside its mask.
    sole: Option<Filed<T>>,
    subtable: Arc<Subtable<T>>,
}

impl<T> Clone for Lane<T> {
    fn clone(&self) -> Self {
        Self {
            ceiling: self.ceiling,
            demands: self.demands,
            sole: self.sole.clone(),
            subtable: Arc::clone(&self.subtable),
        }
    }
}

impl<T> Lane<T> {
    pub(super) fn new(subtable: Arc<Subtable<T>>) -> Self {
        Self {
            ceiling: subtable.ceiling(),
            demands: subtable.demands(),
            sole: subtable.sole(),
            subtable,
        }
    }

    pub(super) const fn ceiling(&self) -> Ceiling {
        self.ceiling
    }

    pub(super) fn subtable(&self) -> &Subtable<T> {
        &self.subtable
    }

    pub(super) fn into_subtable(self) -> Arc<Subtable<T>> {
        self.subtable
    }

    /// Returns whether a packet of that kind can match any of the rules.
    pub(super) fn is_for(&self, kind: Kind) -> bool {
        self.demands.admit_kind(kind)
    }

    /// Returns whether the packet has all bits that every rule demands.
    #[inline]
    pub(super) fn may_match(&self, key: &PackedKey) -> bool {
        self.demands.are_met(key)
    }

    /// Returns the only rule, if it demands nothing but that and what stands beside its mask.
    #[inline]
    pub(super) const fn sole(&self) -> Option<&Filed<T>> {
        self.sole.as_ref()
    }

    /// Returns the only rule, if every packet meets it.
    pub(super) fn unconditional(&self) -> Option<&Filed<T>> {
        let is_met = |sole: &&Filed<T>| {
            self.subtable.shape().mask.is_empty() && sole.beyond == BeyondMask::NONE
        };
        self.sole.as_ref().filter(is_met)
    }
}
