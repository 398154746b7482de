//! Calico's kinds as its custom resources store them (`crd.projectcalico.org/v1`), in the form in
//! which its API serves them.

use serde_json::{Value, json};

/// Group of the custom resources.
pub(crate) const CALICO_CRD_GROUP: &str = "crd.projectcalico.org";
/// Annotation with the labels and annotations that users gave an object, as JSON.
const METADATA: &str = "projectcalico.org/metadata";
/// What Calico puts before the names of policies in tier `default` without that annotation.
const DEFAULT_PREFIX: &str = "default.";

/// Brings an object of a custom resource into the API's form. Nobody fills in the types of what
/// was written past Calico's API: Felix takes both then.
pub(crate) fn of_stored_calico(object: &mut Value) {
    let is_policy = object["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("NetworkPolicy") && !kind.contains("Kubernetes"));
    let metadata = object["metadata"]["annotations"][METADATA].as_str();
    let users: Option<Value> = metadata.and_then(|text| serde_json::from_str(text).ok());
    if let Some(users) = &users {
        for field in ["labels", "annotations"] {
            object["metadata"][field] = users[field].clone();
        }
    }
    if !is_policy {
        return;
    }
    let spec = &mut object["spec"];
    if !spec.is_object() {
        *spec = json!({});
    }
    let has_types = spec["types"]
        .as_array()
        .is_some_and(|types| !types.is_empty());
    if !has_types {
        spec["types"] = json!(["Ingress", "Egress"]);
    }
    let tier = spec["tier"].as_str().unwrap_or_default();
    let is_default = tier.is_empty() || tier == "default";
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(name) = name.strip_prefix(DEFAULT_PREFIX)
        && is_default
        && users.is_none()
    {
        object["metadata"]["name"] = json!(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_users_and_types_that_nobody_filled_in_are_both() {
        let users = json!({"labels": {"a": "b"}}).to_string();
        let mut set = json!({"kind": "NetworkSet", "metadata": {"name": "s", "labels": {"x": "y"},
            "annotations": {METADATA: users}}});
        of_stored_calico(&mut set);
        assert_eq!(set["metadata"]["labels"], json!({"a": "b"}));
        let policy = |spec: Value| {
            let mut policy = json!({"kind": "GlobalNetworkPolicy",
                "metadata": {"name": "default.x"}, "spec": spec});
            of_stored_calico(&mut policy);
            policy
        };
        let without = policy(json!({"selector": "all()"}));
        assert_eq!(without["spec"]["types"], json!(["Ingress", "Egress"]));
        assert_eq!(without["metadata"]["name"], "x");
        let with = policy(json!({"tier": "security", "types": ["Egress"]}));
        assert_eq!(with["spec"]["types"], json!(["Egress"]));
        assert_eq!(with["metadata"]["name"], "default.x");
    }
}
