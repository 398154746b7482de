//! What the benchmarks share: a large cluster, the parts of the daemon that take it in, what
//! single packets go through, sorted times, and processor time.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

pub mod cluster;
pub mod cpu;
pub mod node;
pub mod scenarios;
pub mod times;
