//! GC: the runtime lists the attachments it knows; the others of this network go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use vswitch_api::cni::{CniCall, CniCode, CniCommand, CniFailure};

use super::netconf::NetConf;
use super::service::Inner;
use super::teardown::Reached;
use super::world::{AttachHost, PodDirectory, SwitchPorts};
use super::{failure, records};
use crate::ipam::{DelegateError, LeaseOwner};

impl<H: AttachHost, P: SwitchPorts, D: PodDirectory> Inner<H, P, D> {
    pub(super) async fn gc(self: &Arc<Self>, call: &CniCall) -> Result<(), CniFailure> {
        let conf = NetConf::parse(&call.config, &BTreeMap::new())?;
        let valid = valid_attachments(&call.config)?;
        let mut problems = self.release_invalid(&conf.network, &valid).await?;
        problems.extend(self.release_lost_leases().await.err());
        if let Some(plugin) = conf.delegated_ipam {
            match self.deps.delegate.run(&plugin, CniCommand::Gc, call).await {
                Ok(_) => {}
                // Plugins of earlier specifications do not know the command.
                Err(DelegateError::Failed { source, .. })
                    if source.code == CniCode::InvalidEnvironment.number() => {}
                Err(error) => problems.push(failure::chain(&error)),
            }
        }
        failure::of_problems("GC", &problems)
    }

    async fn release_invalid(
        self: &Arc<Self>,
        network: &str,
        valid: &BTreeSet<(String, String)>,
    ) -> Result<Vec<String>, CniFailure> {
        let listed = self.blocking(|inner| {
            records::all(&inner.deps.store).map_err(|error| failure::of_store(&error))
        });
        let (listed, mut problems) = listed.await?;
        for record in listed
            .into_iter()
            .filter(|record| record.attachment.network == network)
        {
            let owner = record.owner();
            if valid.contains(&(owner.container_id.clone(), owner.ifname.to_string())) {
                continue;
            }
            // Who holds the lock is being added or deleted this moment: not garbage.
            let Some(_guard) = self.locks.try_lock(owner.clone()) else {
                continue;
            };
            // Before the lock it may have been deleted and added anew.
            let read = self.blocking(move |inner| {
                records::get(&inner.deps.store, &owner).map_err(|error| failure::of_store(&error))
            });
            let is_same = |now: &records::AttachmentRecord| {
                now.attachment.port_no == record.attachment.port_no
            };
            match read.await {
                Ok(now) if now.as_ref().is_some_and(is_same) => {
                    problems.extend(self.teardown(&record, Reached::Port).await);
                }
                Ok(_) => {}
                Err(failure) => problems.push(failure.to_string()),
            }
        }
        Ok(problems)
    }

    /// Releases leases that no record knows: of an ADD that ended between the two.
    pub(super) async fn release_lost_leases(self: &Arc<Self>) -> Result<(), String> {
        let _gate = self.lease_gate.write().await;
        let released = self.blocking(|inner| {
            let (known, damaged) =
                records::all(&inner.deps.store).map_err(|error| failure::of_store(&error))?;
            // Whose record is unreadable may still use its address.
            if damaged.is_empty() {
                let owners: BTreeSet<LeaseOwner> = known.iter().map(|r| r.owner()).collect();
                let released = inner.deps.ipam.retain(&owners, inner.now());
                released.map_err(|error| failure::of_ipam(&error))?;
            }
            Ok(())
        });
        released.await.map_err(|failure| failure.to_string())
    }
}

/// Pairs of container id and interface name. Its absence is an error and not an empty list,
/// which would release everything.
fn valid_attachments(config: &Value) -> Result<BTreeSet<(String, String)>, CniFailure> {
    let bad = || {
        let msg =
            "configuration key cni.dev/valid-attachments is not a list of containerID and ifname";
        CniFailure::new(CniCode::InvalidConfig, msg)
    };
    // libcni writes the second name too, that of the drafts of 1.1.0.
    let listed = config
        .get("cni.dev/valid-attachments")
        .or_else(|| config.get("cni.dev/attachments"));
    let pair = |entry: &Value| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok((
            text("containerID").ok_or_else(bad)?,
            text("ifname").ok_or_else(bad)?,
        ))
    };
    listed
        .and_then(Value::as_array)
        .ok_or_else(bad)?
        .iter()
        .map(pair)
        .collect()
}
