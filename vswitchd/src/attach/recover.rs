//! Recovery at the start of the daemon: compares records with what is left in the kernel,
//! restores or releases each attachment.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use vswitch_api::IfName;

use super::error::AttachError;
use super::record::{Kind, Record, State};
use super::remove::Reached;
use super::service::{Attachments, Inner};
use super::world::{NetnsState, StepError};
use crate::errors::chain;

/// Ports that are opened side by side: the reconciler nets out what it is told meanwhile, so
/// that the rules of many ports cost little more than those of one.
const AT_ONCE: usize = 32;

/// What [`Attachments::recover`] found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// They are attached again.
    pub attached: Vec<Arc<Record>>,
    /// Undone: the namespace is gone, or ADD or DEL was cut short.
    pub released: Vec<Arc<Record>>,
    /// What could not be read, attached or undone; it stays on record.
    pub problems: Vec<String>,
}

impl Recovered {
    fn extend(&mut self, other: Self) {
        self.attached.extend(other.attached);
        self.released.extend(other.released);
        self.problems.extend(other.problems);
    }
}

impl Attachments {
    /// Attaches what was attached when the daemon last ran, makes interfaces anew that are
    /// gone, and undoes what is half there. Call it once, before anything else is asked.
    pub async fn recover(&self) -> Recovered {
        let inner = Arc::clone(&self.inner);
        inner.recover().await
    }
}

impl Inner {
    async fn recover(self: Arc<Self>) -> Recovered {
        let mut recovered = Recovered {
            problems: self.ledger.damaged(),
            ..Recovered::default()
        };
        let mut records = self.ledger.all();
        records.retain(|record| record.kind != Kind::Gateway);
        let present = match self.deps.devices.present().await {
            Ok(present) => present,
            Err(error) => {
                recovered.problems.push(chain(&error));
                BTreeSet::new()
            }
        };
        let shielded = self.shield(&records, &present).await;
        recovered.problems.extend(shielded);
        let one_by_one = stream::iter(records).map(|record| {
            let is_present = present.contains(record.host_ifname());
            let inner = Arc::clone(&self);
            async move { inner.recover_one(record, is_present).await }
        });
        let mut done = one_by_one.buffer_unordered(AT_ONCE);
        while let Some(one) = done.next().await {
            recovered.extend(one);
        }
        drop(done);
        recovered.problems.extend(self.release_lost().await);
        recovered.attached.sort_by_key(|record| record.port_no());
        recovered
    }

    async fn recover_one(self: &Arc<Self>, record: Arc<Record>, is_present: bool) -> Recovered {
        let mut recovered = Recovered::default();
        if self.stands(&record) {
            match self.again(&record, is_present).await {
                Ok(()) => {
                    recovered.attached.push(record);
                    return recovered;
                }
                Err(Again::Failed(problem)) => {
                    recovered.problems.push(problem);
                    return recovered;
                }
                Err(Again::Lost(problem)) => recovered.problems.push(problem),
            }
        }
        let problems = self.teardown(&record, Reached::Port).await;
        if problems.is_empty() {
            recovered.released.push(record);
        }
        recovered.problems.extend(problems);
        recovered
    }

    /// Says whether an attachment was acknowledged and can still be.
    fn stands(&self, record: &Record) -> bool {
        let netns = &record.attachment.netns;
        record.state == State::Attached
            && (record.kind != Kind::Pod || self.probe(netns) == NetnsState::Container)
    }

    /// The shields may be lost or stale; nothing is forwarded yet.
    async fn shield(&self, records: &[Arc<Record>], present: &BTreeSet<IfName>) -> Option<String> {
        let standing = records.iter().filter(|record| self.stands(record));
        let names = standing.map(|record| record.host_ifname());
        let ours: Vec<IfName> = names
            .filter(|name| present.contains(*name))
            .cloned()
            .collect();
        let shielded = self.deps.devices.shield_only(&ours).await;
        shielded.err().map(|error| chain(&error))
    }

    /// Attaches what was attached.
    async fn again(self: &Arc<Self>, record: &Arc<Record>, is_present: bool) -> Result<(), Again> {
        let owner = record.owner();
        let failed = |doing: &str, error: &(dyn std::error::Error + 'static)| {
            format!("{doing} of {owner}: {}", chain(error))
        };
        self.adopt(record)
            .await
            .map_err(|error| Again::Failed(failed("adopt addresses", &error)))?;
        if record.kind == Kind::Pod && !is_present {
            tracing::warn!(%owner, "interface of a container was gone; it is made again");
            let made = self.deps.devices.create(record).await;
            made.map_err(|error| Again::Lost(failed("make interface again", &error)))?;
        }
        let ports = &self.deps.ports;
        let attached = async {
            ports.enforce(record, true).await?;
            let offloads = ports.forward(record).await?;
            self.ledger.note_offloads(record.port_no(), offloads);
            Ok::<(), StepError>(())
        };
        let attached = attached.await;
        attached.map_err(|error| Again::Failed(failed("attach port again", &error)))
    }

    /// The interface has the addresses whatever became of the lease's own record.
    async fn adopt(self: &Arc<Self>, record: &Record) -> Result<(), AttachError> {
        if record.attachment.delegated_ipam.is_some() || record.attachment.addresses.is_empty() {
            return Ok(());
        }
        let (owner, addresses) = (record.owner(), record.addresses());
        self.blocking(move |inner| {
            let adopted = inner.deps.ipam.adopt(&owner, &addresses, inner.now());
            adopted.map_err(|source| AttachError::Lease { owner, source })
        })
        .await
    }
}

/// Why an attachment could not be attached again.
enum Again {
    /// It cannot be had again: it is undone.
    Lost(String),
    /// It stays on record.
    Failed(String),
}
