//! One worker's side of the datapath: the life of a packet.
//!
//! An engine is owned by one thread. It shares the published snapshot and the connection
//! table with the other engines, and has its FlowCache and its counters to itself.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use arc_swap::{ArcSwap, Cache};
use vswitch_api::{Epoch, MacAddr, PortNo};

use super::counters::EngineCounters;
use super::denial_table::DenialLog;
use super::in_hand::{InHand, counts};
use super::{Datapath, Outputs, Verdict};
use crate::cache::{CacheKey, CachedFlow, FlowCache, OFFER_AFTER, pair_of_macs};
use crate::conntrack::{Connection, ConnectionEnd, DatagramId, Direction};
use crate::drop_reason::DropReason;
use crate::fairness::{PortShare, Work};
use crate::flow::{CtState, FlowKey, PortClass, ip_proto};
use crate::kernel_path::KernelFlow;
use crate::packet::emit::BarePacket;
use crate::packet::rewrite::Ends;
use crate::packet::{
    Fragment, Frame, ParsedPacket, PlainPacket, emit, fragment, may_fragment, offload, parse,
    rewrite,
};
use crate::pipeline::{
    ConnUpdate, Counts, Decision, End, Meter, Port, Question, RuleCounters, RulePath, RulePaths,
    Snapshot, Step, Translation, WalkScratch, add_alone, answer_key, translate, translate_answer,
};
use crate::time::Timestamp;

/// Answers that an engine gives to what it rejects, per second and at once: what a pod's
/// applications need to fail fast, and nothing beside a flood, which they must not amplify.
const REJECT_ANSWERS_PER_SECOND: u32 = 100;
const REJECT_ANSWERS_AT_ONCE: u32 = 100;

/// Clients that an engine asks which address they are connected to, per second and at once: they
/// are asked again when the endpoint sends again.
const QUESTIONS_PER_SECOND: u32 = 1_000;
const QUESTIONS_AT_ONCE: u32 = 1_000;

/// One worker's view: its FlowCache and its counters.
#[derive(Debug)]
pub struct Engine {
    /// Rereads the published snapshot with one load per packet and no reference count.
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    core: Core,
}

/// The engine but for the snapshot, which is borrowed while a packet is processed.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) datapath: Arc<Datapath>,
    cache: FlowCache,
    paths: RulePaths,
    counters: Arc<EngineCounters>,
    /// What it denied.
    denials: Arc<DenialLog>,
    /// Limits the answers to what is rejected.
    reject_limit: Meter,
    /// Limits what clients are asked.
    question_limit: Meter,
    /// What the frames since the last [`Engine::take_work`] were.
    work: Work,
    /// Whether what is of no known connection is refused before it walks the tables.
    refuses: bool,
}

impl Datapath {
    /// Returns a new engine for one worker thread.
    #[must_use]
    pub fn engine(self: &Arc<Self>) -> Engine {
        Engine::new(Arc::clone(self))
    }
}

/// What a packet that the FlowCache did not know went through.
#[derive(Debug, Default)]
struct Walks<'s> {
    /// Rules and steps of the packet itself.
    own: WalkScratch<'s>,
    /// Rules that its connection was judged by.
    judge: WalkScratch<'s>,
}

impl Walks<'_> {
    /// Counts in the rules, up to where a meter refused the packet.
    fn count_in(&self, rules: &RuleCounters, counts: Counts, refused_at: Option<usize>) {
        let own = self.own.hits.iter().take(refused_at.unwrap_or(usize::MAX));
        for rule in own.chain(&self.judge.hits).filter_map(|hit| hit.rule) {
            rules.add(rule.counters, counts);
        }
    }

    /// Counts a connection that begins, or that is refused, in the rules of policies that said so:
    /// one of egress and one of ingress at most.
    fn count_connection(&self, rules: &RuleCounters, decision: Decision) {
        for hits in [&self.own.hits, &self.judge.hits] {
            for rule in hits.iter().filter_map(|hit| hit.rule) {
                if rule.decision == Some(decision) {
                    rules.add_connection(rule.counters);
                }
            }
        }
    }
}

/// A packet's connection and the packet's way in it.
type ConnectionSide = (Arc<Connection>, Direction);

impl Engine {
    pub(super) fn new(datapath: Arc<Datapath>) -> Self {
        let cache = FlowCache::new(datapath.flow_cache_entries);
        let counters = datapath.counters.register();
        let denials = datapath.denials.register();
        let snapshot = Cache::new(Arc::clone(&datapath.published));
        let core = Core {
            datapath,
            cache,
            paths: RulePaths::default(),
            counters,
            denials,
            reject_limit: Meter::new(REJECT_ANSWERS_PER_SECOND, REJECT_ANSWERS_AT_ONCE),
            question_limit: Meter::new(QUESTIONS_PER_SECOND, QUESTIONS_AT_ONCE),
            work: Work::default(),
            refuses: false,
        };
        core.publish_cache_figures();
        Self { snapshot, core }
    }

    /// Decides on one frame and rewrites it in place. What the frame causes besides is added
    /// to `out`, so that a worker can send it for a whole batch; emptying it is the caller's.
    pub fn process(
        &mut self,
        in_port: PortNo,
        frame: &mut Frame,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Verdict {
        let snapshot = self.snapshot.load();
        // Most packets are plain and of a flow that asks for nothing special.
        if let Some(verdict) = self.core.hit_plain(snapshot.epoch, in_port, frame, now) {
            return verdict;
        }
        self.core.process_any(snapshot, in_port, frame, now, out)
    }

    /// Sets whether what is of no known connection is refused before it walks the tables, as
    /// [`DropReason::OverShare`]. For ports that are over their share.
    pub fn set_refusing(&mut self, refuses: bool) {
        self.core.refuses = refuses;
    }

    /// Returns what the frames since the last call were; how many they were is for the caller to
    /// say.
    pub fn take_work(&mut self) -> Work {
        std::mem::take(&mut self.core.work)
    }

    /// Returns what is counted of a port's connections, and whether it has to share: the gateway
    /// is the way of many.
    #[must_use]
    pub fn port_share(&mut self, port: PortNo) -> (Arc<PortShare>, bool) {
        let known = self.snapshot.load().port(port);
        let shares = known.is_some_and(|known| known.spec.class == PortClass::Pod);
        (self.core.datapath.conns.port_share(port), shares)
    }

    /// Lets go of flows whose connections are gone, in a bounded part of the FlowCache; the next
    /// call goes on from there. To be called now and then.
    pub fn tidy(&mut self) {
        self.core.cache.tidy();
        self.core.publish_cache_figures();
    }

    /// Adds to `out` what is due to ends of connections that were ended, a batch at most; returns
    /// whether there was any.
    pub fn notify(&mut self, now: Timestamp, out: &mut Outputs) -> bool {
        let notices = &self.core.datapath.notices;
        if notices.is_empty() {
            return false;
        }
        let (snapshot, before) = (self.snapshot.load(), out.replies.len());
        let is_any = notices.take(snapshot, &mut out.replies);
        if snapshot.has_watchers {
            self.core.watch_notices(out, before, now);
        }
        is_any
    }

    /// Counts a frame that was lost after its verdict (port down, kernel refused it).
    pub fn count_drop(&mut self, reason: DropReason) {
        self.core.counters.drops.count(reason);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.datapath.counters.retire(&self.counters);
    }
}

impl Core {
    /// Decides on a frame of any kind. Not inlined: what it needs of the stack is not for those
    /// packets to set up that go the short way.
    #[inline(never)]
    fn process_any(
        &mut self,
        snapshot: &Snapshot,
        in_port: PortNo,
        frame: &mut Frame,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Verdict {
        if snapshot.has_watchers {
            return self.process_watched(snapshot, in_port, frame, now, out);
        }
        let parsed = parse(frame, in_port);
        self.process_frame(snapshot, (parsed, in_port), frame, now, out)
    }

    /// Decides on a frame that was parsed, if it could be.
    #[inline(always)]
    pub(super) fn process_frame(
        &mut self,
        snapshot: &Snapshot,
        (parsed, in_port): (Result<ParsedPacket, DropReason>, PortNo),
        frame: &mut Frame,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Verdict {
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => {
                self.work.wasted += 1;
                return self.count_drop_at(snapshot, reason, in_port);
            }
        };
        let verdict = self.process_parsed(snapshot, &parsed, frame, now, out);
        if let Fragment::First { id } = parsed.fragment {
            self.let_follow(
                snapshot,
                DatagramId::new(&parsed.key, id),
                verdict,
                (now, out),
            );
        }
        verdict
    }

    fn process_parsed(
        &mut self,
        snapshot: &Snapshot,
        parsed: &ParsedPacket,
        frame: &mut Frame,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Verdict {
        let in_port = parsed.key.in_port;
        let decided = match self.decide(snapshot, parsed, frame, now, out) {
            Ok(Verdict::Forward(out_port)) if snapshot.has_limits => {
                within_limits(snapshot, (in_port, out_port), frame, now)
            }
            decided => decided.map_err(|reason| (reason, in_port)),
        };
        let decided = match decided {
            Ok(Verdict::Forward(out_port)) if may_fragment(parsed) => {
                let mtu = snapshot
                    .port(out_port)
                    .map_or(u16::MAX, |port| port.spec.mtu);
                fit(mtu, out_port, (parsed, frame), out).map_err(|reason| (reason, in_port))
            }
            decided => decided,
        };
        let is_sent = matches!(decided, Ok(Verdict::Forward(_) | Verdict::InFragments));
        self.work.wasted += u32::from(!is_sent);
        decided.unwrap_or_else(|(reason, port)| self.count_drop_at(snapshot, reason, port))
    }

    /// Processes the fragments that waited for this first one; if that is dropped, so are they.
    #[cold]
    fn let_follow(
        &mut self,
        snapshot: &Snapshot,
        datagram: Option<DatagramId>,
        first: Verdict,
        (now, out): (Timestamp, &mut Outputs),
    ) {
        let Some(datagram) = datagram else { return };
        for mut frame in self.datapath.held.take(&datagram) {
            let in_port = datagram.in_port();
            let Ok(parsed) = parse(&frame, in_port) else {
                continue;
            };
            if matches!(first, Verdict::Drop(_)) {
                self.count_drop_at(snapshot, DropReason::FragmentUnknown, in_port);
                continue;
            }
            let verdict = self.process_parsed(snapshot, &parsed, &mut frame, now, out);
            if let Verdict::Forward(port) = verdict {
                out.followers.push((port, frame));
            }
        }
    }

    /// Keeps a later fragment until its first one comes.
    #[cold]
    fn hold(
        &self,
        parsed: &ParsedPacket,
        frame: &Frame,
        now: Timestamp,
    ) -> Result<Verdict, DropReason> {
        let Fragment::Later { id } = parsed.fragment else {
            return Err(DropReason::FragmentUnknown);
        };
        let datagram = DatagramId::new(&parsed.key, id).ok_or(DropReason::FragmentUnknown)?;
        let expires = now + self.datapath.conns.config().fragment;
        let lost = self.datapath.held.hold(datagram, frame, expires);
        self.datapath.count_late(DropReason::FragmentNoRoom, &lost);
        Ok(Verdict::Held)
    }

    fn count_drop_at(&self, snapshot: &Snapshot, reason: DropReason, port: PortNo) -> Verdict {
        self.counters.drops.count(reason);
        if let Some(port) = snapshot.port(port) {
            port.drops.count(reason);
        }
        Verdict::Drop(reason)
    }

    /// The life of a packet: FlowCache, else the tables, connection, actions.
    fn decide(
        &mut self,
        snapshot: &Snapshot,
        parsed: &ParsedPacket,
        frame: &mut Frame,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Result<Verdict, DropReason> {
        let cache_key = CacheKey::of(parsed);
        let mut packet = InHand {
            parsed,
            frame,
            now,
            out,
            readdressed: None,
        };
        if let Some(verdict) = self.hit(snapshot, cache_key.as_ref(), &mut packet) {
            return verdict;
        }
        if self.refuses && !self.datapath.conns.knows(parsed, now) {
            self.work.refused += 1;
            return Err(DropReason::OverShare);
        }
        self.work.walked += 1;
        let mut walks = Walks::default();
        let translation = translate(
            snapshot,
            self.datapath.memory(),
            packet.as_packet(),
            &mut walks.own,
            &mut walks.judge,
        );
        // Nothing is done to it and nothing counted: that is for when its first fragment is here.
        if matches!(translation.end, End::Drop(DropReason::FragmentUnknown)) {
            return self.hold(parsed, packet.frame, now);
        }
        if let Some(question) = &translation.question {
            self.ask(snapshot, question, &mut packet);
        }
        let result = self.carry_out(snapshot, &translation, &walks, cache_key, &mut packet);
        if result.is_ok_and(|verdict| matches!(verdict, Verdict::Forward(_))) {
            self.count_work(&translation.conn_update, parsed);
        }
        if result != Err(DropReason::RateLimited) {
            // Copies for mirrors are due whatever became of the packet behind them.
            packet.perform(&walks.own.steps);
        }
        result
    }

    /// Asks a client for an acknowledgement from wherever it may be connected to, as a keep-alive
    /// does (RFC 9293 section 3.8.4): of the connection that it has it sends one, of all others a
    /// reset, which fits no connection of the switch. SCTP has heartbeats of its own.
    #[cold]
    fn ask(&self, snapshot: &Snapshot, question: &Question, packet: &mut InHand<'_>) {
        let (Some(tcp), Some(port)) = (packet.parsed.tcp, snapshot.port(question.out_port)) else {
            return;
        };
        if !self.question_limit.allow(packet.now) {
            return;
        }
        let (client, gateway) = (question.client, snapshot.gateway_mac());
        let keep_alive = BarePacket::Ack {
            seq: tcp.seq.wrapping_sub(1),
            ack: tcp.ack,
            window: tcp.window,
        };
        for entrance in &question.entrances {
            let ends = Ends {
                src: entrance.ip,
                dst: client.ip,
                tp_src: entrance.port,
                tp_dst: client.port,
            };
            let frame = emit::bare_packet(keep_alive, &ends, gateway, port.spec.mac);
            let asked = frame.map(|frame| (question.out_port, frame));
            packet.out.replies.extend(asked);
            let expected = &self.datapath.expected;
            expected.note((*entrance, client), question.endpoint, tcp.seq, packet.now);
        }
    }

    /// Counts what the walk of a packet was for that is forwarded.
    fn count_work(&mut self, update: &ConnUpdate, parsed: &ParsedPacket) {
        match update {
            // A fragment walks each time.
            ConnUpdate::Track(_, direction) if parsed.fragment == Fragment::No => {
                self.work.answers += u32::from(*direction == Direction::Reply);
            }
            _ => self.work.wasted += 1,
        }
    }

    /// Does what the FlowCache says to a plain packet; `None` if that takes more.
    #[inline(always)]
    fn hit_plain(
        &self,
        epoch: Epoch,
        in_port: PortNo,
        frame: &mut Frame,
        now: Timestamp,
    ) -> Option<Verdict> {
        let Some(packet) = PlainPacket::read_ipv4(frame) else {
            return self.hit_plain_ipv6(epoch, in_port, frame, now);
        };
        let key = CacheKey::of_plain(&packet, in_port);
        let flow = self.cache.get_short(&key, epoch)?;
        self.follow_plain(flow, &packet, frame.len(), now)?;
        rewrite::set_macs(frame, flow.macs);
        Some(Verdict::Forward(flow.out_port))
    }

    /// The same for IPv6, on its own, so that the compiler knows the family in either.
    #[inline(never)]
    fn hit_plain_ipv6(
        &self,
        epoch: Epoch,
        in_port: PortNo,
        frame: &mut Frame,
        now: Timestamp,
    ) -> Option<Verdict> {
        let packet = PlainPacket::read_ipv6(frame)?;
        let flow = self
            .cache
            .get(&CacheKey::of_plain(&packet, in_port), epoch)?;
        self.follow_plain(flow, &packet, frame.len(), now)?;
        rewrite::set_macs(frame, flow.macs);
        Some(Verdict::Forward(flow.out_port))
    }

    /// Takes a plain packet into what a cached flow tracks and counts; `None` if there is more
    /// to it than that, or if the flow no longer holds, with nothing done yet. No allocation and
    /// no lock but the connection's own.
    #[inline(always)]
    fn follow_plain(
        &self,
        flow: &CachedFlow,
        packet: &PlainPacket<'_>,
        frame_len: usize,
        now: Timestamp,
    ) -> Option<()> {
        if !flow.is_simple || packet.segment_l3_len > usize::from(flow.mtu) {
            return None;
        }
        if let Some((conn, direction)) = &flow.conn {
            if self.datapath.has_kernel_path() && !flow.passes_by(conn) {
                return None;
            }
            let config = self.datapath.conns.config();
            conn.track_plain(packet, *direction, now, config).ok()?;
        }
        flow.path.count(counts(frame_len));
        add_alone(&self.counters.hits, 1);
        Some(())
    }

    /// Does what the FlowCache says; `None` if it knows nothing of the packet.
    fn hit(
        &self,
        snapshot: &Snapshot,
        key: Option<&CacheKey>,
        packet: &mut InHand<'_>,
    ) -> Option<Result<Verdict, DropReason>> {
        let flow = self.cache.get(key?, snapshot.epoch);
        let (config, rules) = (self.datapath.conns.config(), &self.counters.rules);
        let has_kernel_path = self.datapath.has_kernel_path();
        let verdict = flow.and_then(|flow| {
            let conn = flow.conn.as_ref().filter(|_| has_kernel_path);
            let was_in_kernel = conn.is_some_and(|(conn, _)| conn.is_in_kernel());
            let verdict = packet.follow(flow, config, rules);
            if has_kernel_path && matches!(verdict, Some(Ok(_))) && (flow.is_due() || was_in_kernel)
            {
                self.datapath.offer(snapshot, flow, |_, _| None, packet);
            }
            verdict
        });
        let counter = if verdict.is_some() {
            &self.counters.hits
        } else {
            &self.counters.misses
        };
        add_alone(counter, 1);
        verdict
    }

    /// Does what the tables say, short of rewriting the frame. Not inlined: what it needs of the stack is
    /// not for packets of known flows to set up.
    #[inline(never)]
    fn carry_out(
        &mut self,
        snapshot: &Snapshot,
        translation: &Translation<'_>,
        walks: &Walks<'_>,
        key: Option<CacheKey>,
        packet: &mut InHand<'_>,
    ) -> Result<Verdict, DropReason> {
        let refused_at = packet.meter(&walks.own.steps);
        let is_kept = refused_at.is_none()
            && !self.cache.is_off()
            && matches!(translation.end, End::Forward { .. })
            && is_cacheable(snapshot, translation);
        let kept = key
            .filter(|_| is_kept)
            .map(|key| (key, self.path_of(&walks.own)));
        match &kept {
            // One addition instead of one a rule.
            Some((_, path)) if walks.judge.hits.is_empty() => path.count(packet.counts()),
            _ => walks.count_in(&self.counters.rules, packet.counts(), refused_at),
        }
        if refused_at.is_some() {
            return Err(DropReason::RateLimited);
        }
        if let Some(conn) = &translation.allowed {
            self.allowed(snapshot, conn, packet.now);
        }
        match translation.end {
            End::Forward { port, mtu } => {
                packet.fit(mtu)?;
                // Asked first: the packet may take it back.
                let was_in_kernel = matches!(&translation.conn_update, ConnUpdate::Track(conn, _) if conn.is_in_kernel());
                let conn = self.update_connection(snapshot, translation, packet)?;
                if matches!(translation.conn_update, ConnUpdate::Commit(_)) {
                    walks.count_connection(&self.counters.rules, Decision::Allow);
                }
                if let Some((key, path)) = kept {
                    let keys = (key, &translation.key);
                    self.install(snapshot, (path, &walks.own.steps), keys, (port, mtu), conn);
                    let is_new = matches!(&translation.conn_update, ConnUpdate::Commit(options) if !options.swapped);
                    if self.datapath.has_kernel_path() && (is_new || was_in_kernel) {
                        self.hand_over(snapshot, is_new, &key, packet);
                    }
                }
                Ok(Verdict::Forward(port))
            }
            End::ArpReply(mac) => packet.answer_arp(mac),
            End::NdAdvertise(mac) => packet.answer_nd(mac),
            End::Drop(reason) => {
                self.deny((translation, reason), walks, packet);
                Err(reason)
            }
            End::Reject(reason) => {
                self.deny((translation, reason), walks, packet);
                packet.reject(reason, &self.reject_limit);
                Err(reason)
            }
        }
    }

    /// Notes that the tables in force allow a connection, and has it judged by those in audit if
    /// they changed since the last time.
    fn allowed(&self, snapshot: &Snapshot, conn: &Connection, now: Timestamp) {
        let before = conn.set_judged(snapshot.epoch);
        if let Some(program) = &snapshot.audit
            && before < program.since
        {
            self.denials.audit(program, (conn, before), snapshot, now);
        }
    }

    /// Does to a connection what the denial of its packet asks for, and notes the denial. Not
    /// inlined: packets that pass take none of it.
    #[inline(never)]
    fn deny(
        &self,
        (translation, reason): (&Translation<'_>, DropReason),
        walks: &Walks<'_>,
        packet: &InHand<'_>,
    ) {
        let is_cut = match &translation.conn_update {
            ConnUpdate::Remove(conn) => self.datapath.conns.remove(conn, ConnectionEnd::Cut),
            ConnUpdate::Linger(conn) => {
                let is_cut = conn.linger(packet.now);
                if is_cut {
                    self.datapath.conns.note_end(conn, ConnectionEnd::Cut);
                }
                is_cut
            }
            ConnUpdate::Nothing | ConnUpdate::Track(..) | ConnUpdate::Commit(_) => {
                walks.count_connection(&self.counters.rules, Decision::Deny);
                false
            }
        };
        if reason.is_denial() {
            let (asked, walks) = (&packet.parsed.key, (&walks.own, &walks.judge));
            let denied = (translation, reason);
            self.denials
                .dropped(denied, asked, walks, (packet.now, is_cut));
        }
    }

    /// Advances or makes the connection of a packet that is forwarded.
    fn update_connection(
        &self,
        snapshot: &Snapshot,
        translation: &Translation<'_>,
        packet: &mut InHand<'_>,
    ) -> Result<Option<ConnectionSide>, DropReason> {
        let (conns, parsed, now) = (&self.datapath.conns, packet.parsed, packet.now);
        if let Some((conn, direction)) = &translation.related {
            packet.readdress_error(conn, *direction);
        }
        let side = match &translation.conn_update {
            ConnUpdate::Nothing | ConnUpdate::Remove(_) | ConnUpdate::Linger(_) => return Ok(None),
            ConnUpdate::Track(conn, direction) => {
                conn.track(parsed, *direction, now, conns.config())?;
                (Arc::clone(conn), *direction)
            }
            ConnUpdate::Commit(options) => {
                let conn = conns.commit(parsed, &translation.key, now, *options)?;
                // What was forgotten since this packet began had its connections removed
                // already: this one came too late for that.
                if self.datapath.forgot_at.load(Acquire) > snapshot.epoch.0 {
                    conns.undo(&conn);
                    return Err(DropReason::NoRoute);
                }
                let direction = direction_in(&conn, &parsed.key);
                let side = (conn, direction);
                if !self.is_of_probe(snapshot, Some(&side)) {
                    self.keep_endpoint(translation, now);
                }
                let (conn, direction) = side;
                if (direction == Direction::Reply) == options.swapped {
                    self.allowed(snapshot, &conn, now);
                }
                (conn, direction)
            }
        };
        packet.readdress(&side.0, side.1)?;
        conns.allow_fragments(parsed, now);
        Ok(Some(side))
    }

    /// Returns whether a connection is a probe's: nothing is to be left of it when that has ended,
    /// and each of its packets is to come by.
    fn is_of_probe(&self, snapshot: &Snapshot, conn: Option<&ConnectionSide>) -> bool {
        let is_of_one =
            |(conn, _): &ConnectionSide| self.datapath.watchers.load().has_probe(&conn.original());
        snapshot.has_watchers && conn.is_some_and(is_of_one)
    }

    /// Remembers the endpoint of a client that is to keep it.
    fn keep_endpoint(&self, translation: &Translation<'_>, now: Timestamp) {
        if let Some(balanced) = translation.balanced
            && let Some(timeout) = balanced.group.affinity
        {
            let (group, affinity) = (balanced.group.id, &self.datapath.affinity);
            affinity.note(group, balanced.client, balanced.endpoint, (now, timeout));
        }
    }

    /// Returns the path of a walk, which its flow counts in from now on.
    fn path_of(&mut self, walk: &WalkScratch<'_>) -> Arc<RulePath> {
        self.paths.get(&walk.rules(), &self.counters.paths)
    }

    fn install(
        &mut self,
        snapshot: &Snapshot,
        (path, steps): (Arc<RulePath>, &[Step]),
        (key, leaves_as): (CacheKey, &FlowKey),
        (out_port, mtu): (PortNo, u16),
        conn: Option<ConnectionSide>,
    ) {
        if self.is_of_probe(snapshot, conn.as_ref()) {
            return;
        }
        let steps: Box<[Step]> = if steps.iter().all(Step::is_mac) {
            Box::default()
        } else {
            steps.into()
        };
        let is_translated = conn.as_ref().is_some_and(|(conn, _)| conn.is_translated());
        let is_seen = must_be_seen(snapshot, [leaves_as.in_port, out_port]);
        let flow = CachedFlow {
            is_simple: steps.is_empty() && !is_translated && !is_seen,
            is_for_kernel: steps.is_empty() && !is_seen,
            steps,
            macs: pair_of_macs(leaves_as),
            path,
            out_port,
            mtu,
            until_offer: Cell::new(OFFER_AFTER),
            conn,
        };
        self.cache.insert(key, snapshot.epoch, flow);
        self.publish_cache_figures();
    }

    /// Hands a connection over to the kernel that was just admitted, or judged again.
    #[inline(never)]
    fn hand_over(
        &mut self,
        snapshot: &Snapshot,
        is_new: bool,
        key: &CacheKey,
        packet: &InHand<'_>,
    ) {
        let Self {
            datapath,
            cache,
            paths,
            counters,
            ..
        } = self;
        let Some(flow) = cache.get(key, snapshot.epoch) else {
            return;
        };
        let answers = |flow: &CachedFlow, conn: &Arc<Connection>| {
            let mut walk = WalkScratch::default();
            let asked = &packet.parsed.key;
            let answers =
                is_new.then(|| answers_to((flow, asked), conn, snapshot, &mut walk))??;
            let path = paths.get(&walk.rules(), &counters.paths);
            Some(KernelFlow::answers(conn, answers, path))
        };
        datapath.offer(snapshot, flow, answers, packet);
    }

    fn publish_cache_figures(&self) {
        let set = |figure: &AtomicU64, value: usize| {
            figure.store(u64::try_from(value).unwrap_or(u64::MAX), Relaxed);
        };
        let (entries, max_entries, evictions) = self.cache.figures();
        set(&self.counters.entries, entries);
        set(&self.counters.max_entries, max_entries);
        self.counters.evictions.store(evictions, Relaxed);
    }
}

/// Cuts a frame into fragments if it is too large for the port, and has them follow.
fn fit(
    mtu: u16,
    out_port: PortNo,
    (parsed, frame): (&ParsedPacket, &Frame),
    out: &mut Outputs,
) -> Result<Verdict, DropReason> {
    if offload::segment_l3_len(frame, parsed) <= usize::from(mtu) {
        return Ok(Verdict::Forward(out_port));
    }
    let fragments = fragment(frame, parsed, mtu).ok_or(DropReason::MtuExceeded)?;
    let followers = fragments.into_iter().map(|fragment| (out_port, fragment));
    out.followers.extend(followers);
    Ok(Verdict::InFragments)
}

/// Lets a frame through that the limits of both its ports allow; one that they do not is counted
/// at the port whose limit it is.
fn within_limits(
    snapshot: &Snapshot,
    (in_port, out_port): (PortNo, PortNo),
    frame: &Frame,
    now: Timestamp,
) -> Result<Verdict, (DropReason, PortNo)> {
    let bytes = u64::try_from(frame.len()).unwrap_or(u64::MAX);
    let may_send = |port: &Arc<Port>| port.limits.allow_egress(bytes, now);
    let may_receive = |port: &Arc<Port>| port.limits.allow_ingress(bytes, now);
    if !snapshot.port(in_port).is_none_or(may_send) {
        return Err((DropReason::BandwidthExceeded, in_port));
    }
    if !snapshot.port(out_port).is_none_or(may_receive) {
        return Err((DropReason::BandwidthExceeded, out_port));
    }
    Ok(Verdict::Forward(out_port))
}

/// Returns whether each packet between two ports has to be seen: what is limited has to ask, what is
/// watched takes the way on which it is, and none below the engine.
fn must_be_seen(snapshot: &Snapshot, ports: [PortNo; 2]) -> bool {
    let must_be = |port: &PortNo| snapshot.is_limited(*port) || snapshot.is_watched(*port);
    ports.iter().any(must_be)
}

/// Returns what answers to the packets of a flow come with, where they leave, and with what, if they
/// come from where the flow's packets go. `None` if that takes more than other MACs.
fn answers_to<'s>(
    (flow, asked): (&CachedFlow, &FlowKey),
    conn: &Connection,
    snapshot: &'s Snapshot,
    walk: &mut WalkScratch<'s>,
) -> Option<(FlowKey, FlowKey, u16)> {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = flow.macs;
    let left_with = [[d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]].map(MacAddr);
    let came_with = [asked.eth_dst, asked.eth_src];
    let comes_with = answer_key(conn, flow.out_port, (came_with, left_with));
    let (end, leaves_with) = translate_answer(snapshot, conn, comes_with, walk);
    let End::Forward { port, mtu } = end else {
        return None;
    };
    let is_simple =
        walk.steps.iter().all(Step::is_mac) && !must_be_seen(snapshot, [comes_with.in_port, port]);
    let out_port = port;
    is_simple.then_some((
        comes_with,
        FlowKey {
            out_port,
            ..leaves_with
        },
        mtu,
    ))
}

/// Returns whether the next packet of the flow will fare as this one.
fn is_cacheable(snapshot: &Snapshot, translation: &Translation<'_>) -> bool {
    match translation.conn_update {
        ConnUpdate::Track(..) => true,
        ConnUpdate::Commit(_) => !snapshot.is_state_dependent,
        // Left before connection tracking: nothing but the rules decided.
        ConnUpdate::Nothing => translation.key.ct_state == CtState::default(),
        ConnUpdate::Remove(_) | ConnUpdate::Linger(_) => false,
    }
}

/// Returns which way a packet goes in a connection that was found or made by its commit.
fn direction_in(conn: &Connection, key: &FlowKey) -> Direction {
    let original = conn.original();
    let has_ports = !ip_proto::is_icmp(original.proto);
    let is_original = key.ip_src == Some(original.src)
        && key.ip_dst == Some(original.dst)
        && (!has_ports || (key.tp_src, key.tp_dst) == (original.tp_src, original.tp_dst));
    if is_original {
        Direction::Original
    } else {
        Direction::Reply
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::action::parse_actions;
    use crate::conntrack::RecordConnections;
    use crate::datapath::DatapathConfig;
    use crate::packet::VnetHeader;
    use crate::pipeline::{Origin, PortSpec, PortUpdate, Rule, RuleId, TableId, Transaction};

    /// UDP from 10.0.0.1 to 10.0.0.2, its checksum vouched for by the vnet header.
    const UDP: [u8; 42] = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x66, 0xcf, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
        0x13, 0x88, 0, 53, 0, 8, 0, 0, // UDP
    ];

    fn rule(id: u64, table: TableId, actions: &str) -> Rule {
        let name = String::new();
        Rule {
            id: RuleId(id),
            table,
            priority: vswitch_api::Priority(9),
            matches: crate::flow::Match::default(),
            actions: parse_actions(actions).unwrap(),
            cookie: vswitch_api::Cookie(0),
            origin: Arc::new(Origin {
                kind: "Test",
                part: name.clone(),
                name,
            }),
        }
    }

    #[test]
    fn a_connection_committed_after_its_address_was_forgotten_does_not_stay() {
        let datapath = Datapath::new(DatapathConfig::default());
        let spec = PortSpec {
            no: PortNo(2),
            class: crate::flow::PortClass::Pod,
            name: String::new(),
            mac: vswitch_api::MacAddr::default(),
            mtu: 1_500,
            midstream_pickup: false,
        };
        let add_rules = vec![
            rule(1, TableId::Classify, "goto_table:40"),
            rule(2, TableId::Forward, "output:2,goto_table:75"),
        ];
        let ports = vec![PortUpdate::Upsert(spec)];
        datapath.apply(Transaction {
            add_rules,
            ports,
            ..Transaction::default()
        });
        datapath.record_connections(RecordConnections {
            one_in: 1,
            starts: true,
            ..RecordConnections::default()
        });
        let mut engine = datapath.engine();
        let stale = datapath.published.load_full();
        let forget_addresses = vec!["10.0.0.2".parse().unwrap()];
        datapath.apply(Transaction {
            forget_addresses,
            ..Transaction::default()
        });

        let (now, mut out) = (Timestamp::from_nanos(1), Outputs::default());
        let mut send = |snapshot: &Snapshot| {
            let mut frame = Frame::from_bytes(&UDP);
            frame.vnet.flags = VnetHeader::F_DATA_VALID;
            let parsed = parse(&frame, PortNo(1))?;
            engine
                .core
                .decide(snapshot, &parsed, &mut frame, now, &mut out)
        };
        assert_eq!(send(&stale), Err(DropReason::NoRoute));
        assert_eq!(datapath.connections(now), []);
        let noted = datapath.fetch_connections(now);
        assert_eq!(noted.connections, [], "it never was");
        assert_eq!(
            send(&datapath.published.load_full()),
            Ok(Verdict::Forward(PortNo(2)))
        );
        assert_eq!(datapath.connections(now).len(), 1);
        let noted = datapath.fetch_connections(now).connections;
        let ends: Vec<_> = noted.iter().map(|noted| noted.end).collect();
        assert_eq!(ends, [None], "it has begun");
    }
}
