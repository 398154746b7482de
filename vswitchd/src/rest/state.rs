//! State of the handlers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch;

use super::readers::Readers;
use crate::attach::{Attachments, WaitInForce};
use crate::cni::CniService;
use crate::flow_records::FlowLog;
use crate::flow_records::export::Destination;
use crate::host::{KubeProxy, NodeNetworkStatus};
use crate::ipam::Ipam;
use crate::kube::Health;
use crate::metrics::InForceLatency;
use crate::objects::Registry;
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
    /// What was denied, and what policies in audit would have denied.
    pub flow_log: Arc<FlowLog>,
    /// Where records of that go besides.
    pub flow_exports: Vec<Arc<Destination>>,
    /// How long changes took until they were in force.
    pub latency: InForceLatency,
    /// Events that the daemon records itself.
    pub events: Arc<Registry>,
    /// Runs what collects long answers.
    pub readers: Readers,
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
