//! `GET /v1/policies`.

use axum::extract::State;
use axum::response::Response;
use vswitch_api::v1::PolicyView;

use super::super::RestState;
use super::read::read;
use crate::policy::{PolicyOverview, PolicyProblem, overview};
use crate::state::PolicyKey;

/// Lists all policies of every kind in the order in which they are judged.
#[utoipa::path(get, path = "/v1/policies", responses((status = 200, body = [PolicyView])))]
pub(super) async fn list(State(state): State<RestState>) -> Response {
    read(state, |state| {
        let snapshot = state.switch.reconcile().snapshot();
        let pods = snapshot.attachments.values().map(|attached| &attached.pod);
        let policies = overview(&snapshot.cluster, pods).into_iter();
        policies
            .map(|policy| view(policy, &snapshot.problems))
            .collect::<Vec<_>>()
    })
    .await
}

fn view(of: PolicyOverview, problems: &[PolicyProblem]) -> PolicyView {
    let kind = match of.policy {
        PolicyKey::NetworkPolicy(_) => "NetworkPolicy",
        PolicyKey::ClusterNetworkPolicy(_) => "ClusterNetworkPolicy",
    };
    let problems = problems
        .iter()
        .filter(|problem| problem.policy == of.policy);
    let (tier, priority) = of.level.unzip();
    PolicyView {
        kind: kind.to_owned(),
        policy: of.policy.to_string(),
        tier,
        priority,
        pods: of.selected,
        problems: problems
            .map(|problem| format!("{}: {}", problem.part, problem.problem))
            .collect(),
    }
}
