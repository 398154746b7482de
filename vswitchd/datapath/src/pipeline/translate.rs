//! Translation of a packet: its walk through the tables together with its connection.
//!
//! Translation changes nothing: what is to become of the connection comes back as a
//! [`ConnUpdate`] for the caller to carry out. Packets of the original direction are judged by
//! the policy tables on their way. Replies and related errors go past those tables; for them
//! the *connection* is judged, by its original tuple, once for each generation of the rules.
//! A stream in its middle, after a restart, has no connection yet ([`Tracking::orient`]).

use std::net::IpAddr;
use std::sync::Arc;

use vswitch_api::{MacAddr, PortNo};

use super::walk::{Balanced, End, Tracked, Tracker, Walk, WalkScratch};
use super::{Snapshot, TableId};
use crate::conntrack::{CommitOptions, ConnTable, Connection, CtLookup, Direction, Tuple};
use crate::drop_reason::DropReason;
use crate::flow::{CtState, FlowKey, ether_type, ip_proto};
use crate::group::{AffinityTable, Endpoint, Entrances, ExpectedEndpoints, Group};
use crate::packet::{Frame, ParsedPacket};
use crate::time::Timestamp;

/// A packet to translate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) parsed: &'a ParsedPacket,
    pub(crate) frame: &'a Frame,
    pub(crate) now: Timestamp,
}

/// What is to become of the packet's connection.
#[derive(Debug, Clone)]
pub(crate) enum ConnUpdate {
    /// Nothing: it has none, is only related to one, or is dropped.
    Nothing,
    /// Take the packet in.
    Track(Arc<Connection>, Direction),
    /// Make one, in this direction.
    Commit(CommitOptions),
    /// A policy forbids it: remove it.
    Remove(Arc<Connection>),
    /// A policy forbids it and tells who sends: keep it for a while, so that the next packet
    /// of the other side is known for what it is and answered too.
    Linger(Arc<Connection>),
}

/// What the tables say of a packet.
#[derive(Debug)]
pub(crate) struct Translation<'s> {
    pub(crate) end: End,
    /// The key as the last table saw it: with the addresses that the packet leaves with.
    pub(crate) key: FlowKey,
    /// The endpoint that a new connection was given.
    pub(crate) balanced: Option<Balanced<'s>>,
    /// The connection that an ICMP error is about, and the error's way in it.
    pub(crate) related: Option<(Arc<Connection>, Direction)>,
    pub(crate) conn_update: ConnUpdate,
    /// The connection that the current rules allow.
    pub(crate) allowed: Option<Arc<Connection>>,
    /// What its client is to be asked before the packet can be taken up.
    pub(crate) question: Option<Question>,
    /// What the connection was judged as, where that is not the packet itself.
    pub(crate) judged_as: Option<FlowKey>,
}

/// Which address is a client connected to, that an endpoint of Services sends to?
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Who sent.
    pub(crate) endpoint: Endpoint,
    /// The client, and the port that leads to it.
    pub(crate) client: Endpoint,
    pub(crate) out_port: PortNo,
    /// Where it may be connected to.
    pub(crate) entrances: Entrances,
}

/// What is remembered from packet to packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory<'a> {
    pub(crate) conns: &'a ConnTable,
    pub(crate) affinity: &'a AffinityTable,
    pub(crate) expected: &'a ExpectedEndpoints,
}

/// Takes a packet through the tables; `scratch` holds the rules and steps of its own walk
/// afterwards, `judge` those of its connection's judgement.
pub(crate) fn translate<'s>(
    snapshot: &'s Snapshot,
    memory: Memory<'_>,
    packet: Packet<'_>,
    scratch: &mut WalkScratch<'s>,
    judge: &mut WalkScratch<'s>,
) -> Translation<'s> {
    judge.clear();
    let judge = Judge {
        snapshot,
        scratch: judge,
        last: None,
    };
    let mut tracking = Tracking {
        memory,
        packet,
        judge,
        found: None,
        pickup: None,
        question: None,
        denied: false,
    };
    let mut walk = Walk::new(snapshot, packet.parsed.key, scratch);
    let end = walk.run(TableId::Classify, None, &mut tracking);
    // Without a table to stop before, a walk only stops at its end.
    let end = end.unwrap_or(End::Drop(DropReason::PipelineLoop));
    let walked = (walk.key, walk.commits, walk.balanced);
    tracking.conclude(end, walked)
}

/// Has `scratch` hold the rules that a connection is judged by, whether it was already or not.
pub(crate) fn judge_connection<'s>(
    snapshot: &'s Snapshot,
    conn: &Connection,
    scratch: &mut WalkScratch<'s>,
) {
    scratch.clear();
    let mut judge = Judge {
        snapshot,
        scratch,
        last: None,
    };
    // What became of it is known: its packet was let through.
    let _verdict = judge.judge(conn.in_port(), &conn.forwarded(), CtState::EST);
}

/// Returns the key that an answer of a connection most likely comes with, whose packets come with
/// some MACs (destination and source) and leave through the port with others. Its sender goes by
/// the way that it was sent to by: by the router that the switch poses as, if there is one.
pub(crate) fn answer_key(
    conn: &Connection,
    port: PortNo,
    (came_with, left_with): ([MacAddr; 2], [MacAddr; 2]),
) -> FlowKey {
    let ([sent_to, sender], [receiver, seems_from]) = (came_with, left_with);
    let is_routed = receiver != sent_to && seems_from == sender;
    FlowKey {
        in_port: port,
        eth_src: receiver,
        eth_dst: if is_routed { sent_to } else { seems_from },
        ..key_of(&conn.comes_as(Direction::Reply))
    }
}

/// Takes an answer of a connection through the tables that were just found to allow it, before
/// there is any. `scratch` holds the rules and steps of the walk afterwards. Returns how it ends,
/// and the key that it leaves with.
pub(crate) fn translate_answer<'s>(
    snapshot: &'s Snapshot,
    conn: &Connection,
    key: FlowKey,
    scratch: &mut WalkScratch<'s>,
) -> (End, FlowKey) {
    let mut walk = Walk::new(snapshot, key, scratch);
    let end = walk.run(TableId::Classify, None, &mut Answering(conn));
    let end = end.unwrap_or(End::Drop(DropReason::PipelineLoop));
    (end, walk.key)
}

/// For an answer of a connection.
struct Answering<'a>(&'a Connection);

impl Tracker for Answering<'_> {
    fn track(&mut self, key: &mut FlowKey) -> Result<(), End> {
        let Self(conn) = *self;
        if let Some(leaves_as) = conn.leaves_as(Direction::Reply) {
            (key.ip_src, key.ip_dst) = (Some(leaves_as.src), Some(leaves_as.dst));
            (key.tp_src, key.tp_dst) = (leaves_as.tp_src, leaves_as.tp_dst);
        }
        key.ct_state = conn.nat_flags() | CtState::TRK | CtState::EST | CtState::RPL;
        Ok(())
    }

    fn kept_endpoint(&self, _group: &Group, _client: IpAddr) -> Option<Endpoint> {
        None
    }

    fn expected_endpoint(&self, _key: &FlowKey) -> Option<Endpoint> {
        None
    }
}

/// Judges connections by the policy tables.
struct Judge<'a, 's> {
    snapshot: &'s Snapshot,
    scratch: &'a mut WalkScratch<'s>,
    last: Option<FlowKey>,
}

impl Judge<'_, '_> {
    /// Walks the tuple through the policy tables.
    fn judge(&mut self, in_port: PortNo, tuple: &Tuple, state: CtState) -> Result<(), End> {
        let key = FlowKey {
            in_port,
            class: self.snapshot.class_of(in_port),
            ct_state: CtState::TRK | state,
            ..key_of(tuple)
        };
        let mut walk = Walk::new(self.snapshot, key, self.scratch);
        let end = walk.run(
            TableId::EgressAdminTier,
            Some(TableId::Output),
            &mut Tracked,
        );
        self.last = Some(walk.key);
        match end {
            Some(end) if end.drop_reason().is_some() => Err(end),
            _ => Ok(()),
        }
    }

    /// Returns the port that the Forward table chooses.
    fn route(&mut self, key: FlowKey) -> PortNo {
        let mut walk = Walk::new(self.snapshot, key, self.scratch);
        walk.run(
            TableId::Forward,
            Some(TableId::IngressAdminTier),
            &mut Tracked,
        );
        walk.key.out_port
    }

    /// Returns whether the ServiceLb table does something to the first packet of a connection.
    fn is_for_service(&mut self, key: FlowKey) -> bool {
        let key = FlowKey {
            ct_state: CtState::TRK | CtState::NEW,
            ..key
        };
        let mut walk = Walk::new(self.snapshot, key, self.scratch);
        let end = walk.run(
            TableId::ServiceLb,
            Some(TableId::EgressAdminTier),
            &mut Tracked,
        );
        end.is_some() || walk.balanced.is_some()
    }

    fn picks_up(&self, port: PortNo) -> bool {
        self.snapshot
            .port(port)
            .is_some_and(|port| port.spec.midstream_pickup)
    }
}

/// Returns the key of the first packet of a connection, as far as policies look at it.
pub(super) fn key_of(tuple: &Tuple) -> FlowKey {
    let is_icmp = ip_proto::is_icmp(tuple.proto);
    FlowKey {
        eth_type: if tuple.src.is_ipv4() {
            ether_type::IPV4
        } else {
            ether_type::IPV6
        },
        ip_proto: tuple.proto,
        ip_src: Some(tuple.src),
        ip_dst: Some(tuple.dst),
        tp_src: if is_icmp {
            u16::from(tuple.icmp_type)
        } else {
            tuple.tp_src
        },
        tp_dst: if is_icmp { 0 } else { tuple.tp_dst },
        ..FlowKey::default()
    }
}

/// How a connection whose beginning was not seen is to be taken up.
#[derive(Debug, Clone, Copy)]
struct Pickup {
    /// The packet is a reply.
    swapped: bool,
}

/// The connection side of one translation.
struct Tracking<'a, 's> {
    memory: Memory<'a>,
    packet: Packet<'a>,
    judge: Judge<'a, 's>,
    found: Option<CtLookup>,
    pickup: Option<Pickup>,
    question: Option<Question>,
    /// The judgement of the connection went against it.
    denied: bool,
}

impl Tracker for Tracking<'_, '_> {
    fn track(&mut self, key: &mut FlowKey) -> Result<(), End> {
        if self.found.is_some() {
            return Ok(());
        }
        let Packet { parsed, frame, now } = self.packet;
        let conns = self.memory.conns;
        let found = conns.lookup(parsed, frame, now).map_err(End::Drop)?;
        (key.tp_src, key.tp_dst) = (found.key.tp_src, found.key.tp_dst);
        if let Some(conn) = &found.conn {
            translate_key(key, conn, &found);
        }
        key.ct_state = if found.midstream {
            self.orient(key)?
        } else {
            found.state
        };
        let goes_past_policies =
            found.state.contains(CtState::RPL) || found.state.contains(CtState::REL);
        let conn = found.conn.clone().filter(|_| goes_past_policies);
        self.found = Some(found);
        conn.map_or(Ok(()), |conn| self.rejudge(&conn))
    }

    fn kept_endpoint(&self, group: &Group, client: IpAddr) -> Option<Endpoint> {
        group.affinity?;
        let now = self.packet.now;
        self.memory.affinity.get(group.id, client, now)
    }

    fn expected_endpoint(&self, key: &FlowKey) -> Option<Endpoint> {
        let _taken_up = self.pickup?;
        let Packet { parsed, now, .. } = self.packet;
        let service = Endpoint {
            ip: key.ip_dst?,
            port: key.tp_dst,
        };
        let client = Endpoint {
            ip: key.ip_src?,
            port: key.tp_src,
        };
        let ack = parsed.tcp?.ack;
        self.memory.expected.get(service, client, ack, now)
    }
}

/// Gives a packet of a translated connection the addresses that it leaves with.
fn translate_key(key: &mut FlowKey, conn: &Connection, found: &CtLookup) {
    let Some(leaves_as) = conn.leaves_as(found.direction) else {
        return;
    };
    key.ip_dst = Some(leaves_as.dst);
    if found.state.contains(CtState::REL) {
        // A router on the way speaks for itself.
        let comes_as = conn.comes_as(found.direction);
        if key.ip_src == Some(comes_as.src) {
            key.ip_src = Some(leaves_as.src);
        }
        return;
    }
    key.ip_src = Some(leaves_as.src);
    if ip_proto::has_ports(key.ip_proto) {
        (key.tp_src, key.tp_dst) = (leaves_as.tp_src, leaves_as.tp_dst);
    }
}

impl<'s> Tracking<'_, 's> {
    /// Judges a connection unless the current rules allowed it already.
    fn rejudge(&mut self, conn: &Arc<Connection>) -> Result<(), End> {
        if conn.judged() >= self.judge.snapshot.epoch {
            return Ok(());
        }
        let judged = self
            .judge
            .judge(conn.in_port(), &conn.forwarded(), CtState::EST);
        self.denied = judged.is_err();
        judged
    }

    /// Finds out which way a connection goes whose beginning was not seen, and returns the
    /// packet's state. Only ports that had connections before may have such; nobody else can
    /// turn a denied connection into a reply by leaving out its first packet.
    ///
    /// # Errors
    ///
    /// The packet comes from an endpoint of Services, and nobody but its client knows which of
    /// their addresses it is to come from.
    fn orient(&mut self, key: &FlowKey) -> Result<CtState, End> {
        const INVALID: CtState = CtState(CtState::TRK.0 | CtState::INV.0);
        let (Some(src), Some(dst)) = (key.ip_src, key.ip_dst) else {
            return Ok(INVALID);
        };
        let out_port = self.judge.route(*key);
        if !(self.judge.picks_up(key.in_port) || self.judge.picks_up(out_port)) {
            self.judge.scratch.clear();
            return Ok(INVALID);
        }
        // Nobody is a client there.
        if self.judge.is_for_service(*key) {
            self.judge.scratch.clear();
            self.pickup = Some(Pickup { swapped: false });
            return Ok(CtState::TRK | CtState::NEW);
        }
        let (proto, tp_src, tp_dst) = (key.ip_proto, key.tp_src, key.tp_dst);
        let as_is = Tuple {
            src,
            dst,
            proto,
            icmp_type: 0,
            tp_src,
            tp_dst,
        };
        let allows_swapped = self
            .judge
            .judge(out_port, &as_is.reversed(), CtState::NEW)
            .is_ok();
        let judged_swapped = self.judge.last.take();
        if allows_swapped && self.must_ask(&as_is, out_port) {
            self.judge.scratch.clear();
            return Err(End::Drop(DropReason::CtAsksClient));
        }
        // Servers listen on the lower port; among equals the packet in hand is the first.
        let swapped = allows_swapped
            && (tp_dst > tp_src || self.judge.judge(key.in_port, &as_is, CtState::NEW).is_err());
        self.pickup = Some(Pickup { swapped });
        self.judge.last = judged_swapped.filter(|_| swapped);
        // The packet's own walk counts and shows what it is judged by.
        self.judge.scratch.clear();
        Ok(if swapped {
            CtState::TRK | CtState::EST | CtState::RPL
        } else {
            CtState::TRK | CtState::NEW
        })
    }

    /// Finds out whether the sender is an endpoint of Services, and what to ask its client then.
    fn must_ask(&mut self, sent: &Tuple, out_port: PortNo) -> bool {
        let endpoint = Endpoint {
            ip: sent.src,
            port: sent.tp_src,
        };
        let groups = &self.judge.snapshot.groups;
        let mut entrances = groups.entrances_to(endpoint, sent.proto);
        if entrances.is_empty() {
            return false;
        }
        // It may do without a Service as well.
        entrances.push(endpoint);
        self.question = Some(Question {
            endpoint,
            client: Endpoint {
                ip: sent.dst,
                port: sent.tp_dst,
            },
            out_port,
            entrances,
        });
        true
    }

    fn conclude(
        self,
        end: End,
        (key, commits, balanced): (FlowKey, bool, Option<Balanced<'s>>),
    ) -> Translation<'s> {
        let judged_reply = self.judge.last.is_some() && !self.denied;
        let conn = self.found.as_ref().and_then(|found| found.conn.clone());
        let is_original = self.found.as_ref().is_some_and(is_original);
        let is_related = |found: &CtLookup| found.state.contains(CtState::REL);
        let related = self.found.as_ref().filter(|found| is_related(found));
        let related = related.and_then(|found| Some((found.conn.clone()?, found.direction)));
        let is_forwarded = matches!(end, End::Forward { .. });
        let was_judged = judged_reply || (is_original && is_forwarded && commits);
        Translation {
            end,
            key,
            balanced,
            related,
            conn_update: self.conn_update(end, key, commits),
            allowed: conn.filter(|_| was_judged),
            judged_as: self.judge.last,
            question: self.question,
        }
    }

    fn conn_update(&self, end: End, key: FlowKey, commits: bool) -> ConnUpdate {
        let Some(found) = &self.found else {
            return ConnUpdate::Nothing;
        };
        match (end, &found.conn) {
            (End::Forward { .. }, _) if found.state.contains(CtState::REL) => ConnUpdate::Nothing,
            (End::Forward { .. }, Some(conn)) => {
                ConnUpdate::Track(Arc::clone(conn), found.direction)
            }
            (End::Forward { port, .. }, None) if commits => {
                ConnUpdate::Commit(self.options(key, port))
            }
            (_, Some(conn)) if self.is_denied(end, found) => match end {
                End::Reject(_) => ConnUpdate::Linger(Arc::clone(conn)),
                // Forgotten, it would be unknown, and its next packet could be taken up as a reply.
                _ if self.could_be_taken_up(conn) => ConnUpdate::Linger(Arc::clone(conn)),
                _ => ConnUpdate::Remove(Arc::clone(conn)),
            },
            _ => ConnUpdate::Nothing,
        }
    }

    fn could_be_taken_up(&self, conn: &Connection) -> bool {
        self.judge.picks_up(conn.in_port()) || self.judge.picks_up(conn.out_port())
    }

    /// Returns whether a policy forbids the connection, not only this packet.
    fn is_denied(&self, end: End, found: &CtLookup) -> bool {
        let is_original = is_original(found);
        end.drop_reason().is_some_and(is_policy) && (self.denied || is_original)
    }

    fn options(&self, key: FlowKey, port: PortNo) -> CommitOptions {
        let swapped = self.pickup.is_some_and(|pickup| pickup.swapped);
        let (in_port, out_port) = if swapped {
            (port, key.in_port)
        } else {
            (key.in_port, port)
        };
        CommitOptions {
            midstream_pickup: self.pickup.is_some(),
            swapped,
            in_port,
            out_port,
        }
    }
}

/// Returns whether it is a later packet of a connection's own direction.
const fn is_original(found: &CtLookup) -> bool {
    found.state.contains(CtState::EST) && !found.state.contains(CtState::RPL)
}

/// A pod that is not known *yet* will have policies soon, which may allow the connection.
const fn is_policy(reason: DropReason) -> bool {
    matches!(reason, DropReason::PolicyEgress | DropReason::PolicyIngress)
}
