//! Writes what this node's own Node object should tell others: in standalone mode into the
//! registry, in a cluster, where networks and addresses are others' to write, as annotations
//! only.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::errors;
use crate::host::NodePublication;
use crate::kube::ApiServer;
use crate::objects::{PatchKind, Registry, Resource, WriteOptions};
use crate::supervise::{self, Beats, Ended};

/// Pause before what could not be written is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Where Node objects are.
pub(super) enum NodePlace {
    /// Standalone mode.
    Registry(Arc<Registry>),
    /// A cluster.
    ApiServer(ApiServer),
}

/// Writes every change, until the daemon ends.
pub(super) async fn follow(
    id: NodePlace,
    node: String,
    mut wanted: watch::Receiver<NodePublication>,
    beat: Beats,
) -> Ended {
    while beat.wait(wanted.changed()).await.is_ok() {
        loop {
            let publication = wanted.borrow_and_update().clone();
            let Err(error) = beat.wait(id.write(&node, publication)).await else {
                break;
            };
            let error = errors::chain(error.as_ref());
            tracing::warn!(
                node,
                error,
                "writing the own Node object failed; others do not hear how its pods are reached"
            );
            // What is newer is written at once; an error means that the daemon is stopping.
            let newer = tokio::time::timeout(AGAIN_AFTER, wanted.changed());
            if matches!(beat.wait(newer).await, Ok(Err(_))) {
                break;
            }
        }
    }
    Ended::Early("the routes to other nodes are no longer kept")
}

impl NodePlace {
    async fn write(&self, node: &str, publication: NodePublication) -> Result<()> {
        match self {
            Self::ApiServer(_) if publication.annotations.is_empty() => {}
            Self::ApiServer(api) => api.annotate_node(node, &publication.annotations).await?,
            Self::Registry(registry) => {
                let (registry, node) = (Arc::clone(registry), node.to_owned());
                let write = move || write_whole(&registry, &node, &publication);
                supervise::blocking(write).await?;
            }
        }
        Ok(())
    }
}

/// Blocks.
fn write_whole(registry: &Registry, node: &str, publication: &NodePublication) -> Result<()> {
    let NodePublication {
        annotations,
        pod_cidrs,
        internal_ips,
    } = publication;
    let object = json!({
        "metadata": {"annotations": annotations},
        "spec": {"podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs},
    });
    let options = WriteOptions::default();
    registry.patch(Resource::Node, "", node, PatchKind::Merge, &object, options)?;
    let addresses = internal_ips
        .iter()
        .map(|ip| json!({"type": "InternalIP", "address": ip}));
    let addresses: Vec<Value> = addresses
        .chain([json!({"type": "Hostname", "address": node})])
        .collect();
    let status = json!({"status": {"addresses": addresses}});
    let options = WriteOptions {
        status: true,
        ..WriteOptions::default()
    };
    registry.patch(Resource::Node, "", node, PatchKind::Merge, &status, options)?;
    Ok(())
}
