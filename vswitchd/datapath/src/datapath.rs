//! The datapath: published pipeline, connection table, and the engines that workers drive.

use std::sync::Arc;

use vswitch_api::{Epoch, PortNo};

use crate::conntrack::ConntrackConfig;
use crate::drop_reason::DropReason;
use crate::packet::Frame;
use crate::pipeline::Transaction;
use crate::time::Timestamp;

/// Limits of a datapath.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatapathConfig {
    /// Connection tracking limits and timeouts.
    pub conntrack: ConntrackConfig,
    /// Entries of each worker's FlowCache; 0 turns it off.
    pub flow_cache_entries: usize,
}

/// What is to become of a frame that was processed (and rewritten) in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it through this port.
    Forward(PortNo),
    /// The switch answered it itself: send [`Outputs::replies`].
    Answered,
    /// Drop it; already counted.
    Drop(DropReason),
}

/// What a processed frame caused besides its own verdict. Reused from frame to frame.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Frames that the switch itself makes (ARP and ND answers, ICMP errors).
    pub replies: Vec<(PortNo, Frame)>,
    /// Copies for mirror ports.
    pub copies: Vec<(PortNo, Frame)>,
}

/// The switch's packet engine; shared by all workers, changed by one writer at a time.
#[derive(Debug)]
pub struct Datapath {}

/// One worker's view: its FlowCache and its counters.
#[derive(Debug)]
pub struct Engine {}

impl Datapath {
    /// Returns an empty datapath: every port unknown, everything dropped.
    #[must_use]
    pub fn new(_config: DatapathConfig) -> Arc<Self> {
        unimplemented!()
    }

    /// Publishes changes; they are in force for the next packet when this returns.
    pub fn apply(&self, _changes: Transaction) -> Epoch {
        unimplemented!()
    }

    /// Returns a new engine for one worker thread.
    #[must_use]
    pub fn engine(self: &Arc<Self>) -> Engine {
        unimplemented!()
    }

    /// Removes connections that are past their time; returns how many.
    pub fn expire(&self, _now: Timestamp) -> usize {
        unimplemented!()
    }
}

impl Engine {
    /// Decides on one frame and rewrites it in place.
    pub fn process(
        &mut self,
        _in_port: PortNo,
        _frame: &mut Frame,
        _now: Timestamp,
        _out: &mut Outputs,
    ) -> Verdict {
        unimplemented!()
    }

    /// Counts a frame that was lost after its verdict (port down, kernel refused it).
    pub fn count_drop(&mut self, _reason: DropReason) {
        unimplemented!()
    }
}
