//! Which connections are recorded when they end, and those that have ended, until somebody fetches
//! them.
//!
//! Each shard of the table has a list of its own, which is changed under the lock that whoever
//! removes a connection holds already: nobody waits, and nothing is allocated or copied. An entry
//! is the connection itself, with all that it counted; what else is to be known of it is found
//! out when it is fetched. The lists are bounded; what they have no room for is counted. While
//! nothing is recorded, the end of a connection costs one load more; packets cost nothing either
//! way.
//!
//! A connection that its own ends have closed is noted some seconds later, though it stays in the
//! table for what may still be on its way, and not again when it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Connection;
use super::end::ConnectionEnd;
use crate::fixed_hash::mix;
use crate::time::Timestamp;

/// For how long a connection that its ends have closed is silent before it is recorded: an end that
/// misses the last acknowledgement repeats its FIN sooner (RFC 6298 section 2: after one second).
const RECORDED_AFTER: Duration = Duration::from_secs(2);

/// Which connections are to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordConnections {
    /// One in so many for good; 0 is none.
    pub one_in: u32,
    /// All of them, because somebody looks on.
    pub all: bool,
}

/// What is recorded now.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// [`RecordConnections`]; `all` is the topmost bit. Relaxed: a removal that finds the wish of
    /// before is as good as one that came before.
    wanted: AtomicU64,
    /// Connections that have ended since recording began, by which samples are chosen.
    ended: AtomicU64,
}

const ALL: u64 = 1 << 63;

impl Recording {
    pub(super) fn set(&self, wanted: RecordConnections) {
        let all = u64::from(wanted.all) * ALL;
        self.wanted.store(u64::from(wanted.one_in) | all, Relaxed);
    }

    pub(super) fn get(&self) -> RecordConnections {
        let wanted = self.wanted.load(Relaxed);
        RecordConnections {
            one_in: u32::try_from(wanted & !ALL).unwrap_or(0),
            all: wanted & ALL != 0,
        }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.wanted.load(Relaxed) != 0
    }

    /// Returns whether the next connection is wanted, and whether as a sample; which ones are
    /// samples follows no pattern that traffic could have.
    fn choose(&self) -> (bool, bool) {
        let RecordConnections { one_in, all } = self.get();
        let is_sample = match u64::from(one_in) {
            0 => false,
            1 => true,
            one_in => mix(0, self.ended.fetch_add(1, Relaxed)).is_multiple_of(one_in),
        };
        (is_sample || all, is_sample)
    }

    /// Returns whether a connection is to be recorded that is still there: its ends have closed it
    /// for good.
    pub(super) fn wants_finished(&self, conn: &Connection, now: Timestamp) -> bool {
        self.is_on()
            && !conn.is_recorded()
            && now.since(conn.last_seen()) >= RECORDED_AFTER
            && conn.is_finished()
    }
}

/// A connection that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) conn: Arc<Connection>,
    pub(crate) end: ConnectionEnd,
    /// It is one of those that are wanted for good.
    pub(crate) is_sample: bool,
}

/// See the module. Not synchronized: the shard's lock guards it.
#[derive(Debug, Default)]
pub(super) struct EndedLog {
    /// Never longer than what room was made for.
    entries: Vec<Ended>,
    lost: u64,
}

impl EndedLog {
    /// Notes a connection, once.
    #[cold]
    pub(super) fn note(
        &mut self,
        conn: &Arc<Connection>,
        end: ConnectionEnd,
        recording: &Recording,
    ) {
        let is_known = conn.set_recorded();
        let (is_wanted, is_sample) = if is_known {
            (false, false)
        } else {
            recording.choose()
        };
        if !is_wanted {
            return;
        }
        if self.entries.len() >= self.entries.capacity() {
            self.lost += 1;
            return;
        }
        self.entries.push(Ended {
            conn: Arc::clone(conn),
            // Why it went matters less than that it was over before.
            end: conn.own_end().unwrap_or(end),
            is_sample,
        });
    }

    /// Takes what is noted and puts an empty list in its place; returns how many there was no room
    /// for as well.
    pub(super) fn replace(&mut self, empty: Vec<Ended>) -> (Vec<Ended>, u64) {
        let noted = std::mem::replace(&mut self.entries, empty);
        (noted, std::mem::take(&mut self.lost))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.lost == 0
    }

    /// Returns how many entries there is room for.
    pub(super) fn room(&self) -> usize {
        self.entries.capacity()
    }
}
