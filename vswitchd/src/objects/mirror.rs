//! A registry that mirrors the objects of another API server: read here, written there.
//!
//! The watchers of `kube` tell it what there is; readers, watches and the feed see it as they see
//! the objects of a registry of its own. What is told is visible at once: the other server holds
//! it durably, [`super::LastKnown`] follows behind for the next start.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

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
    /// changes nothing. The oldest of it was heard at a time. Returns the version at which all of
    /// it is visible.
    pub fn mirror(&self, told: Vec<(ObjectId, Option<Value>)>, heard: Instant) -> u64 {
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
            self.shared().wake(version, heard);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::clock;
    use crate::objects::{Resource, feed};

    #[tokio::test]
    async fn changes_count_from_when_the_first_of_them_was_heard() {
        let config = RegistryConfig {
            node_name: "node-a".to_owned(),
            service_cidrs: Vec::new(),
            node_ports: 30_000..=32_767,
        };
        let (_, losses) = watch::channel(Arc::default());
        let mirror = Registry::mirror_of("http://hub", Objects::new(), config, losses);
        let mut feed = feed(&mirror);
        let namespace = |name: &str| {
            let id = (Resource::Namespace, String::new(), name.to_owned());
            vec![(id, Some(json!({"metadata": {"name": name}})))]
        };
        let now = clock::instant();
        let [first, second] = [3, 5].map(|ago| now - Duration::from_secs(ago));
        mirror.mirror(namespace("a"), first);
        mirror.mirror(namespace("b"), second);
        assert_eq!(feed.next().await.map(|changes| changes.len()), Some(2));
        assert_eq!(
            feed.heard(),
            Some(second),
            "it waited in front of the merge"
        );
        assert_eq!(feed.heard(), None);
        mirror.mirror(namespace("b"), first);
        mirror.mirror(namespace("c"), now);
        feed.next().await.unwrap();
        assert_eq!(feed.heard(), Some(now), "what was known changes nothing");
    }
}
