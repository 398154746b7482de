//! Numbers that the compiler gives out.

/// Number of a policy inside one compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PolicyId(pub(super) usize);

/// Number of a roster inside one compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RosterId(pub(super) usize);
