//! `GET /v1/audit`.

use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use vswitch_api::v1::{AuditEnd, AuditEntry, AuditPods};

use super::super::RestState;
use super::read::read;
use crate::audit::{AuditCounts, AuditKey, AuditPeer, Workload};
use crate::objects::timestamp;
use crate::policy::explain::protocol_name;
use crate::state::PolicyKey;

/// Query of `GET /v1/audit`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Only what this policy would have denied, alone or with others: as `GET /v1/policies` or an
    /// entry names it.
    policy: Option<String>,
}

/// Lists what policies in audit would have denied.
#[utoipa::path(get, path = "/v1/audit", params(AuditQuery),
    responses((status = 200, body = [AuditEntry])))]
pub(super) async fn list(
    State(state): State<RestState>,
    Query(query): Query<AuditQuery>,
) -> Response {
    read(state, move |state| {
        let is_meant = |key: &AuditKey| {
            query.policy.as_ref().is_none_or(|wanted| {
                let mut names = key.policies.iter();
                names.any(|name| PolicyKey::is_named(name, wanted))
            })
        };
        state.flow_log.current_audit(|book| {
            let entries = book.entries().filter(|(key, _)| is_meant(key));
            entries
                .map(|(key, counts)| view(key, counts))
                .collect::<Vec<_>>()
        })
    })
    .await
}

fn view(key: &AuditKey, counts: &AuditCounts) -> AuditEntry {
    let is_told = key.peer != AuditPeer::Various;
    AuditEntry {
        verdict: "would_deny".to_owned(),
        policies: key.policies.clone(),
        direction: if key.is_ingress { "ingress" } else { "egress" }.to_owned(),
        subject: key.subject.as_ref().map(pods),
        peer: match &key.peer {
            AuditPeer::Pods(of) => AuditEnd::Pods(pods(of)),
            AuditPeer::Address(address) => AuditEnd::Address(*address),
            AuditPeer::Various => AuditEnd::Various,
        },
        protocol: is_told.then(|| protocol_name(key.proto)),
        port: key.number,
        connections: counts.connections,
        first: timestamp(counts.first),
        last: timestamp(counts.last),
    }
}

fn pods(of: &Workload) -> AuditPods {
    AuditPods {
        namespace: of.namespace.clone(),
        labels: of.labels.clone(),
    }
}
