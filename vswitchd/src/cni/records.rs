//! Attachment records: one per interface of a container, key `container_id/ifname`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vswitch_api::cni::CniCall;

use crate::ipam::{AddressPlan, LeaseOwner};
use crate::state::Attachment;
use crate::store::{Bucket, SharedStore, StoreError, Write};

/// An attachment and what its teardown needs besides. Reads as a plain [`Attachment`] too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AttachmentRecord {
    #[serde(flatten)]
    pub(super) attachment: Attachment,
    /// Whether ADD came to its end; if not, a restart undoes it.
    pub(super) completed: bool,
    pub(super) plan: AddressPlan,
    /// For the DEL of a delegated IPAM plugin long after the ADD.
    pub(super) delegated: Option<DelegatedCall>,
}

/// The parts of the ADD that a delegated plugin's DEL must see again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DelegatedCall {
    pub(super) config: Value,
    pub(super) args: Option<String>,
    pub(super) path: Option<String>,
}

impl AttachmentRecord {
    pub(super) fn owner(&self) -> LeaseOwner {
        LeaseOwner {
            container_id: self.attachment.container_id.clone(),
            ifname: self.attachment.ifname.clone(),
        }
    }

    pub(super) fn gateways(&self) -> Vec<IpAddr> {
        self.plan.ips.iter().filter_map(|ip| ip.gateway).collect()
    }

    /// The call as the delegated plugin saw it at ADD.
    pub(super) fn delegated_call(&self) -> Option<(&str, CniCall)> {
        let plugin = self.attachment.delegated_ipam.as_deref()?;
        let delegated = self.delegated.as_ref()?;
        let call = CniCall {
            command: String::new(),
            container_id: Some(self.attachment.container_id.clone()),
            netns: Some(self.attachment.netns.display().to_string()),
            ifname: Some(self.attachment.ifname.to_string()),
            args: delegated.args.clone(),
            path: delegated.path.clone(),
            config: delegated.config.clone(),
        };
        Some((plugin, call))
    }
}

fn key(owner: &LeaseOwner) -> Vec<u8> {
    owner.to_string().into_bytes()
}

/// Returns the record; one that cannot be decoded counts as absent, so that DEL and a new
/// ADD can replace it.
pub(super) fn get(
    store: &SharedStore,
    owner: &LeaseOwner,
) -> Result<Option<AttachmentRecord>, StoreError> {
    let Some(value) = store.get(Bucket::Attachments, &key(owner))? else {
        return Ok(None);
    };
    let decoded = serde_json::from_slice(&value);
    if let Err(error) = &decoded {
        tracing::warn!(%owner, %error, "attachment record is damaged");
    }
    Ok(decoded.ok())
}

/// Returns all records, and what could not be read.
pub(super) fn all(store: &SharedStore) -> Result<(Vec<AttachmentRecord>, Vec<String>), StoreError> {
    let mut records = Vec::new();
    let mut damaged = Vec::new();
    for (key, value) in store.scan(Bucket::Attachments, b"")? {
        match serde_json::from_slice(&value) {
            Ok(record) => records.push(record),
            Err(error) => {
                damaged.push(format!(
                    "attachment {:?}: {error}",
                    String::from_utf8_lossy(&key)
                ));
            }
        }
    }
    Ok((records, damaged))
}

pub(super) fn put(store: &SharedStore, record: &AttachmentRecord) -> Result<(), StoreError> {
    let value = serde_json::to_vec(record).map_err(|source| StoreError::Commit {
        source: source.into(),
    })?;
    store.commit(vec![Write::Put(
        Bucket::Attachments,
        key(&record.owner()),
        value,
    )])
}

pub(super) fn delete(store: &SharedStore, owner: &LeaseOwner) -> Result<(), StoreError> {
    store.commit(vec![Write::Delete(Bucket::Attachments, key(owner))])
}
