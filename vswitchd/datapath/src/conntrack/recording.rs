//! Setting which connections are recorded when they begin and end, and fetching those that have.
//!
//! By one thread at a time.

use std::sync::Arc;

use super::end::ConnectionEnd;
use super::noted::{Noted, RecordConnections};
use super::table::lock;
use super::{ConnTable, Connection};

/// Beginnings and ends that all shards together note until they are fetched.
const MAX_NOTED: usize = 65_536;

impl ConnTable {
    /// Notes that a connection that stays in the table for a while has ended.
    pub(crate) fn note_end(&self, conn: &Arc<Connection>, end: ConnectionEnd) {
        if self.recording.is_on() {
            let hash = conn.original().symmetric_hash(&self.hasher);
            self.lock_shard(hash).note_end(conn, end, &self.recording);
        }
    }

    /// Returns which connections are recorded.
    pub(crate) fn recorded(&self) -> RecordConnections {
        self.recording.get()
    }

    /// Sets which connections are recorded.
    pub(crate) fn record(&self, wanted: RecordConnections) {
        if wanted != RecordConnections::default() && !self.recording.is_on() {
            let room = self.note_room();
            for shard in &self.shards {
                let empty = Vec::with_capacity(room);
                let mut shard = lock(&shard.connections);
                if shard.notes().room() < room {
                    // It had no room, and so has nothing.
                    shard.notes().replace(empty);
                }
            }
        }
        // Room first: what is noted has a place.
        self.recording.set(wanted);
    }

    /// Hands over the connections that have begun or ended since the last call; returns how many
    /// times there was no room for one.
    pub(crate) fn fetch_noted(&self, mut take: impl FnMut(Noted)) -> u64 {
        let is_on = self.recording.is_on();
        let room = if is_on { self.note_room() } else { 0 };
        let mut all_lost = 0;
        for shard in &self.shards {
            let is_as_before = {
                let mut shard = lock(&shard.connections);
                let notes = shard.notes();
                notes.is_empty() && (is_on || notes.room() == 0)
            };
            if is_as_before {
                continue;
            }
            let empty = Vec::with_capacity(room);
            let (noted, lost) = lock(&shard.connections).notes().replace(empty);
            all_lost += lost;
            for noted in noted {
                if noted.is_judged() {
                    take(noted);
                } else if is_on && !noted.conn.is_dead() {
                    // Its worker is about to: the next call has it, unless it is taken back.
                    lock(&shard.connections).notes().put_back(noted);
                }
            }
        }
        all_lost
    }

    fn note_room(&self) -> usize {
        MAX_NOTED / self.shards.len()
    }
}
