//! Discovery: versions, groups, resources.

use axum::Json;
use axum::extract::Path;
use serde_json::{Value, json};

use super::events;
use super::respond::no_such_path;
use crate::objects::{EVENTS, RESOURCES, ResourceInfo, Scope, StatusError};

/// The Kubernetes version whose types and validation are served.
const MAJOR: &str = "1";
const MINOR: &str = "33";

/// Groups with their versions, the preferred one first.
const GROUPS: [(&str, &[&str]); 5] = [
    ("networking.k8s.io", &["v1"]),
    ("policy.networking.k8s.io", &["v1alpha2", "v1alpha1"]),
    ("projectcalico.org", &["v3"]),
    ("discovery.k8s.io", &["v1"]),
    ("events.k8s.io", &["v1"]),
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

fn group_value((group, versions): &(&str, &[&str])) -> Value {
    let version =
        |version: &&str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
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
    Json(resources("", "v1", "v1"))
}

/// `GET /apis/{group}/{version}`.
pub(super) async fn group_resources(
    Path((group, version)): Path<(String, String)>,
) -> Result<Json<Value>, StatusError> {
    let is_it =
        |(name, versions): &(&str, &[&str])| *name == group && versions.contains(&version.as_str());
    if !GROUPS.iter().any(is_it) {
        return Err(no_such_path().await);
    }
    let group_version = format!("{group}/{version}");
    Ok(Json(resources(&group, &version, &group_version)))
}

fn resources(group: &str, version: &str, group_version: &str) -> Value {
    let is_of_it = |info: &&ResourceInfo| info.group == group && info.version == version;
    let of_group = RESOURCES.iter().filter(is_of_it);
    let events = EVENTS.iter().filter(is_of_it).map(events::entry);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_in_its_own_version_and_the_newer_version_is_preferred() {
        for info in &RESOURCES {
            let versions = GROUPS.iter().filter(|(group, _)| *group == info.group);
            let versions = versions.flat_map(|(_, versions)| versions.iter());
            let versions: Vec<&str> = if info.group.is_empty() {
                vec!["v1"]
            } else {
                versions.copied().collect()
            };
            let listed = versions.iter().filter(|version| {
                let list = resources(info.group, version, "");
                let mut all = list["resources"].as_array().unwrap().iter();
                all.any(|entry| entry["name"] == info.plural)
            });
            let listed: Vec<&&str> = listed.collect();
            assert_eq!(listed, [&info.version], "{}", info.kind);
        }
        let of_policies = GROUPS
            .iter()
            .find(|(group, _)| group.starts_with("policy."));
        let value = group_value(of_policies.unwrap());
        assert_eq!(value["preferredVersion"]["version"], "v1alpha2");
        assert_eq!(
            value["versions"][1]["groupVersion"],
            "policy.networking.k8s.io/v1alpha1"
        );
    }
}
