//! What the benchmarks share: a large cluster, the parts of the daemon that take it in, what
//! single packets go through, and sorted times.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

pub mod cluster;
pub mod node;
pub mod scenarios;
pub mod times;
