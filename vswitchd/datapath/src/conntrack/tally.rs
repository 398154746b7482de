//! Statistics of the connection table.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Figures of the table since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConntrackStats {
    /// Connections in the table.
    pub entries: usize,
    /// Most that it takes.
    pub max_entries: usize,
    /// Connections inserted.
    pub inserted: u64,
    /// Connections removed because their time was over.
    pub expired: u64,
    /// Unanswered connections removed to make room.
    pub early_dropped: u64,
    /// Connections refused because there was no room to make.
    pub full_drops: u64,
    /// Connections removed on request (flushed, replaced by a new one).
    pub removed: u64,
}

/// What new connections write, on cache lines of its own: beside it stands what every packet
/// that is translated reads. Processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Tally {
    pub(super) entries: AtomicUsize,
    /// Shard at which the next call of `expire` goes on.
    pub(super) expire_at: AtomicUsize,
    pub(super) stats: Stats,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) expired: AtomicU64,
    pub(super) early_dropped: AtomicU64,
    pub(super) full_drops: AtomicU64,
    pub(super) removed: AtomicU64,
}

impl Tally {
    /// Returns the figures of a table that takes so many connections.
    pub(super) fn figures(&self, max_entries: usize) -> ConntrackStats {
        let entries = self.entries.load(Relaxed);
        let (expired, early_dropped, removed) = (
            self.stats.expired.load(Relaxed),
            self.stats.early_dropped.load(Relaxed),
            self.stats.removed.load(Relaxed),
        );
        ConntrackStats {
            entries,
            max_entries,
            // Whatever came in is there or went: counting it would cost each a shared line.
            inserted: u64::try_from(entries).unwrap_or(u64::MAX)
                + expired
                + early_dropped
                + removed,
            expired,
            early_dropped,
            full_drops: self.stats.full_drops.load(Relaxed),
            removed,
        }
    }
}
