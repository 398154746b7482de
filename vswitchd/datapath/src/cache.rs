//! FlowCache: exact-match cache from packet headers to the result of the table walk.
//!
//! One for each worker, so no locks. Bounded: a full set of slots gives up its stalest entry.
//! An entry holds for one generation of the rules (epoch) and as long as its connection is in
//! the table; who gets one has to check the latter. Called by the engine only.
//!
//! Invariant: the key holds everything that a rule can match on in a cacheable packet, so a
//! hit does exactly what a translation would.

use std::cell::Cell;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use vswitch_api::{Epoch, MacAddr, PortNo};

use crate::conntrack::{Connection, Direction};
use crate::flow::{FlowKey, ether_type};
use crate::packet::{Fragment, ParsedPacket, PlainPacket, pack, pack_ipv6};
use crate::pipeline::{RulePath, Step};

/// Packets of a flow that the engine forwards itself before it offers the flow to the kernel path
/// again, where there was no room for it or its connection was not one for the kernel.
pub(crate) const OFFER_AFTER: u32 = 8;

/// Slots that one key may be in.
const WAYS: usize = 4;

/// A packet's flow: all that rules and connections tell packets apart by, but for what
/// cacheable packets do not have (fragments, ARP, neighbour discovery, ICMP errors).
///
/// The head is all there is of a TCP or UDP packet over IPv4, whose addresses, ports and
/// protocol take 16 bytes there; the tail is zero then and need not be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheKey {
    head: [u64; 4],
    tail: [u64; 4],
}

/// Lowest bits of a head: what the tail holds.
mod kind {
    /// IPv6 addresses.
    pub(super) const IPV6: u64 = 1;
    /// An ICMP echo identifier.
    pub(super) const ECHO: u64 = 2;
}

impl CacheKey {
    /// Returns the key of a plain packet.
    #[inline(always)]
    pub(crate) fn of_plain(packet: &PlainPacket<'_>, in_port: PortNo) -> Self {
        let kind = u64::from(packet.is_ipv6) * kind::IPV6;
        let way = pack_way(in_port, 0, packet.ip_proto) | kind;
        Self::new(packet.ends, packet.addresses, way)
    }

    /// Returns the key of a cacheable packet.
    pub(crate) fn of(packet: &ParsedPacket) -> Option<Self> {
        let key = &packet.key;
        let is_plain = matches!(key.eth_type, ether_type::IPV4 | ether_type::IPV6)
            && packet.fragment == Fragment::No
            && packet.icmp_quote.is_none()
            && key.nd_target.is_none()
            // A link-layer option of router discovery.
            && key.arp_sha == MacAddr::default();
        if !is_plain {
            return None;
        }
        let ([p0, p1], [q0, q1]) = (key.tp_src.to_be_bytes(), key.tp_dst.to_be_bytes());
        let ends = pack(&pair_of_macs(key), &[p0, p1, q0, q1]);
        let way = pack_way(key.in_port, key.vlan_tci, key.ip_proto);
        let mut made = match (key.ip_src?, key.ip_dst?) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ([a, b, c, d], [e, f, g, h]) = (src.octets(), dst.octets());
                let both = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
                Self::new(ends, [both, 0, 0, 0], way)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut addresses = [0; 32];
                let (to_src, to_dst) = addresses.split_at_mut(16);
                to_src.copy_from_slice(&src.octets());
                to_dst.copy_from_slice(&dst.octets());
                Self::new(ends, pack_ipv6(&addresses), way | kind::IPV6)
            }
            _ => return None,
        };
        if let (Some(id), [.., way], [.., echo]) =
            (packet.icmp_echo_id, &mut made.head, &mut made.tail)
        {
            *way |= kind::ECHO;
            *echo = u64::from(id);
        }
        Some(made)
    }

    #[inline(always)]
    const fn new(ends: [u64; 2], addresses: [u64; 4], way: u64) -> Self {
        let ([a, b], [first, c, d, e]) = (ends, addresses);
        Self {
            head: [a, b, first, way],
            tail: [c, d, e, 0],
        }
    }

    /// Returns whether the head is all there is.
    #[inline(always)]
    const fn is_short(&self) -> bool {
        let [.., way] = self.head;
        way & (kind::IPV6 | kind::ECHO) == 0
    }

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        self.has_head(other) && (self.is_short() || self.tail == other.tail)
    }

    #[inline(always)]
    fn has_head(&self, other: &Self) -> bool {
        let differing = self.head.iter().zip(other.head);
        differing.fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

/// Packs where a packet comes in and its protocol; the lowest byte is left for its kind.
#[inline]
fn pack_way(in_port: PortNo, vlan_tci: u16, ip_proto: u8) -> u64 {
    u64::from(in_port.0) << 32 | u64::from(vlan_tci) << 16 | u64::from(ip_proto) << 8
}

/// Returns destination and source MAC as they stand in a frame.
pub(crate) const fn pair_of_macs(key: &FlowKey) -> [u8; 12] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (key.eth_dst.0, key.eth_src.0);
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// What to do with the packets of one flow.
#[derive(Debug)]
pub(crate) struct CachedFlow {
    /// What is to be done besides writing MACs, in order, with what it must come before.
    pub(crate) steps: Box<[Step]>,
    /// Whether packets ask for no more than their MACs: no steps, no other addresses, no limits, no
    /// capture.
    pub(crate) is_simple: bool,
    /// Whether the kernel can do what packets ask for: as above, with other addresses.
    pub(crate) is_for_kernel: bool,
    /// Destination and source MAC that packets leave with.
    pub(crate) macs: [u8; 12],
    /// The rules that the flow goes through.
    pub(crate) path: Arc<RulePath>,
    pub(crate) out_port: PortNo,
    pub(crate) mtu: u16,
    /// `None` for flows that leave before connection tracking (redirects).
    pub(crate) conn: Option<(Arc<Connection>, Direction)>,
    /// Packets until it is offered to the kernel path again.
    pub(crate) until_offer: Cell<u32>,
}

impl CachedFlow {
    /// Returns whether a packet is none of the kernel path's business: the kernel does not have the
    /// connection, and is not to be offered it yet. Counts the packet if so.
    #[inline]
    pub(crate) fn passes_by(&self, conn: &Connection) -> bool {
        let left = self.until_offer.get();
        let passes_by = left > 0 && !conn.is_in_kernel();
        self.until_offer.set(left - u32::from(passes_by));
        passes_by
    }

    /// Counts a packet; returns whether the flow is due to be offered to the kernel path again.
    pub(crate) fn is_due(&self) -> bool {
        let left = self.until_offer.get();
        self.until_offer
            .set(left.checked_sub(1).unwrap_or(OFFER_AFTER));
        left == 0
    }
}

/// Slots that one call of `tidy` looks at: some tens of microseconds.
const TIDY_BUDGET: usize = 2_048;

#[derive(Debug)]
struct Slot {
    key: CacheKey,
    epoch: Epoch,
    flow: CachedFlow,
}

impl Slot {
    fn is_dead(&self) -> bool {
        self.flow
            .conn
            .as_ref()
            .is_some_and(|(conn, _)| conn.is_dead())
    }
}

/// Figures of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Packets that found their flow.
    pub hits: u64,
    /// Packets that were translated.
    pub misses: u64,
    /// Flows in the caches of all workers, of this or an older generation of the rules.
    pub entries: u64,
    /// Flows that the caches of all workers can hold.
    pub max_entries: u64,
    /// Flows of the current generation that had to make room for another.
    pub evictions: u64,
}

/// Flows by exact key.
#[derive(Debug)]
pub(crate) struct FlowCache {
    /// Packets choose their keys: secret seeds keep them from choosing their slots.
    seeds: [u64; 4],
    /// Bits of the hashes in each set's slots, so that a lookup touches one cache line here and
    /// only the slot that it is likely in; of a free slot anything.
    tags: Vec<[u32; WAYS]>,
    slots: Vec<Option<Slot>>,
    ways: usize,
    entries: usize,
    evictions: u64,
    /// Slot at which the next call of `tidy` goes on.
    tidy_at: usize,
}

impl FlowCache {
    /// Returns a cache for at most that many flows; for 0 it keeps none.
    pub(crate) fn new(max_entries: usize) -> Self {
        let ways = WAYS.min(max_entries);
        let sets = max_entries
            .checked_div(ways)
            .map_or(0, |sets| 1 << sets.ilog2());
        let slots = std::iter::repeat_with(|| None).take(sets * ways).collect();
        Self {
            seeds: std::array::from_fn(|_| RandomState::default().hash_one(0)),
            tags: vec![[0; WAYS]; sets],
            slots,
            ways,
            entries: 0,
            evictions: 0,
            tidy_at: 0,
        }
    }

    /// Returns the flow, if the rules of this generation say the same as when it was inserted.
    #[inline(always)]
    pub(crate) fn get(&self, key: &CacheKey, epoch: Epoch) -> Option<&CachedFlow> {
        self.find(self.hash(key), epoch, |other| other.is(key))
    }

    /// The same for a key that is known to be [short](CacheKey::is_short).
    #[inline(always)]
    pub(crate) fn get_short(&self, key: &CacheKey, epoch: Epoch) -> Option<&CachedFlow> {
        self.find(self.fold(key.head, 0), epoch, |other| other.has_head(key))
    }

    #[inline(always)]
    fn find(
        &self,
        hash: u64,
        epoch: Epoch,
        is_it: impl Fn(&CacheKey) -> bool,
    ) -> Option<&CachedFlow> {
        let (set, tag) = self.place(hash);
        let (tags, first) = (self.tags.get(set)?, set * self.ways);
        for (at, its_tag) in (first..).zip(tags) {
            if *its_tag == tag
                && let Some(Some(slot)) = self.slots.get(at)
                && slot.epoch == epoch
                && is_it(&slot.key)
            {
                return Some(&slot.flow);
            }
        }
        None
    }

    /// Returns whether it keeps nothing at all.
    pub(crate) fn is_off(&self) -> bool {
        self.slots.is_empty()
    }

    /// Keeps the flow.
    pub(crate) fn insert(&mut self, key: CacheKey, epoch: Epoch, flow: CachedFlow) {
        let (set, tag) = self.place(self.hash(&key));
        let first = set * self.ways;
        let (Some(tags), Some(slots)) = (
            self.tags.get_mut(set),
            self.slots.get_mut(first..first + self.ways),
        ) else {
            return;
        };
        let rank = |slot: &Option<Slot>| match slot {
            Some(slot) if slot.key.is(&key) => 0,
            None => 1,
            Some(slot) if slot.epoch != epoch => 2,
            Some(slot) if slot.is_dead() => 3,
            Some(_) => 4,
        };
        let best = slots.iter().map(rank).min().unwrap_or(4);
        // Among those that have to go any: bits of the hash that do not choose the set. Free ones
        // in order: the first are found first.
        let start = if best == 4 {
            (tag >> 16) as usize % slots.len().max(1)
        } else {
            0
        };
        let order = (start..slots.len()).chain(0..start);
        let is_best = |at: &usize| slots.get(*at).is_some_and(|slot| rank(slot) == best);
        let Some(at) = order.into_iter().find(is_best) else {
            return;
        };
        if let (Some(slot), Some(its_tag)) = (slots.get_mut(at), tags.get_mut(at)) {
            self.evictions += u64::from(best == 4);
            self.entries += usize::from(slot.is_none());
            *slot = Some(Slot { key, epoch, flow });
            *its_tag = tag;
        }
    }

    /// Lets go of flows whose connections are gone, among the next slots: each keeps its
    /// connection's memory.
    pub(crate) fn tidy(&mut self) {
        let start = if self.tidy_at < self.slots.len() {
            self.tidy_at
        } else {
            0
        };
        for slot in self.slots.iter_mut().skip(start).take(TIDY_BUDGET) {
            if slot.as_ref().is_some_and(Slot::is_dead) {
                *slot = None;
                self.entries -= 1;
            }
        }
        self.tidy_at = start + TIDY_BUDGET;
    }

    /// Returns the flows that it holds, the most that it can, and how many had to go early.
    pub(crate) fn figures(&self) -> (usize, usize, u64) {
        (self.entries, self.slots.len(), self.evictions)
    }

    /// Returns the set of a key with that hash, and the tag that tells most others in it apart.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the halves apart")]
    fn place(&self, hash: u64) -> (usize, u32) {
        let set = hash as u32 as usize & self.tags.len().saturating_sub(1);
        (set, (hash >> 32) as u32)
    }

    #[inline(always)]
    fn hash(&self, key: &CacheKey) -> u64 {
        let hash = self.fold(key.head, 0);
        if key.is_short() {
            hash
        } else {
            self.fold(key.tail, hash)
        }
    }

    /// Multiplies pairs of words, which the seeds keep from being known, as foldhash does.
    #[inline(always)]
    const fn fold(&self, [a, b, c, d]: [u64; 4], before: u64) -> u64 {
        let [e, f, g, h] = self.seeds;
        let (left, right) = (folded(a ^ e ^ before, b ^ f), folded(c ^ g, d ^ h));
        folded(left ^ f, right ^ e)
    }
}

/// Returns both halves of the product as one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "takes the halves apart")]
const fn folded(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{PathCounters, RulePaths};

    const fn key(number: u64) -> CacheKey {
        let (head, tail) = ([number; 4], [number; 4]);
        CacheKey { head, tail }
    }

    fn flow(out_port: u32) -> CachedFlow {
        let path = RulePaths::default().get(&[], &PathCounters::default());
        CachedFlow {
            steps: Box::default(),
            is_simple: true,
            is_for_kernel: true,
            macs: [0; 12],
            path,
            out_port: PortNo(out_port),
            mtu: 1500,
            until_offer: Cell::default(),
            conn: None,
        }
    }

    fn found(cache: &FlowCache, number: u64, epoch: u64) -> Option<u32> {
        cache
            .get(&key(number), Epoch(epoch))
            .map(|flow| flow.out_port.0)
    }

    #[test]
    fn a_flow_is_found_in_its_own_generation_only() {
        let mut cache = FlowCache::new(64);
        cache.insert(key(7), Epoch(1), flow(3));
        assert_eq!(found(&cache, 7, 1), Some(3));
        assert_eq!(found(&cache, 7, 2), None);
        assert_eq!(found(&cache, 8, 1), None);
        cache.insert(key(7), Epoch(2), flow(4));
        assert_eq!(found(&cache, 7, 2), Some(4));
        assert_eq!(cache.figures(), (1, 64, 0));
    }

    #[test]
    fn a_cache_never_holds_more_than_it_may() {
        for max_entries in [0, 1, 3, 4, 5, 100] {
            let mut cache = FlowCache::new(max_entries);
            (0..1_000).for_each(|number| cache.insert(key(number), Epoch(1), flow(1)));
            let (entries, slots, evictions) = cache.figures();
            assert!(slots <= max_entries && entries <= slots);
            assert_eq!(
                (0..1_000)
                    .filter(|key| found(&cache, *key, 1).is_some())
                    .count(),
                entries
            );
            assert!(slots == 0 || evictions == 1_000 - entries as u64);
        }
    }

    #[test]
    fn flows_of_older_rules_make_room_first() {
        let mut cache = FlowCache::new(4);
        (0..4).for_each(|number| cache.insert(key(number), Epoch(1), flow(1)));
        (4..8).for_each(|number| cache.insert(key(number), Epoch(2), flow(1)));
        assert!((4..8).all(|key| found(&cache, key, 2).is_some()));
        assert_eq!(cache.figures(), (4, 4, 0));
    }
}
