//! Routes of the daemon.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use super::enforced::enforced;
use super::state::RestState;
use super::{kube_api, ui, v1};

/// Returns all routes.
pub fn router(state: RestState) -> Router {
    let (in_force, supervisor) = (Arc::clone(&state.in_force), state.supervisor.clone());
    let hooks = kube_api::KubeApiHooks {
        after_write: Some(Arc::new(move |version| {
            Box::pin(enforced(version, in_force(version), supervisor.clone()))
        })),
        events: Arc::clone(&state.events),
        readers: state.readers.clone(),
        stop: state.stopping.clone(),
    };
    let kubernetes = kube_api::router(Arc::clone(&state.registry), hooks);
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(v1::readyz))
        .route("/metrics", get(v1::metrics))
        .nest("/v1", v1::router())
        .with_state(state)
        .merge(ui::router())
        .merge(kubernetes)
}
