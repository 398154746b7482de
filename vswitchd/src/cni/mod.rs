//! The daemon's side of the CNI shim: ADD, DEL, CHECK, GC, STATUS.
//!
//! `rest` hands it each [`vswitch_api::cni::CniCall`]. It reads the network configuration and
//! the arguments, asks [`crate::attach`] for what they want, and words results and failures as
//! the specification does. It keeps nothing of its own.

mod add;
mod check;
mod failure;
mod gc;
mod identity;
mod install;
mod netconf;
mod result;
mod service;

#[cfg(test)]
mod tests;

pub use install::{CniFiles, CniFilesError};
pub use service::{CniService, CniSettings};
