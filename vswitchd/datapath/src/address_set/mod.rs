//! Address sets: named sets of networks, and the lookup of the sets that contain an address.
//!
//! Rules name their peers by set, so the question is asked once for each address of a packet
//! that is translated, whatever the number of rules. [`AddressIndex`] answers it: exact
//! addresses in a hash map, networks in a trie. It is an immutable part of a published
//! snapshot; cloning it and changing one member copies one shard or one trie path, not all.
//! [`AddressSets`] is the writer's side: names, members by set, and the index to publish.
//!
//! Invariant: the index holds exactly the members that [`AddressSets`] lists.

mod index;
mod set_id;
mod sets;
mod trie;
mod update;

pub(crate) use index::AddressIndex;
pub(crate) use set_id::{SetId, SetIds};
pub(crate) use sets::AddressSets;
pub use update::SetUpdate;
