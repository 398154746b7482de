//! Durable key-value records, and what becomes of them when a disk or a file fails.
//!
//! A write is acknowledged only when it is on the disk, twice. What is damaged is restored from
//! another copy; what has none is named, and kept in mind until it is written again.

mod bucket;
#[cfg(test)]
mod crash_tests;
mod durable;
mod error;
mod frame;
mod lock;
mod log_store;
mod loss;
mod memory;
mod record;
mod recover;
mod sled_migration;
mod supervised;
#[cfg(test)]
mod tests;

pub use bucket::Bucket;
pub use durable::{SharedStore, Store};
pub use error::StoreError;
pub use lock::StoreLock;
pub use log_store::{LogStore, make_private};
pub use loss::{Doubt, Loss, ObjectsFrom};
pub use memory::MemoryStore;
pub use record::{Record, Write};
pub use supervised::SupervisedStore;

use record::Records;
