//! A store for tests: a map, a switch to make commits fail, and losses that it reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::store::{Bucket, Loss, Store, StoreError, Write};

type Records = BTreeMap<(Bucket, Vec<u8>), Vec<u8>>;

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    records: Mutex<Records>,
    fails: AtomicBool,
    losses: watch::Sender<Arc<Vec<Loss>>>,
}

impl MemoryStore {
    pub(crate) fn shared() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    pub(crate) fn lose(&self, loss: Loss) {
        self.losses.send_replace(Arc::new(vec![loss]));
    }

    pub(crate) fn keys(&self, bucket: Bucket) -> Vec<String> {
        let records = self.records.lock().unwrap();
        let keys = records.keys().filter(|(of, _)| *of == bucket);
        keys.map(|(_, key)| String::from_utf8_lossy(key).into_owned())
            .collect()
    }
}

impl Store for MemoryStore {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .records
            .lock()
            .unwrap()
            .get(&(bucket, key.to_vec()))
            .cloned())
    }

    fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let records = self.records.lock().unwrap();
        let found = records
            .iter()
            .filter(|((of, key), _)| *of == bucket && key.starts_with(prefix));
        Ok(found
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Commit {
                source: "disk full".into(),
            });
        }
        let mut records = self.records.lock().unwrap();
        for write in batch {
            match write {
                Write::Put(bucket, key, value) => records.insert((bucket, key), value),
                Write::Delete(bucket, key) => records.remove(&(bucket, key)),
            };
        }
        Ok(())
    }

    fn losses(&self) -> watch::Receiver<Arc<Vec<Loss>>> {
        self.losses.subscribe()
    }
}
