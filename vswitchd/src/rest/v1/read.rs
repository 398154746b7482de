//! Answers that may be long.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::super::RestState;

/// Collects and writes an answer where that holds up neither CNI calls nor readiness.
pub(super) async fn read<T: Serialize>(
    state: RestState,
    look: impl FnOnce(&RestState) -> T + Send + 'static,
) -> Response {
    let readers = state.readers.clone();
    let written = readers.run(move || Json(look(&state)).into_response());
    written
        .await
        .unwrap_or_else(|failed| failed.into_response())
}
