//! CHECK: compares an attachment with what ADD made.

use vswitch_api::cni::CniCommand;

use super::error::AttachError;
use super::record::Record;
use super::service::Attachments;
use super::world::{Step, StepError};
use crate::ipam::LeaseOwner;

impl Attachments {
    /// Compares addresses, device, Pod object and port with what was made.
    ///
    /// # Errors
    /// [`AttachError`]: what is missing or differs.
    pub async fn check(&self, owner: &LeaseOwner) -> Result<(), AttachError> {
        let locked = self.inner.locked(owner).await;
        let Some(record) = self.attached(&locked.owner) else {
            return Err(AttachError::Unknown {
                owner: owner.clone(),
            });
        };
        self.check_addresses(&record).await?;
        let deps = &self.inner.deps;
        let doing = "check";
        let device: Step = deps.devices.check(&record);
        device
            .await
            .map_err(|source| AttachError::Device { doing, source })?;
        self.check_pod(&record)
            .await
            .map_err(|source| AttachError::Pod { doing, source })?;
        let port = deps.ports.check(&record).await;
        port.map_err(|source| AttachError::Port { doing, source })
    }

    async fn check_addresses(&self, record: &Record) -> Result<(), AttachError> {
        let owner = record.owner();
        if let Some((plugin, call)) = record.delegated_call() {
            let checked = self.delegate().run(plugin, CniCommand::Check, &call).await;
            return checked
                .map(drop)
                .map_err(|source| AttachError::Delegate { owner, source });
        }
        let held = self.ipam().held_by(&owner);
        let addresses = record.addresses();
        match addresses
            .into_iter()
            .find(|address| !held.contains(address))
        {
            Some(address) => Err(AttachError::NotLeased { owner, address }),
            None => Ok(()),
        }
    }

    /// The object has the addresses of the pod's first interface; a further one only needs it
    /// to be there, but that of another container is not its own.
    async fn check_pod(&self, record: &Record) -> Result<(), StepError> {
        let Some(pod) = record.pod() else {
            return Ok(());
        };
        let _guard = self.inner.pod_locks.lock(pod.key.clone()).await;
        let Some(speaker) = self.inner.ledger.speaker(&pod.key) else {
            return Ok(());
        };
        if speaker.attachment.container_id != record.attachment.container_id {
            return Err(StepError::new(format!(
                "pod {} is container {} by now",
                pod.key, speaker.attachment.container_id
            )));
        }
        self.inner.deps.pods.check(&speaker).await
    }
}
