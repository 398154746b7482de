//! Every name, number and message that crosses a process boundary of vswitch.
//!
//! Newtypes for numbers with a meaning, the bodies of the `/v1` REST resources, the CNI
//! call that the shim makes, and the small blocking HTTP client over the daemon's unix
//! socket that `vsctl` and `vswitch-cni` share. No policy, no I/O besides that client;
//! everything above depends on this crate and it depends on nothing of the project.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod client;
pub mod cni;
pub mod ids;
pub mod v1;

pub use ids::{Cookie, Epoch, IfName, IfNameError, MacAddr, MacAddrError, PortNo, Priority};
