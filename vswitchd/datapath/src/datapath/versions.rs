//! The last versions of the rules, for those who ask about packets of some seconds ago.
//!
//! Kept while connections are recorded: which rules admitted one that has ended is found out by the
//! version that it was last judged by.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::conntrack::Connection;
use crate::pipeline::{Rule, Snapshot, admitted_by};

/// Versions that are kept: those of some seconds of a cluster whose pods come and go.
const MAX_VERSIONS: usize = 32;

/// The last versions of the rules, the newest last.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// Guards the list only; packets never take it.
    kept: Mutex<VecDeque<Arc<Snapshot>>>,
}

impl Versions {
    pub(super) fn keep(&self, version: &Arc<Snapshot>) {
        let mut kept = self.lock();
        let is_newer = kept.back().is_none_or(|last| last.epoch < version.epoch);
        if is_newer {
            if kept.len() == MAX_VERSIONS {
                kept.pop_front();
            }
            kept.push_back(Arc::clone(version));
        }
    }

    pub(super) fn forget(&self) {
        let kept = std::mem::take(&mut *self.lock());
        drop(kept);
    }

    pub(super) fn all(&self) -> Vec<Arc<Snapshot>> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Snapshot>>> {
        // Whole between two statements.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the rules that admitted a connection: of the version that it was last judged by, or,
/// where that is forgotten, of the oldest one that is known.
pub(super) fn admitting_rules(
    versions: &[Arc<Snapshot>],
    conn: &Connection,
) -> Option<Vec<Arc<Rule>>> {
    let first = versions.partition_point(|version| version.epoch < conn.judged());
    let mut since = versions.get(first..)?.iter();
    since.find_map(|version| admitted_by(version, conn))
}
