//! ClusterNetworkPolicies in a registry: served as any other kind, refused as the CRD refuses.

use serde_json::{Value, json};

use super::kit::{made_of_cluster, refusals_of_changed, registry};
use crate::objects::{FieldValidation, PatchKind, Resource, StatusError, WriteOptions, feed};
use crate::state::ClusterChange;

const KIND: Resource = Resource::ClusterNetworkPolicy;

/// A policy that the CRD takes, with something of each.
fn spec() -> Value {
    json!({
        "tier": "Admin", "priority": 10, "subject": {"namespaces": {}},
        "ingress": [{"name": "in", "action": "Accept",
            "from": [{"pods": {"podSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}}}}],
            "protocols": [{"destinationNamedPort": "web"}]}],
        "egress": [{"action": "Deny",
            "to": [{"networks": ["10.0.0.1/8", "::/0"]}, {"nodes": {}},
                {"domainNames": ["*.example.com", "example.com."]}],
            "protocols": [{"tcp": {"destinationPort": {"number": 65535}}},
                {"udp": {"destinationPort": {"range": {"start": 1, "end": 2}}}}]}],
    })
}

fn create(spec: &Value, validation: FieldValidation) -> Result<Value, StatusError> {
    made_of_cluster(KIND, "guard", spec, validation)
}

/// The refusal of a policy in which something is changed, `field reason`.
fn refusals(pointer: &str, value: Value) -> Vec<String> {
    refusals_of_changed((KIND, "guard"), spec(), pointer, value)
}

#[test]
fn a_policy_is_served_whole_with_what_became_of_it() {
    let made = create(&spec(), FieldValidation::Strict).unwrap();
    assert_eq!(made["spec"], spec());
    assert_eq!(made["apiVersion"], "policy.networking.k8s.io/v1alpha2");
    assert_eq!(made["metadata"]["generation"], 1);
    let condition = &made["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("Enforceable"), &json!("False"))
    );
    let message = condition["message"].as_str().unwrap();
    assert!(
        message.contains("egress[0].to[2]: domainNames is not served"),
        "{message}"
    );
}

#[test]
fn each_demand_of_the_crd_is_made() {
    let many = |count: usize, item: Value| Value::Array(vec![item; count]);
    let rule = json!({"action": "Deny", "from": [{"namespaces": {}}]});
    let invalid = "FieldValueInvalid";
    let cases = [
        (
            "/tier",
            json!("Platform"),
            "spec.tier FieldValueNotSupported".to_owned(),
        ),
        (
            "/tier",
            Value::Null,
            "spec.tier FieldValueRequired".to_owned(),
        ),
        ("/priority", json!(1001), format!("spec.priority {invalid}")),
        ("/priority", json!(-1), format!("spec.priority {invalid}")),
        ("/subject", json!({}), format!("spec.subject {invalid}")),
        (
            "/subject/pods",
            json!({"podSelector": {}}),
            format!("spec.subject {invalid}"),
        ),
        (
            "/ingress",
            many(26, rule),
            "spec.ingress FieldValueTooMany".to_owned(),
        ),
        (
            "/ingress/0/action",
            json!("Allow"),
            "spec.ingress[0].action FieldValueNotSupported".to_owned(),
        ),
        (
            "/ingress/0/name",
            json!("x".repeat(101)),
            "spec.ingress[0].name FieldValueTooLong".to_owned(),
        ),
        (
            "/ingress/0/from",
            json!([]),
            format!("spec.ingress[0].from {invalid}"),
        ),
        (
            "/ingress/0/from",
            many(26, json!({"namespaces": {}})),
            "spec.ingress[0].from FieldValueTooMany".to_owned(),
        ),
        (
            "/ingress/0/from/0",
            json!({}),
            format!("spec.ingress[0].from[0] {invalid}"),
        ),
        (
            "/ingress/0/from/0/pods/podSelector",
            Value::Null,
            "spec.ingress[0].from[0].pods.podSelector FieldValueRequired".to_owned(),
        ),
        (
            "/ingress/0/protocols",
            json!([]),
            format!("spec.ingress[0].protocols {invalid}"),
        ),
        (
            "/egress/0/to/0/networks/0",
            json!("10.0.0.0/33"),
            format!("spec.egress[0].to[0].networks[0] {invalid}"),
        ),
        (
            "/egress/0/to/0/networks/0",
            json!("10.0.0.0/08"),
            format!("spec.egress[0].to[0].networks[0] {invalid}"),
        ),
        (
            "/egress/0/to/0/networks/0",
            json!("::ffff:10.0.0.0/104"),
            format!("spec.egress[0].to[0].networks[0] {invalid}"),
        ),
        (
            "/egress/0/to/0/networks/0",
            json!("::/0"),
            "spec.egress[0].to[0].networks[1] FieldValueDuplicate".to_owned(),
        ),
        (
            "/egress/0/to/2/domainNames/0",
            json!("exa mple.com"),
            format!("spec.egress[0].to[2].domainNames[0] {invalid}"),
        ),
        (
            "/egress/0/protocols/0",
            json!({"tcp": {}}),
            format!("spec.egress[0].protocols[0].tcp {invalid}"),
        ),
        (
            "/egress/0/protocols/0",
            json!({"icmp": {}}),
            format!("spec.egress[0].protocols[0] {invalid}"),
        ),
        (
            "/egress/0/protocols/0/tcp/destinationPort/number",
            json!(0),
            format!("spec.egress[0].protocols[0].tcp.destinationPort.number {invalid}"),
        ),
        (
            "/egress/0/protocols/1/udp/destinationPort/range/start",
            json!(2),
            format!("spec.egress[0].protocols[1].udp.destinationPort.range {invalid}"),
        ),
        (
            "/egress/0/protocols/0",
            json!({"destinationNamedPort": "web"}),
            format!("spec.egress[0] {invalid}"),
        ),
    ];
    for (pointer, value, expected) in cases {
        assert_eq!(
            refusals(pointer, value.clone()),
            [expected],
            "{pointer} {value}"
        );
    }
}

#[test]
fn hostile_objects_are_refused_with_words_and_bring_nothing_down() {
    for pointer in [
        "/tier",
        "/priority",
        "/subject",
        "/subject/namespaces",
        "/ingress",
        "/ingress/0",
        "/ingress/0/action",
        "/ingress/0/from",
        "/ingress/0/from/0",
        "/egress/0/to/0/networks",
        "/egress/0/protocols",
        "/egress/0/protocols/0/tcp",
        "/egress/0/protocols/1/udp/destinationPort",
    ] {
        for value in [
            json!(7.5),
            json!({"x": [[]]}),
            json!("y"),
            json!([[1]]),
            json!(true),
        ] {
            let refused = refusals(pointer, value.clone());
            assert!(!refused.is_empty(), "{pointer} {value}");
        }
    }
    let missing = registry(&[]).create(
        KIND,
        "",
        json!({"metadata": {"name": "x"}}),
        WriteOptions::default(),
    );
    assert_eq!(missing.unwrap_err().causes[0].field, "spec");
}

#[test]
fn a_field_that_is_not_known_is_dropped_or_refused_as_asked() {
    let mut odd = spec();
    odd["ingress"][0]["protocols"] =
        json!([{"tcp": {"destinationPort": {"number": 80}, "flags": ["syn"]}}]);
    let made = create(&odd, FieldValidation::Warn).unwrap();
    assert!(made["spec"]["ingress"][0]["protocols"][0]["tcp"]["flags"].is_null());
    let refused = create(&odd, FieldValidation::Strict).unwrap_err();
    assert!(
        refused
            .message
            .contains("spec.ingress[0].protocols[0].tcp.flags"),
        "{}",
        refused.message
    );
}

#[test]
fn a_change_of_the_spec_is_told_and_renews_what_the_status_says() {
    let registry = registry(&[]);
    let options = WriteOptions::default;
    let object = json!({"metadata": {"name": "guard"}, "spec": spec()});
    registry.create(KIND, "", object, options()).unwrap();
    let patch = json!({"spec": {"egress": null}});
    let written = registry.patch(KIND, "", "guard", PatchKind::Merge, &patch, options());
    let object = written.unwrap().object;
    assert_eq!(object["metadata"]["generation"], 2);
    assert_eq!(object["status"]["conditions"][0]["status"], "True");
    let told = feed(&registry).initial;
    let is_it = |change: &ClusterChange| {
        matches!(change, ClusterChange::ClusterPolicy(record)
            if record.key.name == "guard" && record.spec["egress"].is_null())
    };
    assert!(told.iter().any(is_it), "{told:?}");
}
