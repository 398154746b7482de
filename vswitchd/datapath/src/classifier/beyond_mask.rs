//! Residual conditions of a rule, which neither its mask nor its anchor expresses: a second
//! address set, port ranges. Checked after the hash lookup.

use super::{Membership, PackedKey};
use crate::address_set::SetId;
use crate::flow::PortRange;

/// What a rule demands that neither its mask nor its place expresses. Small: it lies in the cache
/// line that a lookup reads anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BeyondMask {
    src_set: SetId,
    dst_set: SetId,
    tp_src: PortRange,
    tp_dst: PortRange,
}

/// No demand on the set. Numbers of sets are dense: there are never so many.
const ANY_SET: SetId = SetId(u32::MAX);

/// No demand on the port.
const ANY_PORT: PortRange = PortRange {
    first: 0,
    last: u16::MAX,
};

impl BeyondMask {
    /// Demands nothing.
    pub(super) const NONE: Self = Self {
        src_set: ANY_SET,
        dst_set: ANY_SET,
        tp_src: ANY_PORT,
        tp_dst: ANY_PORT,
    };

    /// Demands that the source address is in the set as well.
    pub(super) const fn with_src_set(mut self, set: SetId) -> Self {
        self.src_set = set;
        self
    }

    /// Demands that the destination address is in the set as well.
    pub(super) const fn with_dst_set(mut self, set: SetId) -> Self {
        self.dst_set = set;
        self
    }

    /// Demands that the ports are in these ranges, where there is one.
    pub(super) fn with_ports(mut self, src: Option<PortRange>, dst: Option<PortRange>) -> Self {
        self.tp_src = src.unwrap_or(ANY_PORT);
        self.tp_dst = dst.unwrap_or(ANY_PORT);
        self
    }

    /// Returns whether a key that is equal under the mask meets them.
    #[inline]
    pub(super) fn is_met(&self, key: &PackedKey, member_of: &Membership<'_>) -> bool {
        // Sets first: of many rules beside each other they are what differs.
        is_member(self.src_set, &member_of.src)
            && is_member(self.dst_set, &member_of.dst)
            && is_in(self.tp_dst, key.tp_dst())
            && is_in(self.tp_src, key.tp_src())
    }
}

fn is_in(range: PortRange, port: u16) -> bool {
    (range.first..=range.last).contains(&port)
}

fn is_member(set: SetId, sets: &[SetId]) -> bool {
    // Few: shorter than a search.
    set == ANY_SET || sets.contains(&set)
}
