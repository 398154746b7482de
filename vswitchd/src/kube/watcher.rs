//! One watcher: lists, then watches from there; lists again when the API server has forgotten
//! the version it is at.
//!
//! A watch is short, and the API server ends it by itself: one that outlives its time is dead, and
//! is noticed by that. Between two watches nothing is lost, since each begins at the version up to
//! which the one before told everything (bookmarks move it on).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant as TokioInstant;

use super::api_server::{ApiServer, Event, Events, KubeError};
use super::backoff::Backoff;
use super::health::Health;
use super::merge::{Heard, Seen, WatchReport};
use super::source::{Conversion, Source, sources};
use super::watched::Watched;
use crate::clock;
use crate::objects::{Resource, Scope, stripped};
use crate::supervise::{Beats, Ended};

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
    /// How often a better source of a kind is looked for while one of an older version is read.
    pub look_again: Duration,
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
            look_again: Duration::from_secs(300),
        }
    }
}

/// Whoever takes what watchers tell has ended.
struct Unheard;

/// A watcher.
pub(super) struct Watcher {
    api: ApiServer,
    watched: Watched,
    selector: Option<String>,
    settings: WatchSettings,
    health: Arc<Health>,
    told: mpsc::Sender<Heard>,
    /// Where the objects may be read from, the best first.
    sources: Vec<Source>,
    /// The one that they are read from.
    source: Source,
    conversion: Conversion,
}

impl Watcher {
    /// Prepares a watcher; `selector` is a field selector.
    pub(super) fn new(
        api: ApiServer,
        (watched, selector): (Watched, Option<String>),
        settings: WatchSettings,
        health: Arc<Health>,
        told: mpsc::Sender<Heard>,
    ) -> Self {
        let sources = sources(watched.resource());
        Self {
            source: sources[0],
            sources,
            api,
            watched,
            selector,
            settings,
            health,
            told,
            conversion: Conversion::default(),
        }
    }

    /// Watches until nobody listens any more.
    pub(super) async fn run(mut self, beat: Beats) -> Ended {
        match self.watch(&beat).await {
            Ok(never) => match never {},
            Err(Unheard) => Ended::Early("nobody listens any more"),
        }
    }

    /// What a watcher waits for is a network away: the [`Health`] says for how long.
    async fn watch(&mut self, beat: &Beats) -> Result<Infallible, Unheard> {
        let mut backoff = Backoff::new(self.settings.least_pause, self.settings.most_pause);
        loop {
            match beat.wait(self.list()).await {
                Ok((version, objects)) => {
                    let version = beat.wait(self.send_list(version, objects)).await?;
                    beat.wait(self.watch_on(version, &mut backoff)).await?;
                }
                Err(error) => beat.wait(self.fail(&error)).await?,
            }
            beat.wait(tokio::time::sleep(backoff.pause())).await;
        }
    }

    /// Lists everything, of the best source that there is.
    async fn list(&mut self) -> Result<(String, Vec<Seen>), KubeError> {
        match self.list_source().await {
            // Whoever may not read a kind is told so even where there is no such kind.
            Err(error)
                if error.is_not_found()
                    || (error.is_refused() && self.watched.is_an_addition()) =>
            {
                let Some(found) = self.find(&self.sources).await? else {
                    let kinds: Vec<String> = self.sources.iter().map(Source::to_string).collect();
                    let kinds = kinds.join(", ");
                    return Err(KubeError::NotServed { kinds });
                };
                if found == self.source {
                    return Err(error);
                }
                tracing::info!(kind = self.watched.name(), source = %found, "objects of a kind are read from another source of the API server");
                self.source = found;
                self.list_source().await
            }
            listed => listed,
        }
    }

    /// Returns the first of some sources that the API server serves.
    async fn find(&self, sources: &[Source]) -> Result<Option<Source>, KubeError> {
        for source in sources {
            if self.api.serves(source).await? {
                return Ok(Some(*source));
            }
        }
        Ok(None)
    }

    /// Returns whether the API server now serves a better source, which is then the one to read.
    async fn finds_better(&mut self) -> bool {
        let better = self.sources.iter().take_while(|one| **one != self.source);
        let better: Vec<Source> = better.copied().collect();
        let Ok(Some(found)) = self.find(&better).await else {
            return false;
        };
        tracing::info!(kind = self.watched.name(), source = %found, "objects of a kind are read from a better source, which the API server now has");
        self.source = found;
        true
    }

    /// Lists everything of the source, page by page, all of one version.
    async fn list_source(&mut self) -> Result<(String, Vec<Seen>), KubeError> {
        self.conversion.begin_anew();
        let mut objects = Vec::new();
        let mut next = None;
        loop {
            let selector = self.selector.as_deref();
            let list = self
                .api
                .list(&self.source, selector, self.settings.page, next);
            let page = list.await?;
            for object in page.items {
                objects.extend(self.seen(object).0);
            }
            if page.metadata.next.is_empty() {
                return Ok((page.metadata.resource_version, objects));
            }
            next = Some(page.metadata.next);
        }
    }

    async fn send_list(&self, version: String, objects: Vec<Seen>) -> Result<String, Unheard> {
        let number = version.parse().unwrap_or(0);
        self.send(
            clock::instant(),
            WatchReport::Listed(self.watched, number, objects),
        )
        .await?;
        self.health.listed(self.watched);
        self.health.heard(self.watched, 0);
        Ok(version)
    }

    /// Watches from a version for as long as the API server knows it.
    async fn watch_on(
        &mut self,
        mut version: String,
        backoff: &mut Backoff,
    ) -> Result<(), Unheard> {
        let mut looked = TokioInstant::now();
        loop {
            if self.source != self.sources[0] && looked.elapsed() >= self.settings.look_again {
                looked = TokioInstant::now();
                if self.finds_better().await {
                    return Ok(());
                }
            }
            let begin = TokioInstant::now();
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
                        "version to watch from is no longer known to the API server; the kind is listed again"
                    );
                    return Ok(());
                }
                Err(error) => {
                    self.fail(&error).await?;
                    if error.is_of_content() || error.is_refused() {
                        return Ok(());
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Watches once, to the end of the watch.
    async fn watch_once(&mut self, version: &mut String) -> Result<Result<(), KubeError>, Unheard> {
        let (selector, lasts) = (self.selector.as_deref(), self.settings.watch_for);
        let mut events = match self.api.watch(&self.source, selector, version, lasts).await {
            Ok(events) => events,
            Err(error) => return Ok(Err(error)),
        };
        self.health.heard(self.watched, 0);
        let end = TokioInstant::now() + lasts + self.settings.grace;
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
        end: TokioInstant,
        events: &mut Events,
    ) -> Result<Option<Event>, KubeError> {
        match tokio::time::timeout_at(end, events.next()).await {
            Ok(event) => event,
            Err(_) => Err(events.silent(self.settings.watch_for + self.settings.grace)),
        }
    }

    async fn take(&mut self, event: Event, version: &mut String) -> Result<(), Unheard> {
        let heard = clock::instant();
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
        let (present, gone) = if is_gone {
            (Vec::new(), self.seen_gone(&object))
        } else {
            self.seen(object)
        };
        for seen in present {
            self.send(heard, WatchReport::Present(self.watched, seen))
                .await?;
        }
        for seen in gone {
            self.send(heard, WatchReport::Gone(self.watched, seen))
                .await?;
        }
        Ok(())
    }

    async fn send(&self, at: Instant, report: WatchReport) -> Result<(), Unheard> {
        let told = Heard { at, report };
        self.told.send(told).await.map_err(|_| Unheard)
    }

    async fn fail(&self, error: &KubeError) -> Result<(), Unheard> {
        let absence = error.absence();
        self.health.failed(self.watched, error.why(), absence);
        if absence.is_some_and(|absence| self.watched.is_dispensable(absence)) {
            self.send(clock::instant(), WatchReport::Absent(self.watched))
                .await?;
        }
        Ok(())
    }

    /// Returns what an object of the source means: what is there, and what is there no longer.
    fn seen(&mut self, object: Value) -> (Vec<Seen>, Vec<Seen>) {
        let Some(template) = self.id(&object) else {
            return Default::default();
        };
        let converted = self.conversion.present(&self.source, object);
        let present = converted.present.iter().map(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let object = stripped(self.watched.resource(), object);
            template.named(name, object)
        });
        let gone = converted.gone.iter();
        let gone = gone.map(|name| template.named(name, Value::Null));
        (present.collect(), gone.collect())
    }

    fn seen_gone(&mut self, object: &Value) -> Vec<Seen> {
        let Some(template) = self.id(object) else {
            return Vec::new();
        };
        let names = self.conversion.gone(&self.source, object);
        let gone = names.iter();
        gone.map(|name| template.named(name, Value::Null)).collect()
    }

    /// Finds the place of an object; one without a name is logged and left out.
    fn id(&self, object: &Value) -> Option<Template> {
        let (info, metadata) = (self.watched.resource().info(), &object["metadata"]);
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let needs_namespace = info.scope == Scope::Namespaced;
        if name.is_empty() || namespace.is_empty() == needs_namespace {
            let kind = info.kind;
            tracing::warn!(
                kind,
                namespace,
                name,
                "object has no name or no namespace and is left out"
            );
            return None;
        }
        Some(Template {
            resource: info.resource,
            namespace: namespace.to_owned(),
            version: text("resourceVersion").parse().unwrap_or(0),
        })
    }
}

/// What the objects that one object of a source means have in common.
struct Template {
    resource: Resource,
    namespace: String,
    version: u64,
}

impl Template {
    fn named(&self, name: &str, object: Value) -> Seen {
        Seen {
            id: (self.resource, self.namespace.clone(), name.to_owned()),
            version: self.version,
            object,
        }
    }
}

/// Moves the version on to that of an event.
fn advance(version: &mut String, object: &Value) {
    if let Some(newer) = object["metadata"]["resourceVersion"].as_str() {
        newer.clone_into(version);
    }
}
