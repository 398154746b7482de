//! Ports: frames in and out of veth, TAP and mirror devices.
//!
//! A [`Port`] has two halves. The receiving half ([`PortRx`]) is owned by exactly one worker; the
//! sending half ([`PortTx`]) is shared by all of them. Frames travel with their virtio-net header,
//! so that 64 KiB GSO super-frames and partial checksums pass whole; only a mirror segments.
//! Counters count frames (a super-frame is one) and the bytes those frames really have.
//!
//! Not here: creating veth pairs, addresses, routes, MTU (`host`), and who forwards what
//! (`worker`). Raw sockets and TAP ioctls live in `sys`, nowhere else.

mod counters;
mod fault;
mod features;
mod keeper;
mod link;
mod mirror;
mod sys;
mod tap;
#[cfg(test)]
pub(crate) mod testnet;
#[cfg(test)]
mod tests;
mod veth;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vswitch_api::{IfName, PortNo};
use vswitch_datapath::packet::Frame;

pub use counters::{PortCounters, PortStats};
pub use fault::{PortFault, Sent};
pub use features::{UNDESCRIBED_FEATURES, disable_features};
pub use keeper::SocketKeeper;
pub use link::LinkState;
pub use mirror::open_mirror;
pub use tap::{TapConfig, TapOffloads, TapPort, open_tap, remove_tap};
pub use veth::open_veth;

use crate::netns::NetnsError;

/// Most frames that one receive or send call moves.
pub const MAX_BATCH: usize = 32;

/// What happened to a port's device; seen on its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortEvent {
    /// The device was set down; the port stays and recovers.
    LinkDown,
    /// The device is up again.
    LinkUp,
    /// The device was deleted or left the namespace; the port is of no more use.
    Gone,
}

/// A [`PortEvent`] and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortNotice {
    /// The port.
    pub port: PortNo,
    /// What happened.
    pub event: PortEvent,
}

/// What a receive call brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Frames, at the front of the batch.
    pub frames: usize,
    /// Frames that the kernel cut or could not describe; they are gone.
    pub bad: usize,
}

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

/// A port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// There is no such device.
    #[error("find interface {ifname}")]
    FindInterface {
        /// The device.
        ifname: IfName,
        /// Why.
        source: io::Error,
    },
    /// The packet socket could not be set up.
    #[error("open a packet socket on {ifname}: {step}")]
    PacketSocket {
        /// The device.
        ifname: IfName,
        /// The system call that failed.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The TAP could not be created or attached to.
    #[error("open tap device {ifname}: {step}")]
    Tap {
        /// The device.
        ifname: IfName,
        /// The system call that failed.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel named the device differently from what was asked for.
    #[error("tap device {ifname} was created as {actual:?}")]
    Renamed {
        /// The name asked for.
        ifname: IfName,
        /// The name it has.
        actual: String,
    },
    /// The offload features could not be read or set.
    #[error("switch features of {ifname} off: {step}")]
    Features {
        /// The device.
        ifname: IfName,
        /// The system call that failed.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The namespace could not be entered.
    #[error("open {ifname} in its network namespace")]
    Netns {
        /// The device.
        ifname: IfName,
        /// Why.
        source: NetnsError,
    },
}
