//! Index from an address to the sets that contain it.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use ipnet::IpNet;

use super::set_id::{Ids, SetId, SetIds, add_id, remove_id};
use super::trie::PrefixTrie;
use crate::fixed_hash;

/// Shards of the exact addresses. A change copies one of them: with 100,000 addresses 400
/// entries, about as much as a rule table of one policy.
const SHARDS: usize = 256;

/// An address with the sets that it is in.
type Host = (IpAddr, Ids);

type Shard = HashTable<Host>;

/// Which sets each address belongs to. Cheap to clone; versions share what did not change.
#[derive(Debug, Clone)]
pub(crate) struct AddressIndex {
    /// Inner `Arc`s are shared between versions; the outer one makes a clone one increment.
    exact: Arc<Vec<Arc<Shard>>>,
    v4: PrefixTrie,
    v6: PrefixTrie,
}

impl Default for AddressIndex {
    fn default() -> Self {
        Self {
            exact: Arc::new(vec![Arc::default(); SHARDS]),
            v4: PrefixTrie::default(),
            v6: PrefixTrie::default(),
        }
    }
}

impl AddressIndex {
    /// Replaces what `ids` holds by the sets that `address` is a member of.
    pub(crate) fn lookup<'s>(&'s self, address: Option<IpAddr>, ids: &mut SetIds<'s>) {
        *ids = SetIds::default();
        let Some(address) = address else { return };
        let hash = hash(address);
        let shard = self.exact.get(shard_of(hash));
        if let Some((_, exact)) = shard.and_then(|shard| shard.find(hash, is(address))) {
            ids.add(exact);
        }
        let (trie, bits) = self.trie_of(address);
        trie.visit(bits, |of_network| ids.add(of_network));
        ids.sort();
    }

    /// Makes `net` a member of the set.
    pub(super) fn insert(&mut self, net: IpNet, id: SetId) {
        if net.prefix_len() < net.max_prefix_len() {
            let (trie, bits, len) = self.trie_mut(net);
            return trie.insert(bits, len, id);
        }
        let (address, hash) = (net.addr(), hash(net.addr()));
        let shard = self.shard_mut(hash);
        let entry = shard.entry(hash, is(address), |(other, _)| self::hash(*other));
        let mut host = entry.or_insert_with(|| (address, Ids::default()));
        let (_, ids) = host.get_mut();
        add_id(ids, id);
    }

    /// Ends the membership of `net` in the set.
    pub(super) fn remove(&mut self, net: IpNet, id: SetId) {
        if net.prefix_len() < net.max_prefix_len() {
            let (trie, bits, len) = self.trie_mut(net);
            return trie.remove(bits, len, id);
        }
        let hash = hash(net.addr());
        let Ok(mut host) = self.shard_mut(hash).find_entry(hash, is(net.addr())) else {
            return;
        };
        let (_, ids) = host.get_mut();
        remove_id(ids, id);
        if ids.is_empty() {
            host.remove();
        }
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard {
        let shards = Arc::make_mut(&mut self.exact);
        #[expect(clippy::indexing_slicing, reason = "shard_of is below SHARDS")]
        Arc::make_mut(&mut shards[shard_of(hash)])
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

fn hash(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => fixed_hash::mix(0, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments().map(u64::from);
            let upper = a << 48 | b << 32 | c << 16 | d;
            fixed_hash::mix(fixed_hash::mix(0, upper), e << 48 | f << 32 | g << 16 | h)
        }
    }
}

/// The lowest and the highest bits pick the place inside a shard.
fn shard_of(hash: u64) -> usize {
    usize::try_from(hash >> 32).unwrap_or(0) % SHARDS
}

fn is(address: IpAddr) -> impl Fn(&Host) -> bool {
    move |(other, _)| *other == address
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
