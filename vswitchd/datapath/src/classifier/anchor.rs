//! Anchor of a rule: the address set that the rule is indexed by.

use crate::address_set::SetId;

/// The set that a rule is filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    /// It demands no set.
    None,
    /// The source address's.
    Source(SetId),
    /// The destination address's.
    Destination(SetId),
}

/// The side of an anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    None,
    Source,
    Destination,
}

impl Anchor {
    pub(super) fn choose(
        src_set: Option<SetId>,
        dst_set: Option<SetId>,
        prefer: PreferredAnchor,
    ) -> Self {
        let src = src_set.map(Self::Source);
        let dst = dst_set.map(Self::Destination);
        match prefer {
            PreferredAnchor::Source => src.or(dst),
            PreferredAnchor::Destination => dst.or(src),
        }
        .unwrap_or(Self::None)
    }

    pub(super) const fn side(self) -> Side {
        match self {
            Self::None => Side::None,
            Self::Source(_) => Side::Source,
            Self::Destination(_) => Side::Destination,
        }
    }

    pub(super) const fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Source(SetId(id)) | Self::Destination(SetId(id)) => id,
        }
    }
}

/// Side whose set a rule with two sets is filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreferredAnchor {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
}
