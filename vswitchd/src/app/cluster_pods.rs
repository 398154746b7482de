//! Pods that the API server has to tell of before they get a network.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::in_force::InForce;
use crate::cni::{PodIdentity, StepError};
use crate::kube::Health;
use crate::objects::{Registry, Resource};
use crate::reconcile::ReconcileHandle;
use crate::state::ObjectKey;

/// The kubelet runs a static pod under the hash of its manifest; the Pod object that mirrors it
/// has another UID, and this annotation.
const STATIC_POD_UID: &str = "kubernetes.io/config.mirror";

/// The pods of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct ClusterPods {
    pub(crate) registry: Arc<Registry>,
    pub(crate) health: Arc<Health>,
    pub(crate) in_force: InForce,
    pub(crate) reconcile: ReconcileHandle,
    pub(crate) node_name: String,
    /// How long to wait for a pod.
    pub(crate) wait: Duration,
}

/// A pod that cannot be attached yet.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error("pod {pod}{} is not known within {seconds} s: {found}", uid(asked))]
    Unknown {
        pod: ObjectKey,
        asked: Option<String>,
        seconds: u64,
        found: String,
    },
    #[error("the policies of the cluster are not known within {seconds} s: {why}")]
    NotSynced { seconds: u64, why: String },
}

fn uid(asked: &Option<String>) -> String {
    asked
        .as_ref()
        .map_or_else(String::new, |uid| format!(" with UID {uid}"))
}

impl ClusterPods {
    /// Waits until the pod is known and its rules are in force.
    pub(super) async fn expect(&self, identity: &PodIdentity) -> Result<(), StepError> {
        let rules = async {
            self.synced().await;
            self.registry
                .until(|registry| self.is_known(registry, identity))
                .await;
            self.in_force.reached(self.registry.current_version()).await;
        };
        let in_time = tokio::time::timeout(self.wait, rules).await;
        in_time.map_err(|_| StepError::new(self.not_yet(identity)).retry_later())
    }

    async fn synced(&self) {
        let mut changes = self.reconcile.changes();
        while !self.reconcile.snapshot().is_synced {
            if changes.next().await.is_none() {
                // The daemon is stopping: the time-out ends this.
                std::future::pending::<()>().await;
            }
        }
    }

    /// An older pod of the same name is not it, nor one that another node runs.
    fn is_known(&self, registry: &Registry, identity: &PodIdentity) -> Option<()> {
        let ObjectKey { namespace, name } = &identity.key;
        let pod = registry.get(Resource::Pod, namespace, name).ok()?;
        self.mismatch(&pod, identity).is_none().then_some(())
    }

    /// Says what makes a Pod object another pod than the one to be attached.
    fn mismatch(&self, pod: &Value, identity: &PodIdentity) -> Option<String> {
        let metadata = &pod["metadata"];
        let found = metadata["uid"].as_str().unwrap_or_default();
        let mirrored = metadata["annotations"][STATIC_POD_UID].as_str();
        if let Some(asked) = &identity.uid
            && asked != found
            && mirrored != Some(asked)
        {
            return Some(format!("the one of this name has UID {found}"));
        }
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node == self.node_name {
            return None;
        }
        Some(match node {
            "" => "it is bound to no node yet".to_owned(),
            node => format!("it is bound to node {node}"),
        })
    }

    fn not_yet(&self, identity: &PodIdentity) -> NotYet {
        let seconds = self.wait.as_secs();
        let errors = self.health.errors().join("; ");
        if !self.reconcile.snapshot().is_synced {
            let why = if errors.is_empty() {
                "still listing".to_owned()
            } else {
                errors
            };
            return NotYet::NotSynced { seconds, why };
        }
        let ObjectKey { namespace, name } = &identity.key;
        let pod = self.registry.get(Resource::Pod, namespace, name).ok();
        let found = pod.and_then(|pod| self.mismatch(&pod, identity));
        let mut found = found.unwrap_or_else(|| "there is none".to_owned());
        if !errors.is_empty() {
            found = format!("{found}; {errors}");
        }
        NotYet::Unknown {
            pod: identity.key.clone(),
            asked: identity.uid.clone(),
            seconds,
            found,
        }
    }
}
