//! A connection's hold on its place in the kernel.

use super::kernel_state::{KernelCell, KernelTcp};
use crate::time::Timestamp;

/// Bytes of a frame that a connection does not count.
const ETHERNET_HEADER: u64 = 14;

/// A place, and what the connection has taken over from it.
#[derive(Debug)]
pub(super) struct InKernel {
    cell: Box<dyn KernelCell>,
    /// Packets and bytes of each direction that are taken into account.
    taken: [(u64, u64); 2],
    /// The kernel still takes packets in.
    is_open: bool,
}

/// What a connection has to take over.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    /// Packets of each direction, and their bytes without Ethernet headers.
    pub(super) traffic: [(u64, u64); 2],
    /// When the last packet came, if any did.
    pub(super) last: Option<Timestamp>,
    /// How far TCP has come, if the kernel is who knows.
    pub(super) tcp: Option<KernelTcp>,
}

impl InKernel {
    pub(super) const fn new(cell: Box<dyn KernelCell>) -> Self {
        Self {
            cell,
            taken: [(0, 0); 2],
            is_open: true,
        }
    }

    /// Returns what is to be taken over since the last call.
    pub(super) fn take(&mut self) -> News {
        let state = self.cell.read();
        let totals = state.sides.map(|side| {
            let headers = side.packets.saturating_mul(ETHERNET_HEADER);
            (side.packets, side.bytes.saturating_sub(headers))
        });
        let ([began, answered], [began_before, answered_before]) = (totals, self.taken);
        self.taken = totals;
        let grown = |now: (u64, u64), before: (u64, u64)| {
            (
                now.0.saturating_sub(before.0),
                now.1.saturating_sub(before.1),
            )
        };
        let lasts = totals.iter().zip(state.last);
        let lasts = lasts.filter(|((packets, _), _)| *packets > 0);
        News {
            traffic: [grown(began, began_before), grown(answered, answered_before)],
            last: lasts.map(|(_, last)| last).max(),
            tcp: state.tcp.filter(|_| self.is_open),
        }
    }

    /// Has the kernel know what a packet changed that it did not see.
    pub(super) fn join(&self, tcp: &KernelTcp) {
        if self.is_open {
            self.cell.join(tcp);
        }
    }

    /// Has the kernel leave all further packets to the engine.
    pub(super) fn shut(&self) {
        self.cell.close();
    }

    /// The same; what the kernel takes in at this very moment still counts, and tells nothing.
    pub(super) fn close(&mut self) {
        self.is_open = false;
        self.cell.close();
    }

    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }
}
