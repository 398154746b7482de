//! Errors of opening a port.

use std::fmt::Debug;
use std::io;

use vswitch_api::IfName;

use crate::netns::NetnsError;

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
