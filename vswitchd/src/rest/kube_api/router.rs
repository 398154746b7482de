//! Routes of the Kubernetes API.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_extractor;
use axum::routing::{any, get};

use super::super::connections::MAX_BODY_BYTES;
use super::hooks::{ApiState, KubeApiHooks};
use super::request::Shape;
use super::{discovery, objects, openapi, respond};
use crate::objects::Registry;

/// Returns the routes of the Kubernetes API; every other path is a `Status` 404.
pub fn router(registry: Arc<Registry>, hooks: KubeApiHooks) -> Router {
    Router::new()
        .route("/api", get(discovery::core_versions))
        .route("/apis", get(discovery::groups))
        .route("/apis/{group}", get(discovery::group))
        .route("/api/v1", get(discovery::core_resources))
        .route("/apis/{group}/{version}", get(discovery::group_resources))
        .route("/openapi/v3", get(openapi::version_3))
        .route("/openapi/v3/api/v1", get(openapi::core))
        .route("/openapi/v3/apis/{group}/{version}", get(openapi::group))
        .route_layer(from_extractor::<Shape>())
        .route("/openapi/v2", get(openapi::version_2))
        .route("/version", get(discovery::version))
        .route("/api/v1/{*rest}", any(objects::core))
        .route("/apis/{group}/{version}/{*rest}", any(objects::group))
        .fallback(respond::no_such_path)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(ApiState { registry, hooks })
}
