//! Parsing of requests: path, query, headers, body.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::Value;

use super::respond::{not_acceptable, unsupported_media};
use crate::objects::{
    EVENTS, FieldValidation, Page, PageStart, PatchKind, RESOURCES, ResourceInfo, Scope, Selection,
    StatusCause, StatusError, WriteOptions, from_protobuf,
};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) info: &'static ResourceInfo,
    /// `None` for cluster-scoped resources and for all namespaces.
    pub(super) namespace: Option<String>,
    /// `None` for the collection.
    pub(super) name: Option<String>,
    pub(super) is_status: bool,
}

/// A path below a group and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    Target(Target),
    Unknown,
}

/// Takes a path apart; `rest` is what follows the version.
pub(super) fn parse_path(group: &str, version: &str, rest: &str) -> Path {
    let parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    let (namespace, parts) = match parts.as_slice() {
        ["namespaces", namespace, plural, rest @ ..] if *plural != "status" => {
            (Some((*namespace).to_owned()), [&[*plural], rest].concat())
        }
        all => (None, all.to_vec()),
    };
    let Some(plural) = parts.first() else {
        return Path::Unknown;
    };
    let known = |info: &&ResourceInfo| {
        info.group == group && info.version == version && info.plural == *plural
    };
    let Some(info) = RESOURCES.iter().chain(&EVENTS).find(known) else {
        return Path::Unknown;
    };
    let (name, is_status) = match parts.get(1..).unwrap_or_default() {
        [] => (None, false),
        [name] => (Some((*name).to_owned()), false),
        [name, "status"] if info.has_status => (Some((*name).to_owned()), true),
        _ => return Path::Unknown,
    };
    let namespaced = info.scope == Scope::Namespaced;
    // One object of a namespaced resource is only there in its namespace.
    if namespace.is_some() != namespaced && (namespace.is_some() || name.is_some()) {
        return Path::Unknown;
    }
    Path::Target(Target {
        info,
        namespace,
        name,
        is_status,
    })
}

/// Length of a watch that asks for none.
const DEFAULT_WATCH_SECONDS: u64 = 1_800;

/// Longest watch: a client that wants more watches again.
const MAX_WATCH_SECONDS: u64 = 86_400;

/// Query parameters; unknown ones are ignored, as the API server does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Query {
    pub(super) label_selector: String,
    pub(super) field_selector: String,
    resource_version: String,
    watch: String,
    allow_watch_bookmarks: String,
    send_initial_events: String,
    timeout_seconds: Option<u64>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    page_start: String,
    field_validation: String,
    dry_run: String,
    field_manager: String,
    force: String,
    pub(super) include_object: String,
}

fn is_true(text: &str) -> bool {
    matches!(text, "1" | "true" | "True")
}

impl Query {
    pub(super) fn selection(&self) -> Selection {
        Selection {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
        }
    }

    pub(super) fn is_watch(&self) -> bool {
        is_true(&self.watch)
    }

    pub(super) fn wants_bookmarks(&self) -> bool {
        is_true(&self.allow_watch_bookmarks)
    }

    pub(super) fn wants_initial_events(&self) -> bool {
        is_true(&self.send_initial_events)
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run == "All"
    }

    /// Returns the version a watch begins behind.
    pub(super) fn version(&self) -> Result<Option<u64>, StatusError> {
        if self.resource_version.is_empty() {
            return Ok(None);
        }
        let parsed = self.resource_version.parse().map(Some);
        parsed.map_err(|_| {
            let text = &self.resource_version;
            StatusError::bad_request(format!("resourceVersion: Invalid value: {text:?}"))
        })
    }

    /// Returns how long a watch is to last. What no clock can count is as long as any watch may be.
    pub(super) fn watch_for(&self) -> Duration {
        let seconds = self.timeout_seconds.unwrap_or(DEFAULT_WATCH_SECONDS);
        Duration::from_secs(seconds.min(MAX_WATCH_SECONDS))
    }

    /// Returns which page of a list is wanted.
    pub(super) fn page(&self) -> Result<Page, StatusError> {
        let limit = self.limit.unwrap_or(0);
        if self.page_start.is_empty() {
            return Ok(Page { limit, start: None });
        }
        let start = PageStart::from_token(&self.page_start).ok_or_else(|| {
            let token = &self.page_start;
            StatusError::bad_request(format!("continue: Invalid value: {token:?}"))
        })?;
        if !matches!(self.resource_version.as_str(), "" | "0") {
            let message = "specifying resource version is not allowed when using continue";
            return Err(StatusError::bad_request(message.to_owned()));
        }
        Ok(Page {
            limit,
            start: Some(start),
        })
    }

    /// Returns the options of a write.
    ///
    /// # Errors
    /// 400 and 422 for a value that the API server would refuse.
    pub(super) fn write_options(
        &self,
        headers: &HeaderMap,
        is_status: bool,
        is_apply: bool,
    ) -> Result<WriteOptions, StatusError> {
        self.check_manager(is_apply)?;
        let field_validation = match self.field_validation.as_str() {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                let message = format!("fieldValidation: Unsupported value: {other:?}");
                return Err(StatusError::bad_request(message));
            }
        };
        Ok(WriteOptions {
            field_validation,
            dry_run: self.is_dry_run(),
            status: is_status,
            manager: match self.field_manager.as_str() {
                "" => program(headers),
                manager => manager.to_owned(),
            },
            force: is_true(&self.force),
        })
    }

    /// What the API server asks of fieldManager and force (`ValidatePatchOptions`).
    fn check_manager(&self, is_apply: bool) -> Result<(), StatusError> {
        let manager = &self.field_manager;
        let why = if is_apply && manager.is_empty() {
            "fieldManager: Required value: is required for apply patch".to_owned()
        } else if manager.len() > MAX_MANAGER {
            format!("fieldManager: Too long: may not be more than {MAX_MANAGER} bytes")
        } else if manager.chars().any(char::is_control) {
            format!(
                "fieldManager: Invalid value: {manager:?}: should only contain printable characters"
            )
        } else if !is_apply && !self.force.is_empty() {
            "force: Forbidden: may not be specified for non-apply patch".to_owned()
        } else {
            return Ok(());
        };
        let (field, message) = why.split_once(": ").unwrap_or_default();
        let reason = match message.split(':').next() {
            Some("Required value") => "FieldValueRequired",
            Some("Forbidden") => "FieldValueForbidden",
            Some("Too long") => "FieldValueTooLong",
            _ => "FieldValueInvalid",
        };
        let cause = StatusCause {
            reason,
            field: field.to_owned(),
            message: message.to_owned(),
        };
        let message = format!("PatchOptions.meta.k8s.io \"\" is invalid: {why}");
        Err(StatusError {
            group: "meta.k8s.io".to_owned(),
            kind: "PatchOptions".to_owned(),
            causes: vec![cause],
            ..StatusError::plain(422, "Invalid", message)
        })
    }
}

/// Longest name of a manager, bytes (`FieldManagerMaxLength`).
const MAX_MANAGER: usize = 128;

/// The program that a request comes from: what its user agent begins with.
fn program(headers: &HeaderMap) -> String {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let program = agent
        .unwrap_or_default()
        .split('/')
        .next()
        .unwrap_or_default();
    let program: String = program.chars().take(MAX_MANAGER).collect();
    if program.is_empty() {
        return "unknown".to_owned();
    }
    program
}

/// How the answer is to be shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Objects,
    /// meta.k8s.io Table.
    Table,
    /// meta.k8s.io PartialObjectMetadata.
    Metadata,
}

impl<S: Sync> FromRequestParts<S> for Shape {
    type Rejection = StatusError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusError> {
        shape(&parts.headers)
    }
}

/// Chooses the first shape of the Accept headers (RFC 9110 section 12.5.1) that is served; 406 if
/// none is.
fn shape(headers: &HeaderMap) -> Result<Shape, StatusError> {
    let accept = headers.get_all(header::ACCEPT).into_iter();
    let accept: Vec<_> = accept
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let accept = accept.join(",");
    for choice in accept.split(',') {
        let parameters: Vec<&str> = choice.split(';').map(str::trim).collect();
        let media = parameters.first().copied().unwrap_or_default();
        if !matches!(media, "application/json" | "*/*" | "application/*" | "") {
            continue;
        }
        let transform = parameters.iter().find_map(|p| p.strip_prefix("as="));
        match transform {
            None => return Ok(Shape::Objects),
            Some("Table") => return Ok(Shape::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => {
                return Ok(Shape::Metadata);
            }
            Some(_) => {}
        }
    }
    Err(not_acceptable(&accept))
}

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// Decodes a body by its Content-Type.
pub(super) fn body(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, StatusError> {
    match content_type(headers) {
        "" | "application/json" => json_body(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml_body(bytes),
        "application/vnd.kubernetes.protobuf" => from_protobuf(bytes),
        other => Err(unsupported_media(other)),
    }
}

fn json_body(bytes: &[u8]) -> Result<Value, StatusError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StatusError::bad_request(format!("the body is not JSON: {error}")))
}

fn yaml_body(bytes: &[u8]) -> Result<Value, StatusError> {
    let refuse = |error: &dyn std::fmt::Display| {
        StatusError::bad_request(format!("the body is not YAML: {error}"))
    };
    let text = std::str::from_utf8(bytes).map_err(|error| refuse(&error))?;
    serde_saphyr::from_str(text).map_err(|error| refuse(&error))
}

/// The body of a PATCH.
#[derive(Debug, PartialEq)]
pub(super) enum Patch {
    /// How the object is to change.
    Change(PatchKind, Value),
    /// What it is to be, as far as the manager has a say (server-side apply).
    Configuration(Value),
}

/// Decodes a patch; its Content-Type says which kind it is.
pub(super) fn patch(headers: &HeaderMap, bytes: &[u8]) -> Result<Patch, StatusError> {
    let kind = match content_type(headers) {
        "application/json-patch+json" => PatchKind::Json,
        "application/merge-patch+json" => PatchKind::Merge,
        "application/strategic-merge-patch+json" => PatchKind::StrategicMerge,
        "application/apply-patch+yaml" => return yaml_body(bytes).map(Patch::Configuration),
        other => return Err(unsupported_media(other)),
    };
    json_body(bytes).map(|patch| Patch::Change(kind, patch))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::objects::Resource;

    fn target(group: &str, rest: &str) -> Option<(Resource, Option<String>, Option<String>, bool)> {
        match parse_path(group, "v1", rest) {
            Path::Target(t) => Some((t.info.resource, t.namespace, t.name, t.is_status)),
            _ => None,
        }
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn paths_name_collections_objects_and_statuses() {
        let pod = Resource::Pod;
        assert_eq!(target("", "pods"), Some((pod, None, None, false)));
        assert_eq!(
            target("", "namespaces/a/pods"),
            Some((pod, text("a"), None, false))
        );
        assert_eq!(
            target("", "namespaces/a/pods/b"),
            Some((pod, text("a"), text("b"), false))
        );
        assert_eq!(
            target("", "namespaces/a/pods/b/status"),
            Some((pod, text("a"), text("b"), true))
        );
        let namespace = Resource::Namespace;
        assert_eq!(
            target("", "namespaces/a"),
            Some((namespace, None, text("a"), false))
        );
        assert_eq!(
            target("", "namespaces/a/status"),
            Some((namespace, None, text("a"), true))
        );
        let policy = Resource::NetworkPolicy;
        let found = target("networking.k8s.io", "namespaces/a/networkpolicies/b");
        assert_eq!(found, Some((policy, text("a"), text("b"), false)));
    }

    #[test]
    fn a_watch_has_an_end_that_a_clock_can_count_to() {
        for (asked, seconds) in [(None, 1_800), (Some(5), 5), (Some(u64::MAX), 86_400)] {
            let query = Query {
                timeout_seconds: asked,
                ..Query::default()
            };
            assert_eq!(query.watch_for(), Duration::from_secs(seconds));
            let _no_overflow = tokio::time::Instant::now() + query.watch_for();
        }
    }

    #[test]
    fn a_page_begins_where_the_one_before_said() {
        let query = |page_start: &str, resource_version: &str| Query {
            page_start: page_start.to_owned(),
            resource_version: resource_version.to_owned(),
            ..Query::default()
        };
        let start = PageStart {
            version: 7,
            after: ("a".to_owned(), "b".to_owned()),
        };
        let page = query(&start.to_token(), "").page().unwrap();
        assert_eq!(page.start, Some(start.clone()));
        for (token, version) in [("x", ""), ("7", ""), ("x/a/b", ""), ("7/a/b", "7")] {
            let error = query(token, version).page().unwrap_err();
            assert_eq!(error.code, 400, "{token}");
        }
    }

    #[test]
    fn paths_that_name_nothing_are_unknown() {
        for (group, rest) in [
            ("", "deployments"),
            ("", "pods/b"),
            ("", "namespaces/a/nodes"),
            ("", "namespaces/a/pods/b/log"),
            ("apps", "pods"),
            ("networking.k8s.io", "namespaces/a/networkpolicies/b/status"),
        ] {
            assert_eq!(target(group, rest), None, "{group} {rest}");
        }
    }

    #[test]
    fn events_are_named_in_both_of_their_groups() {
        for info in &EVENTS {
            let parsed = |rest| match parse_path(info.group, "v1", rest) {
                Path::Target(target) => Some((target.info, target.namespace, target.name)),
                Path::Unknown => None,
            };
            let text = |text: &str| Some(text.to_owned());
            assert_eq!(parsed("events"), Some((info, None, None)));
            let of_namespace = Some((info, text("a"), None));
            assert_eq!(parsed("namespaces/a/events"), of_namespace);
            let one = Some((info, text("a"), text("b")));
            assert_eq!(parsed("namespaces/a/events/b"), one);
            assert_eq!(parsed("events/b"), None);
            assert_eq!(parsed("namespaces/a/events/b/status"), None);
            let other = parse_path(info.group, "v1beta1", "namespaces/a/events");
            assert_eq!(other, Path::Unknown);
        }
        assert_eq!(parse_path("apps", "v1", "events"), Path::Unknown);
    }

    #[test]
    fn the_first_served_shape_of_accept_wins() {
        let shape_of = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            shape(&headers)
        };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(shape_of(table), Ok(Shape::Table));
        let protobuf_first = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(shape_of(protobuf_first), Ok(Shape::Objects));
        assert_eq!(shape_of("*/*"), Ok(Shape::Objects));
        assert_eq!(shape_of(""), Ok(Shape::Objects));
        assert_eq!(shape(&HeaderMap::new()), Ok(Shape::Objects));

        let mut two_headers = HeaderMap::new();
        for accept in ["text/html", "application/json"] {
            two_headers.append(header::ACCEPT, HeaderValue::from_static(accept));
        }
        assert_eq!(shape(&two_headers), Ok(Shape::Objects));
    }

    #[test]
    fn who_accepts_nothing_that_is_served_is_refused_with_what_is() {
        for accept in [
            &b"application/vnd.kubernetes.protobuf"[..],
            b"application/yaml, text/html",
            b"application/json;as=Unheard;v=v1;g=meta.k8s.io",
            b"\xff",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_bytes(accept).unwrap());
            let refused = shape(&headers).unwrap_err();
            assert_eq!((refused.code, refused.reason), (406, "NotAcceptable"));
            let accept = String::from_utf8_lossy(accept);
            assert_eq!(
                refused.message,
                format!(
                    "only the following media types are accepted: application/json; got {accept:?}"
                )
            );
        }
    }
}
