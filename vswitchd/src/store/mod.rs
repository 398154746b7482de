//! Durable key-value records, and what becomes of them when a disk or a file fails.
//!
//! A write is acknowledged only when it is on the disk, twice. What is damaged is restored from
//! another copy; what has none is named, and kept in mind until it is written again.

#[cfg(test)]
mod crash_tests;
mod frame;
mod lock;
mod log_store;
mod loss;
mod memory;
mod recover;
mod sled_migration;
mod supervised;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use lock::StoreLock;
pub use log_store::{LogStore, make_private};
pub use loss::{Doubt, Loss};
pub use memory::MemoryStore;
pub use supervised::SupervisedStore;

/// A group of records with its own key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bucket {
    /// Schema version, resource version counter, daemon identity.
    Meta,
    /// IPAM leases and resting addresses.
    Leases,
    /// CNI attachments.
    Attachments,
    /// Flows of operators and orchestrators.
    AdminFlows,
    /// Objects of the standalone API, key `resource/namespace/name`.
    Objects,
    /// VM and mirror ports made over REST.
    Ports,
    /// Objects of a cluster as last heard of, key as of [`Self::Objects`].
    Cluster,
}

impl Bucket {
    const ALL: [Self; 7] = [
        Self::Meta,
        Self::Leases,
        Self::Attachments,
        Self::AdminFlows,
        Self::Objects,
        Self::Ports,
        Self::Cluster,
    ];

    /// Returns what one record of it is.
    const fn noun(self) -> &'static str {
        match self {
            Self::Meta => "setting",
            Self::Leases => "address",
            Self::Attachments => "attachment",
            Self::AdminFlows => "operator flow",
            Self::Objects => "object",
            Self::Ports => "VM or mirror port",
            Self::Cluster => "last known object",
        }
    }

    /// First byte of every key; never changes, or old stores would be misread.
    const fn byte(self) -> u8 {
        match self {
            Self::Meta => b'm',
            Self::Leases => b'l',
            Self::Attachments => b'a',
            Self::AdminFlows => b'f',
            Self::Objects => b'o',
            Self::Ports => b'p',
            Self::Cluster => b'k',
        }
    }
}

/// A record: key and value.
pub type Record = (Vec<u8>, Vec<u8>);

/// One write of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a record.
    Put(Bucket, Vec<u8>, Vec<u8>),
    /// Removes a record; removing an absent one is no error.
    Delete(Bucket, Vec<u8>),
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or database could not be opened.
    #[error("open store {dir}")]
    Open {
        /// Directory of the store.
        dir: String,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has it open.
    #[error("store {dir} is in use by another process")]
    Locked {
        /// Directory of the store.
        dir: String,
    },
    /// A record could not be read.
    #[error("read store bucket {bucket:?}")]
    Read {
        /// Where.
        bucket: Bucket,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A batch could not be made durable; nothing of it is promised.
    #[error("commit store batch")]
    Commit {
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A durable store; all calls block (call them from `spawn_blocking` or a plain thread).
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Returns a record.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns all records whose key starts with `prefix`, in key order.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<Record>, StoreError>;

    /// Makes all writes durable, or none.
    ///
    /// # Errors
    /// [`StoreError::Commit`].
    fn commit(&self, batch: Vec<Write>) -> Result<(), StoreError>;

    /// Whether the last commit reached the disk.
    ///
    /// # Errors
    /// A sentence that says what refuses.
    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    /// Returns what was acknowledged and is lost, now and later. A loss ends when its record is
    /// written again or when it is accepted.
    fn losses(&self) -> watch::Receiver<Arc<Vec<Loss>>> {
        watch::Sender::default().subscribe()
    }

    /// Ends losses that nobody will make good: those of one namespace, or all. Returns them.
    ///
    /// # Errors
    /// [`StoreError::Commit`].
    fn accept_loss(&self, namespace: Option<&str>) -> Result<Vec<Loss>, StoreError> {
        let _ = namespace;
        Ok(Vec::new())
    }
}

/// All records, in a form of which a copy costs nothing.
type Records = imbl::OrdMap<(Bucket, Arc<[u8]>), Arc<[u8]>>;

/// The store as it is shared.
pub type SharedStore = Arc<dyn Store>;
