//! Services and their groups.

use axum::extract::State;
use axum::response::Response;
use vswitch_api::v1::{EndpointCounts, LoadBalancingGroup, ServicePortView, ServiceView};

use super::super::RestState;
use super::read::read;
use crate::service::protocol_name;
use crate::state::{ClusterState, ServiceRecord};

/// `GET /v1/groups`, by number.
#[utoipa::path(get, path = "/v1/groups", responses((status = 200, body = Vec<LoadBalancingGroup>)))]
pub(super) async fn list_groups(State(state): State<RestState>) -> Response {
    read(state, groups).await
}

fn groups(state: &RestState) -> Vec<LoadBalancingGroup> {
    let groups = state.switch.datapath().groups().into_iter();
    let groups = groups.map(|group| LoadBalancingGroup {
        id: group.id.0,
        name: group.name.to_string(),
        endpoints: group.endpoints.iter().map(ToString::to_string).collect(),
        affinity_seconds: group.affinity.map(|affinity| affinity.as_secs()),
    });
    groups.collect()
}

/// `GET /v1/services`, by namespace and name.
#[utoipa::path(get, path = "/v1/services", responses((status = 200, body = Vec<ServiceView>)))]
pub(super) async fn list(State(state): State<RestState>) -> Response {
    read(state, services).await
}

fn services(state: &RestState) -> Vec<ServiceView> {
    let snapshot = state.switch.reconcile().snapshot();
    let services = snapshot.cluster.services();
    let views = services.map(|service| view(service, &snapshot.cluster, &state.node));
    views.collect()
}

fn view(service: &ServiceRecord, cluster: &ClusterState, node: &str) -> ServiceView {
    let ports = service.ports.iter().map(|port| ServicePortView {
        name: port.name.clone(),
        protocol: protocol_name(port.proto).to_owned(),
        port: port.port,
        node_port: port.node_port,
    });
    ServiceView {
        service: service.key.to_string(),
        cluster_ips: service.cluster_ips.clone(),
        external_ips: service.external_ips.clone(),
        load_balancer_ips: service.load_balancer_ips.clone(),
        ports: ports.collect(),
        endpoints: counts(service, cluster, node),
        affinity_seconds: service.affinity.map(|affinity| affinity.as_secs()),
        internal_local: service.internal_local,
        external_local: service.external_local,
    }
}

fn counts(service: &ServiceRecord, cluster: &ClusterState, node: &str) -> EndpointCounts {
    let mut counts = EndpointCounts::default();
    for endpoint in cluster
        .slices_of(&service.key)
        .flat_map(|slice| &slice.endpoints)
    {
        let is_here = endpoint.node_name.as_deref() == Some(node);
        counts.total += 1;
        counts.ready += usize::from(endpoint.ready);
        counts.terminating += usize::from(endpoint.terminating);
        counts.ready_here += usize::from(endpoint.ready && is_here);
    }
    counts
}
