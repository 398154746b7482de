//! Built-in address management: leases per node, kept in the store; or the plugin that
//! `ipam.type` names ([`Delegate`]).
//!
//! The CNI service calls it. Invariants: an address has at most one owner; a lease is
//! durable before it is handed out; a released address rests before it is used again, so
//! that peers forget its former owner. Thread-safe; calls of [`Ipam`] block on the disk.

mod delegate;
mod error;
mod lease;
mod owner;
mod pool;
mod records;
mod state;

#[cfg(test)]
pub(crate) mod memory_store;
#[cfg(test)]
mod tests;

pub use delegate::{AddressPlan, Delegate, DelegateError, PlannedIp, Route};
pub use error::IpamError;
pub use lease::{Ipam, IpamConfig, Lease};
pub use owner::LeaseOwner;
