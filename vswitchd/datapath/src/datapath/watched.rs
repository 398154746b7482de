//! Packets while somebody watches: each is explained, told to captures and live traces as it comes and
//! as it leaves, taken in by the probe that it answers, and otherwise processed as always.
//!
//! The explanation is a walk of its own, without consequences, as a trace is: the decision, its
//! counters and the connection stay what they are while nobody watches.

use std::sync::Arc;

use smallvec::SmallVec;
use vswitch_api::PortNo;

use super::capture::{Capture, CapturedPacket, Decision, Outcome, Way};
use super::engine::Core;
use super::explained::Explained;
use super::live_trace::PacketSummary;
use super::probe::{Probe, is_taken, take_made};
use super::{Outputs, Verdict};
use crate::flow::FlowKey;
use crate::packet::{Frame, parse};
use crate::pipeline::Snapshot;
use crate::time::Timestamp;

/// How many frames there were before a packet was processed: those behind are its own.
#[derive(Debug, Clone, Copy)]
struct MadeBefore {
    replies: usize,
    copies: usize,
    followers: usize,
}

impl MadeBefore {
    fn of(out: &Outputs) -> Self {
        Self {
            replies: out.replies.len(),
            copies: out.copies.len(),
            followers: out.followers.len(),
        }
    }

    /// Has probes take in what was made since and answers them.
    fn take(self, probes: &[Arc<Probe>], out: &mut Outputs, now: Timestamp) {
        if !probes.is_empty() {
            take_made(probes, &mut out.replies, self.replies, now);
            take_made(probes, &mut out.followers, self.followers, now);
        }
    }

    /// Has captures take what was made since.
    fn capture(self, captures: &[Arc<Capture>], out: &Outputs, now: Timestamp) {
        let made = [
            (&out.replies, self.replies, Outcome::Made),
            (&out.copies, self.copies, Outcome::Made),
            (&out.followers, self.followers, Outcome::Fragment),
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
    /// Decides on a frame while somebody watches; it may be nothing that is watched.
    #[cold]
    #[inline(never)]
    pub(super) fn process_watched(
        &mut self,
        snapshot: &Snapshot,
        in_port: PortNo,
        frame: &mut Frame,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Verdict {
        let watchers = self.datapath.watchers.load_full();
        let captures = &watchers.captures;
        let parsed = parse(frame, in_port);
        let explained = match &parsed {
            Ok(parsed) => {
                let packet = (parsed, &*frame, now);
                Explained::of(&watchers, snapshot, self.datapath.memory(), packet)
            }
            Err(_) => Explained::default(),
        };
        let key = parsed.as_ref().ok().map(|parsed| parsed.key);
        // Before it is rewritten: as the pod sent it.
        let mut sent: SmallVec<[_; 4]> = SmallVec::new();
        for capture in of_port(captures, in_port) {
            sent.extend(
                capture
                    .copy(key.as_ref(), frame.bytes())
                    .map(|packet| (capture, packet)),
            );
        }
        let before = MadeBefore::of(out);
        let mut verdict = self.process_frame(snapshot, (parsed, in_port), frame, now, out);
        let is_told = out.replies.len() > before.replies;
        if let Verdict::Forward(port) = verdict
            && is_taken(&watchers.probes, port, frame, now)
        {
            verdict = Verdict::Taken;
        }
        before.take(&watchers.probes, out, now);

        for (trace, mut packet) in explained.traced {
            packet.left = left(verdict, frame);
            (packet.verdict, packet.is_told) = (verdict, is_told);
            trace.put(packet);
        }
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
            Verdict::InFragments | Verdict::Answered | Verdict::Held | Verdict::Taken => None,
        };
        for capture in goes_to.into_iter().flat_map(|to| of_port(captures, to)) {
            inbound(capture, frame, outcome, &decision, now);
        }
        before.capture(captures, out, now);
        verdict
    }

    /// Tells those who watch of frames that no packet caused.
    #[cold]
    pub(super) fn watch_notices(&self, out: &mut Outputs, replies: usize, now: Timestamp) {
        let watchers = self.datapath.watchers.load_full();
        let before = MadeBefore {
            replies,
            ..MadeBefore::of(out)
        };
        before.take(&watchers.probes, out, now);
        before.capture(&watchers.captures, out, now);
    }
}

/// Returns what a packet looks like as it is sent.
fn left(verdict: Verdict, frame: &Frame) -> Option<PacketSummary> {
    match verdict {
        Verdict::Forward(port) => {
            let parsed = parse(frame, port).ok()?;
            Some(PacketSummary::of(&parsed, frame))
        }
        Verdict::InFragments
        | Verdict::Answered
        | Verdict::Drop(_)
        | Verdict::Held
        | Verdict::Taken => None,
    }
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
