//! State that the registry shares with its watches and the feed.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::shelf::Shelf;

/// What watches and the feed share with the registry.
#[derive(Debug)]
pub(super) struct Shared {
    /// Guards objects and history; held for reading only as long as it takes to copy references.
    shelf: RwLock<Shelf>,
    /// The newest version; wakes watches.
    pub(super) newest: watch::Sender<u64>,
}

impl Shared {
    /// Every change to the shelf is a single call, so a panic elsewhere leaves it whole.
    pub(super) fn shelf(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the one writer.
    pub(super) fn shelf_mut(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new(shelf: Shelf) -> Self {
        Self {
            newest: watch::Sender::new(shelf.version()),
            shelf: RwLock::new(shelf),
        }
    }

    /// Wakes who waits for changes.
    pub(super) fn wake(&self, version: u64) {
        self.newest.send_replace(version);
    }
}
