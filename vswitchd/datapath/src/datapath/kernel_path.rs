//! Datapath side of the kernel path: offers connections, revokes them, accounts for their
//! packets.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Datapath;
use super::in_hand::InHand;
use crate::cache::{CachedFlow, pair_of_macs};
use crate::conntrack::{Connection, KernelUsage};
use crate::kernel_path::KernelFlow;
use crate::pipeline::Snapshot;
use crate::time::Timestamp;

impl Datapath {
    /// Takes into account what went by below the engine until now. To be called before figures
    /// of connections, rules or ports are read; [`Datapath::expire`] does as well.
    pub fn sync_kernel_path(&self, now: Timestamp) {
        if let Some(kernel_path) = &self.kernel_path {
            kernel_path
                .below
                .sync(now, &mut |flow, usage| self.account(flow, usage));
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

    /// Takes into account what went by of a flow.
    fn account(&self, flow: &KernelFlow, usage: KernelUsage) {
        flow.conn.catch_up(self.conns.config());
        if let Some(kernel_path) = &self.kernel_path {
            kernel_path.count(flow, usage);
        }
    }

    /// Ends the validity of everything that was offered so far.
    pub(super) fn revoke(&self) {
        if let Some(kernel_path) = &self.kernel_path {
            kernel_path.below.revoke();
        }
    }

    /// Offers the flow of a packet that was forwarded, and that of its answers, if that is known.
    pub(super) fn offer(
        &self,
        snapshot: &Snapshot,
        flow: &CachedFlow,
        answers: impl FnOnce(&CachedFlow, &Arc<Connection>) -> Option<KernelFlow>,
        packet: &InHand<'_>,
    ) {
        let (Some(kernel_path), Some((conn, direction))) = (&self.kernel_path, &flow.conn) else {
            return;
        };
        let key = &packet.parsed.key;
        // What takes more than other MACs and addresses is the engine's: meters see what passes it only.
        if !flow.is_for_kernel || key.vlan_tci != 0 || !conn.may_enter_kernel() {
            return;
        }
        // Read first: what is changed after the check below comes with another generation.
        let generation = kernel_path.below.generation();
        if self.epoch() != snapshot.epoch || conn.is_dead() {
            return;
        }
        let own = KernelFlow {
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
        let mut flows = SmallVec::<[KernelFlow; 2]>::new();
        flows.push(own);
        flows.extend(answers(flow, conn));
        let account = &mut |flow: &KernelFlow, usage| self.account(flow, usage);
        kernel_path.below.install(&flows, generation, account);
    }
}
