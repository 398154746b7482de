//! Residual conditions of a rule, which neither its mask nor its anchor expresses: a second
//! address set, port ranges. Checked after the hash lookup.

use super::{Membership, PackedKey};
use crate::address_set::SetId;
use crate::flow::PortRange;

/// What a rule demands that neither its mask nor its place expresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct BeyondMask {
    /// There is any demand at all.
    pub(super) is_any: bool,
    pub(super) src_set: Option<SetId>,
    pub(super) dst_set: Option<SetId>,
    pub(super) tp_src: Option<PortRange>,
    pub(super) tp_dst: Option<PortRange>,
}

impl BeyondMask {
    /// Demands that the source address is in the set as well.
    pub(super) const fn with_src_set(mut self, set: SetId) -> Self {
        self.src_set = Some(set);
        self.is_any = true;
        self
    }

    /// Demands that the destination address is in the set as well.
    pub(super) const fn with_dst_set(mut self, set: SetId) -> Self {
        self.dst_set = Some(set);
        self.is_any = true;
        self
    }

    /// Returns whether a key that is equal under the mask meets them.
    #[inline]
    pub(super) fn is_met(&self, key: &PackedKey, member_of: &Membership<'_>) -> bool {
        !self.is_any || self.are_all_met(key, member_of)
    }

    #[inline]
    fn are_all_met(&self, key: &PackedKey, member_of: &Membership<'_>) -> bool {
        // Sets first: of many rules beside each other they are what differs.
        is_member(self.src_set, &member_of.src)
            && is_member(self.dst_set, &member_of.dst)
            && is_in(self.tp_dst, key.tp_dst())
            && is_in(self.tp_src, key.tp_src())
    }
}

fn is_in(range: Option<PortRange>, port: u16) -> bool {
    range.is_none_or(|range| (range.first..=range.last).contains(&port))
}

fn is_member(set: Option<SetId>, sets: &[SetId]) -> bool {
    // Few: shorter than a search.
    set.is_none_or(|set| sets.contains(&set))
}
