//! The denials of one engine, counted by kind in bounded room.
//!
//! There are two tables. The engine notes in whichever is free, and whoever fetches holds one at
//! a time, for as long as it takes to put an empty one in its place: the engine never waits, and
//! what it notes is complete. A flood of one kind is one entry that counts up; beyond
//! [`MAX_KINDS`] it is counted by its rule alone. No allocation but when a table is fetched.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher as _;

use super::denial::{DenialOf, DenialVerdict};
use crate::drop_reason::DropReason;
use crate::flow::CtState;
use crate::pipeline::{Rule, RuleId};
use crate::time::Timestamp;

/// So many kinds are told apart until they are fetched: 2.5 MB of a table, where so many are
/// denied at once.
const MAX_KINDS: usize = 16_384;

/// So many rules beyond it are counted without telling apart what they denied.
const MAX_RULES: usize = 1_024;

/// What is counted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) verdict: DenialVerdict,
    pub(super) reason: DropReason,
    pub(super) of: Option<DenialOf>,
    pub(super) rule: Option<RuleId>,
}

/// What rules may look at besides the kind, of the first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeenAs {
    pub(super) tp_src: u16,
    pub(super) ct_state: CtState,
}

/// What is known of a kind.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    /// The rule that decided, of the tables that the first packet met.
    pub(super) rule: Option<Arc<Rule>>,
    pub(super) seen_as: SeenAs,
    pub(super) packets: u64,
    pub(super) connections: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

/// Kinds with what is known of each. Invariant: the index holds each place in `entries` once.
#[derive(Debug)]
struct Table {
    index: HashTable<u32>,
    entries: Vec<(u64, Kind, Noted)>,
    told_apart: usize,
}

impl Default for Table {
    /// Room that nothing was written to yet takes none of the machine's memory.
    fn default() -> Self {
        Self {
            index: HashTable::with_capacity(MAX_KINDS + MAX_RULES),
            entries: Vec::with_capacity(MAX_KINDS + MAX_RULES),
            told_apart: 0,
        }
    }
}

impl Table {
    fn find(&mut self, hash: u64, kind: &Kind) -> Option<&mut Noted> {
        let entries = &self.entries;
        let is_it = |at: &u32| {
            let entry = entries.get(*at as usize);
            entry.is_some_and(|(its, of, _)| *its == hash && of == kind)
        };
        let at = *self.index.find(hash, is_it)?;
        self.entries.get_mut(at as usize).map(|(.., noted)| noted)
    }

    fn insert(&mut self, hash: u64, kind: Kind, noted: Noted) {
        let Ok(at) = u32::try_from(self.entries.len()) else {
            return;
        };
        self.told_apart += usize::from(kind.of.is_some());
        self.entries.push((hash, kind, noted));
        let entries = &self.entries;
        let hash_of = |at: &u32| entries.get(*at as usize).map_or(0, |(hash, ..)| *hash);
        self.index.insert_unique(hash, at, hash_of);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct DenialLog {
    /// Packets choose their kinds: a secret seed keeps them from choosing their places.
    hasher: RandomState,
    tables: [Mutex<Table>; 2],
    lost: AtomicU64,
}

impl DenialLog {
    /// Counts packets and connections of a kind.
    pub(super) fn note(
        &self,
        kind: Kind,
        counts: (u64, u64),
        now: Timestamp,
        seen_as: SeenAs,
        rule: impl FnOnce() -> Option<Arc<Rule>>,
    ) {
        let Some(mut table) = self.tables.iter().find_map(free) else {
            self.lost.fetch_add(counts.0.max(counts.1), Relaxed);
            return;
        };
        let (packets, connections) = counts;
        let mut kind = kind;
        let mut hash = self.hasher.hash_one(kind);
        let mut found = table.find(hash, &kind).is_some();
        if !found && table.told_apart >= MAX_KINDS {
            kind.of = None;
            hash = self.hasher.hash_one(kind);
            found = table.find(hash, &kind).is_some();
        }
        if !found {
            if table.entries.len() >= MAX_KINDS + MAX_RULES {
                self.lost.fetch_add(packets.max(connections), Relaxed);
                return;
            }
            let noted = Noted {
                rule: rule(),
                seen_as,
                packets: 0,
                connections: 0,
                first: now,
                last: now,
            };
            table.insert(hash, kind, noted);
        }
        if let Some(noted) = table.find(hash, &kind) {
            noted.packets += packets;
            noted.connections += connections;
            noted.last = noted.last.max(now);
        }
    }

    /// Hands over all that was noted since the last call; returns what there was no room for. One
    /// thread at a time.
    pub(super) fn fetch(&self, mut take: impl FnMut(Kind, Noted)) -> u64 {
        for table in &self.tables {
            let is_empty = lock(table).entries.is_empty();
            if is_empty {
                continue;
            }
            let empty = Table::default();
            let full = std::mem::replace(&mut *lock(table), empty);
            for (_, kind, noted) in full.entries {
                take(kind, noted);
            }
        }
        self.lost.swap(0, Relaxed)
    }
}

/// A table is whole after each change, so that a panic beside leaves nothing half done.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn free(table: &Mutex<Table>) -> Option<MutexGuard<'_, Table>> {
    match table.try_lock() {
        Ok(table) => Some(table),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        verdict: DenialVerdict::Denied,
        reason: DropReason::PolicyIngress,
        of: None,
        rule: None,
    };
    const SEEN_AS: SeenAs = SeenAs {
        tp_src: 0,
        ct_state: CtState(0),
    };

    fn note(log: &DenialLog, kind: Kind, at: u64) {
        log.note(kind, (1, 0), Timestamp::from_nanos(at), SEEN_AS, || None);
    }

    fn fetched(log: &DenialLog) -> (Vec<(Option<RuleId>, u64)>, u64) {
        let mut all = Vec::new();
        let lost = log.fetch(|kind, noted| all.push((kind.rule, noted.packets)));
        all.sort();
        (all, lost)
    }

    #[test]
    fn who_notes_waits_for_nobody_and_loses_nothing_while_a_table_is_fetched() {
        let log = DenialLog::default();
        note(&log, KIND, 1);
        let [first, second] = &log.tables;
        let held = lock(first);
        note(&log, KIND, 2);
        drop(held);
        let held = lock(second);
        note(&log, KIND, 3);
        drop(held);
        assert_eq!(fetched(&log), (vec![(None, 1), (None, 2)], 0));
        assert_eq!(fetched(&log), (vec![], 0), "fetched once");
    }

    #[test]
    fn a_full_table_takes_no_more_than_it_says() {
        let entries = size_of::<(u64, Kind, Noted)>() * (MAX_KINDS + MAX_RULES);
        assert!(entries <= 2_600_000, "{entries}");
    }

    #[test]
    fn beyond_its_room_a_table_counts_what_it_loses() {
        let log = DenialLog::default();
        let rules = u64::try_from(MAX_KINDS + MAX_RULES).unwrap();
        for rule in 0..rules + 5 {
            let rule = Some(RuleId(rule));
            note(&log, Kind { rule, ..KIND }, 1);
            note(
                &log,
                Kind {
                    rule: Some(RuleId(0)),
                    ..KIND
                },
                2,
            );
        }
        let (all, lost) = fetched(&log);
        assert_eq!((u64::try_from(all.len()).unwrap(), lost), (rules, 5));
        assert_eq!(all[0], (Some(RuleId(0)), rules + 6));
    }
}
