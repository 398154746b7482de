//! What hangs on the switch: the CNI service, and the ports of the daemon's last run.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cni_world::{self, KernelHost, PodObjects, RunningPorts};
use super::host_watch::HostTables;
use crate::clock;
use crate::cni::{CniDeps, CniService, CniSettings, KernelNetns};
use crate::config::Config;
use crate::ipam::{Delegate, Ipam};
use crate::reconcile::PortAttachMode;
use crate::store::SharedStore;
use crate::supervise::{Beats, Ended};
use crate::switch::{GATEWAY_PORT, POD_PORTS, Switch};

/// How long ports that were attached again take TCP connections in mid-stream: longer than a
/// stalled sender waits before it tries again (RFC 6298: 60 s at most is usual).
const MIDSTREAM_FOR: Duration = Duration::from_secs(120);

/// How long a delegated IPAM plugin may take.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(60);

type Cni = CniService<KernelHost, RunningPorts, PodObjects>;

/// Makes the server side of the CNI plugin from what was attached when the daemon last ran.
pub(super) async fn service(
    config: &Config,
    store: &SharedStore,
    ipam: &Arc<Ipam>,
    switch: &Arc<Switch>,
    pods: PodObjects,
    tables: &HostTables,
) -> Result<Cni> {
    let deps = CniDeps {
        host: KernelHost {
            shield: tables.shield.clone(),
        },
        ports: RunningPorts {
            switch: Arc::clone(switch),
        },
        pods,
        netns: Box::new(KernelNetns),
        store: Arc::clone(store),
        ipam: Arc::clone(ipam),
        delegate: Delegate {
            plugin_dirs: cni_world::plugin_dirs(),
            timeout: PLUGIN_TIMEOUT,
        },
        unix_seconds: Box::new(clock::unix_seconds),
    };
    let settings = CniSettings {
        default_namespace: config.network.default_namespace.clone(),
        default_mtu: switch.gateway().mtu,
        port_numbers: POD_PORTS,
    };
    let service = tokio::task::spawn_blocking(move || CniService::new(deps, settings)).await?;
    service.context("read attachments")
}

/// Attaches again what was attached before the daemon went away.
pub(super) async fn recover(cni: &Cni, switch: &Arc<Switch>, ipam: &Arc<Ipam>) -> Result<()> {
    let recovered = cni.recover().await.context("recover attachments")?;
    for problem in &recovered.problems {
        tracing::error!(problem, "recover attachments");
    }
    for attachment in &recovered.attachments {
        let mode = PortAttachMode { midstream: true };
        if let Err(error) = switch.attach_pod(attachment, mode).await {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(pod = %attachment.pod, error, "attach port again");
        }
    }
    for problem in switch.reopen_extra_ports().await {
        let error = format!("{:#}", anyhow::Error::from(problem));
        tracing::error!(error, "attach port again");
    }
    let released = recovered.released.len();
    let attached = recovered.attachments.len();
    let leases = ipam.leases().len();
    tracing::info!(attached, released, leases, "attachments recovered");
    Ok(())
}

/// Ends the time in which ports take connections in mid-stream.
pub(super) async fn end_midstream(switch: Arc<Switch>, beat: Beats) -> Ended {
    beat.wait(tokio::time::sleep(MIDSTREAM_FOR)).await;
    switch.reconcile().set_midstream(GATEWAY_PORT, false);
    for port in switch.reconcile().snapshot().attachments.keys() {
        switch.reconcile().set_midstream(*port, false);
    }
    Ended::AsTold
}
