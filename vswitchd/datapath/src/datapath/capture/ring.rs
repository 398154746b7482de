//! The ring between engines and whoever captures: a fixed number of buffers that go round.
//!
//! Engines take a free buffer, fill it and put it among the full ones; whoever captures takes the
//! full ones out and gives the buffers back. Both are lock-free queues: no engine waits for another
//! or for the reader, and nothing is allocated for a packet.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use vswitch_api::PortNo;

use super::filter::CaptureFilter;
use super::packet::CapturedPacket;
use crate::flow::FlowKey;

/// Bytes of packets that a ring holds.
const RING_BYTES: usize = 16 << 20;
/// Packets that a ring holds at most: with short ones, two megabytes of what is known of them.
const MAX_PACKETS: usize = 8_192;

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    port: PortNo,
    filter: CaptureFilter,
    snaplen: usize,
    free: ArrayQueue<Box<CapturedPacket>>,
    full: ArrayQueue<Box<CapturedPacket>>,
    /// Packets that found no room. Only a number: relaxed.
    lost: AtomicU64,
}

impl Capture {
    /// Returns one that has not begun, of the first `snaplen` bytes of each packet.
    #[must_use]
    pub fn new(port: PortNo, filter: CaptureFilter, snaplen: usize) -> Self {
        let packets = (RING_BYTES / snaplen.max(1)).clamp(1, MAX_PACKETS);
        let (free, full) = (ArrayQueue::new(packets), ArrayQueue::new(packets));
        // Room that nothing was written to yet takes none of the machine's memory.
        while free
            .push(Box::new(CapturedPacket::with_room(snaplen)))
            .is_ok()
        {}
        Self {
            port,
            filter,
            snaplen,
            free,
            full,
            lost: AtomicU64::new(0),
        }
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> PortNo {
        self.port
    }

    /// Returns how many packets the ring holds.
    #[must_use]
    pub fn room(&self) -> usize {
        self.free.capacity()
    }

    /// Returns how many packets found no room so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Takes out the next packet; to be given back with [`Capture::give_back`].
    #[must_use]
    pub fn next(&self) -> Option<Box<CapturedPacket>> {
        self.full.pop()
    }

    /// Gives the buffer of a packet back.
    pub fn give_back(&self, mut packet: Box<CapturedPacket>) {
        packet.decision.rules.clear();
        // There are as many places as buffers.
        let _never_full = self.free.push(packet);
    }

    /// Gives up the memory of the ring; what comes after is lost.
    pub fn close(&self) {
        while self.free.pop().or_else(|| self.full.pop()).is_some() {}
    }

    /// Copies a packet that the filter admits into a buffer; its outcome is still to be said.
    pub(crate) fn copy(&self, key: Option<&FlowKey>, frame: &[u8]) -> Option<Box<CapturedPacket>> {
        if !self.filter.admits(key) {
            return None;
        }
        let Some(mut packet) = self.free.pop() else {
            self.lost.fetch_add(1, Relaxed);
            return None;
        };
        let kept = frame.get(..self.snaplen).unwrap_or(frame);
        packet.len = frame.len();
        packet.bytes.clear();
        packet.bytes.extend_from_slice(kept);
        Some(packet)
    }

    /// Hands a packet on, or its buffer back if only what was dropped is asked for.
    pub(crate) fn put(&self, packet: Box<CapturedPacket>) {
        if self.filter.only_dropped() && !packet.is_dropped() {
            return self.give_back(packet);
        }
        let _never_full = self.full.push(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(snaplen: usize) -> Capture {
        Capture::new(PortNo(1), CaptureFilter::default(), snaplen)
    }

    #[test]
    fn what_finds_no_room_is_counted_and_room_comes_back() {
        let capture = capture(65_535);
        let room = capture.room();
        assert_eq!(room, 256);
        let put = |byte: u8| {
            if let Some(packet) = capture.copy(None, &[byte; 60]) {
                capture.put(packet);
            }
        };
        for _ in 0..room + 3 {
            put(1);
        }
        assert_eq!(capture.lost(), 3);
        let first = capture.next().unwrap();
        capture.give_back(first);
        put(2);
        assert_eq!(capture.lost(), 3);
        let taken: Vec<_> = std::iter::from_fn(|| capture.next()).collect();
        assert_eq!(taken.len(), room);
        assert_eq!(taken.last().unwrap().bytes, [2; 60]);
    }

    #[test]
    fn a_packet_is_cut_at_the_snaplen_and_keeps_its_length() {
        let capture = capture(64);
        assert_eq!(capture.room(), MAX_PACKETS);
        let packet = capture.copy(None, &[7; 1_514]).unwrap();
        assert_eq!((packet.len, packet.bytes.len()), (1_514, 64));
        capture.put(packet);
        assert_eq!(capture.copy(None, &[7; 10]).unwrap().bytes.len(), 10);
    }

    #[test]
    fn a_closed_ring_takes_nothing() {
        let capture = capture(64);
        capture.put(capture.copy(None, &[1; 60]).unwrap());
        capture.close();
        assert!(capture.next().is_none() && capture.copy(None, &[1; 60]).is_none());
        assert_eq!(capture.lost(), 1);
    }
}
