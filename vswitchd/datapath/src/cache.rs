//! The FlowCache: what the tables said of a flow, by the exact packet it said it of.
//!
//! One for each worker, so no locks. Bounded: a full set of slots gives up its stalest entry.
//! An entry holds for one generation of the rules (epoch) and as long as its connection is in
//! the table; who gets one has to check the latter. Called by the engine only.
//!
//! Invariant: the key holds everything that a rule can match on in a cacheable packet, so a
//! hit does exactly what a translation would.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use vswitch_api::{Epoch, MacAddr, PortNo};

use crate::conntrack::{Connection, Direction};
use crate::flow::ether_type;
use crate::offload::OFFER_AFTER;
use crate::packet::{Fragment, ParsedPacket};
use crate::pipeline::{CounterSlot, Step};

/// Slots that one key may be in.
const WAYS: usize = 4;

/// A packet's flow: all that rules and connections tell packets apart by, but for what
/// cacheable packets do not have (fragments, ARP, neighbour discovery, ICMP errors).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheKey([u64; 8]);

impl CacheKey {
    /// Returns the key of a cacheable packet.
    pub(crate) fn of(packet: &ParsedPacket) -> Option<Self> {
        let key = &packet.key;
        let is_plain = matches!(key.eth_type, ether_type::IPV4 | ether_type::IPV6)
            && packet.fragment == Fragment::No
            && packet.icmp_quote.is_none()
            && key.nd_target.is_none()
            // A link-layer option of router discovery.
            && key.arp_sha == MacAddr::default();
        let (Some(src), Some(dst), true) = (key.ip_src, key.ip_dst, is_plain) else {
            return None;
        };
        let ([s0, s1], [d0, d1]) = (halves(src), halves(dst));
        Some(Self([
            u64::from(key.in_port.0) << 32
                | u64::from(key.vlan_tci) << 16
                | u64::from(key.eth_type),
            mac(key.eth_src) | u64::from(key.tp_src),
            mac(key.eth_dst) | u64::from(key.tp_dst),
            s0,
            s1,
            d0,
            d1,
            u64::from(key.ip_proto) << 32
                | u64::from(packet.icmp_echo_id.is_some()) << 16
                | u64::from(packet.icmp_echo_id.unwrap_or(0)),
        ]))
    }
}

fn mac(MacAddr([a, b, c, d, e, f]): MacAddr) -> u64 {
    u64::from_be_bytes([a, b, c, d, e, f, 0, 0])
}

/// The families need no mark: the EtherType tells.
fn halves(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => [0, u64::from(v4.to_bits())],
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments().map(u64::from);
            [
                a << 48 | b << 32 | c << 16 | d,
                e << 48 | f << 32 | g << 16 | h,
            ]
        }
    }
}

/// What to do with the packets of one flow.
#[derive(Debug)]
pub(crate) struct CachedFlow {
    pub(crate) steps: Box<[Step]>,
    /// Counters of the rules that the flow goes through, in order.
    pub(crate) counters: Arc<[CounterSlot]>,
    pub(crate) out_port: PortNo,
    pub(crate) mtu: u16,
    /// `None` for flows that leave before connection tracking (redirects).
    pub(crate) conn: Option<(Arc<Connection>, Direction)>,
    /// Packets until it is offered to the path below.
    pub(crate) until_offer: Cell<u32>,
}

impl CachedFlow {
    /// Counts a packet; returns whether the flow is due to be offered to the path below.
    pub(crate) fn is_due(&self) -> bool {
        let left = self.until_offer.get();
        self.until_offer
            .set(left.checked_sub(1).unwrap_or(OFFER_AFTER));
        left == 0
    }
}

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
    /// Packets choose their keys: a secret seed keeps them from choosing their slots.
    hasher: RandomState,
    slots: Vec<Option<Slot>>,
    ways: usize,
    entries: usize,
    evictions: u64,
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
            hasher: RandomState::default(),
            slots,
            ways,
            entries: 0,
            evictions: 0,
        }
    }

    /// Returns the flow, if the rules of this generation say the same as when it was inserted.
    pub(crate) fn get(&self, key: &CacheKey, epoch: Epoch) -> Option<&CachedFlow> {
        let slots = self.slots.get(self.range_of(key))?;
        let is_it = |slot: &&Slot| slot.key == *key && slot.epoch == epoch;
        slots.iter().flatten().find(is_it).map(|slot| &slot.flow)
    }

    /// Returns whether it keeps nothing at all.
    pub(crate) fn is_off(&self) -> bool {
        self.slots.is_empty()
    }

    /// Keeps the flow.
    pub(crate) fn insert(&mut self, key: CacheKey, epoch: Epoch, flow: CachedFlow) {
        let hash = self.hash(&key);
        let range = self.range_of(&key);
        let Some(slots) = self.slots.get_mut(range) else {
            return;
        };
        let rank = |slot: &Option<Slot>| match slot {
            Some(slot) if slot.key == key => 0,
            None => 1,
            Some(slot) if slot.epoch != epoch => 2,
            Some(slot) if slot.is_dead() => 3,
            Some(_) => 4,
        };
        let best = slots.iter().map(rank).min().unwrap_or(4);
        // Among equals any: bits of the hash that do not choose the set.
        let start = usize::try_from(hash >> 48).unwrap_or(0) % slots.len().max(1);
        let (before, after) = slots.split_at_mut(start);
        let Some(slot) = after
            .iter_mut()
            .chain(before)
            .find(|slot| rank(slot) == best)
        else {
            return;
        };
        self.evictions += u64::from(best == 4);
        self.entries += usize::from(slot.is_none());
        *slot = Some(Slot { key, epoch, flow });
    }

    /// Returns the flows that it holds, the most that it can, and how many had to go early.
    pub(crate) fn figures(&self) -> (usize, usize, u64) {
        (self.entries, self.slots.len(), self.evictions)
    }

    fn range_of(&self, key: &CacheKey) -> std::ops::Range<usize> {
        let sets = self.slots.len().checked_div(self.ways).unwrap_or(0);
        let hash = usize::try_from(self.hash(key) & 0xffff_ffff).unwrap_or(0);
        let set = hash & sets.saturating_sub(1);
        set * self.ways..(set + 1) * self.ways
    }

    fn hash(&self, CacheKey(words): &CacheKey) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        words.iter().for_each(|word| hasher.write_u64(*word));
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(out_port: u32) -> CachedFlow {
        CachedFlow {
            steps: Box::default(),
            counters: Arc::default(),
            out_port: PortNo(out_port),
            mtu: 1500,
            until_offer: Cell::default(),
            conn: None,
        }
    }

    fn found(cache: &FlowCache, key: u64, epoch: u64) -> Option<u32> {
        cache
            .get(&CacheKey([key; 8]), Epoch(epoch))
            .map(|flow| flow.out_port.0)
    }

    #[test]
    fn a_flow_is_found_in_its_own_generation_only() {
        let mut cache = FlowCache::new(64);
        cache.insert(CacheKey([7; 8]), Epoch(1), flow(3));
        assert_eq!(found(&cache, 7, 1), Some(3));
        assert_eq!(found(&cache, 7, 2), None);
        assert_eq!(found(&cache, 8, 1), None);
        cache.insert(CacheKey([7; 8]), Epoch(2), flow(4));
        assert_eq!(found(&cache, 7, 2), Some(4));
        assert_eq!(cache.figures(), (1, 64, 0));
    }

    #[test]
    fn a_cache_never_holds_more_than_it_may() {
        for max_entries in [0, 1, 3, 4, 5, 100] {
            let mut cache = FlowCache::new(max_entries);
            (0..1_000).for_each(|key| cache.insert(CacheKey([key; 8]), Epoch(1), flow(1)));
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
        (0..4).for_each(|key| cache.insert(CacheKey([key; 8]), Epoch(1), flow(1)));
        (4..8).for_each(|key| cache.insert(CacheKey([key; 8]), Epoch(2), flow(1)));
        assert!((4..8).all(|key| found(&cache, key, 2).is_some()));
        assert_eq!(cache.figures(), (4, 4, 0));
    }
}
