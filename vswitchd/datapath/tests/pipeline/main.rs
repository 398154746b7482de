//! In-process pods on a datapath: real bytes in; bytes, verdict and counters out.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod admin;
mod audit;
mod bandwidth;
mod cache;
mod capture;
mod concurrent;
mod defaults;
mod denials;
mod endings;
mod fairness;
mod fragmentation;
mod hostile;
mod kernel_path;
mod live_trace;
mod packets;
mod pickup;
mod policy;
mod probe;
mod recorded;
mod reject;
mod services;
mod switch;
mod tiers;
mod tracing;
mod transport;
