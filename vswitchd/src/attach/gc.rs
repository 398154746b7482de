//! GC: removes the attachments that the runtime does not list, and leftovers of no attachment.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::{AttachError, of_problems};
use super::record::Kind;
use super::remove::Reached;
use super::service::{Attachments, Inner};
use crate::errors::chain;

impl Attachments {
    /// Removes the containers' interfaces of a network that are not among `valid` (container
    /// id and interface name), and leases and Pod objects that no attachment has. Goes on if
    /// the caller goes away.
    ///
    /// # Errors
    /// [`AttachError::Incomplete`].
    pub async fn gc(
        &self,
        network: String,
        valid: BTreeSet<(String, String)>,
    ) -> Result<(), AttachError> {
        let inner = Arc::clone(&self.inner);
        self.outlive(async move {
            let mut problems = inner.release_invalid(&network, &valid).await;
            problems.extend(inner.release_lost().await);
            of_problems("GC", problems)
        })
        .await
    }
}

impl Inner {
    async fn release_invalid(
        self: &Arc<Self>,
        network: &str,
        valid: &BTreeSet<(String, String)>,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        for record in self.ledger.all() {
            let owner = record.owner();
            let is_listed = valid.contains(&(owner.container_id.clone(), owner.ifname.to_string()));
            if record.kind != Kind::Pod || record.attachment.network != network || is_listed {
                continue;
            }
            // Who holds the lock is being added or deleted this moment: not garbage.
            let Some(_guard) = self.locks.try_lock(owner.clone()) else {
                continue;
            };
            // Before the lock it may have been deleted and added anew.
            let now = self.ledger.get(&owner);
            if let Some(now) = now.filter(|now| now.order == record.order) {
                problems.extend(self.teardown(&now, Reached::Port).await);
            }
        }
        problems
    }

    /// Releases leases and Pod objects that no attachment has: of an ADD that ended between
    /// two steps. Whose record is unreadable may still use its address.
    pub(super) async fn release_lost(self: &Arc<Self>) -> Vec<String> {
        if !self.ledger.damaged().is_empty() {
            return Vec::new();
        }
        let mut problems = Vec::new();
        let released = self.blocking(|inner| {
            // An ADD holds the lock from before its lease to after its record.
            let is_known =
                |owner: &_| inner.locks.is_held(owner) || inner.ledger.get(owner).is_some();
            let released = inner.deps.ipam.retain(is_known, inner.now());
            let lost = |source| AttachError::LostLeases { source };
            released.map(drop).map_err(lost)
        });
        problems.extend(released.await.map_err(|error| chain(&error)).err());
        let mut owners = self.ledger.owners();
        owners.extend(self.locks.held());
        let retained = self.deps.pods.retain(&owners).await;
        problems.extend(retained.map_err(|error| chain(&error)).err());
        problems
    }
}
