//! A probe: one packet that the switch sends as if a pod had, and what answers it.
//!
//! The packet goes through the engine as any other of the pod's port. What answers it is told from
//! other packets by its addresses and ports on its way out to the pod, and taken in instead of being
//! sent: the pod hears nothing. While the probe watches, its connection is not cached, so that every
//! answer comes by; afterwards [`crate::Datapath::forget_probe`] leaves nothing of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use vswitch_api::{MacAddr, PortNo};

use crate::conntrack::Tuple;
use crate::flow::ip_proto;
use crate::packet::emit::{self, BarePacket};
use crate::packet::rewrite::Ends;
use crate::packet::{Fragment, Frame, ParsedPacket, parse};
use crate::time::Timestamp;

/// Answers that wait for whoever probes; more than a server gives to one packet.
const MAX_ANSWERS: usize = 16;

/// No datagram: identifications have 32 bits at most.
const NO_DATAGRAM: u64 = u64::MAX;

/// A probe under way.
#[derive(Debug)]
pub struct Probe {
    port: PortNo,
    tuple: Tuple,
    answers: ArrayQueue<Answer>,
    /// Identification of an answer that comes in fragments. Read and written by whoever has the
    /// fragments in hand: relaxed.
    datagram: AtomicU64,
}

/// What answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When the batch began that it was in.
    pub time: Timestamp,
    /// Who sent it, as the pod would see it.
    pub from: IpAddr,
    /// What it is.
    pub kind: AnswerKind,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// A TCP segment.
    Segment {
        /// Its [flags](crate::packet::tcp_flags).
        flags: u8,
        /// What it acknowledges.
        ack: u32,
    },
    /// A datagram of so many bytes.
    Datagram {
        /// Without headers.
        payload_bytes: usize,
    },
    /// The answer to an echo request.
    EchoReply,
    /// An ICMP error about the packet.
    IcmpError {
        /// Its type.
        icmp_type: u8,
        /// Its code.
        code: u8,
    },
}

impl Probe {
    /// Returns one that has not begun: from the port of a pod, with the tuple that its packet has.
    #[must_use]
    pub fn new(port: PortNo, tuple: Tuple) -> Self {
        Self {
            port,
            tuple,
            answers: ArrayQueue::new(MAX_ANSWERS),
            datagram: AtomicU64::new(NO_DATAGRAM),
        }
    }

    /// Returns the port of the pod.
    #[must_use]
    pub const fn port(&self) -> PortNo {
        self.port
    }

    /// Returns the tuple that the packet has.
    #[must_use]
    pub const fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    /// Returns the frame of a packet of this probe; `None` if its ends are of different families.
    #[must_use]
    pub fn frame(&self, packet: BarePacket, eth_src: MacAddr, eth_dst: MacAddr) -> Option<Frame> {
        let ends: Ends = self.tuple.into();
        emit::bare_packet(packet, &ends, eth_src, eth_dst)
    }

    /// Takes out the next answer.
    #[must_use]
    pub fn next(&self) -> Option<Answer> {
        self.answers.pop()
    }

    /// Takes in a frame on its way to the port if it is an answer; returns whether it is.
    fn takes(&self, port: PortNo, frame: &Frame, now: Timestamp) -> bool {
        if port != self.port {
            return false;
        }
        let Ok(packet) = parse(frame, port) else {
            return false;
        };
        if self.is_later_fragment(&packet) {
            return true;
        }
        let Some(kind) = self.answer_in(&packet) else {
            return false;
        };
        if let Fragment::First { id } = packet.fragment {
            self.datagram.store(u64::from(id), Relaxed);
        }
        let from = packet.key.ip_src.unwrap_or(self.tuple.dst);
        // Of more answers than anybody asks for, the first ones tell.
        let _is_full = self.answers.push(Answer {
            time: now,
            from,
            kind,
        });
        true
    }

    fn is_later_fragment(&self, packet: &ParsedPacket) -> bool {
        let Fragment::Later { id } = packet.fragment else {
            return false;
        };
        let ends = (packet.key.ip_src, packet.key.ip_dst);
        ends == (Some(self.tuple.dst), Some(self.tuple.src))
            && self.datagram.load(Relaxed) == u64::from(id)
    }

    fn answer_in(&self, packet: &ParsedPacket) -> Option<AnswerKind> {
        let (key, sent) = (&packet.key, &self.tuple);
        let number = |field: u16| u8::try_from(field).unwrap_or(u8::MAX);
        if let Some(quote) = &packet.icmp_quote {
            // The identifier of an echo request stands in both.
            let quoted = (quote.src, quote.dst, quote.proto, quote.tp_src);
            let is_ours = quoted == (sent.src, sent.dst, sent.proto, sent.tp_src);
            let has_port = !ip_proto::has_ports(sent.proto) || quote.tp_dst == sent.tp_dst;
            return (is_ours && has_port).then(|| AnswerKind::IcmpError {
                icmp_type: number(key.tp_src),
                code: number(key.tp_dst),
            });
        }
        if Tuple::of_packet(packet, key)? != sent.reversed() {
            return None;
        }
        Some(match packet.tcp {
            Some(tcp) => AnswerKind::Segment {
                flags: tcp.flags,
                ack: tcp.ack,
            },
            None if ip_proto::is_icmp(key.ip_proto) => AnswerKind::EchoReply,
            None => AnswerKind::Datagram {
                payload_bytes: packet
                    .l3_end
                    .saturating_sub(packet.l4_offset + UDP_HEADER_LEN),
            },
        })
    }
}

/// RFC 768.
const UDP_HEADER_LEN: usize = 8;

/// Has probes take in the frames on their way to a port that answer them, of those behind `before`.
pub(super) fn take_made(
    probes: &[Arc<Probe>],
    made: &mut Vec<(PortNo, Frame)>,
    before: usize,
    now: Timestamp,
) {
    let mut at = 0;
    made.retain(|(port, frame)| {
        at += 1;
        at <= before || !is_taken(probes, *port, frame, now)
    });
}

/// Has the probe that a frame on its way to a port answers take it in; returns whether there is one.
pub(super) fn is_taken(probes: &[Arc<Probe>], port: PortNo, frame: &Frame, now: Timestamp) -> bool {
    probes.iter().any(|probe| probe.takes(port, frame, now))
}
