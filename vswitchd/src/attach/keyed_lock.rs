//! One async mutex per key, made when asked for and forgotten when free.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Serialises calls with the same key; calls with different keys do not wait for each other.
#[derive(Debug)]
pub(super) struct KeyedLocks<K> {
    /// Only for the moment of a look-up; never held while waiting for a key.
    locks: Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>,
}

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self {
            locks: Mutex::default(),
        }
    }
}

impl<K: Hash + Eq + Clone> KeyedLocks<K> {
    /// Waits until nobody else holds the key.
    pub(super) async fn lock(&self, key: K) -> OwnedMutexGuard<()> {
        self.of(key).lock_owned().await
    }

    /// Takes the key if nobody holds it.
    pub(super) fn try_lock(&self, key: K) -> Option<OwnedMutexGuard<()>> {
        self.of(key).try_lock_owned().ok()
    }

    /// Says whether somebody holds the key, or waits for it.
    pub(super) fn is_held(&self, key: &K) -> bool {
        let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.get(key).is_some_and(is_in_use)
    }

    /// Returns the keys that somebody holds, or waits for.
    pub(super) fn held(&self) -> Vec<K> {
        let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let held = locks.iter().filter(|(_, lock)| is_in_use(lock));
        held.map(|(key, _)| key.clone()).collect()
    }

    fn of(&self, key: K) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| is_in_use(lock));
        locks.entry(key).or_default().clone()
    }
}

/// A guard and a waiter each hold a count: one count means that nobody is there.
fn is_in_use(lock: &Arc<tokio::sync::Mutex<()>>) -> bool {
    Arc::strong_count(lock) > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn same_key_waits_and_free_keys_are_forgotten() {
        let locks = KeyedLocks::default();
        let held = locks.lock("a").await;
        assert!(locks.try_lock("a").is_none());
        assert!(locks.try_lock("b").is_some());
        assert!(locks.is_held(&"a") && !locks.is_held(&"b"));
        assert_eq!(locks.held(), ["a"]);
        drop(held);
        assert!(locks.try_lock("a").is_some());
        drop(locks.lock("c").await);
        assert_eq!(locks.locks.lock().unwrap().len(), 1);
    }
}
