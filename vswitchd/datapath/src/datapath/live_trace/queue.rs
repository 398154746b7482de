//! What a live trace has taken, until whoever traces takes it out.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use vswitch_api::PortNo;

use super::flow::TracedFlow;
use super::packet::TracedPacket;

/// Packets that wait for whoever traces, some kilobytes each with the rules that they met.
const ROOM: usize = 1_024;

/// A live trace under way.
#[derive(Debug)]
pub struct LiveTrace {
    port: PortNo,
    flow: TracedFlow,
    packets: ArrayQueue<Box<TracedPacket>>,
    /// How many are still wanted. Only a number: relaxed.
    wanted: AtomicU32,
    /// Packets that found no room. Only a number: relaxed.
    lost: AtomicU64,
}

impl LiveTrace {
    /// Returns one that has not begun, of the first `count` packets of a description that come in or
    /// leave through the port.
    #[must_use]
    pub fn new(port: PortNo, flow: TracedFlow, count: u32) -> Self {
        Self {
            port,
            flow,
            packets: ArrayQueue::new(ROOM),
            wanted: AtomicU32::new(count),
            lost: AtomicU64::new(0),
        }
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> PortNo {
        self.port
    }

    /// Returns which packets it is of.
    #[must_use]
    pub const fn flow(&self) -> &TracedFlow {
        &self.flow
    }

    /// Returns whether all packets that were wanted have come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.wanted.load(Relaxed) == 0
    }

    /// Returns how many packets found no room so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Takes out the next packet.
    #[must_use]
    pub fn next(&self) -> Option<Box<TracedPacket>> {
        self.packets.pop()
    }

    /// Puts in a packet, if more are wanted.
    pub(in crate::datapath) fn put(&self, packet: Box<TracedPacket>) {
        let one_less = |wanted: u32| wanted.checked_sub(1);
        let is_wanted = self.wanted.fetch_update(Relaxed, Relaxed, one_less).is_ok();
        if is_wanted && self.packets.push(packet).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::PacketSummary;
    use super::*;
    use crate::conntrack::Direction;
    use crate::datapath::Verdict;
    use crate::drop_reason::DropReason;
    use crate::pipeline::{Trace, TraceVerdict};

    fn trace(count: u32) -> LiveTrace {
        LiveTrace::new(PortNo(1), TracedFlow::default(), count)
    }

    fn put(trace: &LiveTrace) {
        trace.put(Box::new(TracedPacket {
            time: crate::time::Timestamp::default(),
            direction: Direction::Original,
            in_port: PortNo(1),
            came: PacketSummary::default(),
            left: None,
            verdict: Verdict::Answered,
            trace: Trace {
                key: None,
                steps: Vec::new(),
                verdict: TraceVerdict::Drop(DropReason::Truncated),
                translation: None,
                deciding: Vec::new(),
            },
            was_in_kernel: false,
            is_told: false,
        }));
    }

    #[test]
    fn so_many_packets_are_taken_and_no_more() {
        let trace = trace(2);
        for _ in 0..3 {
            assert_eq!(trace.is_over(), trace.packets.len() == 2);
            put(&trace);
        }
        assert!(trace.is_over());
        assert!(trace.next().is_some() && trace.next().is_some());
        assert!(trace.next().is_none());
        assert_eq!(trace.lost(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let trace = trace(u32::MAX);
        for _ in 0..ROOM + 3 {
            put(&trace);
        }
        assert_eq!(trace.lost(), 3);
    }
}
