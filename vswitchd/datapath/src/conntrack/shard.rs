//! One shard of the connection table: slots that can be walked piece by piece, and an index
//! from hashes to slots.
//!
//! A connection whose addresses are translated has two slots, often in different shards: its
//! own under the hash of what comes in, and an alias under that of its answers. No lock is ever
//! held over two shards: an alias whose connection is dead counts as absent and goes as soon
//! as it is met.
//!
//! What begins and ends here is noted here too, while somebody wants to know: under the lock that is held
//! anyway, so that nobody waits for another.
//!
//! Invariant: every used slot is in the index under its hash, exactly once.

use std::sync::Arc;

use hashbrown::HashTable;

use super::end::ConnectionEnd;
use super::noted::{NoteLog, Recording};
use super::{Connection, Direction, Tuple};

/// What a walk makes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// It stays.
    Stays,
    /// It is over, but kept for what may still be on its way.
    IsOver,
    /// It goes.
    Goes(ConnectionEnd),
}

/// What a connection takes in its shard. There are a million: the slot keeps half of the hash,
/// and slots grow by less than doubling.
#[derive(Debug)]
struct Slot {
    conn: Arc<Connection>,
    hash: u32,
    is_alias: bool,
}

/// Share of its slots by which a shard that is full grows, and the least.
const GROWTH_SHARE: usize = 4;
const LEAST_GROWTH: usize = 64;

/// Slots that a shard keeps whatever it holds, and the part of the rest below which it gives back.
const LEAST_SHRINK: usize = 256;
const SHRINK_BELOW: usize = 4;

/// Connections whose hashes fall into this shard. Not synchronized: the table locks it.
#[derive(Debug, Default)]
pub(super) struct Shard {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    aliases: usize,
    /// Where the next bounded walk goes on.
    cursor: u32,
    /// What began and ended since somebody last asked.
    notes: NoteLog,
}

impl Shard {
    /// Returns the connection that packets with this tuple belong to, and which way they go.
    pub(super) fn find(&self, hash: u64, tuple: &Tuple) -> Option<(&Arc<Connection>, Direction)> {
        let mut direction = None;
        let is_match = |&at: &u32| {
            self.slot(at).is_some_and(|slot| {
                direction = (slot.hash == kept(hash))
                    .then(|| slot.conn.direction_of(tuple))
                    .flatten();
                direction.is_some() && !slot.conn.is_dead()
            })
        };
        let at = *self.index.find(spread(kept(hash)), is_match)?;
        Some((&self.slot(at)?.conn, direction?))
    }

    pub(super) fn insert(&mut self, hash: u64, conn: Arc<Connection>) {
        self.put(Slot {
            conn,
            hash: kept(hash),
            is_alias: false,
        });
    }

    /// Makes the connection known by its answers as well.
    pub(super) fn insert_alias(&mut self, hash: u64, conn: Arc<Connection>) {
        self.aliases += 1;
        self.put(Slot {
            conn,
            hash: kept(hash),
            is_alias: true,
        });
    }

    /// Returns whether any connection is known here by its answers.
    pub(super) const fn has_aliases(&self) -> bool {
        self.aliases != 0
    }

    fn put(&mut self, slot: Slot) {
        let hash = spread(slot.hash);
        let slot = Some(slot);
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(free) = self.slots.get_mut(place(at)) {
                    *free = slot;
                }
                at
            }
            None => self.append(slot),
        };
        let slots = &self.slots;
        let rehash = |&at: &u32| {
            let slot = slots.get(place(at)).and_then(Option::as_ref);
            slot.map_or(0, |slot| spread(slot.hash))
        };
        self.index.insert_unique(hash, at, rehash);
    }

    fn append(&mut self, slot: Option<Slot>) -> u32 {
        let len = self.slots.len();
        if len == self.slots.capacity() {
            self.slots
                .reserve_exact((len / GROWTH_SHARE).max(LEAST_GROWTH));
        }
        self.slots.push(slot);
        u32::try_from(len).expect("a shard holds less than four thousand million connections")
    }

    /// Takes out exactly this connection and marks it dead, not its alias elsewhere; returns
    /// whether it was there. `end` says how it ends, `None` if it is as if it had never been.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        conn: &Arc<Connection>,
        (end, recording): (Option<ConnectionEnd>, &Recording),
    ) -> bool {
        let slots = &self.slots;
        let is_it = |&at: &u32| {
            slots
                .get(place(at))
                .and_then(Option::as_ref)
                .is_some_and(|s| !s.is_alias && Arc::ptr_eq(&s.conn, conn))
        };
        let Ok(entry) = self.index.find_entry(spread(kept(hash)), is_it) else {
            return false;
        };
        let (at, _) = entry.remove();
        self.vacate(at);
        if let Some(end) = end {
            self.note_end(conn, end, recording);
        }
        true
    }

    /// Notes that a connection begins, if that is recorded.
    #[inline]
    pub(super) fn note_begin(&mut self, conn: &Arc<Connection>, recording: &Recording) {
        if recording.is_on() {
            self.notes.begin(conn, recording);
        }
    }

    /// Notes that a connection has ended, if that is recorded.
    #[inline]
    pub(super) fn note_end(
        &mut self,
        conn: &Arc<Connection>,
        end: ConnectionEnd,
        recording: &Recording,
    ) {
        if recording.is_on() {
            self.notes.end(conn, end, recording);
        }
    }

    /// Returns what is noted.
    pub(super) fn notes(&mut self) -> &mut NoteLog {
        &mut self.notes
    }

    /// Takes out every connection that goes by `judge` among the next `budget` slots, and
    /// the aliases of dead ones; returns how many connections.
    pub(super) fn sweep(
        &mut self,
        budget: usize,
        recording: &Recording,
        mut judge: impl FnMut(&Arc<Connection>) -> Swept,
    ) -> usize {
        let mut removed = 0;
        for _ in 0..budget.min(self.slots.len()) {
            let at = self.advance_cursor();
            let Some(Slot { conn, is_alias, .. }) = self.slot(at) else {
                continue;
            };
            if *is_alias {
                if conn.is_dead() {
                    self.take(at);
                }
                continue;
            }
            match judge(conn) {
                Swept::Stays => {}
                Swept::IsOver => {
                    let conn = Arc::clone(conn);
                    self.note_end(&conn, ConnectionEnd::Timeout, recording);
                }
                Swept::Goes(end) => {
                    if let Some(conn) = self.take(at) {
                        self.note_end(&conn, end, recording);
                    }
                    removed += 1;
                }
            }
        }
        removed
    }

    /// Returns the best one to sacrifice among at most `looks` connections: `rank` says how good
    /// a choice each is, lowest first, `None` not at all. They are picked all over the shard,
    /// because slots of long-lived connections are neighbours; `random` decides which.
    pub(super) fn candidate<R: Ord>(
        &self,
        random: u64,
        looks: usize,
        rank: impl Fn(&Connection) -> Option<R>,
    ) -> Option<(R, Arc<Connection>)> {
        let random = usize::try_from(random >> 1).unwrap_or(usize::MAX >> 1);
        let start = random.checked_rem(self.slots.len())?;
        let stride = (random >> 20) | 1;
        // Free slots cost less than a look, not nothing.
        (0..looks * 16)
            .map(|step| start.wrapping_add(stride.wrapping_mul(step)) % self.slots.len())
            .filter_map(|at| self.slots.get(at)?.as_ref())
            .filter(|slot| !slot.is_alias)
            .take(looks)
            .filter_map(|slot| Some((rank(&slot.conn)?, &slot.conn)))
            .min_by(|(a, _), (b, _)| a.cmp(b))
            .map(|(rank, conn)| (rank, Arc::clone(conn)))
    }

    /// Gives memory back that connections took which are gone, where that is most of it.
    pub(super) fn shrink(&mut self) {
        let used = self.slots.len() - self.free.len();
        if self.slots.capacity() < LEAST_SHRINK || used * SHRINK_BELOW > self.slots.capacity() {
            return;
        }
        let slots = std::mem::take(self);
        self.slots.reserve_exact(used + used / GROWTH_SHARE);
        (self.aliases, self.notes) = (slots.aliases, slots.notes);
        slots
            .slots
            .into_iter()
            .flatten()
            .for_each(|slot| self.put(slot));
    }

    /// Takes out what is in a slot and marks it dead.
    pub(super) fn take(&mut self, at: u32) -> Option<Arc<Connection>> {
        let hash = spread(self.slot(at)?.hash);
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == at) {
            entry.remove();
        }
        self.vacate(at)
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        let slots = self.slots.iter().flatten();
        slots.filter(|slot| !slot.is_alias).map(|slot| &slot.conn)
    }

    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    #[cfg(test)]
    pub(super) fn slot_capacity(&self) -> usize {
        self.slots.capacity()
    }

    fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(place(at)).and_then(Option::as_ref)
    }

    fn vacate(&mut self, at: u32) -> Option<Arc<Connection>> {
        let slot = self.slots.get_mut(place(at))?.take()?;
        if slot.is_alias {
            self.aliases -= 1;
        } else {
            slot.conn.set_dead();
        }
        self.free.push(at);
        Some(slot.conn)
    }

    fn advance_cursor(&mut self) -> u32 {
        let at = if place(self.cursor) < self.slots.len() {
            self.cursor
        } else {
            0
        };
        self.cursor = at + 1;
        at
    }
}

/// Returns the half of a hash that a slot keeps.
#[expect(clippy::cast_possible_truncation, reason = "halves the hash")]
const fn kept(hash: u64) -> u32 {
    hash as u32
}

/// Returns a hash for the index, which looks at both ends of it.
const fn spread(kept: u32) -> u64 {
    (kept as u64) << 32 | kept as u64
}

/// Widens the number of a slot.
const fn place(at: u32) -> usize {
    at as usize
}
