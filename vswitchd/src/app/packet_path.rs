//! Start of the packet path: gateway, engine with its fast path, workers, reconciler.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use vswitch_datapath::{Datapath, DatapathConfig};

use super::host_tables::HostTables;
use crate::clock::MonotonicClock;
use crate::config::{Config, FastPathSetting};
use crate::errors;
use crate::host::{self, GatewayDeviceSpec, SysctlLedger, Underlay};
use crate::kernel_path::{FastPath, PortKind};
use crate::port::{Port, PortNotice, SocketKeeper, TapConfig, open_tap};
use crate::reconcile::{self, ReconcileConfig, Reconciler};
use crate::store::SharedStore;
use crate::supervise::{Beats, Ended, Supervisor};
use crate::switch::{DeviceOpener, GATEWAY_PORT, Gateway, Switch};
use crate::worker::{WorkerConfig, WorkerPool};

/// Brings up engine, workers, reconciler and gateway; no pod port is attached yet.
pub(super) async fn start(
    config: &Config,
    store: &SharedStore,
    clock: MonotonicClock,
    tables: &HostTables,
    supervisor: &Supervisor,
) -> Result<(Arc<Switch>, mpsc::Receiver<PortNotice>)> {
    let (config, store, tables) = (config.clone(), Arc::clone(store), tables.clone());
    let supervisor = supervisor.clone();
    let start = move || start_blocking(&config, store, clock, &tables, &supervisor);
    tokio::task::spawn_blocking(start).await?
}

fn start_blocking(
    config: &Config,
    store: SharedStore,
    clock: MonotonicClock,
    tables: &HostTables,
    supervisor: &Supervisor,
) -> Result<(Arc<Switch>, mpsc::Receiver<PortNotice>)> {
    let (gateway, port) = open_gateway(config)?;
    if let Some(masquerade) = &tables.masquerade {
        masquerade.install().context("install masquerade")?;
    }
    let fast_path = fast_path(config, clock);
    let datapath = open_datapath(config, fast_path.clone());
    let (notify, notices) = mpsc::channel(64);
    let workers = WorkerPool::start(&datapath, worker_config(config, clock), notify, supervisor)
        .context("start workers")?;
    let reconcile_config = ReconcileConfig {
        node_name: config.node_name.clone(),
        gateway: reconcile::GatewayPort {
            port_no: GATEWAY_PORT,
            name: gateway.ifname.to_string(),
            mac: gateway.mac,
            addresses: gateway.addresses.clone(),
            mtu: gateway.mtu,
        },
        pod_cidrs: config.network.pod_cidrs.clone(),
        deny: config.policy.deny,
    };
    // The thread ends with `ReconcileHandle::stop`; what it has installed stays.
    let (reconcile, _) = Reconciler::start(Arc::clone(&datapath), reconcile_config, supervisor)
        .context("start the reconciler")?;
    reconcile.set_node_addresses(host::node_addresses().context("read the node's addresses")?);
    reconcile.set_midstream(GATEWAY_PORT, true);
    if let Some(fast_path) = &fast_path {
        fast_path.offer_to(&port, PortKind::Gateway);
    }
    workers.attach(port).context("attach the gateway port")?;
    let devices = DeviceOpener {
        fast_path,
        keeper: socket_keeper(),
    };
    let switch = Switch::new(datapath, workers, reconcile, clock, store, gateway, devices)
        .context("read stored ports and flows")?;
    Ok((Arc::new(switch), notices))
}

/// Returns the fast path where the kernel has what it takes and the configuration wants it.
fn fast_path(config: &Config, clock: MonotonicClock) -> Option<Arc<FastPath>> {
    if config.datapath.fast_path == FastPathSetting::Off {
        return None;
    }
    match FastPath::open(clock) {
        Ok(fast_path) => Some(fast_path),
        Err(error) => {
            let error = errors::chain(&error);
            tracing::warn!(
                error,
                "opening the fast path failed; every packet goes through the workers"
            );
            None
        }
    }
}

/// Returns what makes the end of the daemon quick, where the kernel allows it.
fn socket_keeper() -> Option<Arc<SocketKeeper>> {
    let opened = SocketKeeper::open();
    if let Err(error) = &opened {
        tracing::info!(%error, "io_uring is not available; the end of the daemon takes 20 ms for each port");
    }
    opened.ok()
}

fn open_datapath(config: &Config, fast_path: Option<Arc<FastPath>>) -> Arc<Datapath> {
    let settings = DatapathConfig {
        conntrack: config.datapath.conntrack.clone(),
        flow_cache_entries: config.datapath.flow_cache_entries,
    };
    match fast_path {
        Some(fast_path) => Datapath::with_kernel_path(settings, fast_path),
        None => Datapath::new(settings),
    }
}

fn worker_config(config: &Config, clock: MonotonicClock) -> WorkerConfig {
    WorkerConfig {
        workers: config.datapath.workers,
        spin_polls: config.datapath.idle_polls,
        ..WorkerConfig::new(clock)
    }
}

/// Makes or finds the gateway's TAP and configures it.
fn open_gateway(config: &Config) -> Result<(Gateway, Port)> {
    let network = &config.network;
    let ifname = network.gateway_ifname.clone();
    let uplink = host::uplink(network.iface.as_ref()).context("find the uplink")?;
    let addresses = uplink.iter().flat_map(|uplink| uplink.addresses.iter());
    let own = Underlay::first_of(addresses.copied());
    let overhead = host::tunnel_overhead(network.backend, &network.pod_cidrs, own);
    let mtu = network
        .mtu
        .resolve(uplink.map(|uplink| uplink.mtu), overhead);
    // The same MAC in every run: pods keep it in their neighbour tables over a restart.
    let mac = host::container_mac(&config.node_name, &ifname);
    let tap = TapConfig {
        ifname: ifname.clone(),
        mac: Some(mac),
        persistent: true,
    };
    let tap = open_tap(GATEWAY_PORT, &tap, None).context("open the gateway")?;
    tracing::info!(ifname = %ifname, offloads = ?tap.offloads, reattached = tap.reattached, "gateway device opened");
    let spec = GatewayDeviceSpec {
        ifname: ifname.clone(),
        mac,
        mtu,
        pod_cidrs: network.pod_cidrs.clone(),
    };
    let mut ledger = SysctlLedger::open(&sysctl_ledger(config)).context("open sysctl ledger")?;
    host::configure_gateway(&spec, &mut ledger).context("configure the gateway")?;
    let addresses = host::gateway_addresses(&network.pod_cidrs)?;
    let addresses = addresses.iter().map(ipnet::IpNet::addr).collect();
    Ok((
        Gateway {
            ifname,
            mac,
            addresses,
            mtu,
            offloads: tap.offloads,
        },
        tap.port,
    ))
}

/// Returns where it is written which sysctls were changed.
pub(super) fn sysctl_ledger(config: &Config) -> PathBuf {
    config.state_dir.join("sysctls.json")
}

/// Logs what happens to the links of ports, until the daemon ends.
pub(super) async fn log_notices(mut notices: mpsc::Receiver<PortNotice>, beat: Beats) -> Ended {
    while let Some(notice) = beat.wait(notices.recv()).await {
        tracing::warn!(port = notice.port.0, event = ?notice.event, "link of a port changed");
    }
    Ended::Early("the workers have ended")
}
