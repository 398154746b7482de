//! The switch between real namespaces: real TCP stacks, the real shim, the real daemon.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod allowed;
mod audit;
mod bandwidth;
mod calico;
mod capture;
mod connections;
mod dualstack;
mod endings;
mod fast_path;
mod flood;
mod flows;
mod fragments;
mod frames;
mod gateway;
mod host_ports;
mod host_stack;
mod live_trace;
mod nodes;
mod ping;
mod policy;
mod ports;
mod services;
mod steering;
mod story;

use vswitch_tests::{Daemon, DaemonOptions};

/// Policy that admits `allow-access=true` on TCP 80 to `app=secure-pod`.
const SECURE_POD: &str = include_str!("../../config/samples/secure-pod.yaml");

fn daemon() -> Daemon {
    Daemon::start(&DaemonOptions::default()).unwrap()
}
