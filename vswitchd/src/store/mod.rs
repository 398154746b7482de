//! Durable key-value records (sled behind a narrow interface).
//!
//! A write is acknowledged only when it is on the disk.

#[cfg(test)]
mod crash_tests;
mod export;
mod memory;
mod record;
mod sled_store;
mod supervised;

use std::sync::Arc;

pub use memory::MemoryStore;
pub use sled_store::SledStore;
pub use supervised::SupervisedStore;

/// A group of records with its own key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// A record's checksum or schema is wrong.
    #[error("record {key:?} of store bucket {bucket:?} is damaged: {problem}")]
    Damaged {
        /// Where.
        bucket: Bucket,
        /// Which, as text.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// A durable store; all calls block (call them from `spawn_blocking` or a plain thread).
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Returns a record.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Damaged`].
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns all records whose key starts with `prefix`, in key order.
    ///
    /// # Errors
    /// [`StoreError::Read`]; damaged records are logged, set aside and left out.
    fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<Record>, StoreError>;

    /// Makes all writes durable, or none.
    ///
    /// # Errors
    /// [`StoreError::Commit`].
    fn commit(&self, batch: Vec<Write>) -> Result<(), StoreError>;
}

/// The store as it is shared.
pub type SharedStore = Arc<dyn Store>;
