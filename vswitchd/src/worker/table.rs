//! The ports that workers can send to: read on every batch, replaced whole on attach and detach.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::Sender;
use vswitch_api::{IfName, PortNo};

use super::first_packets::FirstPacketTimes;
use crate::port::{LinkState, PortCounters, PortEvent, PortFault, PortNotice, PortStats, PortTx};

/// All attached ports by number.
pub(super) type PortTable = ArcSwap<HashMap<PortNo, Arc<SharedPort>>>;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) table: PortTable,
    /// Is told of devices that go down, come up or vanish.
    pub(super) events: Sender<PortNotice>,
    pub(super) first_packets: FirstPacketTimes,
}

/// What every worker may use of a port.
#[derive(Debug)]
pub(super) struct SharedPort {
    pub(super) no: PortNo,
    pub(super) ifname: IfName,
    pub(super) tx: Box<dyn PortTx>,
    pub(super) counters: Arc<PortCounters>,
    pub(super) owner: usize,
    /// State as last seen by any worker ([`encode`]). Relaxed: nothing else hangs on it.
    link: AtomicU8,
    /// State that the event channel was last told.
    reported: AtomicU8,
}

const fn encode(link: LinkState) -> u8 {
    match link {
        LinkState::Up => 0,
        LinkState::Down => 1,
        LinkState::Gone => 2,
    }
}

const fn decode(code: u8) -> (LinkState, PortEvent) {
    match code {
        0 => (LinkState::Up, PortEvent::LinkUp),
        1 => (LinkState::Down, PortEvent::LinkDown),
        _ => (LinkState::Gone, PortEvent::Gone),
    }
}

impl SharedPort {
    pub(super) fn new(
        no: PortNo,
        ifname: IfName,
        tx: Box<dyn PortTx>,
        counters: Arc<PortCounters>,
        owner: usize,
    ) -> Self {
        let up = encode(LinkState::Up);
        Self {
            no,
            ifname,
            tx,
            counters,
            owner,
            link: AtomicU8::new(up),
            reported: AtomicU8::new(up),
        }
    }

    pub(super) fn link(&self) -> LinkState {
        decode(self.link.load(Relaxed)).0
    }

    pub(super) fn stats(&self) -> PortStats {
        self.counters
            .stats(self.no, self.ifname.clone(), self.link())
    }

    /// Takes note of a state; a device that is gone stays gone.
    pub(super) fn observe(&self, state: LinkState, events: &Sender<PortNotice>) {
        let new = encode(state);
        let keep = |old| (old != encode(LinkState::Gone) && old != new).then_some(new);
        let _unchanged = self.link.fetch_update(Relaxed, Relaxed, keep);
        self.report(events);
    }

    /// Takes note of what a failed call says about the device.
    pub(super) fn observe_fault(&self, fault: &PortFault, events: &Sender<PortNotice>) {
        match fault {
            PortFault::LinkDown => self.observe(LinkState::Down, events),
            PortFault::Gone => self.observe(LinkState::Gone, events),
            PortFault::Refused { source } => {
                tracing::debug!(port = self.no.0, error = %source, "receiving from a port failed");
            }
        }
    }

    /// Tells the event channel about a state it does not know; tried again on the next tick when
    /// the channel is full.
    pub(super) fn report(&self, events: &Sender<PortNotice>) {
        let link = self.link.load(Relaxed);
        if self.reported.swap(link, Relaxed) == link {
            return;
        }
        let notice = PortNotice {
            port: self.no,
            event: decode(link).1,
        };
        if events.try_send(notice).is_err() {
            self.reported.store(u8::MAX, Relaxed);
        }
    }

    /// Asks the kernel about a device that was down, and repeats a notice that found no room.
    pub(super) fn tick(&self, events: &Sender<PortNotice>) {
        if self.link() == LinkState::Down {
            self.observe(self.tx.link(), events);
        }
        self.report(events);
    }
}
