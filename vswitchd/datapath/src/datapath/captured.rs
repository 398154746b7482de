//! Packets while ports are captured: each is explained, copied as it comes and as it leaves, and
//! otherwise processed as always.
//!
//! The explanation is a walk of its own, without consequences, as a trace is: the decision, its
//! counters and the connection stay what they are without a capture.

use std::sync::Arc;

use smallvec::SmallVec;
use vswitch_api::PortNo;

use super::capture::{Capture, CapturedPacket, Decision, Outcome, Way};
use super::engine::Core;
use super::{Outputs, Verdict};
use crate::conntrack::Direction;
use crate::drop_reason::DropReason;
use crate::flow::FlowKey;
use crate::packet::{Frame, ParsedPacket, parse};
use crate::pipeline::{
    ConnUpdate, End, Packet, Rule, Snapshot, TableId, Translation, WalkScratch, denied_by,
    is_builtin, judge_connection, translate,
};
use crate::time::Timestamp;

/// What the tables say of a packet.
#[derive(Debug, Default)]
struct Explained {
    decision: Decision,
    is_dropped: bool,
    /// Where it goes, or would have gone; 0 where it was dropped before that was found out.
    out_port: PortNo,
}

/// How many frames there were before a packet was processed: those behind are its own.
struct MadeBefore([usize; 3]);

impl MadeBefore {
    fn of(out: &Outputs) -> Self {
        Self([out.replies.len(), out.copies.len(), out.followers.len()])
    }

    /// Has captures take what was made since.
    fn capture(&self, captures: &[Arc<Capture>], out: &Outputs, now: Timestamp) {
        let Self([replies, copies, followers]) = *self;
        let made = [
            (&out.replies, replies, Outcome::Made),
            (&out.copies, copies, Outcome::Made),
            (&out.followers, followers, Outcome::Fragment),
        ];
        for (frames, before, outcome) in made {
            for (port, frame) in frames.iter().skip(before) {
                for capture in of_port(captures, *port) {
                    inbound(capture, frame, outcome, &Decision::default(), now);
                }
            }
        }
    }
}

impl Core {
    /// Decides on a frame while ports are captured; it may be none of theirs.
    #[cold]
    #[inline(never)]
    pub(super) fn process_captured(
        &mut self,
        snapshot: &Snapshot,
        in_port: PortNo,
        frame: &mut Frame,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Verdict {
        let captures = self.datapath.captures.load_full();
        let parsed = parse(frame, in_port);
        let explained = parsed.as_ref().ok();
        let explained = explained.map(|parsed| self.explain(snapshot, parsed, frame, now));
        let explained = explained.unwrap_or_default();
        let key = parsed.as_ref().ok().map(|parsed| parsed.key);
        // Before it is rewritten: as the pod sent it.
        let mut sent: SmallVec<[_; 4]> = SmallVec::new();
        for capture in of_port(&captures, in_port) {
            sent.extend(
                capture
                    .copy(key.as_ref(), frame.bytes())
                    .map(|packet| (capture, packet)),
            );
        }
        let before = MadeBefore::of(out);
        let verdict = self.process_frame(snapshot, (parsed, in_port), frame, now, out);

        let is_dropped = matches!(verdict, Verdict::Drop(_));
        // Of what was dropped for another reason than the rules', they say nothing.
        let is_by_rules = explained.is_dropped == is_dropped;
        let decision = if is_by_rules {
            explained.decision
        } else {
            Decision::default()
        };
        let outcome = Outcome::Decided { in_port, verdict };
        for (capture, packet) in sent {
            put(capture, packet, (Way::Outbound, outcome), &decision, now);
        }
        let goes_to = match verdict {
            Verdict::Forward(port) => Some(port),
            Verdict::Drop(_) => Some(explained.out_port),
            Verdict::InFragments | Verdict::Answered | Verdict::Held => None,
        };
        for capture in goes_to.into_iter().flat_map(|to| of_port(&captures, to)) {
            inbound(capture, frame, outcome, &decision, now);
        }
        before.capture(&captures, out, now);
        verdict
    }

    /// Has captures take frames that no packet caused.
    #[cold]
    pub(super) fn capture_notices(&self, out: &Outputs, before: usize, now: Timestamp) {
        let captures = self.datapath.captures.load_full();
        let (copies, followers) = (out.copies.len(), out.followers.len());
        MadeBefore([before, copies, followers]).capture(&captures, out, now);
    }

    fn explain(
        &self,
        snapshot: &Snapshot,
        parsed: &ParsedPacket,
        frame: &Frame,
        now: Timestamp,
    ) -> Explained {
        let (mut own, mut judge) = (WalkScratch::default(), WalkScratch::default());
        let packet = Packet { parsed, frame, now };
        let memory = self.datapath.memory();
        let translation = translate(snapshot, memory, packet, &mut own, &mut judge);
        if translation.end.drop_reason().is_some() {
            return dropped(&translation, &own, &judge);
        }
        let mut is_reply = translation.related.is_some();
        if let ConnUpdate::Track(conn, Direction::Reply) = &translation.conn_update {
            is_reply = true;
            // It was judged when it began, or with its first packet under these rules.
            judge_connection(snapshot, conn, &mut judge);
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
        }
    }
}

/// Returns who dropped a packet.
fn dropped(
    translation: &Translation<'_>,
    own: &WalkScratch<'_>,
    judge: &WalkScratch<'_>,
) -> Explained {
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

fn of_port(captures: &[Arc<Capture>], port: PortNo) -> impl Iterator<Item = &Arc<Capture>> {
    captures
        .iter()
        .filter(move |capture| capture.port() == port)
}

/// Captures a frame on its way to the port.
fn inbound(
    capture: &Capture,
    frame: &Frame,
    outcome: Outcome,
    decision: &Decision,
    now: Timestamp,
) {
    let key: Option<FlowKey> = parse(frame, capture.port()).ok().map(|parsed| parsed.key);
    if let Some(packet) = capture.copy(key.as_ref(), frame.bytes()) {
        put(capture, packet, (Way::Inbound, outcome), decision, now);
    }
}

fn put(
    capture: &Capture,
    mut packet: Box<CapturedPacket>,
    (way, outcome): (Way, Outcome),
    decision: &Decision,
    now: Timestamp,
) {
    (packet.time, packet.way, packet.outcome) = (now, way, outcome);
    packet.decision.clone_from(decision);
    capture.put(packet);
}
