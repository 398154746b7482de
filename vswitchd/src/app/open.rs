//! What is on the disk: the store, and the objects and leases in it.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::service_manager;
use crate::config::Config;
use crate::ipam::{Ipam, IpamConfig};
use crate::objects::{Registry, RegistryConfig};
use crate::store::{LogStore, SharedStore, StoreError, SupervisedStore, make_private};
use crate::supervise::Supervisor;

pub(super) async fn store(config: &Config, supervisor: &Supervisor) -> Result<SharedStore> {
    let state_dir = config.state_dir.clone();
    let open = move || {
        // A full disk may refuse; what can be read is enough to go on with.
        if let Err(error) = make_private(&state_dir) {
            let state_dir = state_dir.display();
            tracing::error!(%state_dir, %error, "making the state directory private failed");
        }
        LogStore::open(&state_dir.join("store"))
    };
    let mut opening = tokio::task::spawn_blocking(open);
    loop {
        // Another process may be ending still.
        let opened = tokio::time::timeout(service_manager::EXTEND_EVERY, &mut opening);
        match opened.await {
            Ok(store) => return Ok(Arc::new(SupervisedStore::new(store??, supervisor))),
            Err(_) => service_manager::extend_start(),
        }
    }
}

pub(super) async fn registry(config: &Config, store: &SharedStore) -> Result<Arc<Registry>> {
    let store = Arc::clone(store);
    let settings = RegistryConfig {
        node_name: config.node_name.clone(),
        service_cidrs: config.service.cidrs.clone(),
        node_ports: config.service.node_ports.clone(),
    };
    let open = move || Registry::open(store, settings);
    tokio::task::spawn_blocking(open)
        .await?
        .context("read stored objects")
}

pub(super) async fn ipam(config: &Config, store: &SharedStore) -> Result<Arc<Ipam>> {
    let store = Arc::clone(store);
    let settings = IpamConfig {
        pod_cidrs: config.network.pod_cidrs.clone(),
        rest: config.network.lease_rest,
    };
    let open = move || Ipam::new(store, &settings);
    let ipam = tokio::task::spawn_blocking(open)
        .await?
        .context("read leases")?;
    for problem in ipam.damaged() {
        tracing::error!(problem, "lease record is damaged");
    }
    Ok(Arc::new(ipam))
}

/// Opens the store of a daemon that does not run; `None` if none ever ran.
pub(super) fn stopped_store(config: &Config) -> Result<Option<SharedStore>, StoreError> {
    let folder = config.state_dir.join("store");
    if !folder.exists() {
        return Ok(None);
    }
    let store = LogStore::open(&folder)?;
    Ok(Some(Arc::new(store)))
}
