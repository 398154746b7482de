//! Records, and what a batch does to them.

use std::sync::Arc;

use super::bucket::Bucket;

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

/// All records, in a form of which a copy costs nothing.
pub(super) type Records = imbl::OrdMap<(Bucket, Arc<[u8]>), Arc<[u8]>>;
