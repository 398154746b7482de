//! Everything that hangs on the switch: pods, virtual machines, mirrors, the gateway.
//!
//! [`Attachments`] is the only owner of their life cycle. `cni` and `rest` say what is wanted;
//! this module leases addresses, gives port numbers, keeps one durable [`Record`] for each
//! attachment, has the interface, the Pod object and the switch port made, and undoes all of it.
//! What it acts on lies behind the traits of [`world`]; `KernelDevices`, `SwitchPorts` and
//! `RegistryPods` are the ones of a running daemon.
//!
//! ```text
//!  (nothing) ─► Leased ─► Made ─► InForce ─► Attached     an ADD; `Attached` is acknowledged
//!                  └────────┴────────┴───────────┴─► Leaving ─► (nothing)
//! ```
//!
//! Invariants: an attachment is on record before anything of it is made, and as long as anything
//! of it may be there, so that a crash leaves nothing that nobody would undo; changes of one
//! attachment run one after the other; a lease has an attachment as its owner; a port number is
//! not used again at once; there are descriptors to undo what is begun; work that began runs to its end even if its caller goes away.

mod add;
mod check;
mod device;
mod error;
mod gc;
mod keyed_lock;
mod ledger;
mod pods;
mod port_numbers;
mod ports;
mod record;
mod recover;
mod remove;
mod reserve;
mod service;
mod shield;
mod wanted;
pub mod world;

#[cfg(test)]
pub(crate) mod tests;

pub use device::KernelDevices;
pub use error::AttachError;
pub use ledger::made_taps;
pub use pods::{RegistryPods, WaitInForce};
pub use ports::SwitchPorts;
pub use record::{Kind, PodIdentity, Record, State};
pub use recover::Recovered;
pub use service::{AttachDeps, AttachSettings, Attachments};
pub use shield::keep_shields;
pub use wanted::{Delegation, Wanted, WantedAddresses};
pub use world::{
    Devices, KernelNetns, NetnsProbe, NetnsState, PodDirectory, Ports, Step, StepError,
};
