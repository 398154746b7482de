//! DEL, and the undoing of an attachment wherever else it is needed.
//!
//! Goes on past failures. The lease and the record stay while the port or the interface may
//! still be there: an address must not get a second user, and the next DEL tries again.

use std::sync::Arc;

use vswitch_api::cni::CniCommand;

use super::error::{AttachError, of_problems};
use super::record::{Record, State};
use super::service::{Attachments, Inner, Locked};
use super::wanted::Delegation;
use super::world::StepError;
use crate::errors::chain;
use crate::ipam::LeaseOwner;

/// The last step of ADD that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// The Pod object and the interface.
    Device,
    Port,
}

impl Attachments {
    /// Takes an attachment away; success if there is none. `delegation` is the plugin that is
    /// asked to release addresses even if nothing is on record. Goes on if the caller goes
    /// away.
    ///
    /// # Errors
    /// [`AttachError::Incomplete`]: it stays on record.
    pub async fn remove(
        &self,
        owner: &LeaseOwner,
        delegation: Option<Delegation>,
    ) -> Result<(), AttachError> {
        let (inner, owner) = (Arc::clone(&self.inner), owner.clone());
        self.outlive(async move { inner.locked(&owner).await.remove(delegation).await })
            .await
    }
}

impl Locked {
    async fn remove(&self, delegation: Option<Delegation>) -> Result<(), AttachError> {
        if let Some(record) = self.inner.ledger.get(&self.owner) {
            return of_problems("DEL", self.inner.teardown(&record, Reached::Port).await);
        }
        // Nothing on record: a second DEL, or the record is damaged, or the ADD ended before
        // it. A lease may be there all the same.
        let mut problems = Vec::new();
        problems.extend(self.inner.release_lease(&self.owner).await.err());
        problems.extend(self.inner.forget(&self.owner).await.err());
        if let Some(delegation) = delegation {
            problems.extend(self.inner.delegated_del(&delegation).await.err());
        }
        of_problems("DEL", problems)
    }
}

impl Inner {
    /// Undoes the steps up to `reached` in reverse; returns what failed. The caller holds the
    /// attachment's lock, or is alone.
    pub(super) async fn teardown(
        self: &Arc<Self>,
        record: &Arc<Record>,
        reached: Reached,
    ) -> Vec<String> {
        self.reserve.undo(|| self.undo(record, reached)).await
    }

    async fn undo(self: &Arc<Self>, record: &Arc<Record>, reached: Reached) -> Vec<String> {
        let mut problems = Vec::new();
        let owner = record.owner();
        let problem =
            |doing: &str, error: &StepError| format!("{doing} of {owner}: {}", chain(error));
        let record = &self.leave(record).await;
        if reached == Reached::Port
            && let Err(error) = self.deps.ports.detach(record).await
        {
            problems.push(problem("detach port", &error));
        }
        if !record.is_found
            && let Err(error) = self.deps.devices.remove(record).await
        {
            problems.push(problem("remove interface", &error));
        }
        if let Err(error) = self.retract_pod(record).await {
            problems.push(problem("retract pod", &error));
        }
        if problems.is_empty() {
            problems.extend(self.release(record).await.err());
        }
        problems
    }

    /// Notes that an attachment goes: durably if it was acknowledged, so that a restart takes
    /// up its undoing and not the attachment.
    async fn leave(self: &Arc<Self>, record: &Arc<Record>) -> Arc<Record> {
        if record.state == State::Attached {
            match self.reach(record, State::Leaving).await {
                Ok(leaving) => return leaving,
                // The deletion of the record will fail too, and be told.
                Err(error) => tracing::warn!(error = chain(&error), "noting a DEL failed"),
            }
        }
        self.ledger.note(record, State::Leaving)
    }

    /// Brings the Pod object in line with the attachment that speaks for it now.
    pub(super) async fn publish_pod(&self, record: &Record) -> Result<(), StepError> {
        let Some(pod) = record.pod() else {
            return Ok(());
        };
        let _guard = self.pod_locks.lock(pod.key.clone()).await;
        match self.ledger.speaker(&pod.key) {
            Some(speaker) => self.deps.pods.declare(&speaker).await,
            None => Ok(()),
        }
    }

    /// The same for an attachment that goes: another one of the pod keeps the object.
    async fn retract_pod(&self, record: &Record) -> Result<(), StepError> {
        let Some(pod) = record.pod() else {
            return Ok(());
        };
        let _guard = self.pod_locks.lock(pod.key.clone()).await;
        match self.ledger.speaker(&pod.key) {
            Some(speaker) => self.deps.pods.declare(&speaker).await,
            None => self.deps.pods.retract(record).await,
        }
    }

    /// Releases the addresses and then the record: in this order a failure in between is
    /// found again.
    async fn release(self: &Arc<Self>, record: &Record) -> Result<(), String> {
        let owner = record.owner();
        match record.delegated_call() {
            Some((plugin, call)) => {
                let plugin = plugin.to_owned();
                self.delegated_del(&Delegation { plugin, call }).await?;
            }
            None => self.release_lease(&owner).await?,
        }
        self.forget(&owner).await
    }

    async fn forget(self: &Arc<Self>, owner: &LeaseOwner) -> Result<(), String> {
        let owner = owner.clone();
        let forgotten = self.blocking(move |inner| {
            let forgotten = inner.ledger.forget(&owner);
            forgotten.map_err(|source| AttachError::Store { owner, source })
        });
        forgotten.await.map_err(|error| chain(&error))
    }

    pub(super) async fn release_lease(self: &Arc<Self>, owner: &LeaseOwner) -> Result<(), String> {
        let owner = owner.clone();
        let released = self.blocking(move |inner| {
            let released = inner.deps.ipam.release(&owner, inner.now());
            released
                .map(drop)
                .map_err(|source| AttachError::Lease { owner, source })
        });
        released.await.map_err(|error| chain(&error))
    }

    pub(super) async fn delegated_del(&self, to: &Delegation) -> Result<(), String> {
        let delegate = &self.deps.delegate;
        let output = delegate.run(&to.plugin, CniCommand::Del, &to.call).await;
        output.map(drop).map_err(|error| chain(&error))
    }
}
