//! Three nodes with a daemon each: pods that reach each other, and what must not.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod identity;
mod policy;
mod reach;
mod transfer;
mod upkeep;

use vswitch_tests::{Cluster, ClusterOptions};

const VXLAN: &str = "vxlan";
const HOST_GW: &str = "host-gw";

fn cluster(backend: &'static str) -> Cluster {
    start(backend, 3, false)
}

fn dual_stack(backend: &'static str) -> Cluster {
    start(backend, 3, true)
}

fn start(backend: &'static str, nodes: usize, dual_stack: bool) -> Cluster {
    let options = ClusterOptions {
        nodes,
        backend,
        dual_stack,
    };
    Cluster::start(&options).unwrap()
}
