//! A registry that mirrors the objects of another API server: read here, written there.
//!
//! The watchers of `kube` tell it what there is; readers, watches and the feed see it as they see
//! the objects of a registry of its own. What is told is visible at once: the other server holds
//! it durably, [`super::LastKnown`] follows behind for the next start.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::shared::Shared;
use super::shelf::{ObjectChange, ObjectId, Shelf};
use super::{Registry, RegistryConfig, StatusError};
use crate::store::{Loss, MemoryStore};

/// Objects by their ids.
pub type Objects = BTreeMap<ObjectId, Arc<Value>>;

impl Registry {
    /// Returns a mirror of the API server at `origin` that begins with these objects. `losses` are
    /// those of the node's store.
    #[must_use]
    pub fn mirror_of(
        origin: &str,
        objects: Objects,
        config: RegistryConfig,
        losses: watch::Receiver<Arc<Vec<Loss>>>,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared::new(Shelf::new(objects, 1)));
        // Nothing is ever written through a mirror.
        let store = Arc::new(MemoryStore::default());
        let origin = Some(origin.to_owned());
        Arc::new(Self::with(shared, store, config, origin, losses))
    }

    /// Shows what the API server tells, in this order; an object that is told again as it is
    /// changes nothing. Returns the version at which all of it is visible.
    pub fn mirror(&self, told: Vec<(ObjectId, Option<Value>)>) -> u64 {
        let _writer = self.hold_writer();
        let mut shelf = self.shared().shelf_mut();
        let before = shelf.version();
        for (id, object) in told {
            let old = shelf.get(&id).cloned();
            if old.as_deref() == object.as_ref() {
                continue;
            }
            let change = ObjectChange {
                version: shelf.version() + 1,
                id,
                before: old,
                after: object.map(Arc::new),
            };
            shelf.apply(change);
        }
        let version = shelf.version();
        drop(shelf);
        if version != before {
            self.shared().wake(version);
        }
        version
    }

    /// Waits until `look` finds what it looks for; it is asked again after every change.
    pub async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let mut wakeups = self.wakeups();
        loop {
            wakeups.mark_unchanged();
            if let Some(found) = look(self) {
                return found;
            }
            if wakeups.changed().await.is_err() {
                // The sender lives in `self`, so there always is one.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the API server that this registry mirrors, if it does.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Refuses what only the API server itself can do.
    pub(super) fn own(&self) -> Result<(), StatusError> {
        let Some(origin) = &self.origin else {
            return Ok(());
        };
        let message = format!(
            "this switch only mirrors the objects of {origin}: change and watch them there"
        );
        Err(StatusError::plain(405, "MethodNotAllowed", message))
    }

    /// Waits for other writers; a mirror has none but the watchers.
    pub(super) fn writer(&self) -> Result<MutexGuard<'_, ()>, StatusError> {
        self.own()?;
        Ok(self.hold_writer())
    }

    pub(super) fn hold_writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
