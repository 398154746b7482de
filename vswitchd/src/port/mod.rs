//! Ports: frames in and out of veth, TAP and mirror devices.
//!
//! A [`Port`] has two halves. The receiving half ([`PortRx`]) is owned by exactly one worker; the
//! sending half ([`PortTx`]) is shared by all of them. Frames travel with their virtio-net header,
//! so that 64 KiB GSO super-frames and partial checksums pass whole; only a mirror segments.
//! Counters count frames (a super-frame is one) and the bytes those frames really have.
//!
//! Not here: creating veth pairs, addresses, routes, MTU (`host`), and who forwards what
//! (`worker`). Raw sockets and TAP ioctls live in `sys`, nowhere else.

mod batch;
mod counters;
mod error;
mod event;
mod fault;
mod features;
mod halves;
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

pub use batch::{MAX_BATCH, Received};
pub use counters::{PortCounters, PortStats};
pub use error::PortError;
pub use event::{PortEvent, PortNotice};
pub use fault::{PortFault, Sent};
pub use features::{UNDESCRIBED_FEATURES, disable_features};
pub use halves::{Port, PortRx, PortTx};
pub use keeper::SocketKeeper;
pub use link::LinkState;
pub use mirror::open_mirror;
pub use tap::{TapConfig, TapOffloads, TapPort, open_tap, remove_tap};
pub use veth::open_veth;
