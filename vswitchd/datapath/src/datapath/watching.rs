//! Watching begins and ends.
//!
//! One of a port, a capture or a live trace, that begins or ends is a publication: with the epoch
//! everything ends that was cached or offered to the path below before, so that no packet of the port
//! goes the short way from then on. A probe waits for packets of a connection of its own alone, which
//! is never cached: it costs other flows nothing.

use std::sync::Arc;

use vswitch_api::Epoch;

use super::Datapath;
use super::capture::CapturedPacket;
use super::probe::Probe;
use super::watchers::{TooManyWatchers, Watcher, Watchers};
use crate::conntrack::{ConnectionEnd, Tuple};
use crate::pipeline::{Rule, Snapshot, deciding_drops};
use crate::time::Timestamp;

impl Datapath {
    /// Has somebody watch: every packet that is decided on after this returned is watched.
    ///
    /// # Errors
    /// [`TooManyWatchers`].
    pub fn begin_watch(&self, watcher: &Watcher) -> Result<(), TooManyWatchers> {
        let _writer = self.lock();
        let mut watchers = Watchers::clone(&self.watchers.load());
        watchers.add(watcher)?;
        self.publish_watchers(watchers, watcher);
        Ok(())
    }

    /// Has somebody watch no longer; nothing happens if they do not.
    pub fn end_watch(&self, watcher: &Watcher) {
        let _writer = self.lock();
        let mut watchers = Watchers::clone(&self.watchers.load());
        if watchers.remove(watcher) {
            self.publish_watchers(watchers, watcher);
        }
    }

    /// Publishes who watches, of which one came or went. The writer's lock is held.
    fn publish_watchers(&self, watchers: Watchers, changed: &Watcher) {
        let is_of_port = !matches!(changed, Watcher::Probe(_));
        let mut next = Snapshot::clone(&self.published.load());
        next.epoch = Epoch(next.epoch.0 + u64::from(is_of_port));
        next.watched = watchers.ports();
        next.has_watchers = watchers.is_any();
        // Before the ports are named: an engine that knows of a watched port finds who watches.
        self.watchers.store(Arc::new(watchers));
        self.published.store(Arc::new(next));
        if is_of_port {
            self.revoke();
        }
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

    /// Removes the connection of a probe; returns the tuple that its packets left with, if there was
    /// one.
    pub fn forget_probe(&self, probe: &Probe, now: Timestamp) -> Option<Tuple> {
        let (conn, _) = self.conns.find(probe.tuple(), now)?;
        if conn.original() != *probe.tuple() {
            return None;
        }
        // A reset has ended it by itself; nothing else comes for what is left.
        self.conns.remove(&conn, ConnectionEnd::Timeout);
        Some(conn.forwarded())
    }
}
