//! Status and readiness.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use vswitch_api::v1::{ClusterStatus, ObjectCounts, Occupancy, Status};
use vswitch_datapath::flow::PortClass;

use super::super::RestState;
use super::read::read;
use crate::kube::{Health, pod_cidrs};
use crate::objects::{Resource, without_effect};
use crate::store::ObjectsFrom;
use crate::switch::GATEWAY_PORT;

/// `GET /v1/status`.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(state): State<RestState>) -> Response {
    read(state, look).await
}

fn look(state: &RestState) -> Status {
    let switch = &state.switch;
    switch.sync_kernel_counters();
    let snapshot = switch.reconcile().snapshot();
    let datapath = switch.datapath();
    let conntrack = datapath.conntrack_stats();
    let drops = drops(state).into_iter().filter(|(_, count)| *count > 0);
    let node_network = state.node_network.borrow().clone();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: mode(state).to_owned(),
        cluster: state.cluster.as_deref().map(cluster_status),
        node: state.node.clone(),
        ready: is_ready(state),
        uptime_seconds: switch.clock().now().as_nanos() / 1_000_000_000,
        epoch: datapath.epoch().0,
        ports: switch.workers().port_stats().len(),
        rules: datapath.rule_count(),
        address_sets: datapath.address_set_count(),
        connections: Occupancy {
            entries: conntrack.entries,
            limit: conntrack.max_entries,
        },
        objects: ObjectCounts {
            namespaces: snapshot.cluster.namespaces().len(),
            pods: snapshot.cluster.pods().len(),
            network_policies: snapshot.cluster.policies().len(),
            services: snapshot.cluster.services().len(),
        },
        kube_proxy: state.kube_proxy.borrow().map(|mode| mode.name().to_owned()),
        pod_cidrs: state.pod_cidrs.clone(),
        gateway: switch.gateway().ifname.clone(),
        workers: state.workers,
        fast_path_flows: datapath.kernel_flows(),
        backend: node_network.backend.to_owned(),
        remote_networks: node_network.networks,
        drops: drops
            .map(|(reason, count)| (reason.to_owned(), count))
            .collect(),
        problems: problems(state),
    }
}

/// Drops by reason, in the switch and on the way from other nodes to it.
pub(super) fn drops(state: &RestState) -> Vec<(&'static str, u64)> {
    let switch = state.switch.datapath().drop_counters().into_iter();
    let nodes = state.node_network.borrow().drops.clone();
    switch
        .map(|(reason, count)| (reason.name(), count))
        .chain(
            nodes
                .into_iter()
                .map(|(reason, count)| (reason.name(), count)),
        )
        .collect()
}

const fn mode(state: &RestState) -> &'static str {
    match state.cluster {
        Some(_) => "cluster",
        None => "standalone",
    }
}

fn cluster_status(health: &Health) -> ClusterStatus {
    let state = if health.is_live() {
        "live"
    } else if health.is_synced() {
        "stale"
    } else if health.has_last_known() {
        "last-known"
    } else {
        "waiting"
    };
    ClusterStatus {
        api_server: health.origin().to_owned(),
        state: state.to_owned(),
        stale_seconds: health.stale_seconds(),
        errors: health.errors(),
    }
}

/// What the own Node object says now, where the switch began with something else.
fn node_problem(state: &RestState) -> Option<String> {
    state
        .cluster
        .as_ref()
        .filter(|health| !health.is_without_nodes())?;
    let node = state.registry.get(Resource::Node, "", &state.node);
    let problem = match node.map(|node| pod_cidrs(&node)) {
        Err(_) => "there is no such Node object".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(cidrs)) if cidrs.is_empty() || cidrs == state.pod_cidrs => return None,
        Ok(Ok(_)) => {
            "its pod networks have changed; vswitchd takes them at its next start".to_owned()
        }
    };
    Some(format!("node {}: {problem}", state.node))
}

fn is_ready(state: &RestState) -> bool {
    unready(state).is_empty()
}

/// Why the switch is not ready.
fn unready(state: &RestState) -> Vec<String> {
    let mut reasons: Vec<String> = late(state);
    reasons.extend(state.store.health().err());
    if !state.switch.reconcile().snapshot().is_synced {
        reasons.push("the policies of the cluster are not known yet".to_owned());
    }
    if !state.switch.is_forwarding(GATEWAY_PORT) {
        reasons.push("the gateway port does not forward".to_owned());
    }
    reasons
}

/// Parts of the daemon that give no sign of life.
fn late(state: &RestState) -> Vec<String> {
    let late = state.supervisor.late();
    late.iter().map(ToString::to_string).collect()
}

/// What an operator should look at.
fn problems(state: &RestState) -> Vec<String> {
    let snapshot = state.switch.reconcile().snapshot();
    let mut problems = late(state);
    let of_policies = snapshot.problems.iter();
    problems.extend(of_policies.map(|p| format!("policy {} {}: {}", p.policy, p.part, p.problem)));
    problems.extend(without_effect(&state.registry.host_endpoints()));
    problems.extend(
        state
            .ipam
            .damaged()
            .iter()
            .map(|record| format!("lease record: {record}")),
    );
    problems.extend(store_problems(state));
    problems.extend(state.node_network.borrow().problems.iter().cloned());
    problems.extend(node_problem(state));
    problems.extend(state.flow_exports.iter().filter_map(|to| to.problem()));
    let absences = state.cluster.iter().flat_map(|health| health.absences());
    problems.extend(absences);
    let forwarding = state.switch.forwarding();
    for attachment in snapshot.attachments.values() {
        if !forwarding.contains(&attachment.port_no) {
            problems.push(format!(
                "port {} of {} does not forward: {} is down or gone",
                attachment.port_no, attachment.pod, attachment.host_ifname
            ));
        }
    }
    let datapath = state.switch.datapath();
    for port in datapath.ports_over_share(state.switch.clock().now()) {
        let kind = match port.class {
            PortClass::Pod => "pod",
            PortClass::Gateway | PortClass::Unknown => "port",
        };
        problems.push(format!(
            "{kind} {} is over its share of new flows",
            port.name
        ));
    }
    let conntrack = datapath.conntrack_stats();
    if conntrack.entries * 10 > conntrack.max_entries * 9 {
        problems.push("the connection table is more than 90 % full".to_owned());
    }
    problems
}

/// What the store cannot do, and what it has lost.
fn store_problems(state: &RestState) -> Vec<String> {
    let mut problems: Vec<String> = state.store.health().err().into_iter().collect();
    for loss in state.store.losses().borrow().iter() {
        let objects = match state.cluster {
            Some(_) => ObjectsFrom::ApiServer,
            None => ObjectsFrom::Store,
        };
        let consequence = loss.consequence(objects);
        let consequence = consequence.map_or_else(String::new, |text| format!("; {text}"));
        problems.push(format!("store: {loss}{consequence}"));
    }
    problems
}

/// `GET /readyz`.
pub(in crate::rest) async fn readyz(State(state): State<RestState>) -> Response {
    let reasons = unready(&state);
    if reasons.is_empty() {
        return "ok".into_response();
    }
    let body = format!("not ready: {}", reasons.join("; "));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}
