//! A store whose commits are watched: one that hangs or panics is a switch that cannot keep what
//! it is about to acknowledge.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Bucket, Loss, Record, Store, StoreError, Write};
use crate::supervise::{Part, Queue, Supervisor};

/// A store under supervision.
#[derive(Debug)]
pub struct SupervisedStore<S> {
    store: S,
    work: Queue,
}

impl<S: Store> SupervisedStore<S> {
    /// Watches a store.
    #[must_use]
    pub fn new(store: S, supervisor: &Supervisor) -> Self {
        Self {
            store,
            work: supervisor.work(Part::Store),
        }
    }
}

impl<S: Store> Store for SupervisedStore<S> {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.work.run(|| self.store.get(bucket, key))
    }

    fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<Record>, StoreError> {
        self.work.run(|| self.store.scan(bucket, prefix))
    }

    fn commit(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        self.work.run(|| self.store.commit(batch))
    }

    fn health(&self) -> Result<(), String> {
        self.store.health()
    }

    fn losses(&self) -> watch::Receiver<Arc<Vec<Loss>>> {
        self.store.losses()
    }

    fn accept_loss(&self, namespace: Option<&str>) -> Result<Vec<Loss>, StoreError> {
        self.work.run(|| self.store.accept_loss(namespace))
    }
}
