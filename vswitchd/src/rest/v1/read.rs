//! Answers that may be long.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::super::RestState;
use crate::supervise;

/// Collects and writes an answer where that holds up neither CNI calls nor readiness.
pub(super) async fn read<T: Serialize>(
    state: RestState,
    look: impl FnOnce(&RestState) -> T + Send + 'static,
) -> Response {
    supervise::blocking(move || Json(look(&state)).into_response()).await
}
