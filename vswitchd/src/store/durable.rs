//! The store's interface: reads, and commits that are durable when they return.

use std::sync::Arc;

use tokio::sync::watch;

use super::bucket::Bucket;
use super::error::StoreError;
use super::loss::Loss;
use super::record::{Record, Write};

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

/// The store as it is shared.
pub type SharedStore = Arc<dyn Store>;
