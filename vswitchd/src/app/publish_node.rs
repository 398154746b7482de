//! Standalone mode: writes what this node's own Node object should say into the registry.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::host::NodePublication;
use crate::objects::{PatchKind, Registry, Resource, StatusError, WriteOptions};

/// Writes every change, until the daemon ends.
pub(super) async fn follow(
    registry: Arc<Registry>,
    node_name: String,
    mut wanted: watch::Receiver<NodePublication>,
) {
    while wanted.changed().await.is_ok() {
        let publication = wanted.borrow_and_update().clone();
        let (registry, node) = (Arc::clone(&registry), node_name.clone());
        let written = tokio::task::spawn_blocking(move || write(&registry, &node, &publication));
        // A panic in there has been logged.
        if let Ok(Err(error)) = written.await {
            tracing::warn!(error = %error, "write own Node object");
        }
    }
}

/// Blocks.
fn write(
    registry: &Registry,
    node: &str,
    publication: &NodePublication,
) -> Result<(), StatusError> {
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
