//! A tracked connection: its tuples, ports, protocol state, counters and timeout.
//!
//! Made by [`super::ConnTable::commit`], shared by the table and by the flow caches of all
//! workers. What a packet changes together stands under one lock, which workers only share if
//! both directions of the connection are on different ones; the rest is atomic.
//!
//! A million of them are held: what is not needed by most is behind a pointer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use vswitch_api::{Epoch, PortNo};

use super::end::ConnectionEnd;
use super::faces::{Faces, Kind};
use super::in_kernel::InKernel;
use super::kernel_state::{KernelCell, KernelTcp};
use super::protocol::Protocol;
use super::step::{Progress, Step};
use super::{ConntrackConfig, Direction, Tuple};
use crate::drop_reason::DropReason;
use crate::fairness::PortShare;
use crate::flow::{CtState, ip_proto};
use crate::packet::emit::BarePacket;
use crate::packet::{ParsedPacket, PlainPacket};
use crate::time::Timestamp;

/// How long a connection that is cut stays known, so that both ends can be told. nf_conntrack
/// gives up an end that answers nothing (tcp_timeout_unacknowledged) after the same time.
const CUT_LINGER: Duration = Duration::from_secs(300);

/// A committed connection.
#[derive(Debug)]
pub struct Connection {
    faces: Faces,
    kind: Kind,
    /// Of the port that the original direction comes in through: counts the connection while
    /// nobody has answered it.
    share: Arc<PortShare>,
    out_port: PortNo,
    created: Timestamp,
    // Relaxed throughout: each is read on its own, and a reader that is a packet late is as
    // good as a packet that came earlier.
    last_seen: AtomicU64,
    expires: AtomicU64,
    judged: AtomicU64,
    /// See [`fact`].
    facts: AtomicU8,
    /// Guards what a packet changes, for a few nanoseconds; both directions of a connection may
    /// be on different workers. A lock of the standard library would cost a packet three times
    /// as many instructions, half of them for poisoning: a panic inside leaves a state that is
    /// merely old.
    progress: Mutex<Progressed>,
}

/// What is so of a connection; all but `IN_KERNEL` and `WOULD_BE_DENIED` for good.
mod fact {
    /// A packet came in the reply direction.
    pub(super) const REPLIED: u8 = 0x01;
    /// Both sides took part for good.
    pub(super) const ASSURED: u8 = 0x02;
    /// The table no longer has the connection.
    pub(super) const DEAD: u8 = 0x04;
    /// The kernel may forward its packets.
    pub(super) const IN_KERNEL: u8 = 0x08;
    /// Policies in audit would deny it.
    pub(super) const WOULD_BE_DENIED: u8 = 0x10;
    /// Forbidden, but not forgotten yet.
    pub(super) const LINGERS: u8 = 0x20;
    /// That it has ended is recorded.
    pub(super) const RECORDED: u8 = 0x40;
    /// It is one of those that are recorded for good, where that is one in so many.
    pub(super) const SAMPLE: u8 = 0x80;

    /// Each is a bit of its own.
    const _: () = {
        let of_engine = REPLIED | ASSURED | DEAD | IN_KERNEL | WOULD_BE_DENIED | LINGERS;
        let of_records = RECORDED | SAMPLE;
        assert!((of_engine | of_records).count_ones() == 8);
    };
}

/// How far a connection is.
#[derive(Debug)]
struct Progressed {
    /// Packets of the original and of the reply direction.
    packets: [u64; 2],
    /// Their bytes.
    bytes: [u64; 2],
    protocol: Protocol,
    /// Its place in the kernel, while it has one: what the kernel knows is taken over whenever the
    /// lock is taken, and it is told what changed before the lock is let go.
    in_kernel: Option<Box<InKernel>>,
}

impl Progressed {
    #[inline(always)]
    fn count(&mut self, direction: Direction, (packets, bytes): (u64, u64)) {
        let at = direction as usize;
        if let (Some(seen), Some(sum)) = (self.packets.get_mut(at), self.bytes.get_mut(at)) {
            *seen += packets;
            *sum += bytes;
        }
    }

    fn counts(&self, direction: Direction) -> (u64, u64) {
        let at = direction as usize;
        let of = |sums: &[u64; 2]| sums.get(at).copied().unwrap_or_default();
        (of(&self.packets), of(&self.bytes))
    }
}

/// What is to be known to make a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Birth {
    pub(super) original: Tuple,
    /// What answers will look like; the reverse of `original` unless addresses are translated.
    pub(super) reply: Tuple,
    pub(super) direction: Direction,
    pub(super) out_port: PortNo,
    pub(super) now: Timestamp,
}

/// Everything about a connection, for `dump-conntrack`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Tuple of the first packet's direction.
    pub original: Tuple,
    /// Tuple of the answers.
    pub reply: Tuple,
    /// Connection tracking zone; there is one, the default zone.
    pub zone: u16,
    /// Name of the protocol's state.
    pub state: &'static str,
    /// Both sides took part.
    pub assured: bool,
    /// The kernel may forward its packets.
    pub in_kernel: bool,
    /// Time left if nothing else comes.
    pub remaining: Duration,
    /// Time since the last packet.
    pub idle: Duration,
    /// Time since the first packet.
    pub age: Duration,
    /// Packets in the original direction.
    pub packets_original: u64,
    /// Their bytes, IP header included.
    pub bytes_original: u64,
    /// Packets in the reply direction.
    pub packets_reply: u64,
    /// Their bytes, IP header included.
    pub bytes_reply: u64,
    /// Port that the original direction comes in through.
    pub in_port: PortNo,
    /// Port that the original direction leaves through.
    pub out_port: PortNo,
    /// Rules that it was last judged by.
    pub judged: Epoch,
}

impl Connection {
    /// Returns the connection that the packet starts.
    ///
    /// # Errors
    /// [`DropReason::CtInvalid`] if the packet cannot start one.
    pub(super) fn start(
        config: &ConntrackConfig,
        birth: Birth,
        share: Arc<PortShare>,
        pkt: &ParsedPacket,
    ) -> Result<Arc<Self>, DropReason> {
        share.open();
        // Made where it stays: it is moved no more.
        let connection = Arc::new(Self {
            faces: Faces::new(&birth.original, &birth.reply),
            kind: Kind::of(&birth.original, &birth.reply),
            share,
            out_port: birth.out_port,
            created: birth.now,
            last_seen: AtomicU64::new(birth.now.as_nanos()),
            expires: AtomicU64::new(u64::MAX),
            judged: AtomicU64::new(0),
            facts: AtomicU8::new(0),
            progress: Mutex::new(Progressed {
                packets: [0; 2],
                bytes: [0; 2],
                protocol: Protocol::before(pkt),
                in_kernel: None,
            }),
        });
        connection.track(pkt, birth.direction, birth.now, config)?;
        Ok(connection)
    }

    /// Takes in a packet that is forwarded: advances the protocol state, counts, and extends
    /// the connection's life. ICMP errors about the connection change nothing. `config` is that
    /// of the connection's table.
    ///
    /// # Errors
    /// [`DropReason::CtInvalid`] if the packet does not fit the connection's state, or if the
    /// connection is dead or past its time, or over and this packet starts another one: then it
    /// has to go through [`super::ConnTable::lookup`].
    pub fn track(
        &self,
        pkt: &ParsedPacket,
        direction: Direction,
        now: Timestamp,
        config: &ConntrackConfig,
    ) -> Result<(), DropReason> {
        if pkt.icmp_quote.is_some() || pkt.key.ip_proto != self.kind.proto {
            return Ok(());
        }
        let bytes = pkt.l3_end.saturating_sub(pkt.l3_offset);
        let step = self.step(direction, now, config);
        let mut progressed = self.open(step)?;
        // Known by now, if the kernel saw an answer.
        let step = self.step(direction, now, config);
        let progress = progressed.protocol.advance(pkt, step)?;
        if progressed.in_kernel.is_some() {
            self.reconsider_kernel(&mut progressed, pkt);
        }
        self.close(progressed, progress, bytes, step);
        Ok(())
    }

    /// Takes in a plain packet of the connection's protocol as [`track`](Self::track) does.
    ///
    /// # Errors
    /// The same.
    #[inline(always)]
    pub(crate) fn track_plain(
        &self,
        pkt: &PlainPacket<'_>,
        direction: Direction,
        now: Timestamp,
        config: &ConntrackConfig,
    ) -> Result<(), DropReason> {
        let step = self.step(direction, now, config);
        let mut progressed = self.open(step)?;
        if let Some(progress) = progressed.protocol.advance_predicted(pkt, step) {
            self.close(progressed, progress, pkt.l3_len, step);
            return Ok(());
        }
        drop(progressed);
        // Of a copy, so that the packet need not be in memory for those above.
        self.track_unpredicted(*pkt, direction, now, config)
    }

    #[cold]
    #[inline(never)]
    fn track_unpredicted(
        &self,
        pkt: PlainPacket<'_>,
        direction: Direction,
        now: Timestamp,
        config: &ConntrackConfig,
    ) -> Result<(), DropReason> {
        let step = self.step(direction, now, config);
        let mut progressed = self.open(step)?;
        let progress = progressed.protocol.advance_plain(&pkt, step)?;
        self.close(progressed, progress, pkt.l3_len, step);
        Ok(())
    }

    #[inline(always)]
    fn step<'a>(
        &self,
        direction: Direction,
        now: Timestamp,
        config: &'a ConntrackConfig,
    ) -> Step<'a> {
        Step {
            config,
            direction,
            replied: self.is_replied() || direction == Direction::Reply,
            created: self.created,
            now,
        }
    }

    /// Returns what a packet changes, if the connection still takes any.
    #[inline(always)]
    fn open(&self, step: Step<'_>) -> Result<MutexGuard<'_, Progressed>, DropReason> {
        if self.is_dead() || self.is_expired(step.now) {
            return Err(DropReason::CtInvalid);
        }
        Ok(self.lock())
    }

    /// Counts an accepted packet, and extends the connection's life.
    #[inline(always)]
    fn close(
        &self,
        mut progressed: MutexGuard<'_, Progressed>,
        progress: Progress,
        bytes: usize,
        step: Step<'_>,
    ) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        progressed.count(step.direction, (1, bytes));
        if let Some(in_kernel) = &progressed.in_kernel {
            Self::tell_kernel(in_kernel, &progressed.protocol);
        }
        drop(progressed);
        self.apply(progress, step);
    }

    #[cold]
    #[inline(never)]
    fn tell_kernel(in_kernel: &InKernel, protocol: &Protocol) {
        if let Some(tcp) = protocol.for_kernel() {
            in_kernel.join(&tcp);
        }
    }

    /// Hands the connection over to the kernel, if the kernel can track it from here on; `place`
    /// makes its place there from how far TCP has come. Returns whether it did.
    pub fn enter_kernel(
        &self,
        place: impl FnOnce(Option<&KernelTcp>) -> Box<dyn KernelCell>,
    ) -> bool {
        let mut progressed = self.lock();
        let is_open = |in_kernel: &InKernel| in_kernel.is_open();
        let may_enter = !self.is_dead()
            && !self.is_fact(fact::LINGERS)
            && !progressed.in_kernel.as_deref().is_some_and(is_open)
            && progressed.protocol.may_enter_kernel();
        if may_enter {
            let cell = place(progressed.protocol.for_kernel().as_ref());
            progressed.in_kernel = Some(Box::new(InKernel::new(cell)));
            // Under the lock: from here on whoever takes it asks the kernel first.
            let before = self.facts.fetch_or(fact::IN_KERNEL, Relaxed);
            // Who states that has the connection leave the kernel, if it is there by then.
            if before & (fact::DEAD | fact::LINGERS) != 0 {
                self.close_in_kernel(&mut progressed);
            }
        }
        may_enter
    }

    /// Has the kernel leave all further packets to the engine. What it takes in at this moment is
    /// still counted, until the place is [given up](Self::give_place_up).
    pub fn leave_kernel(&self) {
        if !self.is_in_kernel() {
            return;
        }
        let mut progressed = self.progress.lock();
        if let Some(in_kernel) = &progressed.in_kernel {
            in_kernel.shut();
        }
        // After that, so that what the kernel took in until then is known.
        self.ask_kernel(&mut progressed);
        self.close_in_kernel(&mut progressed);
    }

    /// Ends the connection's time in the kernel with a packet that the kernel can make nothing of.
    #[cold]
    #[inline(never)]
    fn reconsider_kernel(&self, progressed: &mut Progressed, pkt: &ParsedPacket) {
        // After a SYN it may be another connection, of which the kernel knows nothing.
        let may_be_another = pkt.tcp.is_some_and(|tcp| tcp.is_syn());
        if may_be_another || progressed.protocol.is_finished() {
            self.close_in_kernel(progressed);
        }
    }

    fn close_in_kernel(&self, progressed: &mut Progressed) {
        if let Some(in_kernel) = &mut progressed.in_kernel {
            in_kernel.close();
            self.facts.fetch_and(!fact::IN_KERNEL, Relaxed);
        }
    }

    /// Takes over what is left in the connection's place in the kernel, which another one will
    /// have; nothing happens to a place that it has entered since it left the kernel.
    pub fn give_place_up(&self) {
        let mut progressed = self.lock();
        progressed
            .in_kernel
            .take_if(|in_kernel| !in_kernel.is_open());
    }

    /// Returns whether the kernel has the connection, or could track it from here on.
    pub(crate) fn may_enter_kernel(&self) -> bool {
        !self.is_dead() && (self.is_in_kernel() || self.lock().protocol.may_enter_kernel())
    }

    /// Returns whether the kernel may forward packets of the connection.
    #[inline]
    #[must_use]
    pub fn is_in_kernel(&self) -> bool {
        self.is_fact(fact::IN_KERNEL)
    }

    /// Takes over what went by in the kernel, and extends the connection's life by it. `config` is
    /// that of the connection's table.
    pub(crate) fn catch_up(&self, config: &ConntrackConfig) {
        let progressed = self.lock();
        if progressed.in_kernel.is_none() || self.is_fact(fact::LINGERS) {
            return;
        }
        let step = self.step(Direction::Original, self.last_seen(), config);
        let progress = progressed.protocol.progress(step);
        drop(progressed);
        self.apply(progress, step);
    }

    /// Takes over what went by in the kernel, for who looks at facts without taking the lock.
    pub(crate) fn refresh(&self) {
        if self.is_in_kernel() {
            drop(self.lock());
        }
    }

    /// Takes over what the kernel knows.
    #[cold]
    #[inline(never)]
    fn ask_kernel(&self, progressed: &mut Progressed) {
        let Some(in_kernel) = &mut progressed.in_kernel else {
            return;
        };
        let news = in_kernel.take();
        let [began, answered] = news.traffic;
        progressed.count(Direction::Original, began);
        progressed.count(Direction::Reply, answered);
        if let Some(tcp) = &news.tcp {
            progressed.protocol.learn_from_kernel(tcp);
            if progressed.protocol.is_finished() {
                self.close_in_kernel(progressed);
            }
        }
        if let Some(last) = news.last {
            self.last_seen.fetch_max(last.as_nanos(), Relaxed);
        }
        let is_open = news.tcp.is_some_and(|tcp| tcp.is_open);
        let replied = u8::from(answered.0 > 0) * fact::REPLIED;
        let assured = u8::from(is_open) * fact::ASSURED;
        if (replied | assured) & !self.facts.load(Relaxed) != 0 {
            self.learn(replied | assured);
        }
    }

    #[inline(always)]
    fn apply(&self, progress: Progress, step: Step<'_>) {
        self.last_seen.store(step.now.as_nanos(), Relaxed);
        if let Some(timeout) = progress.timeout {
            self.expires.store((step.now + timeout).as_nanos(), Relaxed);
        }
        let replied = u8::from(step.replied) * fact::REPLIED;
        let assured = u8::from(progress.assured) * fact::ASSURED;
        // Testing first keeps the line shared between workers.
        if (replied | assured) & !self.facts.load(Relaxed) != 0 {
            self.learn(replied | assured);
        }
    }

    /// Notes facts; whoever first makes the connection an answered one tells its port's share.
    #[cold]
    #[inline(never)]
    fn learn(&self, facts: u8) {
        let before = self.facts.fetch_or(facts, Relaxed);
        if self.waits(before) && self.is_answered_by(before | facts) {
            match self.kind.proto {
                // Any pod answers any number of echo requests: they make no client.
                ip_proto::ICMP | ip_proto::ICMPV6 => self.share.give_up(),
                _ => self.share.answer(),
            }
        }
    }

    /// Returns whether these facts make an answered connection: a TCP or SCTP port that refuses
    /// has answered nothing.
    fn is_answered_by(&self, facts: u8) -> bool {
        let has_handshake = matches!(self.kind.proto, ip_proto::TCP | ip_proto::SCTP);
        facts & fact::ASSURED != 0 || (!has_handshake && facts & fact::REPLIED != 0)
    }

    /// Returns whether with these facts the connection counts as unanswered.
    fn waits(&self, facts: u8) -> bool {
        facts & fact::DEAD == 0 && !self.is_answered_by(facts)
    }

    /// Returns whether the connection waits for an answer.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        self.waits(self.facts.load(Relaxed))
    }

    /// Returns the share of the port that opened it.
    pub(super) const fn share(&self) -> &Arc<PortShare> {
        &self.share
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Progressed> {
        let mut progressed = self.progress.lock();
        if progressed.in_kernel.is_some() {
            self.ask_kernel(&mut progressed);
        }
        progressed
    }

    /// Returns the tuple of the first packet's direction.
    #[must_use]
    pub fn original(&self) -> Tuple {
        self.faces.original(self.kind)
    }

    /// Returns the tuple that answers carry.
    #[must_use]
    pub fn reply(&self) -> Tuple {
        self.faces.reply(self.kind)
    }

    /// Returns whether packets leave with other addresses or ports than they came with.
    #[must_use]
    pub const fn is_translated(&self) -> bool {
        self.kind.is_translated
    }

    /// Returns what the original direction's packets look like when they leave: the receiver's
    /// view of the connection, which policies judge.
    #[must_use]
    pub fn forwarded(&self) -> Tuple {
        self.faces.forwarded(self.kind)
    }

    /// Returns what packets of a direction look like when they leave, `None` if no different
    /// from when they came.
    #[must_use]
    pub fn leaves_as(&self, direction: Direction) -> Option<Tuple> {
        self.is_translated().then(|| match direction {
            Direction::Original => self.forwarded(),
            Direction::Reply => self.original().reversed(),
        })
    }

    /// Returns what packets of a direction look like when they come in.
    #[must_use]
    pub fn comes_as(&self, direction: Direction) -> Tuple {
        match direction {
            Direction::Original => self.original(),
            Direction::Reply => self.reply(),
        }
    }

    /// Returns the `ct_state` flags of what is translated.
    #[must_use]
    pub fn nat_flags(&self) -> CtState {
        if !self.is_translated() {
            return CtState(0);
        }
        let (original, forwarded) = (self.original(), self.forwarded());
        let flag = |differs: bool, flag: CtState| if differs { flag } else { CtState(0) };
        let (src, dst) = (
            (forwarded.src, forwarded.tp_src) != (original.src, original.tp_src),
            (forwarded.dst, forwarded.tp_dst) != (original.dst, original.tp_dst),
        );
        flag(src, CtState::SNAT) | flag(dst, CtState::DNAT)
    }

    /// Returns the port that the original direction comes in through.
    #[must_use]
    pub fn in_port(&self) -> PortNo {
        self.share.port()
    }

    /// Returns the port that the original direction leaves through.
    #[must_use]
    pub const fn out_port(&self) -> PortNo {
        self.out_port
    }

    /// Returns the generation of the rules that last allowed the connection; 0 if none did yet.
    #[must_use]
    pub fn judged(&self) -> Epoch {
        Epoch(self.judged.load(Relaxed))
    }

    /// States that the rules of this generation allow the connection; returns which did before. An
    /// older generation never replaces a newer one: workers may finish out of order.
    pub fn set_judged(&self, epoch: Epoch) -> Epoch {
        Epoch(self.judged.fetch_max(epoch.0, Relaxed))
    }

    /// States whether policies in audit would deny the connection; returns whether those before
    /// would have.
    pub(crate) fn set_would_be_denied(&self, is_denied: bool) -> bool {
        let before = if is_denied {
            self.facts.fetch_or(fact::WOULD_BE_DENIED, Relaxed)
        } else {
            self.facts.fetch_and(!fact::WOULD_BE_DENIED, Relaxed)
        };
        before & fact::WOULD_BE_DENIED != 0
    }

    /// States that the connection is forbidden, but not to be forgotten yet: no packet extends
    /// its life while it is, and that ends before long. Returns whether nobody has stated that of
    /// it before.
    pub fn linger(&self, now: Timestamp) -> bool {
        let before = self.facts.fetch_or(fact::LINGERS, Relaxed);
        self.leave_kernel();
        let latest = (now + CUT_LINGER).as_nanos();
        self.expires.fetch_min(latest, Relaxed);
        before & fact::LINGERS == 0
    }

    /// Returns whether the table no longer has the connection; whoever still holds it has to
    /// look its packets up again.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.is_fact(fact::DEAD)
    }

    #[inline(always)]
    fn is_fact(&self, fact: u8) -> bool {
        self.facts.load(Relaxed) & fact != 0
    }

    pub(super) fn set_dead(&self) {
        // Whether somebody has answered is still to be told its port.
        self.refresh();
        let before = self.facts.fetch_or(fact::DEAD, Relaxed);
        self.leave_kernel();
        if self.waits(before) {
            self.share.give_up();
        }
    }

    /// Returns whether the connection is past its time.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires()
    }

    /// Returns until when the connection is kept if nothing else comes.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        Timestamp::from_nanos(self.expires.load(Relaxed))
    }

    /// Returns when the first packet came.
    #[must_use]
    pub const fn created(&self) -> Timestamp {
        self.created
    }

    /// Returns when the last packet came.
    #[must_use]
    pub fn last_seen(&self) -> Timestamp {
        Timestamp::from_nanos(self.last_seen.load(Relaxed))
    }

    /// Returns whether both sides took part for good, so that a full table keeps it.
    #[must_use]
    pub fn is_assured(&self) -> bool {
        self.is_fact(fact::ASSURED)
    }

    /// Returns whether a packet came in the reply direction.
    #[must_use]
    pub fn is_replied(&self) -> bool {
        self.is_fact(fact::REPLIED)
    }

    /// Returns packets and bytes of one direction.
    #[must_use]
    pub fn traffic(&self, direction: Direction) -> (u64, u64) {
        self.lock().counts(direction)
    }

    /// Returns the name of the protocol's state, e.g. `ESTABLISHED`.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        let protocol = &self.lock().protocol;
        protocol.state_name(self.is_replied(), self.is_assured())
    }

    /// Returns whether its own ends have ended the connection (TIME_WAIT, CLOSE), so that a full
    /// table does without it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.lock().protocol.is_finished()
    }

    /// Returns how its own ends have ended the connection, if they have.
    #[must_use]
    pub(super) fn own_end(&self) -> Option<ConnectionEnd> {
        self.lock().protocol.own_end()
    }

    /// States that the connection's end is recorded; returns whether it was before.
    pub(super) fn set_recorded(&self) -> bool {
        self.facts.fetch_or(fact::RECORDED, Relaxed) & fact::RECORDED != 0
    }

    /// Returns whether the connection's end is recorded.
    pub(super) fn is_recorded(&self) -> bool {
        self.is_fact(fact::RECORDED)
    }

    /// States that the connection is one of those that are recorded for good.
    pub(super) fn set_sample(&self) {
        self.facts.fetch_or(fact::SAMPLE, Relaxed);
    }

    /// Returns whether that was stated.
    pub(super) fn is_sample(&self) -> bool {
        self.is_fact(fact::SAMPLE)
    }

    /// Returns whether the connection is over and the packet starts another one between the
    /// same ends (a SYN after TIME_WAIT). Only [`super::ConnTable::commit`] replaces it.
    #[must_use]
    pub fn is_reopened_by(&self, pkt: &ParsedPacket) -> bool {
        pkt.key.ip_proto == self.kind.proto && self.lock().protocol.is_reopened_by(pkt)
    }

    /// Returns which way packets with this tuple go, `None` if they are not of this connection.
    #[must_use]
    pub fn direction_of(&self, tuple: &Tuple) -> Option<Direction> {
        if *tuple == self.original() {
            Some(Direction::Original)
        } else if *tuple == self.reply() {
            Some(Direction::Reply)
        } else {
            None
        }
    }

    /// Returns packets without data that the end which sends in this direction may send next; none
    /// if the connection is over, or of a protocol of which that is not known.
    pub(crate) fn next_of(&self, direction: Direction) -> SmallVec<[BarePacket; 2]> {
        self.lock().protocol.next_of(direction)
    }

    /// Returns everything there is to know at `now`.
    #[must_use]
    pub fn info(&self, now: Timestamp) -> ConnectionInfo {
        let (packets_original, bytes_original) = self.traffic(Direction::Original);
        let (packets_reply, bytes_reply) = self.traffic(Direction::Reply);
        ConnectionInfo {
            original: self.original(),
            reply: self.reply(),
            zone: 0,
            state: self.state_name(),
            assured: self.is_assured(),
            in_kernel: self.is_in_kernel(),
            remaining: self.expires().since(now),
            idle: now.since(self.last_seen()),
            age: now.since(self.created),
            packets_original,
            bytes_original,
            packets_reply,
            bytes_reply,
            in_port: self.in_port(),
            out_port: self.out_port,
            judged: self.judged(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // One that never came into the table counts no longer either.
        self.set_dead();
    }
}
