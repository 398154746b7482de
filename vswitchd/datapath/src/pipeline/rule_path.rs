//! Counting in all rules of a cached flow at once.
//!
//! A flow goes through a dozen rules, thousands of flows through the same ones. A [`RulePath`]
//! is such a list of rules with one pair of counters: a packet of a cached flow adds to that,
//! and whoever wants to know what rules have counted [flushes](PathCounters::flush) first,
//! which adds to each rule what its paths have counted since the last time.
//!
//! An engine keeps its paths to itself ([`RulePaths`]) and shares only the list of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use super::rule_counters::{CounterSlot, Counts, RuleCounters, add_alone};
use crate::fixed_hash::mix;

/// Paths that an engine holds before it looks for those that no flow has any more.
const FIRST_PRUNING: usize = 1_024;

/// Rules that a flow goes through, in order, and what its packets counted.
#[derive(Debug)]
pub(crate) struct RulePath {
    rules: Box<[CounterSlot]>,
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl RulePath {
    /// Counts in every rule. Only one thread may.
    #[inline]
    pub(crate) fn count(&self, counts: Counts) {
        add_alone(&self.packets, counts.packets);
        add_alone(&self.bytes, counts.bytes);
    }

    /// Returns the rules, in order.
    pub(crate) fn rules(&self) -> &[CounterSlot] {
        &self.rules
    }

    fn counts(&self) -> Counts {
        Counts {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            // Packets of flows that are known begin none.
            connections: 0,
        }
    }
}

/// An engine's paths. Owned by its worker.
#[derive(Debug, Default)]
pub(crate) struct RulePaths {
    known: HashTable<Arc<RulePath>>,
    prune_at: usize,
}

impl RulePaths {
    /// Returns the path through these rules.
    pub(crate) fn get(&mut self, rules: &[CounterSlot], shared: &PathCounters) -> Arc<RulePath> {
        let hash = hash(rules);
        if let Some(path) = self.known.find(hash, |path| *path.rules == *rules) {
            return Arc::clone(path);
        }
        if self.known.len() >= self.prune_at.max(FIRST_PRUNING) {
            self.prune(shared);
        }
        let path = Arc::new(RulePath {
            rules: rules.into(),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let rehash = |path: &Arc<RulePath>| self::hash(&path.rules);
        self.known.insert_unique(hash, Arc::clone(&path), rehash);
        shared.add(Arc::clone(&path));
        path
    }

    /// Forgets the paths that no flow has any more.
    fn prune(&mut self, shared: &PathCounters) {
        shared.flush();
        let mut all = shared.lock();
        // One reference is this table's, one the list's.
        let is_used = |path: &Arc<RulePath>| Arc::strong_count(path) > 2;
        let mut kept = HashTable::new();
        for path in self.known.drain().filter(is_used) {
            kept.insert_unique(hash(&path.rules), path, |path| hash(&path.rules));
        }
        self.known = kept;
        // What this table gave up has one reference left.
        all.retain(|listed| Arc::strong_count(&listed.path) > 1);
        self.prune_at = self.known.len() * 2;
    }
}

fn hash(rules: &[CounterSlot]) -> u64 {
    rules
        .iter()
        .fold(0, |hash, slot| mix(hash, u64::from(slot.number())))
}

/// A path, and how much of what it counted is in its rules.
#[derive(Debug)]
struct Listed {
    path: Arc<RulePath>,
    flushed: Counts,
}

/// What the packets of an engine's cached flows counted.
#[derive(Debug, Default)]
pub(crate) struct PathCounters {
    /// Written under the lock only.
    flushed: RuleCounters,
    /// Guards the list, and who flushes. Workers take it for a path that is new to them.
    paths: Mutex<Vec<Listed>>,
}

impl PathCounters {
    fn add(&self, path: Arc<RulePath>) {
        let flushed = Counts::default();
        self.lock().push(Listed { path, flushed });
    }

    /// Brings what paths have counted into [`PathCounters::flushed`].
    pub(crate) fn flush(&self) {
        for listed in self.lock().iter_mut() {
            let counts = listed.path.counts();
            let more = counts.minus(listed.flushed);
            listed.flushed = counts;
            if more != Counts::default() {
                listed
                    .path
                    .rules
                    .iter()
                    .for_each(|slot| self.flushed.add(*slot, more));
            }
        }
    }

    /// Returns what rules had counted when last flushed.
    pub(crate) const fn flushed(&self) -> &RuleCounters {
        &self.flushed
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Listed>> {
        // Whole between two statements.
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule_counters::CounterSlots;
    use super::*;

    const ONE: Counts = Counts {
        packets: 1,
        bytes: 60,
        connections: 0,
    };

    fn slots(count: usize) -> Vec<CounterSlot> {
        let mut slots = CounterSlots::default();
        (0..count).map(|_| slots.take().0).collect()
    }

    #[test]
    fn what_a_path_counts_is_in_each_of_its_rules_once_flushed_and_only_once() {
        let (slots, shared) = (slots(3), PathCounters::default());
        let mut paths = RulePaths::default();
        let both = paths.get(&slots[..2], &shared);
        paths.get(&slots[1..], &shared).count(ONE);
        both.count(ONE);
        assert_eq!(shared.flushed().read(slots[0]), Counts::default());
        for _ in 0..2 {
            shared.flush();
            let counts: Vec<_> = slots.iter().map(|s| shared.flushed().read(*s)).collect();
            assert_eq!(counts, [ONE, ONE.plus(ONE), ONE]);
        }
    }

    #[test]
    fn flows_through_the_same_rules_share_a_path() {
        let (slots, shared) = (slots(2), PathCounters::default());
        let mut paths = RulePaths::default();
        let path = paths.get(&slots, &shared);
        assert!(Arc::ptr_eq(&path, &paths.get(&slots, &shared)));
        assert!(!Arc::ptr_eq(&path, &paths.get(&slots[..1], &shared)));
    }

    #[test]
    fn paths_without_flows_go_and_what_they_counted_stays() {
        let (slots, shared) = (slots(5_000), PathCounters::default());
        let mut paths = RulePaths::default();
        let kept = paths.get(&slots[..1], &shared);
        slots
            .iter()
            .for_each(|slot| paths.get(std::slice::from_ref(slot), &shared).count(ONE));
        assert!(paths.known.len() <= FIRST_PRUNING && shared.lock().len() <= FIRST_PRUNING);
        assert!(Arc::ptr_eq(&kept, &paths.get(&slots[..1], &shared)));
        shared.flush();
        assert!(slots.iter().all(|slot| shared.flushed().read(*slot) == ONE));
    }
}
