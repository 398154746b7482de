//! The rules of one table, ready for lookup.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{CounterSlot, Counts, Decision, Meter, Rule, TableId};
use crate::action::Action;
use crate::classifier::{Classifier, CompiledMatch, PreferredAnchor};

/// The rules of one table, ready for lookup.
pub(crate) type Table = Classifier<InstalledRule>;

impl Table {
    /// Returns a table without rules.
    pub(super) fn empty(table: TableId) -> Self {
        // The sender's set selects the policy's pods in egress tables, the receiver's elsewhere.
        Self::new(match table {
            TableId::EgressAdminTier
            | TableId::EgressAdminTier2
            | TableId::EgressAdminTier3
            | TableId::EgressAdminTier4
            | TableId::EgressRule
            | TableId::EgressDefault
            | TableId::EgressBaselineTier
            | TableId::EgressBaselineTier2 => PreferredAnchor::Source,
            _ => PreferredAnchor::Destination,
        })
    }
}

/// A rule as it is installed. What packets need of it comes first, and is one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct InstalledRule {
    /// The rule's actions, where a walk finds them at once.
    pub(super) actions: SmallVec<[Action; 3]>,
    pub(super) meter: Option<Arc<Meter>>,
    pub(crate) counters: CounterSlot,
    /// [`Rule::decision`].
    pub(crate) decision: Option<Decision>,
    pub(crate) rule: Arc<Rule>,
    /// `None` if no packet can match. Packets find the rule by what its table has of it.
    pub(super) matches: Option<Box<CompiledMatch>>,
    /// What rules before it have counted there.
    pub(super) counted_before: Counts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_packets_need_of_a_rule_is_one_cache_line() {
        assert!(std::mem::offset_of!(InstalledRule, rule) <= 64);
    }
}
