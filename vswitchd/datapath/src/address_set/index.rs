//! Index from an address to the sets that contain it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::set_id::{Ids, SetId, SetIds, add_id, remove_id};
use super::trie::PrefixTrie;
use crate::fixed_hash;
use crate::shared_map::SharedMap;

/// An address with the sets that it is in; with the hash before it a cache line.
#[derive(Debug, Clone)]
struct Host {
    address: IpAddr,
    ids: Ids,
}

/// Which sets each address belongs to. Cheap to clone; versions share what did not change.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressIndex {
    exact: SharedMap<Host>,
    v4: PrefixTrie,
    v6: PrefixTrie,
}

impl AddressIndex {
    /// Replaces what `ids` holds by the sets that `address` is a member of.
    pub(crate) fn lookup<'s>(&'s self, address: Option<IpAddr>, ids: &mut SetIds<'s>) {
        *ids = SetIds::default();
        let Some(address) = address else { return };
        if let Some(host) = self.exact.get(hash(address), is(address)) {
            ids.add(&host.ids);
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
        let address = net.addr();
        let new = || Host {
            address,
            ids: Ids::default(),
        };
        let host = self.exact.get_or_insert(hash(address), is(address), new);
        if let Some(host) = host {
            add_id(&mut host.ids, id);
        }
    }

    /// Ends the membership of `net` in the set.
    pub(super) fn remove(&mut self, net: IpNet, id: SetId) {
        if net.prefix_len() < net.max_prefix_len() {
            let (trie, bits, len) = self.trie_mut(net);
            return trie.remove(bits, len, id);
        }
        let address = net.addr();
        let Some(host) = self.exact.get_mut(hash(address), is(address)) else {
            return;
        };
        remove_id(&mut host.ids, id);
        if host.ids.is_empty() {
            self.exact.remove(hash(address), is(address));
        }
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

fn is(address: IpAddr) -> impl Fn(&Host) -> bool {
    move |host| host.address == address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_sets_are_one_cache_line() {
        assert_eq!(SharedMap::<Host>::slot_size(), 64);
    }

    #[test]
    fn a_change_of_one_member_copies_one_shard() {
        let mut index = AddressIndex::default();
        let host = |n: u32| IpNet::from(IpAddr::from(n.to_be_bytes()));
        (0..10_000).for_each(|n| index.insert(host(n), SetId(n % 7)));
        let published = index.clone();
        index.insert(host(123_456), SetId(1));
        index.remove(host(123_456), SetId(1));
        assert_eq!(index.exact.shards_unlike(&published.exact), 1);
    }
}
