//! Datapath side of the kernel path: offers connections, revokes them, accounts for their
//! packets.

use std::sync::Arc;

use super::Datapath;
use super::in_hand::InHand;
use crate::cache::{CachedFlow, pair_of_macs};
use crate::conntrack::Connection;
use crate::kernel_path::KernelFlow;
use crate::packet::{ParsedPacket, tcp_flags};
use crate::pipeline::Snapshot;
use crate::time::Timestamp;

impl Datapath {
    /// Takes into account what went by below the engine until now. To be called before figures
    /// of connections, rules or ports are read; [`Datapath::expire`] does as well.
    pub fn sync_kernel_path(&self, now: Timestamp) {
        if let Some(kernel_path) = &self.kernel_path {
            let below = &kernel_path.below;
            let at = (now, self.conns.config());
            below.sync(now, &mut |flow, usage| kernel_path.account(flow, usage, at));
        }
    }

    /// Returns whether there is a path below.
    #[inline]
    pub(super) const fn has_kernel_path(&self) -> bool {
        self.kernel_path.is_some()
    }

    /// Returns how many flows are forwarded below the engine; `None` if there is nothing below.
    #[must_use]
    pub fn kernel_flows(&self) -> Option<usize> {
        self.kernel_path
            .as_ref()
            .map(|kernel_path| kernel_path.below.flows())
    }

    /// Has the state of a connection that the kernel forwards know what went by, before a packet of it is taken
    /// in. One that may change the state ends the forwarding below.
    pub(super) fn take_back(&self, conn: &Arc<Connection>, packet: &ParsedPacket, now: Timestamp) {
        let Some(kernel_path) = &self.kernel_path else {
            return;
        };
        let at = (now, self.conns.config());
        let account = &mut |flow: &KernelFlow, usage| kernel_path.account(flow, usage, at);
        let signals = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;
        if packet.tcp.is_some_and(|tcp| tcp.flags & signals != 0) {
            kernel_path.below.reclaim(conn, account);
        } else {
            kernel_path.below.catch_up(conn, account);
        }
    }

    /// Has the state of a connection know what went by below, if anything may have.
    pub(super) fn catch_up(&self, conn: &Arc<Connection>) {
        if let Some(kernel_path) = &self.kernel_path
            && conn.is_in_kernel()
        {
            let at = (conn.last_seen(), self.conns.config());
            let account = &mut |flow: &KernelFlow, usage| kernel_path.account(flow, usage, at);
            kernel_path.below.catch_up(conn, account);
        }
    }

    /// Ends the validity of everything that was offered so far.
    pub(super) fn revoke(&self) {
        if let Some(kernel_path) = &self.kernel_path {
            kernel_path.below.revoke();
        }
    }

    /// Offers the flow of a packet that was forwarded.
    pub(super) fn offer(&self, snapshot: &Snapshot, flow: &CachedFlow, packet: &InHand<'_>) {
        let (Some(kernel_path), Some((conn, direction))) = (&self.kernel_path, &flow.conn) else {
            return;
        };
        let key = &packet.parsed.key;
        // What takes more than other MACs is the engine's: meters see what passes it only.
        if !flow.is_simple || key.vlan_tci != 0 || !conn.may_enter_kernel() {
            return;
        }
        // Read first: what is changed after the check below comes with another generation.
        let generation = kernel_path.below.generation();
        if self.epoch() != snapshot.epoch || conn.is_dead() {
            return;
        }
        let offer = KernelFlow {
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
        let account = &mut |flow: &KernelFlow, usage| kernel_path.account(flow, usage, at);
        kernel_path.below.install(offer, generation, account);
    }
}
