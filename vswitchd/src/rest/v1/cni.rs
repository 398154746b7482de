//! `POST /v1/cni`: the shim's request. Only root may make it: whoever can attach ports to
//! namespaces of his choice is past every policy.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use vswitch_api::cni::{CniCall, CniCode, CniFailure};

use super::super::RestState;
use super::super::peer::Peer;

/// Serves a CNI call.
#[utoipa::path(post, path = "/v1/cni", responses(
    (status = 200, description = "the CNI result; empty where the command has none"),
    (status = 403, description = "the peer is not root"),
    (status = 422, description = "a CNI error: code, msg, details")))]
pub(super) async fn call(
    State(state): State<RestState>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<CniCall>, JsonRejection>,
) -> Response {
    if !peer.is_root() {
        let failure = CniFailure::new(CniCode::Io, "only root may attach containers");
        return (StatusCode::FORBIDDEN, Json(failure)).into_response();
    }
    let Json(call) = match body {
        Ok(body) => body,
        Err(error) => {
            let failure = CniFailure::new(CniCode::Undecodable, error.body_text());
            return (StatusCode::BAD_REQUEST, Json(failure)).into_response();
        }
    };
    match state.cni.handle(call).await {
        Ok(Some(result)) => Json(result).into_response(),
        Ok(None) => StatusCode::OK.into_response(),
        Err(failure) => (StatusCode::UNPROCESSABLE_ENTITY, Json(failure)).into_response(),
    }
}
