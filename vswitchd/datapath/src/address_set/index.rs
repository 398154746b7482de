//! From an address to the sets it is a member of.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use ipnet::IpNet;

use super::trie::PrefixTrie;
use super::{Ids, SetId, SetIds, with, without};

/// Shards of the exact addresses. A change copies one of them: with 100,000 addresses 400
/// entries, about as much as a rule table of one policy.
const SHARDS: usize = 256;

type Shard = HashMap<IpAddr, Ids, FixedState>;

/// Which sets each address belongs to. Cheap to clone; versions share what did not change.
#[derive(Debug, Clone)]
pub(crate) struct AddressIndex {
    hasher: FixedState,
    /// Inner `Arc`s are shared between versions; the outer one makes a clone one increment.
    exact: Arc<Vec<Arc<Shard>>>,
    v4: PrefixTrie,
    v6: PrefixTrie,
}

impl Default for AddressIndex {
    fn default() -> Self {
        Self {
            // Members come from the control plane, not from packets: nobody outside can choose
            // addresses that collide, so a fixed seed is enough.
            hasher: FixedState::default(),
            exact: Arc::new(vec![Arc::default(); SHARDS]),
            v4: PrefixTrie::default(),
            v6: PrefixTrie::default(),
        }
    }
}

impl AddressIndex {
    /// Replaces what `ids` holds by the sets that `address` is a member of, sorted.
    pub(crate) fn lookup(&self, address: Option<IpAddr>, ids: &mut SetIds) {
        ids.clear();
        let Some(address) = address else { return };
        if let Some(exact) = self
            .exact
            .get(self.shard_of(address))
            .and_then(|s| s.get(&address))
        {
            ids.extend_from_slice(exact);
        }
        let of_hosts = ids.len();
        let (trie, bits) = self.trie_of(address);
        trie.collect(bits, ids);
        if ids.len() > of_hosts {
            ids.sort_unstable();
            ids.dedup();
        }
    }

    /// Makes `net` a member of the set.
    pub(super) fn insert(&mut self, net: IpNet, id: SetId) {
        if net.prefix_len() < net.max_prefix_len() {
            let (trie, bits, len) = self.trie_mut(net);
            return trie.insert(bits, len, id);
        }
        let ids = self.shard_mut(net.addr()).entry(net.addr()).or_default();
        if let Some(more) = with(ids, id) {
            *ids = more;
        }
    }

    /// Ends the membership of `net` in the set.
    pub(super) fn remove(&mut self, net: IpNet, id: SetId) {
        if net.prefix_len() < net.max_prefix_len() {
            let (trie, bits, len) = self.trie_mut(net);
            return trie.remove(bits, len, id);
        }
        let shard = self.shard_mut(net.addr());
        if let Some(ids) = shard.get_mut(&net.addr()) {
            *ids = without(ids, id);
            if ids.is_empty() {
                shard.remove(&net.addr());
            }
        }
    }

    fn shard_of(&self, address: IpAddr) -> usize {
        // The low bits pick the bucket inside the shard's own table.
        usize::try_from(self.hasher.hash_one(address) >> 32).unwrap_or(0) % SHARDS
    }

    fn shard_mut(&mut self, address: IpAddr) -> &mut Shard {
        let shard = self.shard_of(address);
        let shards = Arc::make_mut(&mut self.exact);
        #[expect(clippy::indexing_slicing, reason = "shard_of is below SHARDS")]
        Arc::make_mut(&mut shards[shard])
    }

    fn trie_of(&self, address: IpAddr) -> (&PrefixTrie, u128) {
        match address {
            IpAddr::V4(v4) => (&self.v4, u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => (&self.v6, v6.to_bits()),
        }
    }

    fn trie_mut(&mut self, net: IpNet) -> (&mut PrefixTrie, u128, u8) {
        let (_, bits) = self.trie_of(net.network());
        let trie = if net.addr().is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        };
        (trie, bits, net.prefix_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_one_member_copies_one_shard() {
        let mut index = AddressIndex::default();
        let host = |n: u32| IpNet::from(IpAddr::from(n.to_be_bytes()));
        (0..10_000).for_each(|n| index.insert(host(n), SetId(n % 7)));
        let published = index.clone();
        index.insert(host(123_456), SetId(1));
        index.remove(host(123_456), SetId(1));
        let pairs = index.exact.iter().zip(published.exact.iter());
        assert_eq!(pairs.filter(|(new, old)| !Arc::ptr_eq(new, old)).count(), 1);
    }
}
