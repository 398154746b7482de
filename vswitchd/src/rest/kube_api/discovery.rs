//! Discovery: versions, groups, resources.

use axum::Json;
use axum::extract::Path;
use serde_json::{Value, json};

use super::respond::no_such_path;
use super::{events, events_path};
use crate::objects::{RESOURCES, ResourceInfo, Scope, StatusError};

/// The Kubernetes version whose types and validation are served.
const MAJOR: &str = "1";
const MINOR: &str = "33";

/// Groups with their version.
const GROUPS: [(&str, &str); 4] = [
    ("networking.k8s.io", "v1"),
    ("policy.networking.k8s.io", "v1alpha2"),
    ("discovery.k8s.io", "v1"),
    ("events.k8s.io", "v1"),
];

/// `GET /version`.
pub(super) async fn version() -> Json<Value> {
    Json(json!({
        "major": MAJOR, "minor": MINOR,
        "gitVersion": format!("v{MAJOR}.{MINOR}.0+vswitch-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    }))
}

/// `GET /api`.
pub(super) async fn core_versions() -> Json<Value> {
    Json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))
}

/// `GET /apis`.
pub(super) async fn groups() -> Json<Value> {
    let groups: Vec<Value> = GROUPS.iter().map(group_value).collect();
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

fn group_value((group, version): &(&str, &str)) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

/// `GET /apis/{group}`.
pub(super) async fn group(Path(group): Path<String>) -> Result<Json<Value>, StatusError> {
    let Some(known) = GROUPS.iter().find(|(name, _)| *name == group) else {
        return Err(no_such_path().await);
    };
    let mut value = group_value(known);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Ok(Json(value))
}

/// `GET /api/v1`.
pub(super) async fn core_resources() -> Json<Value> {
    Json(resources("", "v1"))
}

/// `GET /apis/{group}/{version}`.
pub(super) async fn group_resources(
    Path((group, version)): Path<(String, String)>,
) -> Result<Json<Value>, StatusError> {
    if !GROUPS.contains(&(group.as_str(), version.as_str())) {
        return Err(no_such_path().await);
    }
    Ok(Json(resources(&group, &format!("{group}/{version}"))))
}

fn resources(group: &str, group_version: &str) -> Value {
    let of_group = RESOURCES.iter().filter(|info| info.group == group);
    let events = events_path::GROUPS.contains(&group).then(events::entry);
    let resources: Vec<Value> = of_group.flat_map(entries).chain(events).collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": resources})
}

/// The entry of a resource, and of its status.
fn entries(info: &ResourceInfo) -> Vec<Value> {
    let namespaced = info.scope == Scope::Namespaced;
    let mut entry = json!({
        "name": info.plural, "singularName": info.singular, "namespaced": namespaced,
        "kind": info.kind, "shortNames": info.short_names,
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    });
    if !info.categories.is_empty() {
        entry["categories"] = json!(info.categories);
    }
    let mut entries = vec![entry];
    if info.has_status {
        entries.push(
            json!({"name": format!("{}/status", info.plural), "singularName": "",
            "namespaced": namespaced, "kind": info.kind, "verbs": ["get", "patch", "update"]}),
        );
    }
    entries
}
