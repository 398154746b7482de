//! OpenAPI, as far as kubectl needs it: that the server itself validates fields.
//!
//! kubectl looks for the query parameter `fieldValidation` of a kind's PATCH operation and then
//! leaves validation to the server. Without schemas it uses the types that it is built with.

use axum::Json;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::respond::no_such_path;
use crate::objects::{RESOURCES, ResourceInfo, Scope, StatusError};

/// `GET /openapi/v2`: an empty document, which in protobuf has no byte at all. Clients of the
/// time before version 3 then skip their own validation.
pub(super) async fn version_2() -> Response {
    // The name that clients ask for it by is no media type that their own parser takes.
    ([(CONTENT_TYPE, "application/octet-stream")], "").into_response()
}

/// `GET /openapi/v3`: where the documents are.
pub(super) async fn version_3() -> Json<Value> {
    let mut paths = Map::new();
    for info in &RESOURCES {
        let path = root(info);
        let path = path.trim_start_matches('/');
        let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
        paths.insert(path.to_owned(), json!({"serverRelativeURL": url}));
    }
    Json(json!({"paths": paths}))
}

/// `GET /openapi/v3/api/v1`.
pub(super) async fn core() -> Json<Value> {
    Json(document(""))
}

/// `GET /openapi/v3/apis/{group}/{version}`.
pub(super) async fn group(
    Path((group, version)): Path<(String, String)>,
) -> Result<Json<Value>, StatusError> {
    let known = |info: &ResourceInfo| info.group == group && info.version == version;
    if group.is_empty() || !RESOURCES.iter().any(known) {
        return Err(no_such_path().await);
    }
    Ok(Json(document(&group)))
}

fn root(info: &ResourceInfo) -> String {
    if info.group.is_empty() {
        format!("/api/{}", info.version)
    } else {
        format!("/apis/{}/{}", info.group, info.version)
    }
}

fn document(group: &str) -> Value {
    let mut paths = Map::new();
    for info in RESOURCES.iter().filter(|info| info.group == group) {
        let namespace = if info.scope == Scope::Namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let collection = format!("{}{namespace}/{}", root(info), info.plural);
        let kind = json!({"group": info.group, "version": info.version, "kind": info.kind});
        let write = |verb: &str| {
            json!({
                "x-kubernetes-action": verb, "x-kubernetes-group-version-kind": kind,
                "parameters": [
                    {"name": "dryRun", "in": "query", "schema": {"type": "string"}},
                    {"name": "fieldManager", "in": "query", "schema": {"type": "string"}},
                    {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}},
                ],
                "responses": {"200": {"description": "OK"}},
            })
        };
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({"put": write("put"), "patch": write("patch")}),
        );
        paths.insert(collection, json!({"post": write("post")}));
    }
    json!({"openapi": "3.0.0", "info": {"title": "vswitchd", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "components": {"schemas": {}}})
}
