//! Numbers of sets, and the short sorted lists of them.

/// Number of a set inside one datapath; dense, reused once no rule and no member needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SetId(pub(crate) u32);

/// The sets that a packet's address is a member of: few, and found anew for each packet.
pub(crate) type SetIds = smallvec::SmallVec<[SetId; 24]>;

/// Sets of one address or network; sorted. Few, so that they lie where the address is found.
pub(super) type Ids = smallvec::SmallVec<[SetId; 8]>;

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
