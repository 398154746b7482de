//! Numbers of sets, and the short sorted lists of them.

use std::ops::Deref;

use smallvec::SmallVec;

/// Number of a set inside one datapath; dense, reused once no rule and no member needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SetId(pub(crate) u32);

/// The sets that a packet's address is a member of, sorted: few, and found anew for each packet.
#[derive(Debug)]
pub(crate) enum SetIds<'s> {
    /// As they are kept, of the address or of one network that holds it.
    Kept(&'s [SetId]),
    /// Those of several.
    Merged(SmallVec<[SetId; 24]>),
}

impl Default for SetIds<'_> {
    fn default() -> Self {
        Self::Kept(&[])
    }
}

impl Deref for SetIds<'_> {
    type Target = [SetId];

    #[inline]
    fn deref(&self) -> &[SetId] {
        match self {
            Self::Kept(ids) => ids,
            Self::Merged(ids) => ids,
        }
    }
}

impl<'s> SetIds<'s> {
    /// Adds those that are kept of another network.
    #[inline]
    pub(super) fn add(&mut self, more: &'s [SetId]) {
        match self {
            _ if more.is_empty() => {}
            Self::Kept([]) => *self = Self::Kept(more),
            Self::Kept(ids) => {
                let mut merged = SmallVec::from_slice(ids);
                merged.extend_from_slice(more);
                *self = Self::Merged(merged);
            }
            Self::Merged(ids) => ids.extend_from_slice(more),
        }
    }

    /// Puts those that were added in order; each is in it once.
    pub(super) fn sort(&mut self) {
        if let Self::Merged(ids) = self {
            ids.sort_unstable();
            ids.dedup();
        }
    }
}

/// Sets of one address or network; sorted. Few, so that they lie where the address is found: with
/// it they fill a cache line.
pub(super) type Ids = SmallVec<[SetId; 6]>;

/// Puts `id` in.
pub(super) fn add_id(ids: &mut Ids, id: SetId) {
    if let Err(at) = ids.binary_search(&id) {
        ids.insert(at, id);
    }
}

/// Takes `id` out.
pub(super) fn remove_id(ids: &mut Ids, id: SetId) {
    if let Ok(at) = ids.binary_search(&id) {
        ids.remove(at);
    }
}
