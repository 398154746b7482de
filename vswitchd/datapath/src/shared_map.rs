//! Hash map whose versions share what did not change.
//!
//! **What.** Readers hold a version; the writer clones it, which costs nothing, and changes the
//! clone, which copies the *shard* that the change falls into and the list of shards. A shard is
//! one slice of slots with the entries in them (open addressing, linear probing, at most half
//! full): a lookup waits for memory twice, for the place in the list and for the slot. A general
//! hash table keeps header, tags and entries apart, and a first packet looks up a dozen of these
//! maps, of which the processor's caches hold little when there are thousands of policies.
//!
//! The caller hashes ([`crate::fixed_hash`]: both ends of the hash are used) and says which entry
//! it means.

use std::num::NonZeroU64;
use std::sync::Arc;

/// Entries of a shard, on average, before there are twice as many shards. A change copies one
/// shard: few entries make that cheap, many keep the list of shards short.
const SHARD_ENTRIES: usize = 128;

/// Slots of a shard that has any; a power of two.
const FEWEST_SLOTS: usize = 4;

/// A map from hashes, and what the caller compares, to entries.
#[derive(Debug, Clone)]
pub(crate) struct SharedMap<T> {
    /// As many as a power of two.
    shards: Arc<[Shard<T>]>,
    entries: usize,
}

/// An entry where a lookup finds it, in cache lines of its own.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Slot<T> {
    hash: NonZeroU64,
    entry: T,
}

/// Some entries; as many slots as a power of two, at least half of them empty, or none at all.
#[derive(Debug)]
struct Shard<T> {
    slots: Arc<[Option<Slot<T>>]>,
    entries: usize,
}

impl<T> Clone for Shard<T> {
    fn clone(&self) -> Self {
        Self {
            slots: Arc::clone(&self.slots),
            entries: self.entries,
        }
    }
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self {
            slots: Arc::default(),
            entries: 0,
        }
    }
}

impl<T> Default for SharedMap<T> {
    fn default() -> Self {
        Self {
            shards: Arc::new([Shard::default()]),
            entries: 0,
        }
    }
}

impl<T> SharedMap<T> {
    /// Returns all entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots().map(|slot| &slot.entry)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<T>> {
        let shards = self.shards.iter();
        shards.flat_map(|shard| shard.slots.iter().flatten())
    }

    /// Returns the entry with that hash that `is_it`.
    #[inline]
    pub(crate) fn get(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let hash = full(hash);
        let shard = self.shards.get(shard_of(hash, self.shards.len()))?;
        shard.find(hash, &is_it).map(|(_, entry)| entry)
    }

    /// Returns how many bytes an entry takes.
    #[cfg(test)]
    pub(crate) const fn slot_size() -> usize {
        size_of::<Option<Slot<T>>>()
    }

    /// Returns how many shards are not shared with another version.
    #[cfg(test)]
    pub(crate) fn shards_unlike(&self, other: &Self) -> usize {
        let pairs = self.shards.iter().zip(other.shards.iter());
        pairs
            .filter(|(a, b)| !Arc::ptr_eq(&a.slots, &b.slots))
            .count()
    }
}

impl<T: Clone> SharedMap<T> {
    /// Returns the entry with that hash that `is_it`, to be changed.
    pub(crate) fn get_mut(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&mut T> {
        let hash = full(hash);
        let (place, _) = self.shard_of(hash).find(hash, &is_it)?;
        self.shard_mut(hash).entry_mut(place)
    }

    /// Returns the entry with that hash that `is_it`, to be changed; puts `new` there before, if
    /// there is none.
    pub(crate) fn get_or_insert(
        &mut self,
        hash: u64,
        is_it: impl Fn(&T) -> bool,
        new: impl FnOnce() -> T,
    ) -> Option<&mut T> {
        let hash = full(hash);
        let place = match self.shard_of(hash).find(hash, &is_it) {
            Some((place, _)) => place,
            None => {
                self.spread();
                self.entries += 1;
                let entry = new();
                self.shard_mut(hash).insert(Slot { hash, entry })
            }
        };
        self.shard_mut(hash).entry_mut(place)
    }

    /// Removes the entry with that hash that `is_it`.
    pub(crate) fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) {
        let hash = full(hash);
        if let Some((place, _)) = self.shard_of(hash).find(hash, &is_it) {
            self.shard_mut(hash).remove(place);
            self.entries -= 1;
        }
    }

    #[expect(clippy::indexing_slicing, reason = "shard_of is below their number")]
    fn shard_of(&self, hash: NonZeroU64) -> &Shard<T> {
        &self.shards[shard_of(hash, self.shards.len())]
    }

    #[expect(clippy::indexing_slicing, reason = "shard_of is below their number")]
    fn shard_mut(&mut self, hash: NonZeroU64) -> &mut Shard<T> {
        let shards = Arc::make_mut(&mut self.shards);
        let count = shards.len();
        &mut shards[shard_of(hash, count)]
    }

    /// Doubles the shards when they have become large. They stay when entries go: who had so many
    /// will have them again, and an empty shard costs a place in the list.
    fn spread(&mut self) {
        let count = self.shards.len() * 2;
        if self.entries < self.shards.len() * SHARD_ENTRIES {
            return;
        }
        let mut shards = vec![Shard::default(); count];
        for slot in self.slots() {
            if let Some(shard) = shards.get_mut(shard_of(slot.hash, count)) {
                let _place = shard.insert(slot.clone());
            }
        }
        self.shards = shards.into();
    }
}

impl<T> Shard<T> {
    /// Returns an entry, and where it is.
    #[inline]
    fn find(&self, hash: NonZeroU64, is_it: &impl Fn(&T) -> bool) -> Option<(usize, &T)> {
        let mut at = slot_of(hash, self.slots.len());
        // Ends at an empty slot, of which there is one.
        loop {
            let slot = self.slots.get(at)?.as_ref()?;
            if slot.hash == hash && is_it(&slot.entry) {
                return Some((at, &slot.entry));
            }
            at = next(at, self.slots.len());
        }
    }
}

impl<T: Clone> Shard<T> {
    fn entry_mut(&mut self, place: usize) -> Option<&mut T> {
        let slot = Arc::make_mut(&mut self.slots).get_mut(place)?.as_mut()?;
        Some(&mut slot.entry)
    }

    /// Puts an entry in that is not there; returns where.
    fn insert(&mut self, slot: Slot<T>) -> usize {
        self.entries += 1;
        if self.entries * 2 > self.slots.len() {
            let mut slots = vec![None; (self.slots.len() * 2).max(FEWEST_SLOTS)];
            for slot in self.slots.iter().flatten() {
                let _place = put(&mut slots, slot.clone());
            }
            let place = put(&mut slots, slot);
            self.slots = slots.into();
            return place;
        }
        put(Arc::make_mut(&mut self.slots), slot)
    }

    /// Takes an entry out, and moves those behind it that a lookup would no longer come to.
    fn remove(&mut self, place: usize) {
        self.entries -= 1;
        let slots = Arc::make_mut(&mut self.slots);
        let count = slots.len();
        let mut hole = place;
        if let Some(slot) = slots.get_mut(hole) {
            *slot = None;
        }
        let mut at = next(hole, count);
        while let Some(Some(slot)) = slots.get(at) {
            let from_home = distance(slot_of(slot.hash, count), at, count);
            if from_home >= distance(hole, at, count) {
                slots.swap(hole, at);
                hole = at;
            }
            at = next(at, count);
        }
    }
}

/// Puts an entry into the first empty slot from its own on, of which there is one; returns which.
fn put<T>(slots: &mut [Option<Slot<T>>], slot: Slot<T>) -> usize {
    let count = slots.len();
    let mut at = slot_of(slot.hash, count);
    while slots.get(at).is_some_and(Option::is_some) {
        at = next(at, count);
    }
    if let Some(empty) = slots.get_mut(at) {
        *empty = Some(slot);
    }
    at
}

/// A hash that is not 0 tells a full slot from an empty one.
fn full(hash: u64) -> NonZeroU64 {
    NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN)
}

/// The lowest bits pick the slot; the number of shards is a power of two.
fn shard_of(hash: NonZeroU64, shards: usize) -> usize {
    usize::try_from(hash.get() >> 32).unwrap_or(0) & shards.wrapping_sub(1)
}

/// The number of slots is a power of two, or 0.
#[expect(clippy::cast_possible_truncation, reason = "takes the lowest bits")]
const fn slot_of(hash: NonZeroU64, slots: usize) -> usize {
    hash.get() as usize & slots.wrapping_sub(1)
}

const fn next(at: usize, slots: usize) -> usize {
    (at + 1) & slots.wrapping_sub(1)
}

/// Returns how many slots a lookup comes through from one to the other.
const fn distance(from: usize, to: usize, slots: usize) -> usize {
    to.wrapping_sub(from) & slots.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::fixed_hash::mix;

    type Map = SharedMap<(u64, u32)>;

    fn set(map: &mut Map, hash: u64, key: u64, value: u32) {
        let entry = map.get_or_insert(hash, |entry| entry.0 == key, || (key, 0));
        entry.unwrap().1 = value;
    }

    fn get(map: &Map, hash: u64, key: u64) -> Option<u32> {
        map.get(hash, |entry| entry.0 == key).map(|entry| entry.1)
    }

    /// What is done: to a key, with hashes that collide in their slots, their shards, or as a whole.
    fn steps() -> impl Strategy<Value = Vec<(u64, Option<u32>)>> {
        proptest::collection::vec((0..60_u64, any::<Option<u32>>()), 0..400)
    }

    fn hash(key: u64) -> u64 {
        match key % 4 {
            0 => mix(0, key),
            1 => 0,
            2 => key % 3,
            _ => u64::MAX,
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in steps()) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            for (key, value) in steps {
                let before = (map.clone(), model.clone());
                match value {
                    Some(value) => {
                        set(&mut map, hash(key), key, value);
                        model.insert(key, value);
                    }
                    None => {
                        map.remove(hash(key), |entry| entry.0 == key);
                        model.remove(&key);
                    }
                }
                for (map, model) in [(&map, &model), (&before.0, &before.1)] {
                    prop_assert_eq!(map.entries, model.len());
                    for key in 0..60 {
                        prop_assert_eq!(get(map, hash(key), key), model.get(&key).copied());
                    }
                }
            }
            let all: BTreeMap<u64, u32> = map.iter().copied().collect();
            prop_assert_eq!(all, model);
        }
    }

    #[test]
    fn a_change_copies_one_shard() {
        let mut map = Map::default();
        (0..10_000).for_each(|key| set(&mut map, mix(0, key), key, 1));
        assert!(map.shards.len() > 64, "{}", map.shards.len());
        let before = map.clone();
        set(&mut map, mix(0, 7), 7, 2);
        map.remove(mix(0, 7), |entry| entry.0 == 7);
        set(&mut map, mix(0, 7), 7, 3);
        assert_eq!(map.shards_unlike(&before), 1);
        assert_eq!(get(&before, mix(0, 7), 7), Some(1));
        assert_eq!(get(&map, mix(0, 7), 7), Some(3));
    }

    #[test]
    fn what_goes_leaves_no_slots_behind_that_slow_lookups_down() {
        let mut map = Map::default();
        for key in 0..100_000 {
            set(&mut map, mix(0, key), key, 1);
            map.remove(mix(0, key), |entry| entry.0 == key);
        }
        assert_eq!(map.entries, 0);
        let slots: usize = map.shards.iter().map(|shard| shard.slots.len()).sum();
        assert_eq!(slots, FEWEST_SLOTS);
        assert_eq!(map.slots().count(), 0);
    }
}
