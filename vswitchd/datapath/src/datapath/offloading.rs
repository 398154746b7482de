//! The datapath's side of the path below it: what is offered, revoked and taken back.

use std::sync::{Arc, Mutex, PoisonError};

use super::Datapath;
use super::counters::EngineCounters;
use super::in_hand::InHand;
use crate::cache::{CachedFlow, pair_of_macs};
use crate::conntrack::{Connection, ConntrackConfig};
use crate::offload::{Offload, OffloadFlow, OffloadUsage};
use crate::packet::{ParsedPacket, tcp_flags};
use crate::pipeline::{Counts, Snapshot};
use crate::time::Timestamp;

/// The path below, and what its packets counted.
#[derive(Debug)]
pub(super) struct Offloading {
    below: Arc<dyn Offload>,
    /// Rule counters take one writer at a time; workers and the expiry thread take turns.
    counters: Mutex<Arc<EngineCounters>>,
}

impl Offloading {
    pub(super) const fn new(below: Arc<dyn Offload>, counters: Arc<EngineCounters>) -> Self {
        Self {
            below,
            counters: Mutex::new(counters),
        }
    }

    /// Takes into account what went by of a flow.
    fn account(
        &self,
        flow: &OffloadFlow,
        usage: OffloadUsage,
        (now, config): (Timestamp, &ConntrackConfig),
    ) {
        flow.conn.catch_up(flow.direction, usage, now, config);
        let counts = Counts {
            packets: usage.packets,
            bytes: usage.bytes,
        };
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = flow.path.rules().iter();
        slots.for_each(|slot| counters.rules.add(*slot, counts));
    }
}

impl Datapath {
    /// Takes into account what went by below the engine until now. To be called before figures
    /// of connections, rules or ports are read; [`Datapath::expire`] does as well.
    pub fn sync_offload(&self, now: Timestamp) {
        if let Some(offloading) = &self.offloading {
            let below = &offloading.below;
            let at = (now, self.conns.config());
            below.sync(now, &mut |flow, usage| offloading.account(flow, usage, at));
        }
    }

    /// Returns whether there is a path below.
    #[inline]
    pub(super) const fn is_offloading(&self) -> bool {
        self.offloading.is_some()
    }

    /// Returns how many flows are forwarded below the engine; `None` if there is nothing below.
    #[must_use]
    pub fn offloaded_flows(&self) -> Option<usize> {
        self.offloading
            .as_ref()
            .map(|offloading| offloading.below.flows())
    }

    /// Has the state of an offloaded connection know what went by, before a packet of it is taken
    /// in. One that may change the state ends the forwarding below.
    pub(super) fn take_back(&self, conn: &Arc<Connection>, packet: &ParsedPacket, now: Timestamp) {
        let Some(offloading) = &self.offloading else {
            return;
        };
        let at = (now, self.conns.config());
        let account = &mut |flow: &OffloadFlow, usage| offloading.account(flow, usage, at);
        let signals = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;
        if packet.tcp.is_some_and(|tcp| tcp.flags & signals != 0) {
            offloading.below.reclaim(conn, account);
        } else {
            offloading.below.catch_up(conn, account);
        }
    }

    /// Ends the validity of everything that was offered so far.
    pub(super) fn revoke(&self) {
        if let Some(offloading) = &self.offloading {
            offloading.below.revoke();
        }
    }

    /// Offers the flow of a packet that was forwarded.
    pub(super) fn offer(&self, snapshot: &Snapshot, flow: &CachedFlow, packet: &InHand<'_>) {
        let (Some(offloading), Some((conn, direction))) = (&self.offloading, &flow.conn) else {
            return;
        };
        let key = &packet.parsed.key;
        // What takes more than other MACs is the engine's: meters see what passes it only.
        if !flow.is_simple || key.vlan_tci != 0 || !conn.is_offloadable() {
            return;
        }
        // Read first: what is changed after the check below comes with another generation.
        let generation = offloading.below.generation();
        if self.epoch() != snapshot.epoch || conn.is_dead() {
            return;
        }
        let offer = OffloadFlow {
            in_port: key.in_port,
            out_port: flow.out_port,
            tuple: conn.comes_as(*direction),
            macs: pair_of_macs(key),
            leaves_with: flow.macs,
            mtu: flow.mtu,
            conn: Arc::clone(conn),
            direction: *direction,
            path: Arc::clone(&flow.path),
        };
        let at = (packet.now, self.conns.config());
        let account = &mut |flow: &OffloadFlow, usage| offloading.account(flow, usage, at);
        offloading.below.install(offer, generation, account);
    }
}
