//! Attachments and leases.

use axum::extract::State;
use axum::response::Response;
use vswitch_api::v1::{AttachmentView, Lease};

use super::super::RestState;
use super::read::read;
use crate::clock;

/// `GET /v1/attachments`.
#[utoipa::path(get, path = "/v1/attachments",
    responses((status = 200, body = Vec<AttachmentView>)))]
pub(super) async fn list(State(state): State<RestState>) -> Response {
    read(state, attachments).await
}

fn attachments(state: &RestState) -> Vec<AttachmentView> {
    let snapshot = state.switch.reconcile().snapshot();
    let attachments = snapshot
        .attachments
        .values()
        .map(|attachment| AttachmentView {
            container_id: attachment.container_id.clone(),
            ifname: attachment.ifname.to_string(),
            netns: attachment.netns.display().to_string(),
            pod: attachment.pod.to_string(),
            host_ifname: attachment.host_ifname.to_string(),
            port: attachment.port_no.0,
            addresses: attachment.addresses.clone(),
        });
    attachments.collect()
}

/// `GET /v1/leases`.
#[utoipa::path(get, path = "/v1/leases", responses((status = 200, body = Vec<Lease>)))]
pub(super) async fn list_leases(State(state): State<RestState>) -> Response {
    read(state, leases).await
}

fn leases(state: &RestState) -> Vec<Lease> {
    let held = state.ipam.leases().into_iter().map(|lease| Lease {
        address: lease.address,
        container_id: Some(lease.owner.container_id),
        ifname: Some(lease.owner.ifname.to_string()),
        rests_seconds: None,
    });
    let resting = state.ipam.resting(clock::unix_seconds()).into_iter();
    let resting = resting.map(|(address, seconds)| Lease {
        address,
        container_id: None,
        ifname: None,
        rests_seconds: Some(seconds),
    });
    let mut leases: Vec<Lease> = held.chain(resting).collect();
    leases.sort_by_key(|lease| lease.address);
    leases
}
