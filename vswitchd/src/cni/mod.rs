//! The daemon's side of the CNI shim: ADD, DEL, CHECK, GC, STATUS.
//!
//! `rest` hands it each [`vswitch_api::cni::CniCall`]; `app` calls
//! [`CniService::recover`] once at start, before the socket opens. It owns the attachment
//! records, the leases and the port numbers; interfaces, switch ports and Pod objects lie
//! behind the traits of [`world`]. Invariants: calls for one interface of one container run
//! one after the other; what an ADD did is on record before it is done, so that a crash
//! leaves nothing that nobody would undo; a call that began runs to its end even if its
//! client goes away.

mod add;
mod check;
mod failure;
mod gc;
mod identity;
mod install;
mod keyed_lock;
mod netconf;
mod port_numbers;
mod records;
mod recover;
mod result;
mod service;
mod teardown;
pub mod world;

#[cfg(test)]
mod tests;

pub use install::{CniFiles, CniFilesError};
pub use recover::Recovered;
pub use service::{CniDeps, CniService, CniSettings};
pub use world::{
    AttachHost, KernelNetns, NetnsProbe, NetnsState, PodDirectory, PodIdentity, StepError,
    SwitchPorts,
};
