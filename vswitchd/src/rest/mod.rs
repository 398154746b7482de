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
use tokio::sync::watch;

pub use health_checks::HealthChecks;

use crate::attach::{Attachments, WaitInForce};
use crate::cni::CniService;
use crate::host::{KubeProxy, NodeNetworkStatus};
use crate::ipam::Ipam;
use crate::kube::Health;
use crate::objects::{Registry, StatusError};
use crate::store::SharedStore;
use crate::supervise::Supervisor;
use crate::switch::Switch;

/// A future that owns what it works on.
pub type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

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
    /// What hangs on it.
    pub attachments: Attachments,
    /// In a cluster: how far its objects are heard.
    pub cluster: Option<Arc<Health>>,
    /// The objects: the switch's own, or those of the cluster.
    pub registry: Arc<Registry>,
    /// Leases.
    pub ipam: Arc<Ipam>,
    /// The CNI service.
    pub cni: CniService,
    /// Waits until an object version is in force.
    pub in_force: WaitInForce,
    /// What the switch keeps over restarts.
    pub store: SharedStore,
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

/// Longest wait for a write's rules: a write that is stored and not in force is no success.
const IN_FORCE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Waits for a write's rules; 504 if they are not in force in time. The object is stored all the
/// same: enforcement follows without the client, and the same write again waits for it again.
async fn enforced(
    version: u64,
    in_force: Task<bool>,
    supervisor: Supervisor,
) -> Result<(), StatusError> {
    let why = match tokio::time::timeout(IN_FORCE_TIMEOUT, in_force).await {
        Ok(true) => return Ok(()),
        Ok(false) => "the daemon is stopping".to_owned(),
        Err(_) => {
            let late = supervisor.late();
            let late: Vec<String> = late.iter().map(ToString::to_string).collect();
            let seconds = IN_FORCE_TIMEOUT.as_secs();
            match late.is_empty() {
                true => format!("not within {seconds} s"),
                false => late.join("; "),
            }
        }
    };
    tracing::error!(version, why, "a write is stored and not in force");
    let message = format!(
        "the write is stored, but not in force yet: {why}. It will be enforced as soon as it can; \
         the same write again waits for that"
    );
    Err(StatusError::plain(504, "Timeout", message))
}

/// Returns all routes.
pub fn router(state: RestState) -> Router {
    let (in_force, supervisor) = (Arc::clone(&state.in_force), state.supervisor.clone());
    let hooks = kube_api::KubeApiHooks {
        after_write: Some(Arc::new(move |version| {
            Box::pin(enforced(version, in_force(version), supervisor.clone()))
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
