//! Address sets: which sets is this address a member of?
//!
//! Rules name their peers by set, so the question is asked once for each address of a packet
//! that is translated, whatever the number of rules. [`AddressIndex`] answers it: exact
//! addresses in hash shards, networks in a trie. It is an immutable part of a published
//! snapshot; cloning it and changing one member copies one shard or one trie path, not all.
//! [`AddressSets`] is the writer's side: names, members by set, and the index to publish.
//!
//! Invariant: the index holds exactly the members that [`AddressSets`] lists.

mod index;
mod sets;
mod trie;

pub(crate) use index::AddressIndex;
pub(crate) use sets::AddressSets;

/// Number of a set inside one datapath; dense, reused once no rule and no member needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SetId(pub(crate) u32);

/// The sets that a packet's address is a member of: few, and found anew for each packet.
pub(crate) type SetIds = smallvec::SmallVec<[SetId; 24]>;

/// Sets of one address or network; sorted. Few, so that they lie where the address is found.
type Ids = smallvec::SmallVec<[SetId; 8]>;

/// Puts `id` in.
fn add_id(ids: &mut Ids, id: SetId) {
    if let Err(at) = ids.binary_search(&id) {
        ids.insert(at, id);
    }
}

/// Takes `id` out.
fn remove_id(ids: &mut Ids, id: SetId) {
    if let Ok(at) = ids.binary_search(&id) {
        ids.remove(at);
    }
}
