//! Pod objects of the standalone registry.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::record::{PodIdentity, Record};
use super::world::{PodDirectory, Step, StepError, blocking};
use crate::ipam::LeaseOwner;
use crate::objects::{MadePod, Registry, StatusError};

/// Waits until an object version is in force; returns false if it never will be in this run.
pub type WaitInForce = Arc<dyn Fn(u64) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// The Pod objects of the standalone registry.
#[derive(Clone)]
pub struct RegistryPods {
    /// The objects.
    pub registry: Arc<Registry>,
    /// Waits until what was written is enforced.
    pub in_force: WaitInForce,
}

impl fmt::Debug for RegistryPods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryPods").finish_non_exhaustive()
    }
}

impl RegistryPods {
    async fn write(
        &self,
        work: impl FnOnce(&Registry) -> Result<(), StatusError> + Send + 'static,
    ) -> Result<(), StepError> {
        let registry = Arc::clone(&self.registry);
        // What the API refuses, 4xx, may be had under another name or with other labels.
        let written = tokio::task::spawn_blocking(move || work(&registry)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.code < 500 => return Err(StepError::new(error).refused()),
            Ok(Err(error)) => return Err(StepError::new(error)),
            Err(error) => return Err(StepError::new(error).retry_later()),
        }
        (self.in_force)(self.registry.current_version()).await;
        Ok(())
    }
}

/// Names an attachment in the Pod object that was made for it: known before anything is
/// made, so that the object of an ADD that was cut short is found as well.
fn made_pod(record: &Record) -> MadePod {
    let pod = &record.attachment.pod;
    let identity = record.pod();
    let labels = identity.as_ref().and_then(|pod| pod.labels.clone());
    MadePod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        maker: record.owner().to_string(),
        uid: identity.and_then(|pod| pod.uid),
        labels,
        ips: record.addresses(),
    }
}

impl PodDirectory for RegistryPods {
    /// Whatever comes gets a Pod object.
    fn expect<'a>(&'a self, _identity: &'a PodIdentity) -> Step<'a> {
        Box::pin(async { Ok(()) })
    }

    fn declare<'a>(&'a self, record: &'a Record) -> Step<'a> {
        let pod = made_pod(record);
        Box::pin(self.write(move |registry| registry.declare_pod(&pod)))
    }

    fn retract<'a>(&'a self, record: &'a Record) -> Step<'a> {
        let pod = made_pod(record);
        Box::pin(self.write(move |registry| registry.retract_pod(&pod)))
    }

    fn check<'a>(&'a self, record: &'a Record) -> Step<'a> {
        let pod = made_pod(record);
        let registry = Arc::clone(&self.registry);
        Box::pin(blocking(move || registry.check_pod(&pod)))
    }

    fn retain<'a>(&'a self, owners: &'a BTreeSet<LeaseOwner>) -> Step<'a> {
        let makers: BTreeSet<String> = owners.iter().map(LeaseOwner::to_string).collect();
        Box::pin(self.write(move |registry| registry.retain_made_pods(&makers)))
    }
}
