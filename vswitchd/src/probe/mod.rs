//! Probes: one packet sent as if a pod had sent it, and what became of it.
//!
//! It goes into the worker of the pod's port and through the same datapath as what the pod sends;
//! the answer is taken in before it reaches the pod. When [`send`] returns nothing is
//! left: a TCP server is told that nobody will go on, and the connection is removed.

mod outcome;
mod sent;

pub use outcome::{Outcome, ProbeError, Probed};
pub use sent::{ProbePacket, send};
