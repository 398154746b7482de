//! What the benchmarks share: the rules of a node in a large cluster, what single packets go
//! through there, sorted times, and processor time; with the feature `node` also such a cluster
//! and the parts of the daemon that take it in.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

#[cfg(feature = "node")]
pub mod cluster;
pub mod cpu;
pub mod frames;
#[cfg(feature = "node")]
pub mod iperf;
#[cfg(feature = "node")]
pub mod load_process;
#[cfg(feature = "node")]
pub mod node;
pub mod ruleset;
pub mod scenarios;
pub mod times;
