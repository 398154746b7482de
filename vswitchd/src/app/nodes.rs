//! Keeps routes and tunnels to the pods of other nodes as the Nodes in ClusterState ask for it,
//! and computes what this node's own Node object publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use vswitch_api::IfName;

use super::followed::{Followed, Look};
use super::host_tables::HostTables;
use crate::config::Config;
use crate::errors;
use crate::host::{
    self, KeptMasquerade, NetlinkError, NodeNetwork, NodeNetworkStatus, NodePlan, NodePublication,
    NodesSpec, Underlay,
};
use crate::reconcile::ReconcileHandle;
use crate::state::{ClusterState, NodeRecord};
use crate::supervise::{self, Beats, Ended};

/// How often the kernel is looked at: somebody may have removed what is ours, the node's
/// addresses may have changed, and drops are counted there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The same as long as a node on the link has not answered where it is.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The way to other nodes and whoever is told about it.
pub(super) struct Nodes {
    spec: NodesSpec,
    /// The interface towards other nodes, if it is configured.
    iface: Option<IfName>,
    network: NodeNetwork,
    /// `None` where the configuration turns it off.
    masquerade: Option<Arc<KeptMasquerade>>,
    /// What the own Node object should say.
    publish: watch::Sender<NodePublication>,
    status: watch::Sender<NodeNetworkStatus>,
}

/// Follows the Nodes until the daemon ends.
pub(super) async fn follow(mut nodes: Nodes, reconcile: ReconcileHandle, beat: Beats) -> Ended {
    let mut followed = Followed::new(reconcile, LOOK_EVERY);
    let mut done: Option<ClusterState> = None;
    loop {
        let Some(Look { state, is_tick }) = followed.next(&beat).await else {
            return Ended::Early("the reconciler has ended");
        };
        // Before everything was heard of, what is there from an earlier run had better stay.
        let is_known = |done: &ClusterState| done.has_nodes_of(&state.cluster);
        if !state.is_synced || (!is_tick && done.as_ref().is_some_and(is_known)) {
            continue;
        }
        done = Some(state.cluster.clone());
        let round = move || {
            let is_complete = nodes.round(&state.cluster);
            (nodes, is_complete)
        };
        let is_complete;
        (nodes, is_complete) = supervise::blocking(round).await;
        if !is_complete {
            followed.again_after(ASK_AGAIN);
        }
    }
}

impl Nodes {
    /// Makes it as the configuration has it.
    pub(super) fn new(
        config: &Config,
        tables: &HostTables,
        mtu: u16,
        publish: watch::Sender<NodePublication>,
        status: watch::Sender<NodeNetworkStatus>,
    ) -> Self {
        let network = &config.network;
        let spec = NodesSpec {
            node_name: config.node_name.clone(),
            backend: network.backend,
            vxlan: network.vxlan.clone(),
            pod_cidrs: network.pod_cidrs.clone(),
            gateway_ifname: network.gateway_ifname.clone(),
            mtu,
        };
        Self {
            network: NodeNetwork::new(spec.clone(), &tables.table),
            spec,
            iface: network.iface.clone(),
            masquerade: tables.masquerade.clone(),
            publish,
            status,
        }
    }

    /// Brings everything in line with the Nodes; returns whether nothing is expected soon. Blocks.
    fn round(&mut self, cluster: &ClusterState) -> bool {
        let own_node = cluster.node(&self.spec.node_name).map(AsRef::as_ref);
        let own = match own_underlay(self.iface.as_ref(), own_node) {
            Ok(own) => own,
            Err(error) => {
                self.publish_status(&NodePlan::default(), vec![errors::chain(&error)]);
                return true;
            }
        };
        let publication = host::node_publication(&self.spec, own);
        self.publish.send_if_modified(|told| {
            let is_new = *told != publication;
            *told = publication;
            is_new
        });
        let plan = host::plan_nodes(&self.spec, own, cluster.nodes().map(AsRef::as_ref));
        if let Some(masquerade) = &self.masquerade {
            masquerade.learn(plan.networks.iter().copied());
        }
        let failed = self.network.apply(&plan).into_iter();
        let failed = failed.map(|error| errors::chain(&error));
        let planned = plan.problems.iter().map(ToString::to_string);
        self.publish_status(&plan, planned.chain(failed).collect());
        self.network.sees_all(&plan)
    }

    fn publish_status(&self, plan: &NodePlan, problems: Vec<String>) {
        let known = self.status.borrow().clone();
        for problem in problems.iter().filter(|one| !known.problems.contains(one)) {
            tracing::warn!(problem, "making routes to other nodes failed in part");
        }
        let drops = self.network.drops().unwrap_or_else(|error| {
            let error = errors::chain(&error);
            tracing::warn!(error, "counting drops between nodes failed");
            known.drops.clone()
        });
        let status = NodeNetworkStatus {
            backend: self.spec.backend.name(),
            networks: plan
                .tunnels
                .iter()
                .map(|tunnel| tunnel.networks.len())
                .sum::<usize>()
                + plan.next_hops.len(),
            problems,
            drops,
        };
        self.status.send_if_modified(|told| {
            let is_new = *told != status;
            *told = status;
            is_new
        });
    }
}

/// Returns under which addresses other nodes reach this one: those of the configured
/// interface; else the InternalIPs of the Node object that the machine really has, and what
/// is missing from the interface of the default route. Blocks.
fn own_underlay(
    iface: Option<&IfName>,
    node: Option<&NodeRecord>,
) -> Result<Underlay, NetlinkError> {
    let uplink = host::uplink(iface)?;
    let uplink = Underlay::first_of(uplink.into_iter().flat_map(|uplink| uplink.addresses));
    if iface.is_some() {
        return Ok(uplink);
    }
    let present = host::node_addresses()?;
    let told = node.into_iter().flat_map(|node| &node.internal_ips);
    let told = told.copied().filter(|ip| present.contains(ip));
    Ok(Underlay::first_of(told).or(uplink))
}
