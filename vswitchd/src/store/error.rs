//! Errors of the store.

use super::bucket::Bucket;

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
