//! Which connections are recorded when they begin and end, and those that have, until somebody
//! fetches them.
//!
//! Each shard of the table has a list of its own, which is changed under the lock that whoever
//! makes or removes a connection holds already: nobody waits, and nothing is allocated or copied. An
//! entry is the connection itself, with all that it counts; what else is to be known of it is found
//! out when it is fetched. The lists are bounded; what they have no room for is counted. While
//! nothing is recorded, the beginning and the end of a connection cost one load more each; packets
//! between them cost nothing either way.
//!
//! Whether a connection is a sample is decided when it begins, so that of each there is either both
//! or nothing. Who makes a connection has it judged after that, or takes it back: a beginning counts
//! once rules have allowed it.
//!
//! A connection that its own ends have closed is noted some seconds later, though it stays in the
//! table for what may still be on its way, and not again when it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use vswitch_api::Epoch;

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
    /// Those that are wanted, when they begin as well.
    pub starts: bool,
}

impl RecordConnections {
    /// Returns whether a connection is one of those that are wanted for good.
    fn has_sample(&self, conn: &Connection) -> bool {
        match self.one_in {
            0 => false,
            1 => true,
            _ => conn.is_sample(),
        }
    }
}

/// What is recorded now.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// [`RecordConnections`]; `all` and `starts` are the topmost bits. Relaxed: a removal that finds
    /// the wish of before is as good as one that came before.
    wanted: AtomicU64,
    /// Connections that have begun since recording began, by which samples are chosen.
    begun: AtomicU64,
}

const ALL: u64 = 1 << 63;
const STARTS: u64 = 1 << 62;

impl Recording {
    pub(super) fn set(&self, wanted: RecordConnections) {
        let all = u64::from(wanted.all) * ALL;
        let starts = u64::from(wanted.starts) * STARTS;
        let one_in = u64::from(wanted.one_in);
        self.wanted.store(one_in | all | starts, Relaxed);
    }

    pub(super) fn get(&self) -> RecordConnections {
        let wanted = self.wanted.load(Relaxed);
        RecordConnections {
            one_in: u32::try_from(wanted & !(ALL | STARTS)).unwrap_or(0),
            all: wanted & ALL != 0,
            starts: wanted & STARTS != 0,
        }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.wanted.load(Relaxed) != 0
    }

    /// Returns whether the next connection that begins is a sample, one in so many; which ones are
    /// follows no pattern that traffic could have.
    fn next_is_sample(&self, one_in: u32) -> bool {
        mix(0, self.begun.fetch_add(1, Relaxed)).is_multiple_of(one_in.into())
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

/// A connection that has begun or ended.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) conn: Arc<Connection>,
    /// How it ended; `None`: it has begun.
    pub(crate) end: Option<ConnectionEnd>,
    /// It is one of those that are wanted for good.
    pub(crate) is_sample: bool,
}

impl Noted {
    /// Returns whether rules have allowed it, and not only a worker has made it.
    pub(super) fn is_judged(&self) -> bool {
        self.end.is_some() || self.conn.judged() != Epoch(0)
    }
}

/// See the module. Not synchronized: the shard's lock guards it.
#[derive(Debug, Default)]
pub(super) struct NoteLog {
    /// Never longer than what room was made for.
    entries: Vec<Noted>,
    lost: u64,
}

impl NoteLog {
    /// Decides whether a connection that begins is a sample, and notes it if that is wanted.
    #[cold]
    #[inline(never)]
    pub(super) fn begin(&mut self, conn: &Arc<Connection>, recording: &Recording) {
        let wanted = recording.get();
        if wanted.one_in > 1 && recording.next_is_sample(wanted.one_in) {
            conn.set_sample();
        }
        if wanted.starts {
            self.note(conn, wanted, || None);
        }
    }

    /// Notes the end of a connection, once.
    #[cold]
    #[inline(never)]
    pub(super) fn end(
        &mut self,
        conn: &Arc<Connection>,
        end: ConnectionEnd,
        recording: &Recording,
    ) {
        if !conn.set_recorded() {
            // Why it went matters less than that it was over before.
            let end = || Some(conn.own_end().unwrap_or(end));
            self.note(conn, recording.get(), end);
        }
    }

    fn note(
        &mut self,
        conn: &Arc<Connection>,
        wanted: RecordConnections,
        end: impl FnOnce() -> Option<ConnectionEnd>,
    ) {
        let is_sample = wanted.has_sample(conn);
        if is_sample || wanted.all {
            self.put(|| Noted {
                conn: Arc::clone(conn),
                end: end(),
                is_sample,
            });
        }
    }

    /// Takes in again what is not to be fetched yet.
    pub(super) fn put_back(&mut self, noted: Noted) {
        self.put(|| noted);
    }

    fn put(&mut self, noted: impl FnOnce() -> Noted) {
        if self.entries.len() < self.entries.capacity() {
            self.entries.push(noted());
        } else {
            self.lost += 1;
        }
    }

    /// Takes what is noted and puts an empty list in its place; returns how many there was no room
    /// for as well.
    pub(super) fn replace(&mut self, empty: Vec<Noted>) -> (Vec<Noted>, u64) {
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
