//! In-process pods on a datapath: real bytes in; bytes, verdict and counters out.

mod admin;
mod cache;
mod defaults;
mod packets;
mod policy;
mod switch;
mod tracing;
mod transport;
