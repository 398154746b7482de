//! What the tables say of a packet that is watched.

use std::sync::Arc;

use smallvec::SmallVec;
use vswitch_api::PortNo;

use super::capture::Decision;
use super::live_trace::{LiveTrace, PacketSummary, TracedPacket};
use super::verdict::Verdict;
use super::watchers::Watchers;
use crate::conntrack::Direction;
use crate::drop_reason::DropReason;
use crate::packet::{Frame, ParsedPacket};
use crate::pipeline::{
    ConnUpdate, End, Memory, Packet, Rule, Snapshot, TableId, Translation, WalkScratch, denied_by,
    explained, is_builtin, judge_connection, translate,
};
use crate::time::Timestamp;

/// What the tables say of a packet.
#[derive(Debug, Default)]
pub(super) struct Explained<'w> {
    pub(super) decision: Decision,
    pub(super) is_dropped: bool,
    /// Where it goes, or would have gone; 0 where it was dropped before that was found out.
    pub(super) out_port: PortNo,
    /// Live traces that it is of, each with what is known of it before it is processed.
    pub(super) traced: SmallVec<[(&'w LiveTrace, Box<TracedPacket>); 1]>,
}

impl<'w> Explained<'w> {
    /// Takes a packet through the tables for those who watch, if there are any whom it concerns.
    pub(super) fn of(
        watchers: &'w Watchers,
        snapshot: &Snapshot,
        memory: Memory<'_>,
        (parsed, frame, now): (&ParsedPacket, &Frame, Timestamp),
    ) -> Self {
        if watchers.captures.is_empty() && watchers.traces.is_empty() {
            return Self::default();
        }
        let (mut own, mut judge) = (WalkScratch::default(), WalkScratch::default());
        let packet = Packet { parsed, frame, now };
        let translation = translate(snapshot, memory, packet, &mut own, &mut judge);
        let mut of = if translation.end.drop_reason().is_some() {
            dropped(&translation, &own, &judge)
        } else {
            allowed(snapshot, &translation, &own, &mut judge)
        };
        for trace in watchers.traces.iter().filter(|trace| !trace.is_over()) {
            let flow = trace.flow();
            // A fragment behind the first, and what comes back from an endpoint, are known by what
            // the tables made of them.
            let direction = flow.direction_of(parsed);
            let Some(direction) = direction.or_else(|| flow.direction(&translation.key)) else {
                continue;
            };
            let packet = Box::new(TracedPacket {
                time: now,
                direction,
                in_port: parsed.key.in_port,
                came: PacketSummary::of(parsed, frame),
                left: None,
                verdict: Verdict::Held,
                trace: explained(snapshot, &translation, &own, &judge),
                was_in_kernel: was_in_kernel(&translation),
                is_told: false,
            });
            of.traced.push((trace, packet));
        }
        of
    }
}

/// Returns whether packets of the connection went by below the engine until this one came.
fn was_in_kernel(translation: &Translation<'_>) -> bool {
    match &translation.conn_update {
        ConnUpdate::Track(conn, _) | ConnUpdate::Remove(conn) | ConnUpdate::Linger(conn) => {
            conn.is_in_kernel()
        }
        ConnUpdate::Nothing | ConnUpdate::Commit(_) => false,
    }
}

/// Returns who let a packet pass.
fn allowed<'w, 's>(
    snapshot: &'s Snapshot,
    translation: &Translation<'s>,
    own: &WalkScratch<'s>,
    judge: &mut WalkScratch<'s>,
) -> Explained<'w> {
    let mut is_reply = translation.related.is_some();
    if let ConnUpdate::Track(conn, Direction::Reply) = &translation.conn_update {
        is_reply = true;
        // It was judged when it began, or with its first packet under these rules.
        judge_connection(snapshot, conn, judge);
    }
    let hits = own.hits.iter().chain(&judge.hits);
    let rules = hits.filter_map(|hit| hit.rule.map(|rule| &rule.rule));
    let rules = rules.filter(|rule| may_allow(rule)).map(Arc::clone);
    let out_port = match translation.end {
        End::Forward { port, .. } => port,
        _ => PortNo::default(),
    };
    Explained {
        decision: Decision {
            rules: rules.collect(),
            key: translation.key,
            is_reply,
        },
        is_dropped: false,
        out_port,
        traced: SmallVec::new(),
    }
}

/// Returns who dropped a packet.
fn dropped<'w>(
    translation: &Translation<'_>,
    own: &WalkScratch<'_>,
    judge: &WalkScratch<'_>,
) -> Explained<'w> {
    let (key, hit) = denied_by(translation, &own.hits, &judge.hits);
    // An answer goes back to who began, whatever its connection was judged as.
    let began = match &translation.conn_update {
        ConnUpdate::Remove(conn) | ConnUpdate::Linger(conn) => Some(conn.in_port()),
        ConnUpdate::Nothing | ConnUpdate::Track(..) | ConnUpdate::Commit(_) => None,
    };
    let is_reply = translation.judged_as.is_some();
    let rule = hit
        .and_then(|hit| hit.rule)
        .map(|rule| Arc::clone(&rule.rule));
    Explained {
        decision: Decision {
            rules: rule.into_iter().collect(),
            key,
            is_reply,
        },
        is_dropped: true,
        out_port: began
            .filter(|_| is_reply)
            .unwrap_or(translation.key.out_port),
        traced: SmallVec::new(),
    }
}

/// Returns whether a rule is of those that somebody asks for who wants to know why a packet passed:
/// an operator's or a policy's.
fn may_allow(rule: &Rule) -> bool {
    let is_of_policies = matches!(
        rule.table.default_reason(),
        DropReason::PolicyEgress | DropReason::PolicyIngress
    );
    !is_builtin(rule.id) && (is_of_policies || rule.table == TableId::Admin)
}
