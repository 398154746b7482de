//! Rules, admin flows, address sets.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use vswitch_api::v1::{AddressSet, AdminFlow, Flow, FlowOrigin};
use vswitch_datapath::action::ActionList;
use vswitch_datapath::pipeline::{Rule, RuleStats, TableId};

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode};
use super::read::read;
use crate::errors::chain;
use crate::switch::AdminFlowError;

/// Query of `GET /v1/flows`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowQuery {
    /// Number or name of a table.
    table: Option<String>,
}

/// `GET /v1/flows`: by table, priority (highest first) and match.
#[utoipa::path(get, path = "/v1/flows", params(FlowQuery),
    responses((status = 200, body = Vec<Flow>), (status = 404)))]
pub(super) async fn list(
    State(state): State<RestState>,
    Query(query): Query<FlowQuery>,
) -> Result<Response, ApiError> {
    let table = query.table.as_deref().map(table_named).transpose()?;
    Ok(read(state, move |state| flows(state, table)).await)
}

fn flows(state: &RestState, table: Option<TableId>) -> Vec<Flow> {
    state.switch.sync_kernel_counters();
    let rules = state.switch.datapath().rules().into_iter();
    let rules = rules.filter(|stats| table.is_none_or(|table| stats.rule.table == table));
    let mut flows: Vec<Flow> = rules.map(|stats| with_counters(&stats)).collect();
    flows.sort_by(|a, b| {
        let key = |flow: &Flow| (flow.table, std::cmp::Reverse(flow.priority));
        key(a).cmp(&key(b)).then_with(|| a.matches.cmp(&b.matches))
    });
    flows
}

fn table_named(text: &str) -> Result<TableId, ApiError> {
    let by_number = text.parse().ok().and_then(TableId::from_number);
    let by_name = || {
        TableId::ALL
            .into_iter()
            .find(|t| t.name().eq_ignore_ascii_case(text))
    };
    by_number.or_else(by_name).ok_or_else(|| {
        let known = TableId::ALL.map(|table| format!("{} {}", table.number(), table.name()));
        let message = format!(
            "there is no table {text:?}; tables are {}",
            known.join(", ")
        );
        ApiError::new(ErrorCode::UnknownTable, message)
    })
}

fn with_counters(stats: &RuleStats) -> Flow {
    Flow {
        packets: stats.packets,
        bytes: stats.bytes,
        ..flow(&stats.rule)
    }
}

/// Returns a rule on the wire, without counters.
pub(super) fn flow(rule: &Rule) -> Flow {
    Flow {
        table: rule.table.number(),
        table_name: rule.table.name().to_owned(),
        priority: rule.priority.0,
        matches: rule.matches.to_string(),
        actions: ActionList(&rule.actions).to_string(),
        cookie: rule.cookie.to_string(),
        packets: 0,
        bytes: 0,
        origin: FlowOrigin {
            kind: rule.origin.kind.to_owned(),
            name: rule.origin.name.clone(),
            part: rule.origin.part.clone(),
        },
    }
}

/// `POST /v1/flows`: durable and in force when answered.
#[utoipa::path(post, path = "/v1/flows", request_body = AdminFlow,
    responses((status = 200, body = AdminFlow), (status = 400)))]
pub(super) async fn put(
    State(state): State<RestState>,
    body: Result<Json<AdminFlow>, JsonRejection>,
) -> Result<Json<AdminFlow>, ApiError> {
    let Json(flow) =
        body.map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.body_text()))?;
    let put = state.switch.put_admin_flow(flow.clone()).await;
    put.map_err(|error| flow_error(&error))?;
    Ok(Json(flow))
}

/// `GET /v1/admin-flows`.
#[utoipa::path(get, path = "/v1/admin-flows", responses((status = 200, body = Vec<AdminFlow>)))]
pub(super) async fn list_admin(State(state): State<RestState>) -> Json<Vec<AdminFlow>> {
    Json(state.switch.admin_flows().await)
}

/// `DELETE /v1/flows/{name}`.
#[utoipa::path(delete, path = "/v1/flows/{name}",
    params(("name" = String, Path, description = "name of an admin flow")),
    responses((status = 200), (status = 404)))]
pub(super) async fn remove(
    State(state): State<RestState>,
    Path(name): Path<String>,
) -> Result<Json<BTreeMap<(), ()>>, ApiError> {
    let deleted = state.switch.delete_admin_flow(&name).await;
    deleted.map_err(|error| flow_error(&error))?;
    Ok(Json(BTreeMap::new()))
}

fn flow_error(error: &AdminFlowError) -> ApiError {
    let code = match error {
        AdminFlowError::Name { .. } | AdminFlowError::Priority { .. } => ErrorCode::InvalidRequest,
        AdminFlowError::Match { .. } => ErrorCode::InvalidMatch,
        AdminFlowError::Actions { .. } => ErrorCode::InvalidActions,
        AdminFlowError::NotFound { .. } => ErrorCode::FlowNotFound,
        AdminFlowError::Store { .. } => ErrorCode::Internal,
        AdminFlowError::Stopping => ErrorCode::NotReady,
    };
    ApiError::new(code, chain(error))
}

/// `GET /v1/address-sets`.
#[utoipa::path(get, path = "/v1/address-sets", responses((status = 200, body = Vec<AddressSet>)))]
pub(super) async fn list_sets(State(state): State<RestState>) -> Response {
    read(state, sets).await
}

fn sets(state: &RestState) -> Vec<AddressSet> {
    let sets = state.switch.datapath().address_sets().into_iter();
    let mut sets: Vec<AddressSet> = sets
        .map(|(name, members)| AddressSet {
            name: name.0.to_string(),
            members,
        })
        .collect();
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    sets
}
