//! Later fragments that came before their first one, held until it comes.
//!
//! IP delivers in any order (RFC 791 section 2.3), and some senders send the last fragment first
//! (RFC 4787 REQ-14). Only the first one says which connection the datagram is of: the others
//! wait, as frames, and are processed right behind it.
//!
//! Bounded in number and bytes, for each port and over all: whoever fills it up makes room at its
//! own expense. Shared by all engines behind a lock that only fragments meet.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vswitch_api::PortNo;

use crate::conntrack::DatagramId;
use crate::packet::Frame;
use crate::time::Timestamp;

/// Frames that one port may have waiting: five datagrams of 64 KiB at an MTU of 1500 (RFC 791
/// section 3.2 has fragments of 8 bytes; nobody sends such).
const PORT_FRAMES: usize = 256;
const PORT_BYTES: usize = 512 << 10;
/// What all ports together may have waiting.
const ALL_FRAMES: usize = 8_192;
const ALL_BYTES: usize = 16 << 20;

/// A frame that waits.
#[derive(Debug)]
struct Held {
    datagram: DatagramId,
    frame: Frame,
    expires: Timestamp,
}

/// The frames of one port, oldest first.
#[derive(Debug, Default)]
struct PortQueue {
    frames: VecDeque<Held>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queues {
    ports: HashMap<PortNo, PortQueue>,
    frames: usize,
    bytes: usize,
}

/// All frames that wait.
#[derive(Debug, Default)]
pub(super) struct HeldFragments {
    queues: Mutex<Queues>,
    /// Kept beside the lock: nearly always there is nothing to ask for.
    frames: AtomicUsize,
}

impl HeldFragments {
    /// Keeps a copy of a frame until `expires`; returns the ports whose oldest frames made room.
    pub(super) fn hold(
        &self,
        datagram: DatagramId,
        frame: &Frame,
        expires: Timestamp,
    ) -> Vec<PortNo> {
        let mut copy = Frame::from_bytes(frame.bytes());
        copy.vnet = frame.vnet;
        let (port, bytes) = (datagram.in_port(), copy.len());
        let mut queues = self.lock();
        let queue = queues.ports.entry(port).or_default();
        queue.bytes += bytes;
        queue.frames.push_back(Held {
            datagram,
            frame: copy,
            expires,
        });
        queues.frames += 1;
        queues.bytes += bytes;
        let mut lost = Vec::new();
        while let Some(full) = queues.without_room(port) {
            queues.drop_oldest(full);
            lost.push(full);
        }
        self.frames.store(queues.frames, Relaxed);
        lost
    }

    /// Takes out what waits for the first fragment of a datagram, in the order it came.
    pub(super) fn take(&self, datagram: &DatagramId) -> Vec<Frame> {
        // Relaxed: fragments of one datagram come through one port and so to one worker.
        if self.frames.load(Relaxed) == 0 {
            return Vec::new();
        }
        let mut queues = self.lock();
        let taken = queues.remove(datagram.in_port(), |held| held.datagram == *datagram);
        self.frames.store(queues.frames, Relaxed);
        taken
    }

    /// Lets go of what has waited for too long; returns the port of each such frame.
    pub(super) fn expire(&self, now: Timestamp) -> Vec<PortNo> {
        if self.frames.load(Relaxed) == 0 {
            return Vec::new();
        }
        let mut queues = self.lock();
        let ports: Vec<PortNo> = queues.ports.keys().copied().collect();
        let mut lost = Vec::new();
        for port in ports {
            let gone = queues.remove(port, |held| now >= held.expires);
            lost.extend(gone.iter().map(|_| port));
        }
        self.frames.store(queues.frames, Relaxed);
        lost
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Nothing between two statements panics that would leave the sums wrong.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    /// Returns the port that has to make room: the one that is over its own bound, else, if all
    /// together are over theirs, the one that has most bytes waiting.
    fn without_room(&self, latest: PortNo) -> Option<PortNo> {
        let is_over =
            |queue: &PortQueue| queue.frames.len() > PORT_FRAMES || queue.bytes > PORT_BYTES;
        if self.ports.get(&latest).is_some_and(is_over) {
            return Some(latest);
        }
        let is_full = self.frames > ALL_FRAMES || self.bytes > ALL_BYTES;
        let most = || {
            self.ports
                .iter()
                .max_by_key(|(port, queue)| (queue.bytes, port.0))
        };
        is_full.then(most).flatten().map(|(port, _)| *port)
    }

    fn drop_oldest(&mut self, port: PortNo) {
        if let Some(queue) = self.ports.get_mut(&port)
            && let Some(oldest) = queue.frames.pop_front()
        {
            queue.bytes -= oldest.frame.len();
            self.frames -= 1;
            self.bytes -= oldest.frame.len();
            if queue.frames.is_empty() {
                self.ports.remove(&port);
            }
        }
    }

    fn remove(&mut self, port: PortNo, is_wanted: impl Fn(&Held) -> bool) -> Vec<Frame> {
        let Some(queue) = self.ports.get_mut(&port) else {
            return Vec::new();
        };
        let (wanted, kept): (VecDeque<Held>, _) = std::mem::take(&mut queue.frames)
            .into_iter()
            .partition(is_wanted);
        let bytes: usize = wanted.iter().map(|held| held.frame.len()).sum();
        queue.frames = kept;
        queue.bytes -= bytes;
        if queue.frames.is_empty() {
            self.ports.remove(&port);
        }
        self.frames -= wanted.len();
        self.bytes -= bytes;
        wanted.into_iter().map(|held| held.frame).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flow::FlowKey;

    fn datagram(port: u32, id: u32) -> DatagramId {
        let key = FlowKey {
            in_port: PortNo(port),
            ip_src: Some([10, 0, 0, 1].into()),
            ip_dst: Some([10, 0, 0, 2].into()),
            ..FlowKey::default()
        };
        DatagramId::new(&key, id).unwrap()
    }

    fn frame(len: usize) -> Frame {
        Frame::from_bytes(&vec![0; len])
    }

    const LATER: Timestamp = Timestamp::from_nanos(1_000);

    #[test]
    fn what_waits_for_a_datagram_comes_out_once_in_its_order() {
        let held = HeldFragments::default();
        for len in [10, 20, 30] {
            assert_eq!(held.hold(datagram(1, 7), &frame(len), LATER), []);
        }
        held.hold(datagram(1, 8), &frame(40), LATER);
        let lengths = |frames: Vec<Frame>| frames.iter().map(Frame::len).collect::<Vec<_>>();
        assert_eq!(lengths(held.take(&datagram(2, 7))), [0; 0]);
        assert_eq!(lengths(held.take(&datagram(1, 7))), [10, 20, 30]);
        assert_eq!(lengths(held.take(&datagram(1, 7))), [0; 0]);
        assert_eq!(lengths(held.take(&datagram(1, 8))), [40]);
        assert_eq!(held.lock().ports.len(), 0);
    }

    #[test]
    fn one_port_makes_room_for_itself_only() {
        let held = HeldFragments::default();
        held.hold(datagram(2, 1), &frame(100), LATER);
        for id in 0..u32::try_from(PORT_FRAMES).unwrap() {
            assert_eq!(held.hold(datagram(1, id), &frame(100), LATER), []);
        }
        assert_eq!(
            held.hold(datagram(1, 9_999), &frame(100), LATER),
            [PortNo(1)]
        );
        assert_eq!(held.take(&datagram(1, 0)).len(), 0, "the oldest");
        assert_eq!(held.take(&datagram(2, 1)).len(), 1);
        let lost = held.hold(datagram(3, 1), &frame(60_000), LATER).len()
            + (0..9)
                .map(|id| held.hold(datagram(3, id), &frame(60_000), LATER).len())
                .sum::<usize>();
        assert_eq!(lost, 2, "ten frames of 60,000 bytes in 512 KiB");
    }

    #[test]
    fn all_ports_together_are_bounded_at_the_expense_of_who_has_most() {
        let held = HeldFragments::default();
        held.hold(datagram(1, 1), &frame(100), LATER);
        let mut lost = Vec::new();
        for port in 2..60 {
            for id in 0..8 {
                lost.extend(held.hold(datagram(port, id), &frame(60_000), LATER));
            }
        }
        let queues = held.lock();
        assert!(queues.bytes <= ALL_BYTES && queues.bytes > ALL_BYTES - 60_000);
        assert!(!lost.is_empty() && !lost.contains(&PortNo(1)));
    }

    #[test]
    fn what_is_past_its_time_goes_and_is_told() {
        let held = HeldFragments::default();
        held.hold(datagram(1, 1), &frame(100), LATER);
        held.hold(datagram(2, 1), &frame(100), LATER + Duration::from_nanos(1));
        assert_eq!(held.expire(Timestamp::from_nanos(999)), []);
        assert_eq!(held.expire(LATER), [PortNo(1)]);
        assert_eq!(held.take(&datagram(2, 1)).len(), 1);
    }
}
