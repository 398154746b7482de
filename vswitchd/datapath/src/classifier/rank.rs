//! Rank: the order in which rules of a table win.

use vswitch_api::Priority;

/// Which of two matching rules wins: the greater one. The highest priority does, among equals
/// the lowest id. Two numbers instead of a wide one, so that a rule as lookups find it fits into a
/// cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Priority and 1.
    above: u32,
    /// The lower of two ids wins.
    below: u64,
}

impl Rank {
    /// Below every rule.
    pub(super) const NONE: Self = Self { above: 0, below: 0 };

    /// Returns the rank of a rule.
    pub(crate) fn new(Priority(priority): Priority, id: u64) -> Self {
        Self {
            above: u32::from(priority) + 1,
            below: !id,
        }
    }

    /// Returns the priority.
    pub(super) fn priority(self) -> Priority {
        Priority(u16::try_from(self.above.saturating_sub(1)).unwrap_or(u16::MAX))
    }

    /// Returns whether it wins over every rule under the ceiling.
    #[inline]
    pub(super) const fn is_above(self, ceiling: Ceiling) -> bool {
        self.above > ceiling.0
    }
}

/// The highest priority of some rules; the default is that of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Ceiling(u32);

impl Ceiling {
    /// Returns the ceiling of rules up to this priority.
    pub(super) fn of(Priority(priority): Priority) -> Self {
        Self(u32::from(priority) + 1)
    }
}
