//! Watches: a line of JSON an event, until the time is over, the client gone or the daemon stopping.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, interval_at, sleep_until};

use super::request::{Query, Shape, Target};
use super::version::version_of;
use super::{ApiState, events, table};
use crate::objects::{ObjectList, ResourceInfo, StatusError, Watch, WatchEvent, WatchOptions};

/// How often an idle watch gets a bookmark.
const BOOKMARKS_EVERY: Duration = Duration::from_secs(60);

/// What a running watch holds.
struct Running {
    watch: Watch,
    info: &'static ResourceInfo,
    shape: Shape,
    include_object: String,
    end: Instant,
    bookmarks: Option<Interval>,
    stop: tokio::sync::watch::Receiver<bool>,
    is_over: bool,
}

/// Starts a watch.
pub(super) fn respond(
    state: &ApiState,
    target: &Target,
    query: &Query,
    shape: Shape,
) -> Result<Response, StatusError> {
    let options = WatchOptions {
        selection: query.selection(),
        resource_version: query.version()?,
        send_initial_events: query.wants_initial_events(),
    };
    let namespace = target.namespace.as_deref();
    let watch = state
        .registry_of(target.info)
        .watch(target.info.resource, namespace, &options)?;
    // tokio's timers run on tokio's clock, which tests can steer.
    let start = Instant::now();
    let running = Running {
        watch,
        info: target.info,
        shape,
        include_object: query.include_object.clone(),
        end: start + query.watch_for(),
        bookmarks: query
            .wants_bookmarks()
            .then(|| interval_at(start + BOOKMARKS_EVERY, BOOKMARKS_EVERY)),
        stop: state.hooks.stop.clone(),
        is_over: false,
    };
    Ok(streamed(stream::unfold(running, async |mut running| {
        let line = running.next_line().await?;
        Some((line, running))
    })))
}

/// Returns an answer that goes on as long as there are lines.
fn streamed(lines: impl Stream<Item = String> + Send + 'static) -> Response {
    let lines = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, "application/json")], lines).into_response()
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

impl Running {
    async fn next_line(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        let event = tokio::select! {
            event = self.watch.next() => event?,
            () = tick(self.bookmarks.as_mut()) => self.watch.bookmark(),
            () = sleep_until(self.end) => return None,
            // An error means that the daemon is gone: the watch ends as well.
            _ = self.stop.wait_for(|stopped| *stopped) => return None,
        };
        let (kind, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark(object) => {
                return Some(line("BOOKMARK", &events::of_group(self.info, &object)));
            }
            WatchEvent::Error(status) => {
                self.is_over = true;
                return Some(line("ERROR", &status.to_value()));
            }
        };
        Some(line(kind, &self.shaped(&object)))
    }

    fn shaped<'a>(&self, object: &'a Arc<Value>) -> Cow<'a, Value> {
        Cow::Owned(match self.shape {
            Shape::Objects => return events::of_group(self.info, object),
            Shape::Metadata => table::metadata_of(object),
            Shape::Table => {
                let list = ObjectList {
                    resource_version: version_of(object),
                    items: vec![Arc::clone(object)],
                    next: None,
                    remaining: None,
                };
                table::of(self.info, &list, &self.include_object)
            }
        })
    }
}

/// Waits for the next bookmark; for ever if there are none.
async fn tick(bookmarks: Option<&mut Interval>) {
    match bookmarks {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
