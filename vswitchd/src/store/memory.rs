//! A store that forgets: for tests and for judging manifests without a daemon.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Bucket, Record, Store, StoreError, Write};

type Records = BTreeMap<(Bucket, Vec<u8>), Vec<u8>>;

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// Guards all records; a batch is applied under one lock and so is atomic.
    records: Mutex<Records>,
}

impl Store for MemoryStore {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.get(&(bucket, key.to_vec())).cloned())
    }

    fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<Record>, StoreError> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let from = (bucket, prefix.to_vec());
        let within = records
            .range(from..)
            .take_while(|((found, key), _)| *found == bucket && key.starts_with(prefix));
        Ok(within
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for write in batch {
            match write {
                Write::Put(bucket, key, value) => records.insert((bucket, key), value),
                Write::Delete(bucket, key) => records.remove(&(bucket, key)),
            };
        }
        Ok(())
    }
}
