//! vswitchd: everything of the switch that touches the world.
//!
//! Layers, arrows only point down (held by a test in `tests/`):
//!
//! ```text
//! L6 app (start order, drain), main
//! L5 cni (server side of the shim) · kube (watchers of a cluster)
//!    events (Events of Kubernetes) · rest (axum: /v1, Kubernetes API, metrics)
//! L4 attach (what hangs on the switch, from lease to release)
//!    switch (ties the others of this layer together)
//!    simulate (the same without devices, for vsctl)
//!    audit (what policies that are tried out would deny) · flow_records (what was denied)
//!    capture (packets of a port, as pcapng) · live_trace (packets while they pass)
//!    probe (packets on behalf of pods)
//!    worker · host (gateway, veth, masquerade) · reconcile
//! L3 objects (standalone object registry) · policy · service (compilers)
//!    ipam · rules · state (ClusterState)
//! L2 port · kernel_path (the fast path) · netns · store
//!    leaf helpers, usable from any layer: clock, config, errors, heap, metrics,
//!    supervise, telemetry
//! ```

pub mod app;
pub mod attach;
pub mod audit;
pub mod capture;
pub mod clock;
pub mod cni;
pub mod config;
pub mod errors;
pub mod events;
pub mod flow_records;
pub mod heap;
pub mod host;
pub mod ipam;
pub mod kernel_path;
pub mod kube;
pub mod live_trace;
pub mod metrics;
pub mod netns;
pub mod objects;
pub mod policy;
pub mod port;
pub mod probe;
pub mod reconcile;
pub mod rest;
pub mod rules;
pub mod service;
pub mod simulate;
pub mod state;
pub mod store;
pub mod supervise;
pub mod switch;
pub mod telemetry;
pub mod worker;
