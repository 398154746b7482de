//! HTTP: `/v1`, the standalone Kubernetes API, metrics, health.
//!
//! The only user of axum. Handlers translate between wire and the layers below; they hold no state.

mod auth;
mod connections;
mod error;
mod health_checks;
pub mod kube_api;
mod reloaded;
pub mod serve;
pub mod tcp;
mod tls;
mod v1;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::watch;
use vswitch_api::cni::{CniCall, CniFailure};

pub use health_checks::HealthChecks;

use crate::host::{KubeProxy, NodeNetworkStatus};
use crate::ipam::Ipam;
use crate::kube::Health;
use crate::objects::Registry;
use crate::supervise::Supervisor;
use crate::switch::{Switch, VmPorts};

/// A future that owns what it works on.
pub type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves a call of the CNI shim.
pub type CniHandler = Arc<dyn Fn(CniCall) -> Task<Result<Option<Value>, CniFailure>> + Send + Sync>;

/// Waits until an object version is in force.
pub type WaitInForce = Arc<dyn Fn(u64) -> Task<()> + Send + Sync>;

/// What handlers act on.
#[derive(Clone)]
pub struct RestState {
    /// Name of this node.
    pub node: String,
    /// A kube-proxy beside the switch.
    pub kube_proxy: watch::Receiver<Option<KubeProxy>>,
    /// The way to other nodes.
    pub node_network: watch::Receiver<NodeNetworkStatus>,
    /// Pod networks of this node.
    pub pod_cidrs: Vec<IpNet>,
    /// Worker threads.
    pub workers: usize,
    /// The switch.
    pub switch: Arc<Switch>,
    /// VM and mirror ports with all that belongs to them.
    pub vms: Arc<VmPorts>,
    /// In a cluster: how far its objects are heard.
    pub cluster: Option<Arc<Health>>,
    /// The objects: the switch's own, or those of the cluster.
    pub registry: Arc<Registry>,
    /// Leases.
    pub ipam: Arc<Ipam>,
    /// The CNI service.
    pub cni: CniHandler,
    /// Waits until an object version is in force.
    pub in_force: WaitInForce,
    /// Who is late.
    pub supervisor: Supervisor,
    /// Turns true when the daemon stops: watches end then.
    pub stopping: watch::Receiver<bool>,
}

impl std::fmt::Debug for RestState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestState")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Longest wait for a write's rules before it is answered all the same: the write is durable,
/// and enforcement follows without the client.
const IN_FORCE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// Returns all routes.
pub fn router(state: RestState) -> Router {
    let in_force = Arc::clone(&state.in_force);
    let hooks = kube_api::KubeApiHooks {
        after_write: Some(Arc::new(move |version| {
            let wait = in_force(version);
            Box::pin(async move {
                if tokio::time::timeout(IN_FORCE_TIMEOUT, wait).await.is_err() {
                    tracing::warn!(version, "a write is not in force yet");
                }
            })
        })),
        stop: state.stopping.clone(),
    };
    let kubernetes = kube_api::router(Arc::clone(&state.registry), hooks);
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(v1::readyz))
        .route("/metrics", get(v1::metrics))
        .nest("/v1", v1::router())
        .with_state(state)
        .merge(kubernetes)
}
