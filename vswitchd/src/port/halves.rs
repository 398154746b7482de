//! A port and its two halves: the one that receives, the one that sends.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vswitch_api::{IfName, PortNo};
use vswitch_datapath::packet::Frame;

use super::batch::Received;
use super::{LinkState, PortCounters, PortFault, Sent};

/// The receiving half of a port; never blocks.
pub trait PortRx: Send + Debug {
    /// Returns what to wait for with epoll.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Receives at most `frames.len()` frames; none of them if there is nothing to read.
    ///
    /// # Errors
    ///
    /// [`PortFault`] if the device is down or gone.
    fn recv_batch(&mut self, frames: &mut [Frame]) -> Result<Received, PortFault>;

    /// Returns how many frames the kernel dropped since the last call for lack of buffer.
    fn take_kernel_drops(&mut self) -> u64 {
        0
    }
}

/// The sending half of a port; never blocks.
pub trait PortTx: Send + Sync + Debug {
    /// Sends the frames in order; what cannot be sent is counted in the result.
    fn send_batch(&self, frames: &[&Frame]) -> Sent;

    /// Asks the kernel for the state of the device.
    fn link(&self) -> LinkState;
}

/// A port before it is attached to a worker.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub no: PortNo,
    /// The device on the switch's side.
    pub ifname: IfName,
    /// The receiving half; a mirror has none.
    pub rx: Option<Box<dyn PortRx>>,
    /// The sending half.
    pub tx: Box<dyn PortTx>,
    /// Frames and bytes so far.
    pub counters: Arc<PortCounters>,
}
