//! Cluster mode: pod networks of the node, readiness when its rules are complete, CNI files, its
//! Node object.
//!
//! A node that can reach its API server begins with what that says; one that cannot begins with
//! what was known when it last ran. With neither it waits: no pod gets a network before the
//! policies are known.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::watch;

use super::in_force::InForce;
use super::service_manager;
use crate::cni::CniFiles;
use crate::config::{ClusterConfig, Config, PodCidrsFrom};
use crate::errors;
use crate::kube::{self, ApiServer, Cluster, WatchSettings};
use crate::objects::{LastKnown, Registry, RegistryConfig, Resource, now};
use crate::reconcile::ReconcileHandle;
use crate::store::SharedStore;
use crate::supervise::{Beats, Ended, Supervisor};

/// How long the API server may take to say more than is known from the last run.
const PREFER_FRESH_FOR: Duration = Duration::from_secs(5);

/// Pause before the Node's status is patched again.
const PATCH_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A node of a cluster.
#[derive(Debug)]
pub(super) struct ClusterNode {
    pub(super) cluster: Cluster,
    pub(super) settings: ClusterConfig,
    pub(super) api: ApiServer,
    pub(super) name: String,
    files: CniFiles,
}

impl ClusterNode {
    /// Joins the cluster; returns the node and the configuration with its pod networks in it.
    pub(super) async fn join(
        config: &Config,
        settings: &ClusterConfig,
        store: &SharedStore,
        stop: watch::Receiver<bool>,
        supervisor: &Supervisor,
    ) -> Result<(Self, Config)> {
        let files = cni_files(config, settings);
        let withdrawn = files.clone();
        // A runtime must not take this node for ready before it is.
        tokio::task::spawn_blocking(move || withdrawn.withdraw()).await??;
        let api = ApiServer::new(settings.kubeconfig.as_deref()).await?;
        let last_known = last_known(store, api.url()).await?;
        let registry = RegistryConfig {
            node_name: config.node_name.clone(),
            service_cidrs: config.service.cidrs.clone(),
            node_ports: config.service.node_ports.clone(),
        };
        let watch = WatchSettings::default();
        let cluster = kube::watch(
            &api,
            registry,
            Arc::clone(store),
            last_known,
            &watch,
            stop,
            supervisor,
        );
        let node = Self {
            cluster,
            settings: settings.clone(),
            api,
            name: config.node_name.clone(),
            files,
        };
        let pod_cidrs = node.pod_cidrs(config).await?;
        check(&pod_cidrs, config)?;
        let mut config = config.clone();
        config.network.pod_cidrs = pod_cidrs;
        Ok((node, config))
    }

    /// Returns the pod networks of this node, and waits for them if need be.
    async fn pod_cidrs(&self, config: &Config) -> Result<Vec<IpNet>> {
        if self.cluster.has_last_known {
            let mut synced = self.cluster.synced.clone();
            let fresh = synced.wait_for(Option::is_some);
            // Without an answer what is known from the last run has to do.
            let _ = tokio::time::timeout(PREFER_FRESH_FOR, fresh).await;
        }
        let registry = &self.cluster.registry;
        let wait = self.settings.pod_cidrs_wait;
        if self
            .node_object()
            .is_none_or(|node| is_without_networks(&node))
        {
            let (node, seconds) = (self.name.as_str(), wait.as_secs());
            tracing::info!(node, seconds, "waiting for the pod networks of the node");
        }
        let with_networks = |registry: &Registry| {
            let node = registry.get(Resource::Node, "", &self.name).ok();
            node.filter(|node| !is_without_networks(node))
        };
        let waiting = tokio::time::timeout(wait, registry.until(with_networks));
        match self.patiently(waiting).await {
            Ok(node) => kube::pod_cidrs(&node).with_context(|| format!("node {}", self.name)),
            Err(_) => self.without_networks(config),
        }
    }

    /// Keeps the service manager patient meanwhile.
    async fn patiently<T>(&self, waiting: impl Future<Output = T>) -> T {
        let mut ticks = tokio::time::interval(service_manager::EXTEND_EVERY);
        tokio::pin!(waiting);
        loop {
            tokio::select! {
                done = &mut waiting => return done,
                _ = ticks.tick() => service_manager::extend_start(),
            }
        }
    }

    /// Decides what becomes of a node that has been given no pod networks in time.
    fn without_networks(&self, config: &Config) -> Result<Vec<IpNet>> {
        let (name, origin) = (&self.name, self.api.url());
        let is_known = self.node_object().is_some();
        let may_be_known = is_known || self.cluster.health.is_without_nodes();
        if may_be_known && self.settings.pod_cidrs_from == PodCidrsFrom::NodeOrConfig {
            let pod_cidrs = config.network.pod_cidrs.clone();
            tracing::info!(
                node = name,
                ?pod_cidrs,
                "the node has no spec.podCIDRs; network.pod_cidrs is used"
            );
            return Ok(pod_cidrs);
        }
        let errors = self.cluster.health.errors();
        if is_known {
            bail!(
                "node {name} has no spec.podCIDRs: the cluster has to assign them, or \
                 cluster.pod_cidrs_from has to be node-or-config"
            );
        }
        ensure!(
            errors.is_empty(),
            "{origin} is not heard: {}",
            errors.join("; ")
        );
        let absences = self.cluster.health.absences();
        ensure!(
            !self.cluster.health.is_without_nodes(),
            "the pod networks of node {name} are not known: {}; name them in network.pod_cidrs \
             and set cluster.pod_cidrs_from to node-or-config",
            absences.join("; ")
        );
        bail!("{origin} knows no node {name}: node_name has to be the name of this machine's Node")
    }

    fn node_object(&self) -> Option<Arc<Value>> {
        self.cluster
            .registry
            .get(Resource::Node, "", &self.name)
            .ok()
    }

    /// Returns what tells the reconciler when everything has been told once.
    pub(super) fn report_synced(
        &self,
        in_force: InForce,
        reconcile: ReconcileHandle,
    ) -> impl FnOnce(Beats) -> BoxFuture<'static, Ended> + Send + use<> {
        let (mut synced, health) = (
            self.cluster.synced.clone(),
            Arc::clone(&self.cluster.health),
        );
        if self.cluster.has_last_known {
            reconcile.cluster_synced();
            if !health.is_synced() {
                let (origin, errors) = (health.origin(), health.errors());
                tracing::warn!(
                    origin,
                    ?errors,
                    "last known objects are in force; the API server has not been heard yet"
                );
            }
        }
        let run = move |beat: Beats| async move {
            // An error means that the daemon is stopping.
            let heard = async {
                let version = synced.wait_for(Option::is_some).await;
                version.ok().and_then(|version| *version)
            };
            if let Some(version) = beat.wait(heard).await {
                beat.wait(in_force.reached(version)).await;
                reconcile.cluster_synced();
            }
            Ended::AsTold
        };
        move |beat| run(beat).boxed()
    }

    /// Waits until the rules are complete, and then tells the runtime and the cluster so.
    pub(super) fn announce(
        &self,
        reconcile: &ReconcileHandle,
    ) -> impl FnOnce(Beats) -> BoxFuture<'static, Ended> + Send + use<> {
        let (mut changes, reconcile) = (reconcile.changes(), reconcile.clone());
        let (api, name, files) = (self.api.clone(), self.name.clone(), self.files.clone());
        let registry = Arc::clone(&self.cluster.registry);
        let run = move |beat: Beats| async move {
            while !reconcile.snapshot().is_synced {
                service_manager::extend_start();
                let next = tokio::time::timeout(service_manager::EXTEND_EVERY, changes.next());
                if let Ok(None) = beat.wait(next).await {
                    return Ended::Early("the reconciler has ended");
                }
            }
            service_manager::ready();
            tracing::info!(node = name, "ready");
            install(files).await;
            clear_network_unavailable(&api, &registry, &name, &beat).await
        };
        move |beat| run(beat).boxed()
    }
}

/// Returns where the files of the CNI go.
pub(super) fn cni_files(config: &Config, settings: &ClusterConfig) -> CniFiles {
    CniFiles {
        conf_dir: settings.cni_conf_dir.clone(),
        bin_dir: settings.cni_bin_dir.clone(),
        plugin: settings.cni_plugin.clone(),
        socket: config.api.socket.clone(),
    }
}

async fn last_known(store: &SharedStore, origin: &str) -> Result<Option<LastKnown>> {
    let (store, origin) = (Arc::clone(store), origin.to_owned());
    let load = move || LastKnown::load(&store, &origin);
    let loaded = tokio::task::spawn_blocking(load).await?;
    loaded.context("read the last known objects")
}

/// A Node whose networks cannot be used has some: waiting brings no others.
fn is_without_networks(node: &Value) -> bool {
    kube::pod_cidrs(node).is_ok_and(|cidrs| cidrs.is_empty())
}

/// What the configuration is checked for when it has the networks itself.
fn check(pod_cidrs: &[IpNet], config: &Config) -> Result<()> {
    for cidr in pod_cidrs {
        for service in &config.service.cidrs {
            let overlaps = service.contains(cidr) || cidr.contains(service);
            ensure!(
                !overlaps,
                "pod network {cidr} overlaps {service} of service.cidrs"
            );
        }
    }
    let has_v6 = pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6());
    let mtu = config.network.mtu.resolve(None, 0);
    ensure!(
        mtu >= 1280 || !has_v6,
        "network.mtu: IPv6 needs at least 1280 bytes"
    );
    Ok(())
}

async fn install(files: CniFiles) {
    let installed = tokio::task::spawn_blocking(move || files.install()).await;
    match installed {
        Ok(Ok(())) => tracing::info!("CNI configuration installed; the kubelet can start pods"),
        Ok(Err(error)) => {
            let error = errors::chain(&error);
            tracing::error!(
                error,
                "installing the CNI configuration failed; the kubelet starts no pods"
            );
        }
        Err(error) => {
            let error = errors::chain(&error);
            tracing::error!(error, "installing the CNI configuration failed");
        }
    }
}

/// Clears the condition with which clouds keep pods away, of this Node and of every later one
/// of its name.
async fn clear_network_unavailable(
    api: &ApiServer,
    registry: &Registry,
    name: &str,
    beat: &Beats,
) -> Ended {
    let mut done = String::new();
    let mut is_failing = false;
    loop {
        let uid = registry.until(|registry| {
            let node = registry.get(Resource::Node, "", name).ok()?;
            let uid = node["metadata"]["uid"].as_str().unwrap_or_default();
            (uid != done).then(|| uid.to_owned())
        });
        let uid = beat.wait(uid).await;
        let now = now();
        match beat.wait(api.set_network_available(name, &now)).await {
            Ok(()) => {
                tracing::info!(node = name, "condition NetworkUnavailable set to False");
                (done, is_failing) = (uid, false);
            }
            Err(error) => {
                if !is_failing {
                    let error = errors::chain(&error);
                    tracing::warn!(
                        node = name,
                        error,
                        "setting condition NetworkUnavailable to False failed"
                    );
                }
                is_failing = true;
                beat.wait(tokio::time::sleep(PATCH_AGAIN_AFTER)).await;
            }
        }
    }
}
