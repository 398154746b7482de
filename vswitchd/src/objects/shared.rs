//! State that the registry shares with its watches and the feed.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::watch;

use super::shelf::Shelf;

/// So many changes may wait for the feed with the time at which they were heard.
const MAX_HEARD: usize = 4_096;

/// What watches and the feed share with the registry.
#[derive(Debug)]
pub(super) struct Shared {
    /// Guards objects and history; held for reading only as long as it takes to copy references.
    shelf: RwLock<Shelf>,
    /// The newest version; wakes watches.
    pub(super) newest: watch::Sender<u64>,
    /// When the changes were heard that the feed has not passed on: version and time.
    heard: Mutex<VecDeque<(u64, Instant)>>,
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
            heard: Mutex::default(),
        }
    }

    /// Wakes who waits for changes, the oldest of which was heard at a time.
    pub(super) fn wake(&self, version: u64, at: Instant) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest count: what waits longest is what is asked for.
        if heard.len() < MAX_HEARD {
            heard.push_back((version, at));
        }
        drop(heard);
        self.newest.send_replace(version);
    }

    /// Returns when the oldest change up to a version was heard, and forgets about all of them.
    pub(super) fn heard_first(&self, version: u64) -> Option<Instant> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first: Option<Instant> = None;
        while let Some((of, at)) = heard.front().copied()
            && of <= version
        {
            heard.pop_front();
            first = Some(first.map_or(at, |first| first.min(at)));
        }
        first
    }
}
