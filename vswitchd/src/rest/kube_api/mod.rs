//! The standalone Kubernetes API on the wire: discovery, objects, watches, `Status` errors.
//!
//! Speaks what an unmodified kubectl speaks (JSON, YAML and protobuf in, JSON out); a client that takes
//! no JSON is refused before anything is done. All knowledge about objects is in `crate::objects`;
//! here are paths, headers, encodings.

mod discovery;
mod events;
mod objects;
mod openapi;
mod request;
mod respond;
mod table;
mod version;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_extractor;
use axum::routing::{any, get};

use self::request::Shape;
use super::Task;
use super::connections::MAX_BODY_BYTES;
use crate::objects::{Registry, StatusError};

/// Waits until what was written with a version is in force, or says why it is not.
pub type AfterWrite = Arc<dyn Fn(u64) -> Task<Result<(), StatusError>> + Send + Sync>;

/// What the API asks of its surroundings.
#[derive(Clone)]
pub struct KubeApiHooks {
    /// Called with the version of each write before it is answered, so that the caller may wait
    /// until it is in force; an error is answered in its place.
    pub after_write: Option<AfterWrite>,
    /// Turns true when the daemon stops: watches end then.
    pub stop: tokio::sync::watch::Receiver<bool>,
}

impl std::fmt::Debug for KubeApiHooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeApiHooks")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// What handlers act on.
#[derive(Debug, Clone)]
struct ApiState {
    registry: Arc<Registry>,
    hooks: KubeApiHooks,
}

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
