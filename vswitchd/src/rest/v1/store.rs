//! Losses of the store.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use vswitch_api::v1::{AcceptLoss, AcceptedLosses};

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode};
use crate::errors::chain;

/// `POST /v1/store/accept-loss`: ends losses that nobody will make good; what was isolated
/// because of them is judged by the policies that there are.
#[utoipa::path(post, path = "/v1/store/accept-loss", request_body = AcceptLoss,
    responses((status = 200, body = AcceptedLosses), (status = 400), (status = 500)))]
pub(super) async fn accept_loss(
    State(state): State<RestState>,
    body: Result<Json<AcceptLoss>, JsonRejection>,
) -> Result<Json<AcceptedLosses>, ApiError> {
    let Json(asked) =
        body.map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.body_text()))?;
    let store = Arc::clone(&state.store);
    let accept = move || store.accept_loss(asked.namespace.as_deref());
    let accepted = tokio::task::spawn_blocking(accept).await;
    let accepted =
        accepted.map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let accepted = accepted.map_err(|error| ApiError::new(ErrorCode::Internal, chain(&error)))?;
    for loss in &accepted {
        tracing::warn!(%loss, "loss of the store accepted");
    }
    let accepted = accepted.iter().map(ToString::to_string).collect();
    Ok(Json(AcceptedLosses { accepted }))
}
