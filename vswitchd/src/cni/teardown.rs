//! DEL, and what undoes an attachment wherever else that is needed.
//!
//! Goes on past failures. The lease and the record stay while the port or the interface may
//! still be there: an address must not get a second user, and the next DEL tries again.

use std::sync::Arc;

use vswitch_api::cni::{CniCall, CniCommand, CniFailure};

use super::netconf::NetConf;
use super::records::AttachmentRecord;
use super::service::{Inner, Locked};
use super::world::{AttachHost, PodDirectory, SwitchPorts};
use super::{failure, records};
use crate::ipam::LeaseOwner;

/// The last step of ADD that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reached {
    Pod,
    Interface,
    Port,
}

impl<H: AttachHost, P: SwitchPorts, D: PodDirectory> Locked<H, P, D> {
    pub(super) async fn del(&self, call: &CniCall) -> Result<(), CniFailure> {
        if let Some(record) = self.record().await? {
            let problems = self.inner.teardown(&record, Reached::Port).await;
            return failure::of_problems("DEL", &problems);
        }
        // Nothing on record: a second DEL, or the ADD ended before its record. A lease may
        // be there all the same.
        let mut problems = Vec::new();
        problems.extend(self.inner.release_lease(&self.owner).await.err());
        problems.extend(self.inner.delete_record(&self.owner).await.err());
        let conf = NetConf::parse(&call.config, &std::collections::BTreeMap::new());
        if let Some(plugin) = conf.ok().and_then(|conf| conf.delegated_ipam) {
            problems.extend(self.inner.delegated_del(&plugin, call).await.err());
        }
        failure::of_problems("DEL", &problems)
    }
}

impl<H: AttachHost, P: SwitchPorts, D: PodDirectory> Inner<H, P, D> {
    /// Undoes the steps up to `reached` in reverse; returns what failed.
    pub(super) async fn teardown(
        self: &Arc<Self>,
        record: &AttachmentRecord,
        reached: Reached,
    ) -> Vec<String> {
        let attachment = &record.attachment;
        let mut problems = Vec::new();
        let problem = |doing: &str, error: &dyn std::error::Error| {
            format!(
                "{doing} of {}/{}: {}",
                attachment.container_id,
                attachment.ifname,
                failure::chain(error)
            )
        };
        if reached >= Reached::Port
            && let Err(error) = self.deps.ports.detach(attachment).await
        {
            problems.push(problem("detach port", &error));
        }
        if reached >= Reached::Interface
            && let Err(error) = self.deps.host.remove_interface(attachment).await
        {
            problems.push(problem("remove interface", &error));
        }
        if let Err(error) = self.deps.pods.retract(attachment).await {
            problems.push(problem("retract pod", &error));
        }
        if problems.is_empty() {
            problems.extend(self.forget(record).await.err());
        }
        problems
    }

    /// Releases the addresses and then the record: in this order a failure in between is
    /// found again.
    async fn forget(self: &Arc<Self>, record: &AttachmentRecord) -> Result<(), String> {
        let owner = record.owner();
        match record.delegated_call() {
            Some((plugin, call)) => self.delegated_del(plugin, &call).await?,
            None => self.release_lease(&owner).await?,
        }
        self.delete_record(&owner).await?;
        self.numbers.release(record.attachment.port_no);
        Ok(())
    }

    async fn delete_record(self: &Arc<Self>, owner: &LeaseOwner) -> Result<(), String> {
        let owner = owner.clone();
        let deleted = self.blocking(move |inner| {
            records::delete(&inner.deps.store, &owner).map_err(|error| failure::of_store(&error))
        });
        deleted.await.map_err(|failure| failure.to_string())
    }

    pub(super) async fn release_lease(self: &Arc<Self>, owner: &LeaseOwner) -> Result<(), String> {
        let owner = owner.clone();
        let released = self.blocking(move |inner| {
            let released = inner.deps.ipam.release(&owner, inner.now());
            released
                .map(|_| ())
                .map_err(|error| failure::of_ipam(&error))
        });
        released.await.map_err(|failure| failure.to_string())
    }

    pub(super) async fn delegated_del(&self, plugin: &str, call: &CniCall) -> Result<(), String> {
        let output = self.deps.delegate.run(plugin, CniCommand::Del, call).await;
        output.map(|_| ()).map_err(|error| failure::chain(&error))
    }
}
