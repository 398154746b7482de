//! `GET /v1/policies`.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;
use vswitch_api::v1::PolicyView;

use super::super::RestState;
use super::read::read;
use crate::objects::timestamp;
use crate::policy::{PolicyOverview, overview};
use crate::reconcile::ReconciledState;
use crate::state::{ObjectKey, PolicyKey, PolicyMode};

/// Lists all policies of every kind in the order in which they are judged.
#[utoipa::path(get, path = "/v1/policies", responses((status = 200, body = [PolicyView])))]
pub(super) async fn list(State(state): State<RestState>) -> Response {
    read(state, |state| {
        let snapshot = state.switch.reconcile().snapshot();
        let policies = in_order(&snapshot).into_iter();
        policies
            .map(|policy| view(policy, &snapshot))
            .collect::<Vec<_>>()
    })
    .await
}

/// Returns the policies with those in audit; behind them what is in force and staged to go.
fn in_order(state: &ReconciledState) -> Vec<PolicyOverview> {
    let pods: Vec<&ObjectKey> = state.attachments.values().map(|of| &of.pod).collect();
    let in_force = || overview(&state.cluster, pods.iter().copied());
    if !state.cluster.has_audit() {
        return in_force();
    }
    let mut all = overview(&state.cluster.with_audit(), pods.iter().copied());
    let listed: BTreeSet<PolicyKey> = all.iter().map(|of| of.policy.clone()).collect();
    let going = in_force().into_iter();
    all.extend(going.filter(|of| !listed.contains(&of.policy)));
    all
}

fn mode(key: &PolicyKey, state: &ReconciledState) -> &'static str {
    match state.cluster.mode_of(key) {
        PolicyMode::Enforce if !state.cluster.is_staged(key) => "enforce",
        PolicyMode::Enforce if state.cluster.has_policy(key) => "staged",
        _ => "audit",
    }
}

fn view(of: PolicyOverview, state: &ReconciledState) -> PolicyView {
    let mode = mode(&of.policy, state);
    let since = state.policy_times.get(&of.policy);
    let problems = &state.problems;
    let problems = problems
        .iter()
        .filter(|problem| problem.policy == of.policy);
    let (tier, order) = of.level.unzip();
    let order = order.as_ref();
    let (priority, order) = match of.policy {
        PolicyKey::ClusterPolicy(_) => (order.and_then(|order| order.parse().ok()), None),
        _ => (None, order.and_then(|order| order.parse().ok())),
    };
    let idle = of.idle.iter();
    let idle = idle.map(|(part, problem)| format!("does nothing: {part}: {problem}"));
    let idle: Vec<String> = idle.collect();
    PolicyView {
        kind: of.policy.kind().to_owned(),
        policy: of.policy.name(),
        tier,
        priority,
        order,
        subject: of.subject,
        pods: of.selected,
        mode: mode.to_owned(),
        since: since.map(|since| timestamp(since.time)),
        epoch: since.map(|since| since.epoch.0),
        problems: if idle.is_empty() {
            problems
                .map(|problem| format!("{}: {}", problem.part, problem.problem))
                .collect()
        } else {
            idle
        },
    }
}
