//! `POST /v1/trace`.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use vswitch_api::v1::{Trace, TraceRequest, TraceStep, TraceTranslation};
use vswitch_datapath::DropReason;
use vswitch_datapath::flow::FlowKey;
use vswitch_datapath::pipeline::{self, TraceVerdict};

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode};
use super::flows::flow;
use crate::policy::{deciding_policies, denial};
use crate::switch::ExplainError;

/// Walks a described packet through the tables.
#[utoipa::path(post, path = "/v1/trace", request_body = TraceRequest,
    responses((status = 200, body = Trace), (status = 400), (status = 404)))]
pub(super) async fn trace(
    State(state): State<RestState>,
    body: Result<Json<TraceRequest>, JsonRejection>,
) -> Result<Json<Trace>, ApiError> {
    let Json(request) =
        body.map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.body_text()))?;
    let (key, trace) = walk(&state, &request)?;
    Ok(Json(view(&key, &trace)))
}

/// Walks the packet; the key is the packet as it was described.
pub(super) fn walk(
    state: &RestState,
    request: &TraceRequest,
) -> Result<(FlowKey, pipeline::Trace), ApiError> {
    state.switch.explain(request).map_err(refused)
}

/// Says that a description names nothing.
pub(super) fn refused(error: ExplainError) -> ApiError {
    let code = match error {
        ExplainError::UnknownEnd { .. } => ErrorCode::PodNotFound,
        ExplainError::UnknownService { .. } => ErrorCode::ServiceNotFound,
        _ => ErrorCode::InvalidRequest,
    };
    ApiError::new(code, error.to_string())
}

fn view(key: &FlowKey, trace: &pipeline::Trace) -> Trace {
    let policies = deciding_policies(&trace.deciding);
    let (allowed, drop_reason, out_port) = match trace.verdict {
        TraceVerdict::Forward(port) => (true, None, Some(port.0)),
        TraceVerdict::Answered(_) => (true, None, None),
        TraceVerdict::Drop(reason) => (false, Some(reason), None),
    };
    Trace {
        packet: key.to_string(),
        steps: trace.steps.iter().map(step).collect(),
        allowed,
        drop_reason: drop_reason.map(|reason| reason.name().to_owned()),
        out_port,
        translation: translation(trace),
        summary: through(trace, summary(drop_reason, &policies)),
        policies,
    }
}

/// Returns what a Service made of the packet.
pub(super) fn translation(trace: &pipeline::Trace) -> Option<TraceTranslation> {
    let translation = trace.translation.as_ref()?;
    Some(TraceTranslation {
        group: translation.group.name.to_string(),
        endpoint: translation.endpoint.to_string(),
    })
}

/// Adds what a Service made of the packet.
fn through(trace: &pipeline::Trace, summary: String) -> String {
    match &trace.translation {
        Some(translation) => format!(
            "{summary}; through service {} to {}",
            translation.group.name, translation.endpoint
        ),
        None => summary,
    }
}

pub(super) fn step(step: &pipeline::TraceStep) -> TraceStep {
    let state = format!("{:?}", step.ct_state);
    let mut note = if state == "0" {
        String::new()
    } else {
        format!("ct_state={state}")
    };
    if step.judges_connection {
        note.push_str(" judges the connection by its first packet");
    }
    TraceStep {
        table: step.table.number(),
        table_name: step.table.name().to_owned(),
        flow: step.rule.as_deref().map(flow),
        note,
    }
}

/// Returns the verdict as one sentence.
pub(super) fn summary(reason: Option<DropReason>, policies: &[String]) -> String {
    match reason {
        None if policies.is_empty() => "allowed: no policy isolates the pods".to_owned(),
        None => format!("allowed by {}", policies.join(", ")),
        Some(DropReason::PolicyIngress) => {
            format!("dropped (policy_ingress): {}", denial("receiver", policies))
        }
        Some(DropReason::PolicyEgress) => {
            format!("dropped (policy_egress): {}", denial("sender", policies))
        }
        Some(reason) => format!("dropped ({}): {}", reason.name(), reason.help().trim()),
    }
}
