//! Get, list, create, update, patch, delete.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query as UrlQuery, State};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::request::{Patch, Path, Query, Shape, Target, body, parse_path, patch};
use super::version::version_of;
use super::{ApiState, events, respond, table, watch};
use crate::objects::{
    DeleteOptions, ObjectList, Registry, Resource, ResourceInfo, Scope, StatusError, Written,
};

/// A request as its parts.
struct Request {
    state: ApiState,
    target: Target,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
    shape: Shape,
}

/// `/api/v1/…`.
pub(super) async fn core(
    State(state): State<ApiState>,
    UrlPath(rest): UrlPath<String>,
    UrlQuery(query): UrlQuery<Query>,
    method: Method,
    headers: HeaderMap,
    shape: Shape,
    body: Bytes,
) -> Result<Response, StatusError> {
    serve(
        state,
        parse_path("", "v1", &rest),
        query,
        &method,
        headers,
        shape,
        body,
    )
    .await
}

/// `/apis/{group}/{version}/…`.
pub(super) async fn group(
    State(state): State<ApiState>,
    UrlPath((group, version, rest)): UrlPath<(String, String, String)>,
    UrlQuery(query): UrlQuery<Query>,
    method: Method,
    headers: HeaderMap,
    shape: Shape,
    body: Bytes,
) -> Result<Response, StatusError> {
    serve(
        state,
        parse_path(&group, &version, &rest),
        query,
        &method,
        headers,
        shape,
        body,
    )
    .await
}

async fn serve(
    state: ApiState,
    path: Path,
    query: Query,
    method: &Method,
    headers: HeaderMap,
    shape: Shape,
    body: Bytes,
) -> Result<Response, StatusError> {
    let target = match path {
        Path::Target(target) => target,
        Path::Unknown => return Err(respond::no_such_path().await),
    };
    if target.info.resource == Resource::Event {
        events::check(&state, method)?;
    }
    let has_name = target.name.is_some();
    let request = Request {
        state,
        target,
        query,
        headers,
        body,
        shape,
    };
    match (method.as_str(), has_name) {
        ("GET", true) if !request.query.is_watch() => request.get(),
        ("GET", false) if !request.query.is_watch() => request.list().await,
        ("GET", _) => request.watch(),
        ("POST", false) => request.create().await,
        ("PUT", true) => request.update().await,
        ("PATCH", true) => request.patch().await,
        ("DELETE", true) => request.delete().await,
        ("DELETE", false) => request.delete_collection().await,
        _ => Err(respond::method_not_allowed()),
    }
}

impl Request {
    fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    fn registry(&self) -> &Arc<Registry> {
        self.state.registry_of(self.target.info)
    }

    fn get(&self) -> Result<Response, StatusError> {
        let info = self.target.info;
        let object = self
            .registry()
            .get(info.resource, self.namespace(), self.name())?;
        let list = ObjectList {
            resource_version: version_of(&object),
            items: vec![Arc::clone(&object)],
            next: None,
            remaining: None,
        };
        Ok(match self.shape {
            Shape::Objects => Json(events::of_group(info, &object)).into_response(),
            Shape::Table => {
                Json(table::of(info, &list, &self.query.include_object)).into_response()
            }
            Shape::Metadata => Json(table::metadata_of(&object)).into_response(),
        })
    }

    /// Ten thousand objects take a while to write: off the threads that carry CNI calls.
    async fn list(self) -> Result<Response, StatusError> {
        let page = self.query.page()?;
        let readers = self.state.hooks.readers.clone();
        let list = readers.run(move || {
            let info = self.target.info;
            let namespace = self.target.namespace.as_deref();
            let selection = self.query.selection();
            let registry = self.registry();
            let list = registry.list_page(info.resource, namespace, &selection, &page)?;
            Ok(match self.shape {
                Shape::Objects => Json(Objects::of(info, &list)).into_response(),
                Shape::Table => {
                    Json(table::of(info, &list, &self.query.include_object)).into_response()
                }
                Shape::Metadata => Json(table::metadata_list(&list)).into_response(),
            })
        });
        list.await
            .unwrap_or_else(|failed| Err(StatusError::internal(&failed)))
    }

    fn watch(&self) -> Result<Response, StatusError> {
        let mut query = self.query.clone();
        if let Some(name) = &self.target.name {
            query.field_selector = format!("metadata.name={name}");
        }
        watch::respond(&self.state, &self.target, &query, self.shape)
    }

    async fn create(self) -> Result<Response, StatusError> {
        if self.target.info.scope == Scope::Namespaced && self.target.namespace.is_none() {
            return Err(respond::method_not_allowed());
        }
        let object = body(&self.headers, &self.body)?;
        let options = self.query.write_options(&self.headers, false, false)?;
        self.write(move |registry, target| {
            let namespace = target.namespace.unwrap_or_default();
            registry.create(target.info.resource, &namespace, object, options)
        })
        .await
    }

    async fn update(self) -> Result<Response, StatusError> {
        let object = body(&self.headers, &self.body)?;
        let is_status = self.target.is_status;
        let options = self.query.write_options(&self.headers, is_status, false)?;
        self.write(move |registry, target| {
            let (namespace, name) = ends(target.namespace, target.name);
            registry.update(target.info.resource, &namespace, &name, object, options)
        })
        .await
    }

    async fn patch(self) -> Result<Response, StatusError> {
        let patch = patch(&self.headers, &self.body)?;
        let is_status = self.target.is_status;
        let is_apply = matches!(patch, Patch::Configuration(_));
        let options = self
            .query
            .write_options(&self.headers, is_status, is_apply)?;
        self.write(move |registry, target| {
            let (namespace, name) = ends(target.namespace, target.name);
            let resource = target.info.resource;
            match patch {
                Patch::Change(kind, patch) => {
                    registry.patch(resource, &namespace, &name, kind, &patch, options)
                }
                Patch::Configuration(config) => {
                    registry.apply(resource, &namespace, &name, &config, &options)
                }
            }
        })
        .await
    }

    /// Runs a write off the runtime, and waits until it is in force.
    async fn write(
        self,
        write: impl FnOnce(&Registry, Target) -> Result<Written, StatusError> + Send + 'static,
    ) -> Result<Response, StatusError> {
        let (registry, target) = (Arc::clone(self.registry()), self.target.clone());
        let written = blocking(move || write(&registry, target)).await?;
        self.in_force().await?;
        Ok(respond::written(&written))
    }

    async fn delete(self) -> Result<Response, StatusError> {
        let options = self.delete_options()?;
        let (registry, target) = (Arc::clone(self.registry()), self.target.clone());
        let object = blocking(move || {
            let (namespace, name) = ends(target.namespace, target.name);
            registry.delete(target.info.resource, &namespace, &name, &options)
        })
        .await?;
        self.in_force().await?;
        Ok(respond::deleted(self.target.info, &object))
    }

    async fn delete_collection(self) -> Result<Response, StatusError> {
        let info = self.target.info;
        let (registry, namespace) = (Arc::clone(self.registry()), self.target.namespace.clone());
        let (selection, dry_run) = (self.query.selection(), self.query.is_dry_run());
        let list = blocking(move || {
            let list = registry.list(info.resource, namespace.as_deref(), &selection)?;
            for object in &list.items {
                let metadata = &object["metadata"];
                let text = |field: &str| metadata[field].as_str().unwrap_or_default();
                let options = DeleteOptions {
                    dry_run,
                    ..DeleteOptions::default()
                };
                match registry.delete(info.resource, text("namespace"), text("name"), &options) {
                    // Somebody else was quicker.
                    Err(error) if error.code == 404 => {}
                    other => drop(other?),
                }
            }
            Ok(list)
        })
        .await?;
        self.in_force().await?;
        Ok(Json(Objects::of(info, &list)).into_response())
    }

    /// DeleteOptions come in the body; without one there are none.
    fn delete_options(&self) -> Result<DeleteOptions, StatusError> {
        let mut options = DeleteOptions {
            dry_run: self.query.is_dry_run(),
            ..DeleteOptions::default()
        };
        if !self.body.is_empty() {
            let given = body(&self.headers, &self.body)?;
            let text = |field: &str| given["preconditions"][field].as_str().map(str::to_owned);
            options.uid = text("uid");
            options.resource_version = text("resourceVersion");
            options.dry_run |= given["dryRun"]
                .as_array()
                .is_some_and(|all| !all.is_empty());
        }
        Ok(options)
    }

    async fn in_force(&self) -> Result<(), StatusError> {
        match &self.state.hooks.after_write {
            Some(after_write) => after_write(self.registry().current_version()).await,
            None => Ok(()),
        }
    }
}

fn ends(namespace: Option<String>, name: Option<String>) -> (String, String) {
    (namespace.unwrap_or_default(), name.unwrap_or_default())
}

async fn blocking<T: Send + 'static>(
    write: impl FnOnce() -> Result<T, StatusError> + Send + 'static,
) -> Result<T, StatusError> {
    match tokio::task::spawn_blocking(write).await {
        Ok(result) => result,
        Err(error) => Err(StatusError::internal(&error)),
    }
}

/// A list of objects, written from where they are kept: there may be ten thousand.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Objects<'a> {
    api_version: String,
    items: Vec<Listed<'a>>,
    kind: String,
    metadata: Value,
}

impl<'a> Objects<'a> {
    fn of(info: &ResourceInfo, list: &'a ObjectList) -> Self {
        let items = list.items.iter();
        Self {
            api_version: info.api_version(),
            items: items
                .map(|item| Listed(events::of_group(info, item)))
                .collect(),
            kind: format!("{}List", info.kind),
            metadata: table::list_metadata(list),
        }
    }
}

/// An object in a list. As the API server lists typed objects, kind and version stand at the list.
struct Listed<'a>(Cow<'a, Value>);

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_object() {
            Some(fields) => serializer.collect_map(
                fields
                    .iter()
                    .filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion")),
            ),
            None => self.0.serialize(serializer),
        }
    }
}
