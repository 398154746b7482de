//! Rank: the order in which rules of a table win.

use vswitch_api::Priority;

/// Which of two matching rules wins: the greater one. The highest priority does, among equals
/// the lowest id. One number, so that a lookup compares once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(u128);

impl Rank {
    /// Below every rule.
    pub(super) const NONE: Self = Self(0);

    /// Returns the rank of a rule.
    pub(crate) fn new(Priority(priority): Priority, id: u64) -> Self {
        Self((u128::from(priority) + 1) << 64 | u128::from(!id))
    }

    /// Returns the priority.
    pub(super) fn priority(self) -> Priority {
        let above = (self.0 >> 64).saturating_sub(1);
        Priority(u16::try_from(above).unwrap_or(u16::MAX))
    }

    /// Returns the highest rank of that priority.
    pub(super) fn ceiling(priority: Priority) -> Self {
        Self::new(priority, 0)
    }
}
