//! The kernel path as the datapath holds it, with the counters of the packets that it forwarded.

use std::sync::{Arc, Mutex, PoisonError};

use super::counters::EngineCounters;
use crate::conntrack::KernelUsage;
use crate::kernel_path::{KernelFlow, KernelPath};
use crate::pipeline::Counts;

/// The path below, and what its packets counted.
#[derive(Debug)]
pub(super) struct AttachedKernelPath {
    pub(super) below: Arc<dyn KernelPath>,
    /// Rule counters take one writer at a time; workers and the expiry thread take turns.
    counters: Mutex<Arc<EngineCounters>>,
}

impl AttachedKernelPath {
    pub(super) const fn new(below: Arc<dyn KernelPath>, counters: Arc<EngineCounters>) -> Self {
        Self {
            below,
            counters: Mutex::new(counters),
        }
    }

    /// Counts what went by of a flow in the rules that admitted it.
    pub(super) fn count(&self, flow: &KernelFlow, usage: KernelUsage) {
        let counts = Counts {
            packets: usage.packets,
            bytes: usage.bytes,
            connections: 0,
        };
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = flow.path.rules().iter();
        slots.for_each(|slot| counters.rules.add(*slot, counts));
    }
}
