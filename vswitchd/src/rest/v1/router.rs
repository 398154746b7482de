//! The routes below `/v1`.

use axum::Router;
use axum::routing::{delete, get, post};

use super::super::RestState;
use super::{
    attachments, audit, captures, cni, connections, explain, flow_records, flows, live_trace,
    openapi, policies, ports, probes, services, status, store, trace, traffic,
};

/// Returns the routes below `/v1`.
pub(in crate::rest) fn router() -> Router<RestState> {
    Router::new()
        .route("/status", get(status::status))
        .route("/ports", get(ports::list).post(ports::add))
        .route("/ports/{ifname}", delete(ports::remove))
        .route("/flows", get(flows::list).post(flows::put))
        .route("/flows/{name}", delete(flows::remove))
        .route("/admin-flows", get(flows::list_admin))
        .route("/address-sets", get(flows::list_sets))
        .route("/policies", get(policies::list))
        .route("/audit", get(audit::list))
        .route("/captures", get(captures::capture))
        .route("/flow-records", get(flow_records::list))
        .route("/services", get(services::list))
        .route("/groups", get(services::list_groups))
        .route("/connections", get(connections::list))
        .route("/traffic", get(traffic::list))
        .route("/attachments", get(attachments::list))
        .route("/leases", get(attachments::list_leases))
        .route("/store/accept-loss", post(store::accept_loss))
        .route("/probes", post(probes::send))
        .route("/trace", post(trace::trace))
        .route("/trace/live", get(live_trace::live))
        .route("/explain", post(explain::explain))
        .route("/cni", post(cni::call))
        .route("/openapi.json", get(openapi::document))
}
