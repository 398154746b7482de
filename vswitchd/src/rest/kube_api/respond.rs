//! Answers: JSON, `Status` errors, warnings.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::objects::{ResourceInfo, StatusError, Written};

impl IntoResponse for StatusError {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, Json(self.to_value())).into_response()
    }
}

/// 404 of a path that is none.
pub(super) async fn no_such_path() -> StatusError {
    StatusError::plain(
        404,
        "NotFound",
        "the server could not find the requested resource",
    )
}

/// 405.
pub(super) fn method_not_allowed() -> StatusError {
    let message = "the server does not allow this method on the requested resource";
    StatusError::plain(405, "MethodNotAllowed", message)
}

/// 406.
pub(super) fn not_acceptable(accept: &str) -> StatusError {
    let message =
        format!("only the following media types are accepted: application/json; got {accept:?}");
    StatusError::plain(406, "NotAcceptable", message)
}

/// 415.
pub(super) fn unsupported_media(content_type: &str) -> StatusError {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: \
         application/json, application/yaml, application/vnd.kubernetes.protobuf; got {content_type:?}"
    );
    StatusError::plain(415, "UnsupportedMediaType", message)
}

/// The object that was written, with warnings (RFC 7234 section 5.5, code 299).
pub(super) fn written(written: &Written) -> Response {
    let code = if written.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    (
        code,
        warnings(&written.warnings),
        Json((*written.object).clone()),
    )
        .into_response()
}

fn warnings(texts: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for text in texts {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(header::WARNING, value);
        }
    }
    headers
}

/// What a delete is answered with.
pub(super) fn deleted(info: &ResourceInfo, object: &Value) -> Response {
    let metadata = &object["metadata"];
    Json(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": metadata["name"], "group": info.group, "kind": info.plural,
            "uid": metadata["uid"]},
    }))
    .into_response()
}
