//! AdminNetworkPolicies and the BaselineAdminNetworkPolicy in a registry: refused as their CRDs
//! refuse, with the CRDs' defaults.

use serde_json::{Value, json};

use super::kit::{made_of_cluster, refusals_of_changed, registry};
use crate::objects::{FieldValidation, Resource, StatusError, WriteOptions, feed};
use crate::state::{ClusterChange, ClusterPolicyKind};

const ADMIN: Resource = Resource::AdminNetworkPolicy;
const BASELINE: Resource = Resource::BaselineAdminNetworkPolicy;

/// What both CRDs take, with something of each.
fn common() -> Value {
    let pods = json!({"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}});
    json!({
        "subject": {"namespaces": {}},
        "ingress": [{"name": "in", "action": "Allow", "from": [{"pods": pods}],
            "ports": [{"namedPort": "web"}]}],
        "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.1/8", "::/0"]}, {"nodes": {}}],
            "ports": [{"portNumber": {"protocol": "TCP", "port": 65535}},
                {"portRange": {"protocol": "UDP", "start": 1, "end": 2}}]}],
    })
}

fn admin() -> Value {
    let mut spec = common();
    spec["priority"] = json!(10);
    spec["egress"][0]["to"]
        .as_array_mut()
        .unwrap()
        .push(json!({"domainNames": ["*.example.com", "a.example.com."]}));
    spec
}

fn create(
    resource: Resource,
    spec: &Value,
    validation: FieldValidation,
) -> Result<Value, StatusError> {
    made_of_cluster(resource, "default", spec, validation)
}

/// The refusal of a policy in which something is changed, `field reason`.
fn refusals(resource: Resource, pointer: &str, value: Value) -> Vec<String> {
    let spec = if resource == ADMIN { admin() } else { common() };
    refusals_of_changed((resource, "default"), spec, pointer, value)
}

#[test]
fn policies_are_served_whole_with_what_became_of_them() {
    for (resource, spec, is_whole) in [(ADMIN, admin(), "False"), (BASELINE, common(), "True")] {
        let made = create(resource, &spec, FieldValidation::Strict).unwrap();
        assert_eq!(made["spec"], spec);
        assert_eq!(made["apiVersion"], "policy.networking.k8s.io/v1alpha1");
        assert_eq!(made["metadata"]["generation"], 1);
        let condition = &made["status"]["conditions"][0];
        assert_eq!(condition["type"], "Enforceable");
        assert_eq!(condition["status"], is_whole, "{condition}");
    }
    let made = create(ADMIN, &admin(), FieldValidation::Strict).unwrap();
    let message = made["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("egress[0].to[2]: domainNames is not served"),
        "{message}"
    );
}

#[test]
fn ports_without_a_protocol_become_tcp_s() {
    let mut spec = common();
    spec["egress"][0]["ports"] = json!([{"portNumber": {"port": 1}},
        {"portRange": {"start": 1, "end": 2}}, {"portNumber": {"protocol": "SCTP", "port": 1}}]);
    let made = create(BASELINE, &spec, FieldValidation::Strict).unwrap();
    let expected = json!([{"portNumber": {"protocol": "TCP", "port": 1}},
        {"portRange": {"protocol": "TCP", "start": 1, "end": 2}},
        {"portNumber": {"protocol": "SCTP", "port": 1}}]);
    assert_eq!(made["spec"]["egress"][0]["ports"], expected);
}

#[test]
fn each_demand_of_both_crds_is_made() {
    let many = |count: usize, item: Value| Value::Array(vec![item; count]);
    let rule = json!({"action": "Deny", "from": [{"namespaces": {}}]});
    let port = json!({"namedPort": "web"});
    let cases = [
        ("/subject", json!({}), "subject FieldValueInvalid"),
        ("/subject", Value::Null, "subject FieldValueRequired"),
        (
            "/subject/pods",
            json!({"namespaceSelector": {}, "podSelector": {}}),
            "subject FieldValueInvalid",
        ),
        ("/ingress", many(101, rule), "ingress FieldValueTooMany"),
        (
            "/ingress/0/action",
            json!("Accept"),
            "ingress[0].action FieldValueNotSupported",
        ),
        (
            "/ingress/0/name",
            json!("x".repeat(101)),
            "ingress[0].name FieldValueTooLong",
        ),
        (
            "/ingress/0/from",
            json!([]),
            "ingress[0].from FieldValueInvalid",
        ),
        (
            "/ingress/0/from",
            Value::Null,
            "ingress[0].from FieldValueRequired",
        ),
        (
            "/ingress/0/from",
            many(101, json!({"namespaces": {}})),
            "ingress[0].from FieldValueTooMany",
        ),
        (
            "/ingress/0/from/0",
            json!({}),
            "ingress[0].from[0] FieldValueInvalid",
        ),
        (
            "/ingress/0/from/0/pods/podSelector",
            Value::Null,
            "ingress[0].from[0].pods.podSelector FieldValueRequired",
        ),
        (
            "/ingress/0/from/0/pods/namespaceSelector",
            Value::Null,
            "ingress[0].from[0].pods.namespaceSelector FieldValueRequired",
        ),
        (
            "/ingress/0/ports",
            json!([]),
            "ingress[0].ports FieldValueInvalid",
        ),
        (
            "/ingress/0/ports",
            many(101, port.clone()),
            "ingress[0].ports FieldValueTooMany",
        ),
        (
            "/ingress/0/ports/0",
            json!({}),
            "ingress[0].ports[0] FieldValueInvalid",
        ),
        (
            "/ingress/0/ports/0/portNumber",
            json!({"protocol": "TCP", "port": 1}),
            "ingress[0].ports[0] FieldValueInvalid",
        ),
        (
            "/egress/0/to/0/networks/0",
            json!("::ffff:10.0.0.0/104"),
            "egress[0].to[0].networks[0] FieldValueInvalid",
        ),
        (
            "/egress/0/to/0/networks/0",
            json!("everything"),
            "egress[0].to[0].networks[0] FieldValueInvalid",
        ),
        (
            "/egress/0/to/0/networks/0",
            json!(format!("1.{}", "0".repeat(42))),
            "egress[0].to[0].networks[0] FieldValueTooLong",
        ),
        (
            "/egress/0/to/0/networks/0",
            json!("::/0"),
            "egress[0].to[0].networks[1] FieldValueDuplicate",
        ),
        (
            "/egress/0/to/0/networks",
            json!([]),
            "egress[0].to[0].networks FieldValueInvalid",
        ),
        (
            "/egress/0/ports/0/portNumber/port",
            json!(0),
            "egress[0].ports[0].portNumber.port FieldValueInvalid",
        ),
        (
            "/egress/0/ports/0/portNumber/port",
            Value::Null,
            "egress[0].ports[0].portNumber.port FieldValueRequired",
        ),
        (
            "/egress/0/ports/1/portRange/end",
            json!(65536),
            "egress[0].ports[1].portRange.end FieldValueInvalid",
        ),
        ("/egress/0/ports/0", port, "egress[0] FieldValueInvalid"),
    ];
    for (pointer, value, expected) in cases {
        for resource in [ADMIN, BASELINE] {
            let refused = refusals(resource, pointer, value.clone());
            assert_eq!(refused, [format!("spec.{expected}")], "{pointer} {value}");
        }
    }
}

#[test]
fn what_the_two_kinds_do_not_have_in_common() {
    for priority in [json!(-1), json!(1001)] {
        let refused = refusals(ADMIN, "/priority", priority);
        assert_eq!(refused, ["spec.priority FieldValueInvalid"]);
    }
    let refused = refusals(ADMIN, "/priority", Value::Null);
    assert_eq!(refused, ["spec.priority FieldValueRequired"]);
    let refused = refusals(BASELINE, "/priority", json!(1));
    assert!(refused[0].contains("unknown field"), "{refused:?}");
    assert!(refusals(ADMIN, "/ingress/0/action", json!("Pass")).is_empty());
    let refused = refusals(BASELINE, "/ingress/0/action", json!("Pass"));
    assert_eq!(refused, ["spec.ingress[0].action FieldValueNotSupported"]);
    let names = json!({"domainNames": ["example.com"]});
    let refused = refusals(BASELINE, "/egress/0/to/1", names);
    assert!(refused[0].contains("unknown field"), "{refused:?}");
}

#[test]
fn domain_names_are_those_of_the_crd_s_pattern() {
    let refused = |name: &str| {
        let refused = refusals(ADMIN, "/egress/0/to/2/domainNames/0", json!(name));
        let expected = ["spec.egress[0].to[2].domainNames[0] FieldValueInvalid"];
        assert!(refused.is_empty() || refused == expected, "{refused:?}");
        !refused.is_empty()
    };
    for name in ["example.com", "*.example.com", "a_b.c-d.", "_.com", "1.2"] {
        assert!(!refused(name), "{name}");
    }
    for name in [
        "com",
        "*",
        "*.com",
        "exa mple.com",
        "a..b",
        "a-.com",
        "-a.com",
        "",
        "*.*.com",
    ] {
        assert!(refused(name), "{name}");
    }
}

#[test]
fn there_is_one_baseline_and_it_is_called_default() {
    let object = json!({"metadata": {"name": "guard"}, "spec": common()});
    let refused = registry(&[]).create(BASELINE, "", object, WriteOptions::default());
    let causes = refused.unwrap_err().causes;
    assert_eq!(causes[0].field, "metadata.name");
    assert!(
        causes[0].message.contains("Only one baseline"),
        "{causes:?}"
    );
}

#[test]
fn what_the_crds_take_and_nobody_understands_is_served_and_fails_closed() {
    let cases = [
        (
            "/egress/0/ports/0/portNumber/protocol",
            json!("ICMP"),
            "egress[0].ports[0]: \"ICMP\" is none of",
        ),
        (
            "/egress/0/ports/1/portRange/start",
            json!(3),
            "egress[0].ports[1]: range ends before it starts",
        ),
        (
            "/egress/0/to/0/networks/0",
            json!("10.0.0.0/33"),
            "egress[0].to[0]: \"10.0.0.0/33\" is not a network",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut spec = common();
        *spec.pointer_mut(pointer).unwrap() = value;
        let made = create(BASELINE, &spec, FieldValidation::Strict).unwrap();
        let condition = &made["status"]["conditions"][0];
        assert_eq!(condition["status"], "False");
        let message = condition["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn hostile_objects_are_refused_with_words_and_bring_nothing_down() {
    for pointer in [
        "/priority",
        "/subject",
        "/subject/namespaces",
        "/ingress",
        "/ingress/0",
        "/ingress/0/action",
        "/ingress/0/from",
        "/ingress/0/from/0",
        "/egress/0/to/0/networks",
        "/egress/0/ports",
        "/egress/0/ports/0/portNumber",
        "/egress/0/ports/0/portNumber/protocol",
        "/egress/0/ports/1/portRange",
    ] {
        for value in [json!(7.5), json!({"x": [[]]}), json!([[1]]), json!(true)] {
            let refused = refusals(ADMIN, pointer, value.clone());
            assert!(!refused.is_empty(), "{pointer} {value}");
        }
    }
    for resource in [ADMIN, BASELINE] {
        let object = json!({"metadata": {"name": "default"}});
        let missing = registry(&[]).create(resource, "", object, WriteOptions::default());
        assert_eq!(missing.unwrap_err().causes[0].field, "spec");
    }
}

#[test]
fn changes_are_told_with_their_kind() {
    let registry = registry(&[]);
    let options = WriteOptions::default;
    for (resource, spec) in [(ADMIN, admin()), (BASELINE, common())] {
        let object = json!({"metadata": {"name": "default"}, "spec": spec});
        registry.create(resource, "", object, options()).unwrap();
    }
    let told = feed(&registry).initial;
    let kinds: Vec<ClusterPolicyKind> = told
        .iter()
        .filter_map(|change| match change {
            ClusterChange::ClusterPolicy(record) if record.key.name == "default" => {
                Some(record.key.kind)
            }
            _ => None,
        })
        .collect();
    let expected = [
        ClusterPolicyKind::AdminNetworkPolicy,
        ClusterPolicyKind::BaselineAdminNetworkPolicy,
    ];
    assert_eq!(kinds, expected);
}
