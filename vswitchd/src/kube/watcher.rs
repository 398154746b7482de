//! One watcher: lists, then watches from there; lists again when the API server has forgotten
//! the version it is at.
//!
//! A watch is short, and the API server ends it by itself: one that outlives its time is dead, and
//! is noticed by that. Between two watches nothing is lost, since each begins at the version up to
//! which the one before told everything (bookmarks move it on).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::api_server::{ApiServer, Event, Events, KubeError};
use super::backoff::Backoff;
use super::health::Health;
use super::merge::{Seen, Told};
use crate::objects::{Resource, ResourceInfo, Scope, stripped};

/// What a watcher is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Watched {
    /// Pods of this node: few, and CNI ADD waits for them.
    OwnPods,
    /// All objects of a kind.
    All(Resource),
}

/// Every watcher there is.
pub(super) const WATCHED: [Watched; 7] = [
    Watched::OwnPods,
    Watched::All(Resource::Namespace),
    Watched::All(Resource::NetworkPolicy),
    Watched::All(Resource::Pod),
    Watched::All(Resource::Node),
    Watched::All(Resource::Service),
    Watched::All(Resource::EndpointSlice),
];

impl Watched {
    /// Returns its position in [`WATCHED`].
    pub(super) fn index(self) -> usize {
        WATCHED
            .iter()
            .position(|watched| *watched == self)
            .expect("WATCHED lists every watcher")
    }

    /// Names it, for logs and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OwnPods => "own_pods",
            Self::All(resource) => resource.info().plural,
        }
    }

    const fn resource(self) -> Resource {
        match self {
            Self::OwnPods => Resource::Pod,
            Self::All(resource) => resource,
        }
    }

    /// Returns whether it tells of objects of a kind.
    pub(super) fn covers(self, resource: Resource) -> bool {
        self.resource() == resource
    }

    /// Returns the other watcher that tells of the pods of this node.
    pub(super) fn other_of(self, resource: Resource) -> Option<Self> {
        match self {
            Self::OwnPods => Some(Self::All(Resource::Pod)),
            Self::All(_) if resource == Resource::Pod => Some(Self::OwnPods),
            Self::All(_) => None,
        }
    }
}

/// Times and sizes of watchers.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    /// After which the API server ends a watch.
    pub watch_for: Duration,
    /// How much later than that a watch counts as dead.
    pub grace: Duration,
    /// First pause after a failure.
    pub least_pause: Duration,
    /// Longest pause.
    pub most_pause: Duration,
    /// Objects of a page of a list.
    pub page: u32,
}

impl Default for WatchSettings {
    /// A connection that is dead or stalls is noticed within 45 seconds; each watcher asks the
    /// API server anew twice a minute.
    fn default() -> Self {
        Self {
            watch_for: Duration::from_secs(30),
            grace: Duration::from_secs(15),
            least_pause: Duration::from_millis(500),
            most_pause: Duration::from_secs(20),
            page: 500,
        }
    }
}

/// Whoever takes what watchers tell has ended.
struct Unheard;

/// A watcher.
pub(super) struct Watcher {
    pub(super) api: ApiServer,
    pub(super) watched: Watched,
    pub(super) selector: Option<String>,
    pub(super) settings: WatchSettings,
    pub(super) health: Arc<Health>,
    pub(super) told: mpsc::Sender<Told>,
}

impl Watcher {
    /// Watches until nobody listens any more.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(self.settings.least_pause, self.settings.most_pause);
        loop {
            match self.list().await {
                Ok((version, objects)) => {
                    let Ok(version) = self.tell_all(version, objects).await else {
                        return;
                    };
                    if self.watch_on(version, &mut backoff).await.is_err() {
                        return;
                    }
                }
                Err(error) => self.fail(&error),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    fn info(&self) -> &'static ResourceInfo {
        self.watched.resource().info()
    }

    /// Lists everything, page by page, all of one version.
    async fn list(&self) -> Result<(String, Vec<Seen>), KubeError> {
        let mut objects = Vec::new();
        let mut next = None;
        loop {
            let selector = self.selector.as_deref();
            let list = self
                .api
                .list(self.info(), selector, self.settings.page, next);
            let page = list.await?;
            objects.extend(page.items.iter().filter_map(|object| self.seen(object)));
            if page.metadata.next.is_empty() {
                return Ok((page.metadata.resource_version, objects));
            }
            next = Some(page.metadata.next);
        }
    }

    async fn tell_all(&self, version: String, objects: Vec<Seen>) -> Result<String, Unheard> {
        let number = version.parse().unwrap_or(0);
        self.tell(Told::Listed(self.watched, number, objects))
            .await?;
        self.health.listed(self.watched);
        self.health.heard(self.watched, 0);
        Ok(version)
    }

    /// Watches from a version for as long as the API server knows it.
    async fn watch_on(&self, mut version: String, backoff: &mut Backoff) -> Result<(), Unheard> {
        loop {
            let begin = Instant::now();
            match self.watch_once(&mut version).await? {
                Ok(()) => {
                    // A server that ends every watch at once must not be asked without a pause.
                    if begin.elapsed() < self.settings.least_pause {
                        tokio::time::sleep(backoff.pause()).await;
                    } else {
                        backoff.reset();
                    }
                }
                Err(error) if error.is_gone() => {
                    let (kind, version) = (self.watched.name(), version.as_str());
                    tracing::info!(
                        kind,
                        version,
                        "the version is no longer known; listing anew"
                    );
                    return Ok(());
                }
                Err(error) => {
                    self.fail(&error);
                    if error.is_of_content() {
                        return Ok(());
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Watches once, to the end of the watch.
    async fn watch_once(&self, version: &mut String) -> Result<Result<(), KubeError>, Unheard> {
        let (selector, lasts) = (self.selector.as_deref(), self.settings.watch_for);
        let mut events = match self.api.watch(self.info(), selector, version, lasts).await {
            Ok(events) => events,
            Err(error) => return Ok(Err(error)),
        };
        self.health.heard(self.watched, 0);
        let end = Instant::now() + lasts + self.settings.grace;
        loop {
            match self.next_before(end, &mut events).await {
                Ok(Some(event)) => self.take(event, version).await?,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    async fn next_before(
        &self,
        end: Instant,
        events: &mut Events,
    ) -> Result<Option<Event>, KubeError> {
        match tokio::time::timeout_at(end, events.next()).await {
            Ok(event) => event,
            Err(_) => Err(events.silent(self.settings.watch_for + self.settings.grace)),
        }
    }

    async fn take(&self, event: Event, version: &mut String) -> Result<(), Unheard> {
        let (object, is_gone) = match event {
            Event::Present(object) => (object, false),
            Event::Gone(object) => (object, true),
            Event::Bookmark(object) => {
                advance(version, &object);
                self.health.heard(self.watched, 0);
                return Ok(());
            }
        };
        advance(version, &object);
        self.health.heard(self.watched, 1);
        let Some(seen) = self.seen(&object) else {
            return Ok(());
        };
        let told = if is_gone {
            Told::Gone(self.watched, seen)
        } else {
            Told::Present(self.watched, seen)
        };
        self.tell(told).await
    }

    async fn tell(&self, told: Told) -> Result<(), Unheard> {
        self.told.send(told).await.map_err(|_| Unheard)
    }

    fn fail(&self, error: &KubeError) {
        self.health.failed(self.watched, error.why());
    }

    /// Strips an object; one without a name is logged and left out.
    fn seen(&self, object: &Value) -> Option<Seen> {
        let (info, metadata) = (self.info(), &object["metadata"]);
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let needs_namespace = info.scope == Scope::Namespaced;
        if name.is_empty() || namespace.is_empty() == needs_namespace {
            let kind = info.kind;
            tracing::warn!(
                kind,
                namespace,
                name,
                "an object without a place is left out"
            );
            return None;
        }
        Some(Seen {
            place: (info.resource, namespace.to_owned(), name.to_owned()),
            version: text("resourceVersion").parse().unwrap_or(0),
            object: stripped(info.resource, object),
        })
    }
}

/// Moves the version on to that of an event.
fn advance(version: &mut String, object: &Value) {
    if let Some(newer) = object["metadata"]["resourceVersion"].as_str() {
        newer.clone_into(version);
    }
}
