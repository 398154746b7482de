//! Status, readiness and metrics.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use vswitch_api::v1::{ObjectCounts, Occupancy, Status};

use super::super::RestState;
use crate::metrics::{Figures, PortFigures, render};
use crate::switch::GATEWAY_PORT;

/// `GET /v1/status`.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(state): State<RestState>) -> Json<Status> {
    let switch = &state.switch;
    switch.settle_counters();
    let snapshot = switch.reconcile().snapshot();
    let datapath = switch.datapath();
    let conntrack = datapath.conntrack_stats();
    let drops = datapath.drop_counters();
    let drops = drops.into_iter().filter(|(_, count)| *count > 0);
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: "standalone".to_owned(),
        node: state.node.clone(),
        ready: is_ready(&state),
        uptime_seconds: switch.clock().now().as_nanos() / 1_000_000_000,
        epoch: datapath.epoch().0,
        ports: switch.workers().port_stats().len(),
        rules: datapath.rules().len(),
        address_sets: datapath.address_sets().len(),
        connections: Occupancy {
            entries: conntrack.entries,
            limit: conntrack.max_entries,
        },
        objects: ObjectCounts {
            namespaces: snapshot.cluster.namespaces().count(),
            pods: snapshot.cluster.pods().count(),
            network_policies: snapshot.cluster.policies().count(),
            services: snapshot.cluster.services().count(),
        },
        kube_proxy: state.kube_proxy.borrow().map(|mode| mode.name().to_owned()),
        pod_cidrs: state.pod_cidrs.clone(),
        gateway: switch.gateway().ifname.clone(),
        workers: state.workers,
        fast_path_flows: datapath.offloaded_flows(),
        drops: drops
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect(),
        problems: problems(&state),
    })
}

fn is_ready(state: &RestState) -> bool {
    state.switch.reconcile().snapshot().is_synced && state.switch.is_forwarding(GATEWAY_PORT)
}

/// What an operator should look at.
fn problems(state: &RestState) -> Vec<String> {
    let snapshot = state.switch.reconcile().snapshot();
    let mut problems: Vec<String> = snapshot
        .problems
        .iter()
        .map(|p| format!("policy {} {}: {}", p.policy, p.part, p.problem))
        .collect();
    problems.extend(
        state
            .ipam
            .damaged()
            .iter()
            .map(|record| format!("lease record: {record}")),
    );
    for attachment in snapshot.attachments.values() {
        if !state.switch.is_forwarding(attachment.port_no) {
            problems.push(format!(
                "port {} of {} does not forward: {} is down or gone",
                attachment.port_no, attachment.pod, attachment.host_ifname
            ));
        }
    }
    let conntrack = state.switch.datapath().conntrack_stats();
    if conntrack.entries * 10 > conntrack.max_entries * 9 {
        problems.push("the connection table is more than 90 % full".to_owned());
    }
    problems
}

/// `GET /readyz`.
pub(in crate::rest) async fn readyz(State(state): State<RestState>) -> Response {
    if is_ready(&state) {
        return "ok".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready").into_response()
}

/// `GET /metrics`.
pub(in crate::rest) async fn metrics(State(state): State<RestState>) -> Response {
    let text = render(&figures(&state));
    (
        [(
            CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

fn figures(state: &RestState) -> Figures {
    state.switch.settle_counters();
    let datapath = state.switch.datapath();
    let conntrack = datapath.conntrack_stats();
    let cache = datapath.cache_stats();
    let snapshot = state.switch.reconcile().snapshot();
    let names: BTreeMap<u32, String> = datapath
        .ports()
        .into_iter()
        .map(|port| (port.no.0, port.name))
        .collect();
    let ports = state
        .switch
        .workers()
        .port_stats()
        .into_iter()
        .map(|port| PortFigures {
            port: names
                .get(&port.port.0)
                .cloned()
                .unwrap_or_else(|| port.ifname.to_string()),
            rx_packets: port.rx_frames,
            rx_bytes: port.rx_bytes,
            tx_packets: port.tx_frames,
            tx_bytes: port.tx_bytes,
            tx_drops: port.tx_dropped,
        });
    let drops = datapath.drop_counters();
    Figures {
        drops: drops
            .into_iter()
            .map(|(reason, count)| (reason.name(), count))
            .collect(),
        ports: ports.collect(),
        connections: wide(conntrack.entries),
        connections_limit: wide(conntrack.max_entries),
        connections_early_dropped: conntrack.early_dropped,
        connections_expired: conntrack.expired,
        rules: wide(datapath.rules().len()),
        address_sets: wide(datapath.address_sets().len()),
        epoch: datapath.epoch().0,
        flow_cache_hits: cache.hits,
        flow_cache_misses: cache.misses,
        offloaded_flows: wide(datapath.offloaded_flows().unwrap_or(0)),
        pods: wide(snapshot.cluster.pods().count()),
        network_policies: wide(snapshot.cluster.policies().count()),
        services: wide(snapshot.cluster.services().count()),
        leases: wide(state.ipam.leases().len()),
    }
}

/// A count in memory always fits.
fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
