//! Packet trace: the walk of a described packet through the tables, without side effects.

use std::sync::Arc;

use vswitch_api::{MacAddr, PortNo};

use super::builtin::drops;
use super::table::InstalledRule;
use super::translate::{Memory, Packet, Translation, translate};
use super::walk::{End, Hit, WalkScratch};
use super::{Rule, Snapshot, TableId};
use crate::classifier::{Membership, PackedKey};
use crate::drop_reason::DropReason;
use crate::flow::{CtState, FlowKey, ip_proto};
use crate::group::{Endpoint, Group};
use crate::packet::{Frame, ParsedPacket, TcpSegment, VnetHeader, parse, tcp_flags};
use crate::time::Timestamp;

/// The packet to explain.
#[derive(Debug, Clone)]
pub enum TracePacket {
    /// These bytes.
    Frame(Frame),
    /// The first packet of a flow that looks like this (a SYN for TCP).
    Key(FlowKey),
}

/// A packet and where it comes in.
#[derive(Debug, Clone)]
pub struct TraceInput {
    /// Port that it comes in through.
    pub in_port: PortNo,
    /// What it is.
    pub packet: TracePacket,
}

/// One table on the packet's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceStep {
    /// The table.
    pub table: TableId,
    /// The rule that won; `None` if none matched.
    pub rule: Option<Arc<Rule>>,
    /// The connection state that the table saw; 0 before tracking.
    pub ct_state: CtState,
    /// The step judges the packet's connection by its original direction, not the packet.
    pub judges_connection: bool,
}

/// What would become of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceVerdict {
    /// Sent through this port.
    Forward(PortNo),
    /// Answered by the switch with this MAC.
    Answered(MacAddr),
    /// Dropped.
    Drop(DropReason),
}

/// What a Service makes of a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceTranslation {
    /// The group that was asked.
    pub group: Group,
    /// What it chose.
    pub endpoint: Endpoint,
}

/// An explained packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The packet's key at the end; `None` if the packet could not be parsed.
    pub key: Option<FlowKey>,
    /// The tables in order.
    pub steps: Vec<TraceStep>,
    /// The outcome.
    pub verdict: TraceVerdict,
    /// The endpoint that a new connection to a Service would get.
    pub translation: Option<TraceTranslation>,
    /// The rules that led to it. For a NetworkPolicy's drop, every policy that isolates the pod,
    /// not only the one whose rule won; else the rules but for the built-in ones that let it pass.
    pub deciding: Vec<Arc<Rule>>,
}

/// Explains the packet by this version of the rules.
pub(crate) fn trace(
    snapshot: &Snapshot,
    memory: Memory<'_>,
    input: &TraceInput,
    now: Timestamp,
) -> Trace {
    let mut empty = Frame::from_bytes(&[]);
    // A described packet has no checksum that could be wrong.
    empty.vnet.flags = VnetHeader::F_DATA_VALID;
    let (parsed, frame) = match &input.packet {
        TracePacket::Frame(frame) => (parse(frame, input.in_port), frame),
        TracePacket::Key(key) => (Ok(packet_of(input.in_port, key)), &empty),
    };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(reason) => return unparsed(reason),
    };
    let (mut walk, mut judge) = (WalkScratch::default(), WalkScratch::default());
    let packet = Packet {
        parsed: &parsed,
        frame,
        now,
    };
    let translation = translate(snapshot, memory, packet, &mut walk, &mut judge);
    explained(snapshot, &translation, &walk, &judge)
}

/// Explains a packet that was translated.
pub(crate) fn explained(
    snapshot: &Snapshot,
    translation: &Translation<'_>,
    walk: &WalkScratch<'_>,
    judge: &WalkScratch<'_>,
) -> Trace {
    Trace {
        key: Some(translation.key),
        steps: steps(&walk.hits, &judge.hits),
        verdict: verdict(translation.end),
        translation: translation.balanced.map(|balanced| TraceTranslation {
            group: balanced.group.clone(),
            endpoint: balanced.endpoint,
        }),
        deciding: deciding(snapshot, translation, &walk.hits, &judge.hits),
    }
}

fn unparsed(reason: DropReason) -> Trace {
    let verdict = TraceVerdict::Drop(reason);
    Trace {
        key: None,
        steps: Vec::new(),
        verdict,
        translation: None,
        deciding: Vec::new(),
    }
}

/// Returns the first packet of a flow that looks like the key.
fn packet_of(in_port: PortNo, key: &FlowKey) -> ParsedPacket {
    let syn = TcpSegment {
        flags: tcp_flags::SYN,
        window: u16::MAX,
        ..TcpSegment::default()
    };
    /// Chunk type INIT (RFC 9260 section 3.2), which has verification tag 0.
    const SCTP_INIT: (u32, u8) = (0, 1);
    let is_icmp = ip_proto::is_icmp(key.ip_proto);
    ParsedPacket {
        key: FlowKey { in_port, ..*key },
        l3_offset: 0,
        l4_offset: 0,
        l3_end: 0,
        fragment: crate::packet::Fragment::No,
        tcp: (key.ip_proto == ip_proto::TCP).then_some(syn),
        sctp: (key.ip_proto == ip_proto::SCTP).then_some(SCTP_INIT),
        icmp_echo_id: is_icmp.then_some(0),
        icmp_quote: None,
        dont_fragment: true,
    }
}

/// Steps in the order in which they happen: a connection is judged once it is found, that is
/// before the Conntrack table looks at the state.
fn steps(own: &[Hit<'_>], judge: &[Hit<'_>]) -> Vec<TraceStep> {
    let step = |hit: &Hit<'_>, judges_connection| TraceStep {
        table: hit.table,
        rule: hit.rule.as_ref().map(|rule| Arc::clone(&rule.rule)),
        ct_state: hit.ct_state,
        judges_connection,
    };
    let found_at = own
        .iter()
        .position(|hit| hit.table >= TableId::Conntrack)
        .unwrap_or(own.len());
    let (before, after) = own.split_at(found_at);
    let before = before.iter().map(|hit| step(hit, false));
    let judged = judge.iter().map(|hit| step(hit, true));
    before
        .chain(judged)
        .chain(after.iter().map(|hit| step(hit, false)))
        .collect()
}

const fn verdict(end: End) -> TraceVerdict {
    match end {
        End::Drop(reason) | End::Reject(reason) => TraceVerdict::Drop(reason),
        End::Forward { port, .. } => TraceVerdict::Forward(port),
        End::ArpReply(mac) | End::NdAdvertise(mac) => TraceVerdict::Answered(mac),
    }
}

fn deciding(
    snapshot: &Snapshot,
    translation: &Translation<'_>,
    own: &[Hit<'_>],
    judge: &[Hit<'_>],
) -> Vec<Arc<Rule>> {
    if translation.end.drop_reason().is_some() {
        let (key, hit) = denied_by(translation, own, judge);
        let winner = hit.and_then(|hit| hit.rule);
        return winner.map_or_else(Vec::new, |winner| {
            deciding_drops(snapshot, &key, &winner.rule)
        });
    }
    let rules = own.iter().chain(judge).filter_map(|hit| hit.rule.as_ref());
    rules
        .map(|rule| Arc::clone(&rule.rule))
        .filter(|rule| !super::is_builtin(rule.id))
        .collect()
}

/// Returns where a walk ended that was dropped, and what the packet or its connection was there.
pub(crate) fn denied_by<'a, 's>(
    translation: &Translation<'_>,
    own: &'a [Hit<'s>],
    judge: &'a [Hit<'s>],
) -> (FlowKey, Option<&'a Hit<'s>>) {
    let (key, hits) = match translation.judged_as {
        Some(key) if judge.last().is_some_and(is_drop) => (key, judge),
        _ => (translation.key, own),
    };
    (key, hits.last())
}

fn is_drop(hit: &Hit<'_>) -> bool {
    hit.rule.as_ref().is_some_and(|rule| drops(&rule.rule))
}

/// Returns every rule of the winner's table that drops the packet for the winner's priority.
pub(crate) fn deciding_drops(
    snapshot: &Snapshot,
    key: &FlowKey,
    winner: &Arc<Rule>,
) -> Vec<Arc<Rule>> {
    // In a tier the first rule decides, alone.
    if winner.table.beyond_tier().is_some() {
        return vec![Arc::clone(winner)];
    }
    let mut member_of = Membership::default();
    snapshot.addresses.lookup(key.ip_src, &mut member_of.src);
    snapshot.addresses.lookup(key.ip_dst, &mut member_of.dst);
    let is_alike = |rule: &Arc<InstalledRule>| {
        let rule = &rule.rule;
        let is_isolation = !super::is_builtin(rule.id) && drops(rule);
        rule.id == winner.id || (is_isolation && rule.priority == winner.priority)
    };
    let table = snapshot.table(winner.table);
    let matching = table.map_or_else(Vec::new, |table| {
        table.lookup_all(&PackedKey::of(key), &member_of)
    });
    matching
        .into_iter()
        .filter(is_alike)
        .map(|rule| Arc::clone(&rule.rule))
        .collect()
}
