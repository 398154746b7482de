//! Set-up and recovery of the attachments from the parts of the daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::IpNet;

use super::cluster::ClusterNode;
use super::host_tables::HostTables;
use super::in_force::InForce;
use crate::attach::{
    AttachDeps, AttachSettings, Attachments, KernelDevices, KernelNetns, PodDirectory,
    RegistryPods, SwitchPorts,
};
use crate::clock;
use crate::config::Config;
use crate::ipam::{Delegate, Ipam};
use crate::kube::ClusterPods;
use crate::objects::Registry;
use crate::state::{Attachment, ObjectKey};
use crate::store::SharedStore;
use crate::switch::{GATEWAY_PORT, PORT_NUMBERS, Switch};

/// How long a delegated IPAM plugin may take.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Pod objects: those of the cluster, or the standalone ones.
pub(super) fn pods(
    node: Option<&ClusterNode>,
    registry: &Arc<Registry>,
    in_force: InForce,
    switch: &Switch,
) -> Box<dyn PodDirectory> {
    let (registry, in_force) = (Arc::clone(registry), in_force.waiter());
    match node {
        None => Box::new(RegistryPods { registry, in_force }),
        Some(node) => Box::new(ClusterPods {
            registry,
            health: Arc::clone(&node.cluster.health),
            in_force,
            reconcile: switch.reconcile().clone(),
            node_name: node.name.clone(),
            wait: node.settings.pod_wait,
        }),
    }
}

/// Reads what was attached when the daemon last ran.
pub(super) async fn open(
    config: &Config,
    store: &SharedStore,
    ipam: &Arc<Ipam>,
    switch: &Arc<Switch>,
    pods: Box<dyn PodDirectory>,
    tables: &HostTables,
) -> Result<Attachments> {
    let deps = AttachDeps {
        devices: Box::new(KernelDevices {
            shield: tables.shield.clone(),
        }),
        ports: Box::new(SwitchPorts {
            switch: Arc::clone(switch),
        }),
        pods,
        netns: Box::new(KernelNetns),
        store: Arc::clone(store),
        ipam: Arc::clone(ipam),
        delegate: Delegate {
            plugin_dirs: plugin_dirs(),
            timeout: PLUGIN_TIMEOUT,
        },
        unix_seconds: Box::new(clock::unix_seconds),
    };
    let settings = AttachSettings {
        default_mtu: switch.gateway().mtu,
        port_numbers: PORT_NUMBERS,
    };
    let open = move || Attachments::open(deps, settings);
    let attachments = tokio::task::spawn_blocking(open).await?;
    let attachments = attachments.context("read attachments")?;
    attachments.note_gateway(gateway(config, switch), switch.gateway().offloads);
    Ok(attachments)
}

fn gateway(config: &Config, switch: &Switch) -> Attachment {
    let gateway = switch.gateway();
    Attachment {
        container_id: String::new(),
        ifname: gateway.ifname.clone(),
        network: String::new(),
        netns: PathBuf::new(),
        host_ifname: gateway.ifname.clone(),
        port_no: GATEWAY_PORT,
        mac: gateway.mac,
        addresses: gateway.addresses.iter().copied().map(IpNet::from).collect(),
        mtu: gateway.mtu,
        pod: ObjectKey {
            namespace: String::new(),
            name: config.node_name.clone(),
        },
        delegated_ipam: None,
        host_ports: Vec::new(),
    }
}

/// Attaches again what was attached before the daemon went away.
pub(super) async fn recover(attachments: &Attachments, ipam: &Ipam) {
    let recovered = attachments.recover().await;
    for problem in &recovered.problems {
        tracing::error!(problem, "recovering attachments failed in part");
    }
    let (attached, released) = (recovered.attached.len(), recovered.released.len());
    let leases = ipam.leases().len();
    tracing::info!(attached, released, leases, "attachments recovered");
}

/// Where delegated IPAM plugins may be found: nothing else is ever run, whatever CNI_PATH says.
fn plugin_dirs() -> Vec<PathBuf> {
    ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"]
        .map(Path::new)
        .map(Into::into)
        .into()
}
