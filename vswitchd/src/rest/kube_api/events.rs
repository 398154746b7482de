//! Events, which nothing here records: who asks for them is answered that there are none.

use axum::Json;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::events_path::EventsPath;
use super::request::{Query, Shape};
use super::{ApiState, respond, table, watch};
use crate::objects::{ObjectList, StatusError};

/// Returns what discovery says of them.
pub(super) fn entry() -> Value {
    json!({"name": "events", "singularName": "event", "namespaced": true, "kind": "Event",
        "shortNames": ["ev"], "verbs": ["get", "list", "watch"]})
}

/// Answers a request.
pub(super) fn respond(
    state: &ApiState,
    path: &EventsPath,
    query: &Query,
    method: &Method,
    shape: Shape,
) -> Result<Response, StatusError> {
    if *method != Method::GET {
        return Err(respond::method_not_allowed());
    }
    if let Some(origin) = state.registry.origin() {
        let message = format!("events are recorded by {origin}: read them there");
        return Err(StatusError::plain(405, "MethodNotAllowed", message));
    }
    let api_version = match path.group {
        "" => "v1".to_owned(),
        group => format!("{group}/v1"),
    };
    let version = state.registry.current_version();
    if query.is_watch() {
        let bookmark = json!({"kind": "Event", "apiVersion": api_version, "metadata": {
            "resourceVersion": version.to_string(), "creationTimestamp": null,
            "annotations": {"k8s.io/initial-events-end": "true"}}});
        return Ok(watch::of_nothing(state, query, &bookmark));
    }
    if let Some(name) = &path.name {
        return Err(not_found(path.group, name));
    }
    let none = ObjectList {
        resource_version: version,
        items: Vec::new(),
        next: None,
        remaining: None,
    };
    let list = match shape {
        Shape::Objects => json!({"kind": "EventList", "apiVersion": api_version,
            "metadata": table::list_metadata(&none), "items": []}),
        Shape::Table => table::of_no_events(&none),
        Shape::Metadata => table::metadata_list(&none),
    };
    Ok(Json(list).into_response())
}

fn not_found(group: &str, name: &str) -> StatusError {
    let resource = match group {
        "" => "events".to_owned(),
        group => format!("events.{group}"),
    };
    StatusError {
        group: group.to_owned(),
        kind: "events".to_owned(),
        name: name.to_owned(),
        ..StatusError::plain(404, "NotFound", format!("{resource} {name:?} not found"))
    }
}
