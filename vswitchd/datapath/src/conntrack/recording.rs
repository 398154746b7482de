//! Setting which connections are recorded when they end, and fetching those that have.
//!
//! By one thread at a time.

use std::sync::Arc;

use super::end::ConnectionEnd;
use super::ended::{Ended, RecordConnections};
use super::table::lock;
use super::{ConnTable, Connection};

/// Ends that all shards together note until they are fetched.
const MAX_ENDED: usize = 65_536;

impl ConnTable {
    /// Notes that a connection that stays in the table for a while has ended.
    pub(crate) fn note_end(&self, conn: &Arc<Connection>, end: ConnectionEnd) {
        if self.recording.is_on() {
            let hash = conn.original().symmetric_hash(&self.hasher);
            self.lock_shard(hash).note(conn, end, &self.recording);
        }
    }

    /// Returns which connections are recorded when they end.
    pub(crate) fn recorded(&self) -> RecordConnections {
        self.recording.get()
    }

    /// Sets which connections are recorded when they end.
    pub(crate) fn record(&self, wanted: RecordConnections) {
        if wanted != RecordConnections::default() && !self.recording.is_on() {
            let room = self.ended_room();
            for shard in &self.shards {
                let empty = Vec::with_capacity(room);
                let mut shard = lock(&shard.connections);
                if shard.ended().room() < room {
                    // It had no room, and so has nothing.
                    shard.ended().replace(empty);
                }
            }
        }
        // Room first: what is noted has a place.
        self.recording.set(wanted);
    }

    /// Hands over the connections that have ended since the last call; returns how many there was
    /// no room for.
    pub(crate) fn fetch_ended(&self, mut take: impl FnMut(Ended)) -> u64 {
        let is_on = self.recording.is_on();
        let room = if is_on { self.ended_room() } else { 0 };
        let mut all_lost = 0;
        for shard in &self.shards {
            let is_as_before = {
                let mut shard = lock(&shard.connections);
                let ended = shard.ended();
                ended.is_empty() && (is_on || ended.room() == 0)
            };
            if is_as_before {
                continue;
            }
            let empty = Vec::with_capacity(room);
            let (noted, lost) = lock(&shard.connections).ended().replace(empty);
            noted.into_iter().for_each(&mut take);
            all_lost += lost;
        }
        all_lost
    }

    fn ended_room(&self) -> usize {
        MAX_ENDED / self.shards.len()
    }
}
