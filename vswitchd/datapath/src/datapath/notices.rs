//! What the ends of a connection hear when it ends without them: their pod is gone, or the address
//! is another's.
//!
//! Who sends finds out with its next packet; who only receives would wait for ever. So each end gets
//! what would answer its next packet if its peer had just gone: a reset for TCP (RFC 9293 section
//! 3.5.2), port unreachable for UDP (RFC 1122 section 4.1.3.1). Writers add, whichever worker comes
//! by first sends. Bounded: who is not told hears it when it sends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use vswitch_api::{MacAddr, PortNo};

use crate::conntrack::{Connection, Direction};
use crate::packet::emit::{self, BarePacket, Refusal};
use crate::packet::rewrite::Ends;
use crate::packet::{Frame, parse};
use crate::pipeline::Snapshot;

/// Notices that may wait, some megabytes.
const MAX_WAITING: usize = 65_536;

/// Notices that a worker sends between two rounds of its ports.
const BATCH: usize = 64;

/// One end of a connection, and the packet of its that is answered.
#[derive(Debug, Clone, Copy)]
struct Notice {
    port: PortNo,
    ends: Ends,
    packet: BarePacket,
}

/// Notices that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Whether any wait; read by every worker in every round. Relaxed: a round later will do.
    is_any: AtomicBool,
    queue: Mutex<VecDeque<Notice>>,
}

impl Notices {
    /// Adds what both ends of a connection are to hear.
    pub(super) fn add(&self, conn: &Connection) {
        let sides = [
            (Direction::Original, conn.in_port()),
            (Direction::Reply, conn.out_port()),
        ];
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for (direction, port) in sides {
            let ends = conn.comes_as(direction).into();
            let room = MAX_WAITING.saturating_sub(queue.len());
            let packets = conn.next_of(direction).into_iter().take(room);
            queue.extend(packets.map(|packet| Notice { port, ends, packet }));
        }
        self.is_any.store(!queue.is_empty(), Relaxed);
    }

    /// Returns whether none wait.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.is_any.load(Relaxed)
    }

    /// Adds the frames of a batch of notices to `out`; returns whether any waited. Ends whose port
    /// is gone hear nothing.
    pub(super) fn take(&self, snapshot: &Snapshot, out: &mut Vec<(PortNo, Frame)>) -> bool {
        let batch: Vec<Notice> = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let count = queue.len().min(BATCH);
            let batch = queue.drain(..count).collect();
            self.is_any.store(!queue.is_empty(), Relaxed);
            batch
        };
        let gateway = snapshot.gateway_mac();
        let frames = batch
            .iter()
            .filter_map(|notice| notice.frame(snapshot, gateway));
        out.extend(frames);
        !batch.is_empty()
    }
}

impl Notice {
    fn frame(&self, snapshot: &Snapshot, gateway: MacAddr) -> Option<(PortNo, Frame)> {
        let own = snapshot.port(self.port)?.spec.mac;
        let sent = emit::bare_packet(self.packet, &self.ends, own, gateway)?;
        let parsed = parse(&sent, self.port).ok()?;
        let notice = emit::rejection(&sent, &parsed, Refusal::NobodyListens)?;
        Some((self.port, notice))
    }
}
