//! A running watch: what existed when it began, then every change, through a selection.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::selectors::Selector;
use super::shared::Shared;
use super::shelf::{ObjectChange, Shelf};
use super::{Resource, StatusError};

/// A change as a watch reports it.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are the API's")]
pub enum WatchEvent {
    Added(Arc<Value>),
    Modified(Arc<Value>),
    Deleted(Arc<Value>),
    /// An object of the watched kind with nothing but its resourceVersion.
    Bookmark(Arc<Value>),
    /// A `Status`, after which the watch ends (410 when the reader fell too far behind).
    Error(StatusError),
}

/// What a watch is about.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
}

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    wakeups: watch::Receiver<u64>,
    scope: Scope,
    pending: VecDeque<WatchEvent>,
    /// Version up to which changes were looked at.
    seen: u64,
    is_over: bool,
}

impl Watch {
    /// Starts behind `version`, with `pending` before everything else.
    pub(super) fn new(
        shared: Arc<Shared>,
        wakeups: watch::Receiver<u64>,
        scope: Scope,
        pending: VecDeque<WatchEvent>,
        version: u64,
    ) -> Self {
        Self {
            shared,
            wakeups,
            scope,
            pending,
            seen: version,
            is_over: false,
        }
    }

    /// Waits for the next event; `None` when the watch has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            // The sender lives in `shared`, so this cannot fail as long as the watch does.
            self.wakeups
                .wait_for(|version| *version > self.seen)
                .await
                .ok()?;
            let shared = Arc::clone(&self.shared);
            self.collect(&shared.shelf());
        }
    }

    /// Returns a bookmark of the version up to which everything was reported.
    #[must_use]
    pub fn bookmark(&self) -> WatchEvent {
        bookmark(self.scope.resource, self.seen, false)
    }

    fn collect(&mut self, shelf: &Shelf) {
        let Some(changes) = shelf.changes_since(self.seen) else {
            self.pending
                .push_back(WatchEvent::Error(StatusError::expired(self.seen)));
            self.is_over = true;
            return;
        };
        let events = changes.filter_map(|change| self.scope.event(change));
        self.pending.extend(events);
        self.seen = shelf.version();
    }
}

impl Scope {
    /// Returns whether an object at this place is selected.
    pub(super) fn covers(&self, namespace: &str, object: &Value) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|wanted| wanted == namespace)
            && self.selector.matches(object)
    }

    /// A change that moves an object into or out of the selection is an addition or deletion.
    fn event(&self, change: &ObjectChange) -> Option<WatchEvent> {
        let (resource, namespace, _) = &change.id;
        if *resource != self.resource {
            return None;
        }
        let covered = |object: &Option<Arc<Value>>| {
            object
                .as_ref()
                .filter(|object| self.covers(namespace, object))
                .cloned()
        };
        match (covered(&change.before), covered(&change.after)) {
            (None, None) => None,
            (None, Some(after)) => Some(WatchEvent::Added(after)),
            (Some(_), Some(after)) => Some(WatchEvent::Modified(after)),
            (Some(before), None) => {
                // The last state, with the version at which the object left.
                let mut gone = change.after.as_deref().unwrap_or(&before).clone();
                gone["metadata"]["resourceVersion"] = json!(change.version.to_string());
                Some(WatchEvent::Deleted(Arc::new(gone)))
            }
        }
    }
}

/// Returns a bookmark; with `initial` it ends the initial events of `sendInitialEvents`.
pub(super) fn bookmark(resource: Resource, version: u64, initial: bool) -> WatchEvent {
    let info = resource.info();
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if initial {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    WatchEvent::Bookmark(Arc::new(json!({
        "kind": info.kind, "apiVersion": info.api_version(), "metadata": metadata,
    })))
}
