//! The address sets that a packet belongs to.

use crate::address_set::SetIds;

/// The sets that a packet's addresses are members of; each list is sorted.
#[derive(Debug, Default)]
pub(crate) struct Membership<'s> {
    /// Sets of the source address.
    pub(crate) src: SetIds<'s>,
    /// Sets of the destination address.
    pub(crate) dst: SetIds<'s>,
}
