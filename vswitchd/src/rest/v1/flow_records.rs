//! `GET /v1/flow-records`: what was denied, or which connections were allowed, as a list or as events
//! while it happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;
use vswitch_api::v1::FlowRecords;

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode};
use super::events::{EVENTS, KEEP_ALIVE, event};
use super::read::read;
use crate::clock;
use crate::flow_records::{EndFilter, FlowQuery, Round, parse_time};
use crate::supervise;

/// How often who follows hears that the connection lives.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Most records that can be asked for.
const MAX_LIMIT: usize = 100_000;

/// Query of `GET /v1/flow-records`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowRecordsQuery {
    /// Only what was dropped, not what policies in audit would deny.
    #[serde(default)]
    denied: bool,
    /// Connections that were allowed and have ended, instead of what was denied; those that have
    /// begun as well, if that is recorded. While somebody follows, all of them are told.
    #[serde(default)]
    allowed: bool,
    /// Who began: `namespace/pod`, `namespace/`, an address, a network, or `node`.
    from: Option<String>,
    /// With whom.
    to: Option<String>,
    /// Either.
    with: Option<String>,
    /// A policy that denied or allowed, as `GET /v1/policies` or a record names it.
    policy: Option<String>,
    /// Destination port, behind Services.
    port: Option<u16>,
    /// RFC 3339; `HH:MM` or `HH:MM:SS` of the last 24 hours, UTC; or `15m`, `2h`, `1d` ago.
    since: Option<String>,
    /// As `since`.
    until: Option<String>,
    /// Most records, the latest first: 1000 by default, at most 100000.
    limit: Option<usize>,
}

impl FlowRecordsQuery {
    fn resolve(self, now: u64) -> Result<FlowQuery, String> {
        let end = |name: &str, text: Option<String>| -> Result<Option<EndFilter>, String> {
            let parsed = text.map(|text| text.parse()).transpose();
            parsed.map_err(|problem: String| format!("{name}: {problem}"))
        };
        let time = |name: &str, text: Option<String>| {
            let parsed = text.map(|text| parse_time(&text, now)).transpose();
            parsed.map_err(|problem| format!("{name}: {problem}"))
        };
        let limit = self.limit.unwrap_or(FlowQuery::default().limit);
        if limit > MAX_LIMIT {
            return Err(format!("limit: {limit} is more than {MAX_LIMIT}"));
        }
        if self.denied && self.allowed {
            return Err("denied and allowed exclude each other".to_owned());
        }
        Ok(FlowQuery {
            denied: self.denied,
            allowed: self.allowed,
            from: end("from", self.from)?,
            to: end("to", self.to)?,
            with: end("with", self.with)?,
            policy: self.policy,
            port: self.port,
            since: time("since", self.since)?,
            until: time("until", self.until)?,
            limit,
        })
    }
}

/// Lists what was denied, or which connections were allowed, the latest first; with `Accept: text/event-stream` tells of it while it
/// happens: an event `record` for what was counted of each kind in a second, an event `missed` with
/// a number of seconds if who follows is too slow.
#[utoipa::path(get, path = "/v1/flow-records", params(FlowRecordsQuery),
    responses((status = 200, content((FlowRecords = "application/json"), (String = "text/event-stream"))),
        (status = 400)))]
pub(super) async fn list(
    State(state): State<RestState>,
    headers: HeaderMap,
    query: Result<Query<FlowRecordsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let wrong = |problem: String| ApiError::new(ErrorCode::InvalidRequest, problem);
    let Query(query) = query.map_err(|error| wrong(error.body_text()))?;
    let query = query.resolve(clock::unix_seconds()).map_err(wrong)?;
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains(EVENTS)) {
        return Ok(follow(state, query).await);
    }
    Ok(read(state, move |state| state.flow_log.query(&query)).await)
}

/// Who follows.
struct Follower {
    records: Receiver<Arc<Round>>,
    query: FlowQuery,
    stop: watch::Receiver<bool>,
}

async fn follow(state: RestState, query: FlowQuery) -> Response {
    let records = if query.allowed {
        let log = Arc::clone(&state.flow_log);
        supervise::blocking(move || log.subscribe_allowed()).await
    } else {
        state.flow_log.subscribe()
    };
    let follower = Follower {
        records,
        query,
        stop: state.stopping.clone(),
    };
    // Says at once that it listens.
    let events = stream::unfold(
        (follower, Some(KEEP_ALIVE.to_owned())),
        async |(mut of, first)| {
            let event = match first {
                Some(first) => first,
                None => of.next().await?,
            };
            Some((Ok::<_, Infallible>(event), (of, None)))
        },
    );
    ([(CONTENT_TYPE, EVENTS)], Body::from_stream(events)).into_response()
}

impl Follower {
    async fn next(&mut self) -> Option<String> {
        loop {
            let heard = tokio::select! {
                heard = self.records.recv() => heard,
                () = tokio::time::sleep(KEEP_ALIVE_EVERY) => return Some(KEEP_ALIVE.to_owned()),
                // An error means that the daemon is gone: the events end as well.
                _ = self.stop.wait_for(|stopped| *stopped) => return None,
            };
            match heard {
                Ok(round) => {
                    let wanted = round
                        .records
                        .iter()
                        .filter(|record| self.query.wants(&record.of));
                    let events: String = wanted
                        .map(|record| event("record", &json!(record)))
                        .collect();
                    if !events.is_empty() {
                        return Some(events);
                    }
                }
                Err(RecvError::Lagged(seconds)) => {
                    return Some(event("missed", &json!({ "seconds": seconds })));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
