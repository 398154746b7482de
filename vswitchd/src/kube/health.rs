//! How far each watcher is, for status, metrics and readiness. A change of state is logged once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::watcher::{WATCHED, Watched};
use crate::clock;
use crate::metrics::WatchFigures;
use crate::objects::LastKnown;

/// State of one watcher.
#[derive(Debug, Clone, Default)]
struct Watch {
    is_synced: bool,
    /// When it last heard from the API server, Unix seconds.
    heard_at: Option<u64>,
    error: Option<String>,
    events: u64,
    lists: u64,
    failures: u64,
}

impl Watch {
    const fn is_live(&self) -> bool {
        self.is_synced && self.error.is_none()
    }
}

/// Where the switch stands with its API server.
#[derive(Debug)]
pub struct Health {
    origin: String,
    /// When what the daemon began with was heard.
    last_known_at: Option<u64>,
    /// Guards the watchers' states; held for a moment each.
    watches: Mutex<[Watch; WATCHED.len()]>,
}

impl Health {
    /// Begins with what is known from the last run.
    pub(super) fn new(origin: &str, last_known: Option<&LastKnown>) -> Self {
        Self {
            origin: origin.to_owned(),
            last_known_at: last_known.map(|last| last.heard_at),
            watches: Mutex::default(),
        }
    }

    /// Every change is a single assignment, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, [Watch; WATCHED.len()]> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the address of the API server.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns whether every watcher has heard of everything and hears of changes.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.lock().iter().all(Watch::is_live)
    }

    /// Returns whether every watcher has heard of everything once since the start.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.lock().iter().all(|watch| watch.is_synced)
    }

    /// Returns whether what is in force, if anything, is known from the last run.
    #[must_use]
    pub const fn has_last_known(&self) -> bool {
        self.last_known_at.is_some()
    }

    /// Returns how long what is enforced may have been outdated; `None` if it is not, or nothing
    /// is known at all.
    #[must_use]
    pub fn stale_seconds(&self) -> Option<u64> {
        let since = self.stale_since()?;
        Some(clock::unix_seconds().saturating_sub(since))
    }

    fn stale_since(&self) -> Option<u64> {
        let watches = self.lock();
        let mut deaf = watches.iter().filter(|watch| !watch.is_live()).peekable();
        deaf.peek()?;
        deaf.map(|watch| {
            watch
                .heard_at
                .filter(|_| watch.is_synced)
                .or(self.last_known_at)
        })
        .min()
        .flatten()
    }

    /// Returns the errors that keep watchers from hearing, each once.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        let mut errors: Vec<String> = Vec::new();
        for error in self.lock().iter().filter_map(|watch| watch.error.clone()) {
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        errors
    }

    /// Returns the figures of all watchers.
    #[must_use]
    pub fn figures(&self) -> Vec<WatchFigures> {
        let watches = self.lock();
        let figures = WATCHED
            .iter()
            .zip(watches.iter())
            .map(|(watched, watch)| WatchFigures {
                kind: watched.name(),
                is_synced: watch.is_synced,
                is_live: watch.is_live(),
                events: watch.events,
                lists: watch.lists,
                failures: watch.failures,
            });
        figures.collect()
    }

    fn change(&self, watched: Watched, change: impl FnOnce(&mut Watch)) {
        let mut watches = self.lock();
        let was_live = watches.iter().all(Watch::is_live);
        let was_synced = watches.iter().all(|watch| watch.is_synced);
        change(&mut watches[watched.index()]);
        let is_live = watches.iter().all(Watch::is_live);
        let is_synced = watches.iter().all(|watch| watch.is_synced);
        drop(watches);
        let origin = &self.origin;
        if is_live && !was_live {
            let first = !was_synced && is_synced;
            tracing::info!(origin, first, "everything in the cluster is being watched");
        }
    }

    /// Everything was listed.
    pub(super) fn listed(&self, watched: Watched) {
        self.change(watched, |watch| {
            watch.lists += 1;
            watch.is_synced = true;
        });
    }

    /// The API server answered: the watcher hears.
    pub(super) fn heard(&self, watched: Watched, events: u64) {
        self.change(watched, |watch| {
            watch.heard_at = Some(clock::unix_seconds());
            watch.error = None;
            watch.events += events;
        });
    }

    /// The watcher hears nothing. Logged when that is news, or the reason is.
    pub(super) fn failed(&self, watched: Watched, error: String) {
        let is_news = {
            let watches = self.lock();
            !watches
                .iter()
                .any(|watch| watch.error.as_ref() == Some(&error))
        };
        if is_news {
            let origin = &self.origin;
            tracing::warn!(
                origin,
                error,
                "the API server is not heard; what is known stays in force"
            );
        }
        self.change(watched, |watch| {
            watch.failures += 1;
            watch.error = Some(error);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_live_when_every_watcher_has_listed_and_none_fails() {
        let health = Health::new("http://hub", None);
        for watched in WATCHED {
            assert!(!health.is_live());
            health.listed(watched);
            health.heard(watched, 0);
        }
        assert!(health.is_live() && health.is_synced());
        assert_eq!(health.stale_since(), None);
        health.failed(WATCHED[0], "connection refused".to_owned());
        health.failed(WATCHED[1], "connection refused".to_owned());
        assert!(!health.is_live() && health.is_synced());
        assert!(health.stale_since().is_some());
        assert_eq!(health.errors(), ["connection refused"]);
        health.heard(WATCHED[0], 1);
        health.heard(WATCHED[1], 1);
        assert!(health.is_live());
        assert_eq!(health.figures()[0].failures, 1);
    }

    #[test]
    fn what_is_known_from_the_last_run_is_stale_since_then() {
        let objects = crate::objects::Objects::new();
        let last = LastKnown {
            objects,
            heard_at: 7,
        };
        let health = Health::new("http://hub", Some(&last));
        assert_eq!(health.stale_since(), Some(7));
        health.failed(WATCHED[0], "no route".to_owned());
        assert_eq!(health.stale_since(), Some(7));
    }
}
