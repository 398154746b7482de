//! Waits at ADD until the API server has listed the pod.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Health;
use crate::attach::{Kind, PodDirectory, PodIdentity, Record, Step, StepError, WaitInForce};
use crate::ipam::LeaseOwner;
use crate::objects::{Registry, Resource};
use crate::reconcile::ReconcileHandle;
use crate::state::ObjectKey;

/// The kubelet runs a static pod under the hash of its manifest; the Pod object that mirrors it
/// has another UID, and this annotation.
const STATIC_POD_UID: &str = "kubernetes.io/config.mirror";

/// The pods of the cluster.
#[derive(Clone)]
pub struct ClusterPods {
    /// What the API server told.
    pub registry: Arc<Registry>,
    /// How far it is heard.
    pub health: Arc<Health>,
    /// Waits until a version of the objects is enforced.
    pub in_force: WaitInForce,
    /// Says when everything has been told once.
    pub reconcile: ReconcileHandle,
    /// Name of this node's Node object.
    pub node_name: String,
    /// How long to wait for a pod.
    pub wait: Duration,
}

impl fmt::Debug for ClusterPods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterPods")
            .field("node_name", &self.node_name)
            .finish_non_exhaustive()
    }
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
    #[error("pod {pod} is not known to the API server: {found}")]
    Gone { pod: ObjectKey, found: String },
    #[error("in a cluster the API server makes Pod objects; there can be none for a VM port")]
    Vm,
    #[error("the policies of the cluster are not known within {seconds} s: {why}")]
    NotSynced { seconds: u64, why: String },
}

fn uid(asked: &Option<String>) -> String {
    asked
        .as_ref()
        .map_or_else(String::new, |uid| format!(" with UID {uid}"))
}

impl ClusterPods {
    async fn known(&self, identity: &PodIdentity) -> Result<(), StepError> {
        let rules = async {
            self.synced().await;
            self.registry
                .until(|registry| self.is_known(registry, identity))
                .await;
            (self.in_force)(self.registry.current_version()).await;
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

impl PodDirectory for ClusterPods {
    /// Waits until the pod is known and its rules are in force.
    fn expect<'a>(&'a self, identity: &'a PodIdentity) -> Step<'a> {
        Box::pin(self.known(identity))
    }

    /// The kubelet writes the status; rules go by the attachment until then and after.
    fn declare<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move {
            match record.kind {
                Kind::Vm => Err(StepError::new(NotYet::Vm).refused()),
                _ => Ok(()),
            }
        })
    }

    fn retract<'a>(&'a self, _record: &'a Record) -> Step<'a> {
        Box::pin(async { Ok(()) })
    }

    fn check<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move {
            let Some(identity) = record.pod() else {
                return Ok(());
            };
            let ObjectKey { namespace, name } = &identity.key;
            let pod = self.registry.get(Resource::Pod, namespace, name).ok();
            let found = match pod {
                None => "there is none".to_owned(),
                Some(pod) => match self.mismatch(&pod, &identity) {
                    None => return Ok(()),
                    Some(found) => found,
                },
            };
            let pod = identity.key.clone();
            Err(StepError::new(NotYet::Gone { pod, found }))
        })
    }

    fn retain<'a>(&'a self, _owners: &'a BTreeSet<LeaseOwner>) -> Step<'a> {
        Box::pin(async { Ok(()) })
    }
}
