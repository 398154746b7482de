//! Simulation of policies: a cluster as data, judged without a network.
//!
//! A [`Simulator`] attaches every pod of a cluster to a switch in memory, made by the same
//! reconciler, compiler and datapath as the real one, and sends real frames through it. Egress
//! is judged where the sender is, ingress where the receiver is: a connection that egress
//! denies is sent again through the switch of a node that has the receiver alone, so that both
//! answers are the datapath's own.

mod cluster;
mod frames;
mod judgement;
mod ports;
mod probe;
mod simulator;
mod switch;
mod world;

#[cfg(test)]
mod tests;

pub use cluster::{Cluster, ClusterPod, ManifestError};
pub use frames::{Packet, first_frame};
pub use ports::{ClusterPort, Protocol};
pub use probe::{Answer, End, PortName, Probe, ProbeError};
pub use simulator::Simulator;
pub use world::{World, WorldError};
