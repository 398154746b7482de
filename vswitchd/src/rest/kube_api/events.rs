//! Events: read here, written by the daemon alone.

use std::borrow::Cow;

use axum::http::Method;
use serde_json::{Value, json};

use super::{ApiState, respond};
use crate::objects::{Resource, ResourceInfo, StatusError};

/// Fields of core/v1 that `events.k8s.io/v1` has under other names.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Returns what discovery says of them.
pub(super) fn entry(info: &ResourceInfo) -> Value {
    json!({"name": info.plural, "singularName": info.singular, "namespaced": true,
        "kind": info.kind, "shortNames": info.short_names, "verbs": ["get", "list", "watch"]})
}

/// Refuses what nobody can do with Events here.
pub(super) fn check(state: &ApiState, method: &Method) -> Result<(), StatusError> {
    if *method != Method::GET {
        return Err(respond::method_not_allowed());
    }
    let Some(origin) = state.registry.origin() else {
        return Ok(());
    };
    let message = format!("events are recorded by {origin}: read them there");
    Err(StatusError::plain(405, "MethodNotAllowed", message))
}

/// Returns an object as an API group has it: Events are kept as core/v1 has them.
pub(super) fn of_group<'a>(info: &ResourceInfo, object: &'a Value) -> Cow<'a, Value> {
    if info.resource != Resource::Event || info.group.is_empty() {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    if object.get("apiVersion").is_some() {
        object["apiVersion"] = json!(info.api_version());
    }
    if let Some(fields) = object.as_object_mut() {
        for (core, renamed) in RENAMED {
            if let Some(value) = fields.remove(core) {
                fields.insert(renamed.to_owned(), value);
            }
        }
    }
    Cow::Owned(object)
}
