//! The connection table: shards behind locks, one limit over all of them.
//!
//! Invariant: `Tally::entries` is at least the number of connections in all shards and at most
//! `max_entries`; a place is reserved in it before a connection goes into its shard.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;
use vswitch_api::PortNo;

use super::connection::Birth;
use super::end::ConnectionEnd;
use super::fragment::{DatagramId, FirstFragment, FragmentTable};
use super::nat;
use super::noted::Recording;
use super::port_shares::PortShares;
use super::protocol::Protocol;
use super::shard::{Shard, Swept};
use super::step::Start;
use super::tally::{ConntrackStats, Tally};
use super::{Connection, ConnectionInfo, ConntrackConfig, Direction, Tuple};
use crate::drop_reason::DropReason;
use crate::fairness::PortShare;
use crate::flow::FlowKey;
use crate::packet::{Fragment, ParsedPacket};
use crate::time::Timestamp;

/// Shards of a table that is large enough to need them.
const MAX_SHARDS: usize = 64;
/// Connections for which another shard is worth its lock.
const ENTRIES_PER_SHARD: usize = 256;
/// Slots that one call of [`ConnTable::expire`] looks at, at least; and the share of a larger
/// table. Called each second it goes through the table in a quarter of a minute.
const EXPIRE_BUDGET: usize = 16_384;
const EXPIRE_SHARE: usize = 16;
/// Slots that it looks at under one lock, some tens of microseconds.
const EXPIRE_CHUNK: usize = 4_096;
/// Part of the table above which unanswered connections of ports over their share go early.
const CROWDED_SHARE: usize = 4;
/// How long a connection may then wait for an answer: longer than most networks take, and than
/// TCP's first retransmission (RFC 6298 section 2: one second).
const UNANSWERED_PATIENCE: Duration = Duration::from_secs(2);
/// Connections of one shard that early drop looks at (nf_conntrack: NF_CT_EVICTION_RANGE).
const EVICTION_LOOKS: usize = 8;
/// Shards that early drop tries (a small table's again), so that a flood against a full table stays cheap.
const EVICTION_TRIES: usize = 8;
/// Ports among which the unanswered connections of a full table are shared out, at least: one that
/// has more than such a part is over its share.
const SHARES: usize = 64;
const LEAST_SHARE: usize = 64;
/// Datagrams under way whose first fragment is remembered, over all shards.
const MAX_FRAGMENTED: usize = 8_192;

/// How to commit a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitOptions {
    /// Accept a packet in the middle of a stream as the first one.
    pub midstream_pickup: bool,
    /// The packet goes in the reply direction of the connection to be created (mid-stream).
    pub swapped: bool,
    /// Port that the connection's original direction comes in through.
    pub in_port: PortNo,
    /// Port that the connection's original direction leaves through.
    pub out_port: PortNo,
}

/// How good a choice a connection is to make room: tier, then what tells in it, lowest first.
type Rank = (u8, usize, Timestamp);

/// What became of an attempt to file a new connection.
enum Claim {
    /// It is in the table.
    Filed,
    /// The packet is of this one, which was there before.
    Known(Arc<Connection>, Direction),
    /// Its answers would look like those of another connection.
    AnswersTaken,
}

/// On cache lines of its own: neighbours are for other workers.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct LockedShard {
    pub(super) connections: Mutex<Shard>,
    fragments: Mutex<FragmentTable>,
}

/// All connections, shared by all workers.
#[derive(Debug)]
pub struct ConnTable {
    config: ConntrackConfig,
    pub(super) hasher: RandomState,
    pub(super) shards: Box<[LockedShard]>,
    shares: PortShares,
    tally: Tally,
    pub(super) recording: Recording,
}

impl ConnTable {
    /// Returns an empty table.
    #[must_use]
    pub fn new(config: ConntrackConfig) -> Self {
        let shard_count = (config.max_entries / ENTRIES_PER_SHARD)
            .clamp(1, MAX_SHARDS)
            .next_power_of_two();
        let shard = || LockedShard {
            connections: Mutex::default(),
            fragments: Mutex::new(FragmentTable::new(MAX_FRAGMENTED / shard_count)),
        };
        Self {
            config,
            hasher: RandomState::default(),
            shards: std::iter::repeat_with(shard).take(shard_count).collect(),
            shares: PortShares::default(),
            tally: Tally::default(),
            recording: Recording::default(),
        }
    }

    /// Returns what is counted for a port.
    #[must_use]
    pub fn port_share(&self, port: PortNo) -> Arc<PortShare> {
        self.shares.of(port)
    }

    /// Forgets ports that are gone; what connections they still have goes on counting for nobody.
    pub(crate) fn forget_ports(&self, ports: &HashSet<PortNo>) {
        self.shares.forget(ports);
    }

    /// Makes the packet the first one of a connection, or takes it into the one that another
    /// worker has committed meanwhile. A connection that the packet reopens is replaced.
    ///
    /// `leaves_as` is the packet's key with the addresses and ports that it leaves with; where
    /// they differ from its own the connection is translated. If answers would look like those
    /// of another connection, it leaves with another source port.
    ///
    /// # Errors
    /// [`DropReason::CtInvalid`] if the packet cannot start a connection,
    /// [`DropReason::FragmentUnknown`] if it is a later fragment, [`DropReason::CtTableFull`]
    /// if the table is full of answered connections, [`DropReason::NatPortsExhausted`] if no
    /// source port was found that tells its answers from others'.
    pub fn commit(
        &self,
        pkt: &ParsedPacket,
        leaves_as: &FlowKey,
        now: Timestamp,
        options: CommitOptions,
    ) -> Result<Arc<Connection>, DropReason> {
        if matches!(pkt.fragment, Fragment::Later { .. }) {
            return Err(DropReason::FragmentUnknown);
        }
        let tuple = |key| Tuple::of_packet(pkt, key).ok_or(DropReason::CtInvalid);
        let arrived = tuple(&pkt.key)?;
        if let Err(reason) = self.check_start(pkt, options) {
            // It may be of a connection that another worker has committed meanwhile.
            let (conn, direction) = self.find(&arrived, now).ok_or(reason)?;
            conn.track(pkt, direction, now, &self.config)?;
            return Ok(conn);
        }
        let CommitOptions {
            in_port, out_port, ..
        } = options;
        let (original, reply, direction) = if options.swapped {
            (arrived.reversed(), arrived, Direction::Reply)
        } else {
            let reply = tuple(leaves_as)?.reversed();
            (arrived, reply, Direction::Original)
        };
        let birth = Birth {
            original,
            reply,
            direction,
            out_port,
            now,
        };
        self.insert(pkt, birth, &self.shares.of(in_port))
    }

    fn check_start(&self, pkt: &ParsedPacket, options: CommitOptions) -> Result<(), DropReason> {
        match Protocol::start_of(pkt) {
            _ if pkt.icmp_quote.is_some() => Err(DropReason::CtInvalid),
            Start::New => Ok(()),
            Start::Midstream if options.midstream_pickup => Ok(()),
            Start::Midstream | Start::Invalid => Err(DropReason::CtInvalid),
        }
    }

    fn insert(
        &self,
        pkt: &ParsedPacket,
        mut birth: Birth,
        share: &Arc<PortShare>,
    ) -> Result<Arc<Connection>, DropReason> {
        let hash = birth.original.symmetric_hash(&self.hasher);
        let mut fresh = self.start(birth, share, pkt)?;
        self.reserve(hash, share, birth.now)?;
        let mut ports = nat::source_ports(&birth.original, hash);
        let claim = loop {
            match self.claim(hash, &fresh, pkt, birth.now) {
                Claim::AnswersTaken => {}
                claim => break claim,
            }
            let Some(port) = ports.next() else {
                self.tally.entries.fetch_sub(1, Relaxed);
                return Err(DropReason::NatPortsExhausted);
            };
            birth.reply.tp_dst = port;
            fresh = self.start(birth, share, pkt)?;
        };
        if let Claim::Known(conn, direction) = claim {
            self.tally.entries.fetch_sub(1, Relaxed);
            conn.track(pkt, direction, birth.now, &self.config)?;
            return Ok(conn);
        }
        Ok(fresh)
    }

    fn start(
        &self,
        birth: Birth,
        share: &Arc<PortShare>,
        pkt: &ParsedPacket,
    ) -> Result<Arc<Connection>, DropReason> {
        Connection::start(&self.config, birth, Arc::clone(share), pkt)
    }

    /// Files a connection under what comes in, and under its answers where they look different.
    fn claim(
        &self,
        hash: u64,
        fresh: &Arc<Connection>,
        pkt: &ParsedPacket,
        now: Timestamp,
    ) -> Claim {
        if fresh.is_translated() && !self.claim_answers(fresh, now) {
            return Claim::AnswersTaken;
        }
        let mut shard = self.lock_shard(hash);
        let tuple = fresh.original();
        if let Some((there, direction)) = shard.find(hash, &tuple) {
            let there = Arc::clone(there);
            if !there.is_expired(now) && !there.is_reopened_by(pkt) {
                drop(shard);
                // Its alias, if it has one, goes when it is met.
                fresh.set_dead();
                return Claim::Known(there, direction);
            }
            let end = if there.is_expired(now) {
                ConnectionEnd::Timeout
            } else {
                ConnectionEnd::Replaced
            };
            let counter = &self.tally.stats.removed;
            self.drop_from(&mut shard, hash, &there, (counter, Some(end)));
        }
        let answers_taken = |shard: &Shard| {
            let other = shard.find(hash, &fresh.reply());
            other.is_some_and(|(other, _)| !other.is_expired(now))
        };
        if !fresh.is_translated() && shard.has_aliases() && answers_taken(&shard) {
            return Claim::AnswersTaken;
        }
        shard.insert(hash, Arc::clone(fresh));
        shard.note_begin(fresh, &self.recording);
        Claim::Filed
    }

    /// Files a translated connection under its answers, unless another has such answers.
    fn claim_answers(&self, fresh: &Arc<Connection>, now: Timestamp) -> bool {
        let reply = fresh.reply();
        let hash = reply.symmetric_hash(&self.hasher);
        let mut shard = self.lock_shard(hash);
        if let Some((other, _)) = shard.find(hash, &reply) {
            let is_own = other.original() == fresh.original();
            match (other.is_expired(now), is_own) {
                // Its slots go when they are met.
                (true, _) => other.set_dead(),
                // It is replaced, or the packet is of it.
                (false, true) => {}
                (false, false) => return false,
            }
        }
        shard.insert_alias(hash, Arc::clone(fresh));
        true
    }

    /// Reserves room for one connection, by an early drop if there is none.
    fn reserve(&self, hash: u64, share: &Arc<PortShare>, now: Timestamp) -> Result<(), DropReason> {
        let max = self.config.max_entries;
        let take = || {
            let more = |entries: usize| (entries < max).then_some(entries + 1);
            self.tally
                .entries
                .fetch_update(Relaxed, Relaxed, more)
                .is_ok()
        };
        // Whoever drops one may see another worker take its place: try again, but not forever.
        if take() || (0..2).any(|_| self.early_drop(hash, share, now) && take()) {
            return Ok(());
        }
        self.tally.stats.full_drops.fetch_add(1, Relaxed);
        if self.is_over_share(share) {
            share.note_refusal(now);
            return Err(DropReason::OverShare);
        }
        Err(DropReason::CtTableFull)
    }

    /// Returns whether a port has more unanswered connections in the table than it can claim
    /// while others want the room.
    fn is_over_share(&self, share: &PortShare) -> bool {
        share.unanswered() > self.share_entries()
    }

    const fn share_entries(&self) -> usize {
        let part = self.config.max_entries / SHARES;
        if part > LEAST_SHARE {
            part
        } else {
            LEAST_SHARE
        }
    }

    /// Removes a connection to make room for one of a port; returns whether there was any.
    ///
    /// What is past its time goes first. Then one that its own ends have ended, which is kept for
    /// late segments only: short connections, each kept for two minutes after its end, would else
    /// fill the table for good. Then the oldest unanswered one of the port that has most of them, if
    /// not fewer than the newcomer's port: a port that floods the table displaces itself. Then one
    /// that was answered, but not for good. A port that is over its share displaces nothing that was
    /// answered.
    fn early_drop(&self, hash: u64, share: &Arc<PortShare>, now: Timestamp) -> bool {
        let own = share.unanswered();
        let is_over = self.is_over_share(share);
        let rank = |conn: &Connection| {
            conn.refresh();
            if conn.is_expired(now) {
                return Some((0, 0, conn.last_seen()));
            }
            if !is_over && conn.is_finished() {
                return Some((1, 0, conn.last_seen()));
            }
            if !conn.is_unanswered() {
                let may_go = !conn.is_assured() && !is_over;
                return may_go.then(|| (3, 0, conn.last_seen()));
            }
            let weight = conn.share().unanswered();
            // More of them is better.
            (weight >= own).then(|| (2, usize::MAX - weight, conn.last_seen()))
        };
        let start = self.shard_at(hash);
        let order = self.shards.iter().cycle().skip(start).take(EVICTION_TRIES);
        let candidate = |(nth, locked): (u32, &LockedShard)| {
            let shard = lock(&locked.connections);
            let random = hash.rotate_left(nth * 8);
            shard.candidate(random, EVICTION_LOOKS, rank)
        };
        let is_good = |rank: &Rank| match *rank {
            (0 | 1, ..) => true,
            (2, rest, _) => usize::MAX - rest > self.share_entries(),
            _ => false,
        };
        let mut best: Option<(Rank, Arc<Connection>)> = None;
        for found in (0..).zip(order).filter_map(candidate) {
            if best.as_ref().is_none_or(|(rank, _)| found.0 < *rank) {
                best = Some(found);
            }
            if best.as_ref().is_some_and(|(rank, _)| is_good(rank)) {
                break;
            }
        }
        let Some(((tier, ..), victim)) = best else {
            return false;
        };
        let stats = &self.tally.stats;
        let (counter, end) = if tier == 0 {
            (&stats.expired, ConnectionEnd::Timeout)
        } else {
            (&stats.early_dropped, ConnectionEnd::Evicted)
        };
        let hash = victim.original().symmetric_hash(&self.hasher);
        let mut shard = self.lock_shard(hash);
        self.drop_from(&mut shard, hash, &victim, (counter, Some(end)))
    }

    /// Has later fragments of this first fragment's datagram follow it. To be called when the
    /// first fragment is forwarded; does nothing for other packets.
    pub fn allow_fragments(&self, pkt: &ParsedPacket, now: Timestamp) {
        let Fragment::First { id } = pkt.fragment else {
            return;
        };
        let key = &pkt.key;
        let Some(datagram) = DatagramId::new(key, id) else {
            return;
        };
        let Some(tuple) = Tuple::of_packet(pkt, key) else {
            return;
        };
        let expires = now + self.config.fragment;
        let first = FirstFragment {
            tuple,
            tp_src: key.tp_src,
            tp_dst: key.tp_dst,
            expires,
        };
        self.lock_fragments(&datagram).note(datagram, first);
    }

    pub(super) fn first_fragment(
        &self,
        datagram: &DatagramId,
        now: Timestamp,
    ) -> Option<FirstFragment> {
        self.lock_fragments(datagram).get(datagram, now)
    }

    /// Returns the live connection of a tuple; one that is past its time is removed.
    pub(crate) fn find(
        &self,
        tuple: &Tuple,
        now: Timestamp,
    ) -> Option<(Arc<Connection>, Direction)> {
        let hash = tuple.symmetric_hash(&self.hasher);
        let mut shard = self.lock_shard(hash);
        let (conn, direction) = shard.find(hash, tuple)?;
        let conn = Arc::clone(conn);
        if conn.is_expired(now) {
            let how = (&self.tally.stats.expired, Some(ConnectionEnd::Timeout));
            if !self.drop_from(&mut shard, hash, &conn, how) {
                // Met by its alias: its own slot, under another lock, goes when it is met.
                conn.set_dead();
            }
            return None;
        }
        Some((conn, direction))
    }

    /// Removes a connection, which ends; returns whether it was in the table.
    pub fn remove(&self, conn: &Arc<Connection>, end: ConnectionEnd) -> bool {
        self.take_out(conn, Some(end))
    }

    /// Removes a connection as if it had never been made.
    pub(crate) fn undo(&self, conn: &Arc<Connection>) {
        self.take_out(conn, None);
    }

    fn take_out(&self, conn: &Arc<Connection>, end: Option<ConnectionEnd>) -> bool {
        let hash = conn.original().symmetric_hash(&self.hasher);
        let mut shard = self.lock_shard(hash);
        self.drop_from(&mut shard, hash, conn, (&self.tally.stats.removed, end))
    }

    fn drop_from(
        &self,
        shard: &mut Shard,
        hash: u64,
        conn: &Arc<Connection>,
        (counter, end): (&AtomicU64, Option<ConnectionEnd>),
    ) -> bool {
        let was_there = shard.remove(hash, conn, (end, &self.recording));
        if was_there {
            self.tally.entries.fetch_sub(1, Relaxed);
            counter.fetch_add(1, Relaxed);
        }
        was_there
    }

    /// Removes connections that are past their time; returns how many. Looks at a bounded part
    /// of the table, the next call goes on from there.
    pub fn expire(&self, now: Timestamp) -> usize {
        let mut removed = 0;
        let mut looked = 0;
        let is_pressed = self.is_crowded() && self.shares.any(|share| self.is_over_share(share));
        let budget = if is_pressed {
            usize::MAX
        } else {
            EXPIRE_BUDGET.max(self.config.max_entries / EXPIRE_SHARE)
        };
        let judge = |conn: &Arc<Connection>| {
            if conn.is_expired(now) {
                Swept::Goes(ConnectionEnd::Timeout)
            } else if is_pressed && self.is_overdue(conn, now) {
                Swept::Goes(ConnectionEnd::Evicted)
            } else if self.recording.wants_finished(conn, now) {
                Swept::IsOver
            } else {
                Swept::Stays
            }
        };
        for _ in 0..self.shards.len() {
            let at = self.tally.expire_at.load(Relaxed) % self.shards.len();
            let Some(locked) = self.shards.get(at) else {
                break;
            };
            lock(&locked.fragments).expire(now);
            let mut shard = lock(&locked.connections);
            let slots = shard.slot_count().min(EXPIRE_CHUNK);
            removed += shard.sweep(slots, &self.recording, judge);
            shard.shrink();
            drop(shard);
            self.tally.expire_at.store(at + 1, Relaxed);
            looked += slots;
            if looked >= budget {
                break;
            }
        }
        self.count_removed(removed, &self.tally.stats.expired);
        removed
    }

    /// Returns whether room may be wanted soon.
    fn is_crowded(&self) -> bool {
        self.tally.entries.load(Relaxed) > self.config.max_entries / CROWDED_SHARE
    }

    /// Returns whether a connection waits for an answer for too long, its port having more of
    /// such than its share.
    fn is_overdue(&self, conn: &Connection, now: Timestamp) -> bool {
        conn.is_unanswered()
            && now.since(conn.last_seen()) > UNANSWERED_PATIENCE
            && self.is_over_share(conn.share())
    }

    /// Removes the connections that `end` has an end for; returns how many.
    pub fn flush(&self, mut end: impl FnMut(&Arc<Connection>) -> Option<ConnectionEnd>) -> usize {
        let mut judge = |conn: &Arc<Connection>| end(conn).map_or(Swept::Stays, Swept::Goes);
        let mut removed = 0;
        for shard in &self.shards {
            let mut shard = lock(&shard.connections);
            let slots = shard.slot_count();
            removed += shard.sweep(slots, &self.recording, &mut judge);
        }
        self.count_removed(removed, &self.tally.stats.removed);
        removed
    }

    fn count_removed(&self, removed: usize, counter: &AtomicU64) {
        self.tally.entries.fetch_sub(removed, Relaxed);
        counter.fetch_add(u64::try_from(removed).unwrap_or(u64::MAX), Relaxed);
    }

    /// Calls `visit` for each connection, shard by shard; no lock is held meanwhile.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Connection>)) {
        for shard in &self.shards {
            let connections: Vec<_> = lock(&shard.connections).connections().cloned().collect();
            connections.iter().for_each(&mut visit);
        }
    }

    /// Visits all about every connection that is not past its time, without holding up others.
    pub fn visit(&self, now: Timestamp, mut visit: impl FnMut(ConnectionInfo)) {
        self.for_each(|conn| {
            if !conn.is_expired(now) {
                visit(conn.info(now));
            }
        });
    }

    /// Returns all about every connection that is not past its time.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Vec<ConnectionInfo> {
        let mut all = Vec::new();
        self.visit(now, |info| all.push(info));
        all
    }

    /// Returns how many connections there is memory for.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        let slots = |shard: &LockedShard| lock(&shard.connections).slot_capacity();
        self.shards.iter().map(slots).sum()
    }

    /// Returns the table's figures.
    #[must_use]
    pub fn stats(&self) -> ConntrackStats {
        self.tally.figures(self.config.max_entries)
    }

    /// Returns the limits and timeouts.
    #[must_use]
    pub fn config(&self) -> &ConntrackConfig {
        &self.config
    }

    fn shard_at(&self, hash: u64) -> usize {
        // The index uses the hash's low and topmost bits: take the shard from between.
        usize::try_from((hash >> 32) & 0xffff).unwrap_or(0) % self.shards.len()
    }

    pub(super) fn lock_shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        let shard = self
            .shards
            .get(self.shard_at(hash))
            .expect("an index below the length");
        lock(&shard.connections)
    }

    fn lock_fragments(&self, datagram: &DatagramId) -> MutexGuard<'_, FragmentTable> {
        use std::hash::BuildHasher;
        let at = self.shard_at(self.hasher.hash_one(datagram));
        lock(
            &self
                .shards
                .get(at)
                .expect("an index below the length")
                .fragments,
        )
    }
}

/// Locks, whatever became of another thread: shards are consistent between statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
