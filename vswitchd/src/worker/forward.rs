//! Frames that have a verdict, grouped by out port and sent.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::Sender;
use vswitch_api::PortNo;
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{DropReason, Outputs};

use super::processor::FrameProcessor;
use super::table::SharedPort;
use crate::port::{MAX_BATCH, PortNotice};

/// One worker's way out: the ports as they stand in this batch, and where losses are counted.
pub(super) struct Forwarder<'a, P> {
    pub(super) ports: &'a HashMap<PortNo, Arc<SharedPort>>,
    pub(super) processor: &'a mut P,
    pub(super) events: &'a Sender<PortNotice>,
}

impl<P: FrameProcessor> Forwarder<'_, P> {
    /// Sends every frame through its port, in order per port.
    pub(super) fn send<'f>(&mut self, frames: impl Iterator<Item = (PortNo, &'f Frame)>) {
        let mut pending: [Option<(PortNo, &Frame)>; MAX_BATCH] = [None; MAX_BATCH];
        let mut len = 0;
        for item in frames {
            if len == MAX_BATCH {
                self.send_grouped(&mut pending);
                len = 0;
            }
            pending[len] = Some(item);
            len += 1;
        }
        self.send_grouped(&mut pending[..len]);
    }

    /// Sends what the switch itself made, and empties it.
    pub(super) fn send_made(&mut self, out: &mut Outputs) {
        for made in [&mut out.followers, &mut out.replies, &mut out.copies] {
            if !made.is_empty() {
                self.send(made.iter().map(|(port, frame)| (*port, frame)));
                made.clear();
            }
        }
    }

    fn send_grouped<'f>(&mut self, pending: &mut [Option<(PortNo, &'f Frame)>]) {
        for first in 0..pending.len() {
            let Some((port, frame)) = pending[first].take() else {
                continue;
            };
            let mut group: [&'f Frame; MAX_BATCH] = [frame; MAX_BATCH];
            let mut len = 1;
            for slot in &mut pending[first + 1..] {
                if let Some((_, frame)) = slot.take_if(|(other, _)| *other == port) {
                    group[len] = frame;
                    len += 1;
                }
            }
            self.send_to(port, &group[..len]);
        }
    }

    fn send_to(&mut self, port: PortNo, frames: &[&Frame]) {
        let Some(port) = self.ports.get(&port) else {
            return self.count(DropReason::PortDown, frames.len());
        };
        let sent = port.tx.send_batch(frames);
        port.counters.count_sent(&sent);
        if sent.lost() > 0 {
            self.count(DropReason::TxFailed, sent.refused + sent.no_room);
            self.count(DropReason::PortDown, sent.down);
        }
        if let Some(fault) = &sent.fault {
            port.observe_fault(fault, self.events);
        }
    }

    fn count(&mut self, reason: DropReason, frames: usize) {
        for _ in 0..frames {
            self.processor.count_drop(reason);
        }
    }
}
