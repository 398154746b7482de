//! Merges the events of all watchers into one sequence of changes.
//!
//! Pods of this node are told by two watchers, of which either may be ahead. An object is taken
//! from whoever is ahead, and neither takes back what the other knows better: versions say which
//! of two is later. What one watcher says about what it said itself before always counts, so that
//! an API server whose versions begin anew (restored from a backup) is believed.
//! Pure: no clock, no I/O.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use serde_json::Value;

use super::watched::{WATCHED, Watched};
use crate::objects::{ObjectId, Objects, Resource};

/// An object as a watcher saw it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) id: ObjectId,
    /// resourceVersion as a number; 0 if it is none, which is neither before nor after others.
    pub(super) version: u64,
    /// In its stripped form.
    pub(super) object: Value,
}

/// What a watcher tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum WatchReport {
    /// Everything there is, at this version.
    Listed(Watched, u64, Vec<Seen>),
    /// There is nothing that could be listed, and the node goes on without it.
    Absent(Watched),
    /// An object is there, or changed.
    Present(Watched, Seen),
    /// An object is gone.
    Gone(Watched, Seen),
}

/// What a watcher tells, and when it heard that of the API server.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) report: WatchReport,
}

/// A change for the mirror; `None`: gone.
pub(super) type MirrorChange = (ObjectId, Option<Value>);

#[derive(Debug)]
struct KnownObject {
    uid: String,
    version: u64,
    /// Whether it is a pod of this node.
    is_own: bool,
    /// Who told it; `None`: known from the last run.
    by: Option<Watched>,
}

/// A pod of this node that one watcher told gone and the other has not yet.
#[derive(Debug)]
struct Tombstone {
    version: u64,
    awaits: Watched,
}

/// What is known, and from whom.
#[derive(Debug)]
pub(super) struct Merge {
    node: String,
    entries: HashMap<ObjectId, KnownObject>,
    tombstones: HashMap<ObjectId, Tombstone>,
    /// Watchers that told everything once, or that there is nothing to tell.
    answered: HashSet<Watched>,
    /// Newest version that each watcher told.
    newest: HashMap<Watched, u64>,
}

impl Merge {
    /// Begins with what is known from the last run.
    pub(super) fn new(node: &str, known: &Objects) -> Self {
        let entry = |(id, object): (&ObjectId, &std::sync::Arc<Value>)| {
            let entry = KnownObject {
                uid: uid_of(object).to_owned(),
                version: 0,
                is_own: is_own(node, id, object),
                by: None,
            };
            (id.clone(), entry)
        };
        Self {
            node: node.to_owned(),
            entries: known.iter().map(entry).collect(),
            tombstones: HashMap::new(),
            answered: HashSet::new(),
            newest: HashMap::new(),
        }
    }

    /// Returns whether every watcher has told everything once that it can.
    pub(super) fn is_synced(&self) -> bool {
        self.answered.len() == WATCHED.len()
    }

    /// Takes in what a watcher tells; returns what changes by it, in order.
    pub(super) fn take(&mut self, told: WatchReport) -> Vec<MirrorChange> {
        match told {
            WatchReport::Listed(by, version, objects) => self.listed(by, version, objects),
            WatchReport::Absent(by) => {
                self.answered.insert(by);
                Vec::new()
            }
            WatchReport::Present(by, seen) => {
                self.note(by, seen.version);
                self.present(by, seen)
            }
            WatchReport::Gone(by, seen) => {
                self.note(by, seen.version);
                self.gone(by, seen).into_iter().collect()
            }
        }
    }

    fn note(&mut self, by: Watched, version: u64) {
        let newest = self.newest.entry(by).or_default();
        *newest = version.max(*newest);
    }

    fn listed(&mut self, by: Watched, version: u64, objects: Vec<Seen>) -> Vec<MirrorChange> {
        if self
            .newest
            .insert(by, version)
            .is_some_and(|newest| version < newest)
        {
            // Versions have begun anew: what was told gone before says nothing about them.
            self.tombstones.clear();
        }
        self.answered.insert(by);
        let present: HashSet<&ObjectId> = objects.iter().map(|seen| &seen.id).collect();
        let is_missing = |(id, entry): &(&ObjectId, &KnownObject)| {
            let is_covered = by.covers(id.0) && (by != Watched::OwnPods || entry.is_own);
            // What another watcher told may be later than this list.
            let is_later = entry.by.is_some_and(|other| other != by) && entry.version > version;
            is_covered && !present.contains(id) && !is_later
        };
        let missing = self.entries.iter().filter(is_missing);
        let missing: Vec<ObjectId> = missing.map(|(id, _)| id.clone()).collect();
        let mut changes: Vec<MirrorChange> = Vec::new();
        for id in missing {
            self.bury(by, &id, version);
            changes.push((id, None));
        }
        for seen in objects {
            changes.extend(self.present(by, seen));
        }
        self.tombstones
            .retain(|_, tomb| tomb.awaits != by || tomb.version > version);
        changes
    }

    fn present(&mut self, by: Watched, seen: Seen) -> Vec<MirrorChange> {
        let Seen {
            id,
            version,
            object,
        } = seen;
        let is_told_gone = self
            .tombstones
            .get(&id)
            .is_some_and(|tomb| tomb.awaits == by && is_before(version, tomb.version + 1));
        if is_told_gone {
            return Vec::new();
        }
        let uid = uid_of(&object).to_owned();
        let mut changes = Vec::new();
        if let Some(entry) = self.entries.get(&id) {
            let by_other = entry.by.is_some_and(|other| other != by);
            if by_other && is_before(version, entry.version + 1) {
                return changes;
            }
            if entry.uid != uid {
                // Deleted and made anew under the same name: nothing of the old one stays.
                changes.push((id.clone(), None));
            }
        }
        let entry = KnownObject {
            uid,
            version,
            is_own: is_own(&self.node, &id, &object),
            by: Some(by),
        };
        self.entries.insert(id.clone(), entry);
        changes.push((id, Some(object)));
        changes
    }

    fn gone(&mut self, by: Watched, seen: Seen) -> Option<MirrorChange> {
        let Seen { id, version, .. } = seen;
        if self
            .tombstones
            .get(&id)
            .is_some_and(|tomb| tomb.awaits == by)
        {
            self.tombstones.remove(&id);
        }
        let entry = self.entries.get(&id)?;
        let by_other = entry.by.is_some_and(|other| other != by);
        if by_other && is_before(version, entry.version) {
            return None;
        }
        self.bury(by, &id, version);
        Some((id, None))
    }

    /// Forgets an object; the other watcher's older word about it will not count.
    fn bury(&mut self, by: Watched, id: &ObjectId, version: u64) {
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        if let Some(awaits) = by.other_of(id.0).filter(|_| entry.is_own) {
            let tombstone = Tombstone { version, awaits };
            self.tombstones.insert(id.clone(), tombstone);
        }
    }
}

/// Returns whether a version is known to be older than a limit.
const fn is_before(version: u64, limit: u64) -> bool {
    version > 0 && version < limit
}

fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn is_own(node: &str, id: &ObjectId, object: &Value) -> bool {
    id.0 == Resource::Pod && object["spec"]["nodeName"] == node
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
