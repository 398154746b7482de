//! Puts shields of containers' interfaces back when somebody has removed them: a `flush
//! ruleset`, as firewall services do on reload, takes ours too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vswitch_api::IfName;

use super::record::{Kind, State};
use super::service::{Attachments, Inner};
use super::world::StepError;
use crate::errors::chain;
use crate::supervise::{Beats, Ended};

/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(15);

/// Keeps the shields in force until the daemon ends.
pub async fn keep_shields(attachments: Attachments, beat: Beats) -> Ended {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        beat.wait(tick.tick()).await;
        if let Err(error) = attachments.repair_shields().await {
            let error = chain(&error);
            tracing::error!(error, "shielding the interfaces of containers failed");
        }
    }
}

impl Attachments {
    /// Puts back the shields that are missing. That of an interface which is being made or
    /// removed is the business of whoever does so.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) async fn repair_shields(&self) -> Result<(), StepError> {
        let inner = &self.inner;
        let devices = &inner.deps.devices;
        let shielded = devices.shielded().await?;
        if inner.unshielded(&shielded).is_empty() {
            return Ok(());
        }
        let present = devices.present().await?;
        let mut guards = Vec::new();
        let mut missing = Vec::new();
        for (owner, ifname) in inner.unshielded(&shielded) {
            if present.contains(&ifname)
                && let Some(guard) = inner.locks.try_lock(owner)
            {
                guards.push(guard);
                missing.push(ifname);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            interfaces = missing.len(),
            "shields of containers' interfaces were gone; they are put back"
        );
        devices.shield_also(&missing).await
    }
}

impl Inner {
    fn unshielded(
        self: &Arc<Self>,
        shielded: &BTreeSet<IfName>,
    ) -> Vec<(crate::ipam::LeaseOwner, IfName)> {
        let pods = self.ledger.all().into_iter();
        pods.filter(|record| record.kind == Kind::Pod && record.state == State::Attached)
            .filter(|record| !shielded.contains(record.host_ifname()))
            .map(|record| (record.owner(), record.host_ifname().clone()))
            .collect()
    }
}
