//! Three nodes in cluster mode and their hub: pods that reach each other, and what must not.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod hub;
mod identity;
mod live_trace;
mod policy;
mod reach;
mod transfer;
mod upkeep;

use std::net::IpAddr;

use vswitch_tests::{Cluster, ClusterOptions, Pod};

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

/// To wait for: one echo is answered.
fn pings(from: &Pod, to: IpAddr) -> anyhow::Result<()> {
    anyhow::ensure!(from.pings(to)?, "{to} does not answer");
    Ok(())
}

/// To wait for: the server's page is fetched.
fn reaches(client: &Pod, server: &Pod) -> anyhow::Result<()> {
    let page = client.fetch(server.ip(), 80)?;
    anyhow::ensure!(page == server.name, "{page}");
    Ok(())
}

/// To wait for: the fetch hangs.
fn hangs(client: &Pod, server: &Pod) -> anyhow::Result<()> {
    let error = match client.fetch(server.ip(), 80) {
        Ok(page) => anyhow::bail!("fetched {page}"),
        Err(error) => format!("{error:#}"),
    };
    anyhow::ensure!(error.contains("exit Some(28)"), "{error}");
    Ok(())
}
