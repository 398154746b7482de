//! Interface between a worker and the datapath; tests put a cable in its place.

use std::sync::Arc;

use vswitch_api::PortNo;
use vswitch_datapath::fairness::{PortShare, Work};
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{Datapath, DropReason, Engine, Outputs, Timestamp, Verdict};

/// Decides on frames; one per worker.
pub trait FrameProcessor: Send + 'static {
    /// Decides on one frame and rewrites it in place.
    fn process(
        &mut self,
        in_port: PortNo,
        frame: &mut Frame,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Verdict;

    /// Counts a frame that was lost after its verdict.
    fn count_drop(&mut self, reason: DropReason);

    /// Sets whether frames of no known connection are refused at once. One that knows no
    /// connections refuses nothing.
    fn set_refusing(&mut self, _refuses: bool) {}

    /// Returns what the frames since the last call were, all but their number.
    fn take_work(&mut self) -> Work {
        Work::default()
    }

    /// Returns what is counted of a port's connections, and whether the port has to share.
    fn port_share(&mut self, port: PortNo) -> (Arc<PortShare>, bool) {
        (Arc::new(PortShare::new(port)), false)
    }

    /// Adds what no frame caused and is due to be sent, a batch at most; returns whether there was
    /// any.
    fn notify(&mut self, _now: Timestamp, _out: &mut Outputs) -> bool {
        false
    }

    /// Gives back what is no longer needed; called now and then.
    fn tidy(&mut self) {}
}

/// What all workers share.
pub trait WorkerDatapath: Send + Sync + 'static {
    /// What one worker works with.
    type Processor: FrameProcessor;

    /// Returns a processor for one worker.
    fn processor(self: &Arc<Self>) -> Self::Processor;

    /// Removes what is past its time; returns how much.
    fn expire(&self, now: Timestamp) -> usize;
}

impl FrameProcessor for Engine {
    fn process(
        &mut self,
        in_port: PortNo,
        frame: &mut Frame,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Verdict {
        Self::process(self, in_port, frame, now, out)
    }

    fn count_drop(&mut self, reason: DropReason) {
        Self::count_drop(self, reason);
    }

    fn set_refusing(&mut self, refuses: bool) {
        Self::set_refusing(self, refuses);
    }

    fn take_work(&mut self) -> Work {
        Self::take_work(self)
    }

    fn port_share(&mut self, port: PortNo) -> (Arc<PortShare>, bool) {
        Self::port_share(self, port)
    }

    fn notify(&mut self, now: Timestamp, out: &mut Outputs) -> bool {
        Self::notify(self, now, out)
    }

    fn tidy(&mut self) {
        Self::tidy(self);
    }
}

impl WorkerDatapath for Datapath {
    type Processor = Engine;

    fn processor(self: &Arc<Self>) -> Engine {
        self.engine()
    }

    fn expire(&self, now: Timestamp) -> usize {
        Self::expire(self, now)
    }
}
