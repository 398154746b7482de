//! Captures that are under way.
//!
//! One that begins or ends is a publication: with the epoch everything ends that was cached or offered
//! to the path below before, so that no packet of the port goes the short way from then on.

use std::sync::Arc;

use vswitch_api::{Epoch, PortNo};

use super::Datapath;
use super::capture::{Capture, CapturedPacket};
use crate::pipeline::{Rule, Snapshot, deciding_drops};

/// Captures that may be under way at once: each costs every packet of its port a second walk through
/// the tables, and some megabytes.
pub const MAX_CAPTURES: usize = 4;

/// So many captures are under way already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_CAPTURES} captures are under way, and no more at once: wait until one has ended")]
pub struct TooManyCaptures;

impl Datapath {
    /// Begins a capture: every packet of its port that is decided on after this returned is in it.
    ///
    /// # Errors
    /// [`TooManyCaptures`].
    pub fn begin_capture(&self, capture: &Arc<Capture>) -> Result<(), TooManyCaptures> {
        let _writer = self.lock();
        let mut captures = Vec::clone(&self.captures.load());
        if captures.len() >= MAX_CAPTURES {
            return Err(TooManyCaptures);
        }
        captures.push(Arc::clone(capture));
        self.publish_captures(captures);
        Ok(())
    }

    /// Ends a capture; nothing happens if it is not under way.
    pub fn end_capture(&self, capture: &Arc<Capture>) {
        let _writer = self.lock();
        let mut captures = Vec::clone(&self.captures.load());
        captures.retain(|other| !Arc::ptr_eq(other, capture));
        if captures.len() < self.captures.load().len() {
            self.publish_captures(captures);
        }
    }

    /// Publishes which ports are captured. The writer's lock is held.
    fn publish_captures(&self, captures: Vec<Arc<Capture>>) {
        let mut next = Snapshot::clone(&self.published.load());
        next.epoch = Epoch(next.epoch.0 + 1);
        next.captured = captures.iter().map(|capture| capture.port()).collect();
        next.has_captures = !captures.is_empty();
        // Before the ports are named: an engine that knows of a captured port finds the capture.
        self.captures.store(Arc::new(captures));
        self.published.store(Arc::new(next));
        self.revoke();
    }

    /// Returns the rules that led to the verdict on a packet. For a NetworkPolicy's drop, every
    /// policy that isolates the pod by the rules of now, not only the one whose rule won.
    #[must_use]
    pub fn deciding_rules(&self, packet: &CapturedPacket) -> Vec<Arc<Rule>> {
        let decision = &packet.decision;
        match decision.rules.first() {
            Some(winner) if packet.is_dropped() => {
                let all = deciding_drops(&self.published.load(), &decision.key, winner);
                if all.iter().any(|rule| rule.id == winner.id) {
                    all
                } else {
                    vec![Arc::clone(winner)]
                }
            }
            _ => decision.rules.to_vec(),
        }
    }

    /// Returns the ports that are captured.
    #[must_use]
    pub fn captured_ports(&self) -> Vec<PortNo> {
        self.published.load().captured.to_vec()
    }
}
