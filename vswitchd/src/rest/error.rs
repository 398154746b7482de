//! Errors of `/v1` as HTTP answers: one place maps codes to statuses.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use vswitch_api::v1::{ErrorBody, ErrorDetail};

use super::readers::ReadFailed;

/// What `/v1` can refuse with; the code is stable, the message is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    code: ErrorCode,
    message: String,
}

/// Stable codes of `/v1` errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    Unauthorized,
    Forbidden,
    InvalidRequest,
    InvalidMatch,
    InvalidActions,
    UnknownTable,
    PodNotFound,
    ServiceNotFound,
    PortNotFound,
    FlowNotFound,
    AlreadyExists,
    NotReady,
    Internal,
}

impl ErrorCode {
    const fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidMatch => "invalid_match",
            Self::InvalidActions => "invalid_actions",
            Self::UnknownTable => "unknown_table",
            Self::PodNotFound => "pod_not_found",
            Self::ServiceNotFound => "service_not_found",
            Self::PortNotFound => "port_not_found",
            Self::FlowNotFound => "flow_not_found",
            Self::AlreadyExists => "already_exists",
            Self::NotReady => "not_ready",
            Self::Internal => "internal",
        }
    }

    /// Returns the HTTP status.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::InvalidRequest | Self::InvalidMatch | Self::InvalidActions => {
                StatusCode::BAD_REQUEST
            }
            Self::UnknownTable
            | Self::PodNotFound
            | Self::ServiceNotFound
            | Self::PortNotFound
            | Self::FlowNotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<ReadFailed> for ApiError {
    fn from(failed: ReadFailed) -> Self {
        Self::new(ErrorCode::Internal, failed.to_string())
    }
}

impl IntoResponse for ReadFailed {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.code.name().to_owned();
        let body = ErrorBody {
            error: ErrorDetail {
                code,
                message: self.message,
            },
        };
        (self.code.status(), Json(body)).into_response()
    }
}
