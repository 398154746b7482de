//! The OpenAPI document of `/v1`.

use axum::Json;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vswitchd",
        description = "The switch for operators and orchestrators."
    ),
    paths(
        super::status::status,
        super::ports::list,
        super::ports::add,
        super::ports::remove,
        super::flows::list,
        super::flows::put,
        super::flows::remove,
        super::flows::list_admin,
        super::flows::list_sets,
        super::policies::list,
        super::audit::list,
        super::captures::capture,
        super::flow_records::list,
        super::services::list,
        super::services::list_groups,
        super::connections::list,
        super::traffic::list,
        super::attachments::list,
        super::attachments::list_leases,
        super::store::accept_loss,
        super::probes::send,
        super::trace::trace,
        super::live_trace::live,
        super::explain::explain,
        super::cni::call,
    )
)]
struct Document;

/// `GET /v1/openapi.json`.
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for path in [
            "/v1/status",
            "/v1/ports",
            "/v1/ports/{ifname}",
            "/v1/flows",
            "/v1/flows/{name}",
            "/v1/admin-flows",
            "/v1/address-sets",
            "/v1/policies",
            "/v1/audit",
            "/v1/captures",
            "/v1/flow-records",
            "/v1/services",
            "/v1/groups",
            "/v1/connections",
            "/v1/traffic",
            "/v1/attachments",
            "/v1/leases",
            "/v1/store/accept-loss",
            "/v1/probes",
            "/v1/trace",
            "/v1/trace/live",
            "/v1/explain",
            "/v1/cni",
        ] {
            assert!(paths.contains_key(path), "{path}");
        }
    }

    /// `UPDATE_GOLDEN=1` writes the document anew.
    #[test]
    fn the_document_in_docs_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api/openapi.json");
        let served = Document::openapi().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &served).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), served);
    }
}
