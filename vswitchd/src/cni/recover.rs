//! Start of the daemon: what is on record, what of it is still there.

use std::net::IpAddr;
use std::sync::Arc;

use vswitch_api::cni::CniFailure;

use super::records::AttachmentRecord;
use super::service::{CniService, Inner};
use super::teardown::Reached;
use super::world::{AttachHost, NetnsState, PodDirectory, SwitchPorts};
use super::{failure, records};
use crate::state::Attachment;

/// What [`CniService::recover`] found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Complete, their namespaces exist: the ports are to be attached again.
    pub attachments: Vec<Attachment>,
    /// Undone: the namespace is gone, or ADD was cut short.
    pub released: Vec<Attachment>,
    /// What could not be read or undone; it stays on record.
    pub problems: Vec<String>,
}

impl<H: AttachHost, P: SwitchPorts, D: PodDirectory> CniService<H, P, D> {
    /// Goes through the records: undoes what is gone or half done, and returns the rest.
    /// Call it once, before the first [`Self::handle`].
    ///
    /// # Errors
    /// Code 5 if the records cannot be listed.
    pub async fn recover(&self) -> Result<Recovered, CniFailure> {
        let inner = self.inner();
        self.detached(async move { inner.recover().await }).await
    }

    /// Returns all complete attachments. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// Code 5 if the records cannot be listed.
    pub fn attachments(&self) -> Result<Vec<Attachment>, CniFailure> {
        let listed = records::all(&self.inner().deps.store);
        let (listed, _) = listed.map_err(|error| failure::of_store(&error))?;
        let complete = listed.into_iter().filter(|record| record.completed);
        Ok(complete.map(|record| record.attachment).collect())
    }
}

impl<H: AttachHost, P: SwitchPorts, D: PodDirectory> Inner<H, P, D> {
    async fn recover(self: Arc<Self>) -> Result<Recovered, CniFailure> {
        let listed = self.blocking(|inner| {
            records::all(&inner.deps.store).map_err(|error| failure::of_store(&error))
        });
        let (listed, problems) = listed.await?;
        let mut recovered = Recovered {
            problems,
            ..Recovered::default()
        };
        for record in listed {
            let is_there = self.probe(&record.attachment.netns) == NetnsState::Container;
            if record.completed && is_there {
                recovered.problems.extend(self.adopt(&record).await.err());
                recovered.attachments.push(record.attachment);
                continue;
            }
            let problems = self.teardown(&record, Reached::Port).await;
            if problems.is_empty() {
                recovered.released.push(record.attachment);
            }
            recovered.problems.extend(problems);
        }
        recovered
            .problems
            .extend(self.release_lost_leases().await.err());
        Ok(recovered)
    }

    /// The interface has the addresses whatever became of the lease's own record.
    async fn adopt(self: &Arc<Self>, record: &AttachmentRecord) -> Result<(), String> {
        if record.attachment.delegated_ipam.is_some() {
            return Ok(());
        }
        let owner = record.owner();
        let addresses: Vec<IpAddr> = record
            .attachment
            .addresses
            .iter()
            .map(|net| net.addr())
            .collect();
        let adopted = self.blocking(move |inner| {
            let adopted = inner.deps.ipam.adopt(&owner, &addresses, inner.now());
            adopted.map_err(|error| failure::of_ipam(&error))
        });
        adopted.await.map_err(|failure| failure.to_string())
    }
}
