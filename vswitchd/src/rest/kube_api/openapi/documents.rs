//! The documents, and the paths that they are served at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::super::respond::no_such_path;
use crate::objects::{RESOURCES, ResourceInfo, Scope, StatusError, definition_of, definitions};

/// The documents of version 3 by the path of their group and version.
static DOCUMENTS: LazyLock<BTreeMap<String, Bytes>> = LazyLock::new(|| {
    let definitions = definitions();
    let roots: BTreeSet<String> = RESOURCES.iter().map(root).collect();
    let documents = roots.into_iter().map(|root| {
        let document = document(&root, &definitions);
        (root, Bytes::from(document.to_string()))
    });
    documents.collect()
});

static VERSION_2: LazyLock<Bytes> = LazyLock::new(|| {
    let definitions = definitions();
    let paths = RESOURCES.iter().flat_map(paths_of).collect();
    Bytes::from(super::version_2::document(&paths, &definitions))
});

/// `GET /openapi/v2`.
pub(in crate::rest::kube_api) async fn version_2() -> Response {
    // The name that clients ask for it by is no media type that their own parser takes.
    let kind = [(CONTENT_TYPE, "application/octet-stream")];
    (kind, VERSION_2.clone()).into_response()
}

/// `GET /openapi/v3`: where the documents are.
pub(in crate::rest::kube_api) async fn version_3() -> Json<Value> {
    let mut paths = Map::new();
    for root in DOCUMENTS.keys() {
        let url = format!("/openapi/v3{root}?hash={}", env!("CARGO_PKG_VERSION"));
        let path = root.trim_start_matches('/');
        paths.insert(path.to_owned(), json!({"serverRelativeURL": url}));
    }
    Json(json!({"paths": paths}))
}

/// `GET /openapi/v3/api/v1`.
pub(in crate::rest::kube_api) async fn core() -> Result<Response, StatusError> {
    answer("/api/v1").await
}

/// `GET /openapi/v3/apis/{group}/{version}`.
pub(in crate::rest::kube_api) async fn group(
    Path((group, version)): Path<(String, String)>,
) -> Result<Response, StatusError> {
    answer(&format!("/apis/{group}/{version}")).await
}

async fn answer(root: &str) -> Result<Response, StatusError> {
    match DOCUMENTS.get(root) {
        Some(document) => {
            let kind = [(CONTENT_TYPE, "application/json")];
            Ok((kind, document.clone()).into_response())
        }
        None => Err(no_such_path().await),
    }
}

fn root(info: &ResourceInfo) -> String {
    if info.group.is_empty() {
        format!("/api/{}", info.version)
    } else {
        format!("/apis/{}/{}", info.group, info.version)
    }
}

fn document(of: &str, definitions: &BTreeMap<String, Value>) -> Value {
    let infos = RESOURCES.iter().filter(|info| root(info) == of);
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for info in infos {
        collect(&definition_of(info), definitions, &mut schemas);
        paths.extend(paths_of(info));
    }
    json!({"openapi": "3.0.0", "info": {"title": "vswitchd", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "components": {"schemas": schemas}})
}

/// Adds a definition and what it refers to.
fn collect(name: &str, definitions: &BTreeMap<String, Value>, schemas: &mut Map<String, Value>) {
    let Some(definition) = definitions
        .get(name)
        .filter(|_| !schemas.contains_key(name))
    else {
        return;
    };
    schemas.insert(name.to_owned(), definition.clone());
    let properties = definition["properties"].as_object();
    for property in properties.into_iter().flat_map(Map::values) {
        for part in [
            property,
            &property["items"],
            &property["additionalProperties"],
        ] {
            if let Some(reference) = part["$ref"].as_str() {
                collect(
                    reference.rsplit('/').next().unwrap_or_default(),
                    definitions,
                    schemas,
                );
            }
        }
    }
}

/// The paths of a kind. Clients look for the kind at an operation, and for query parameters of
/// its PATCH: `dryRun`, and `fieldValidation`, which leaves validation to the server.
fn paths_of(info: &ResourceInfo) -> Vec<(String, Value)> {
    let kind = json!({"group": info.group, "version": info.version, "kind": info.kind});
    let schema = json!({"$ref": format!("#/components/schemas/{}", definition_of(info))});
    let operation = |verb: &str, parameters: &[&str]| {
        let parameters = parameters
            .iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}));
        json!({
            "x-kubernetes-action": verb, "x-kubernetes-group-version-kind": kind,
            "parameters": parameters.collect::<Vec<_>>(),
            "responses": {"200": {"description": "OK",
                "content": {"application/json": {"schema": schema}}}},
        })
    };
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    let select = ["fieldSelector", "labelSelector", "resourceVersion", "watch"];
    let (root, plural) = (root(info), info.plural);
    let collection = match info.scope {
        Scope::Namespaced => format!("{root}/namespaces/{{namespace}}/{plural}"),
        Scope::Cluster => format!("{root}/{plural}"),
    };
    let list = operation("list", &select);
    let mut paths = vec![
        (
            format!("{collection}/{{name}}"),
            json!({"get": operation("get", &[]), "put": operation("put", &write),
                "patch": operation("patch", &[&write[..], &["force"]].concat()),
                "delete": operation("delete", &["dryRun"])}),
        ),
        (
            collection,
            json!({"get": list, "post": operation("post", &write),
                "delete": operation("deletecollection", &["dryRun", "fieldSelector", "labelSelector"])}),
        ),
    ];
    if info.scope == Scope::Namespaced {
        paths.push((format!("{root}/{plural}"), json!({"get": list})));
    }
    paths
}
