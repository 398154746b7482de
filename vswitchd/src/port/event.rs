//! Events of a port's device.

use std::fmt::Debug;

use vswitch_api::PortNo;

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
