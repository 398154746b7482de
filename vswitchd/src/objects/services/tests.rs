//! Services through the registry.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::addresses::first_free;
use crate::objects::Resource;
use crate::objects::tests::kit::*;
use crate::store::{MemoryStore, SharedStore};

fn in_cidr(ip: &Value, cidr: &str) -> bool {
    let cidr: IpNet = cidr.parse().unwrap();
    cidr.contains(&ip.as_str().unwrap().parse::<IpAddr>().unwrap())
}

fn node_ports(spec: &Value) -> Vec<i64> {
    let ports = spec["ports"].as_array().into_iter().flatten();
    ports.filter_map(|port| port["nodePort"].as_i64()).collect()
}

#[test]
fn a_service_gets_a_cluster_ip_and_defaults() {
    let registry = registry(V4);
    let spec = spec_of(&registry, "web", json!({}));
    assert!(in_cidr(&spec["clusterIP"], "10.96.0.0/16"), "{spec}");
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    assert_eq!(spec["internalTrafficPolicy"], "Cluster");
    assert!(spec.get("externalTrafficPolicy").is_none());
    assert!(node_ports(&spec).is_empty());
}

#[test]
fn a_recreated_service_gets_its_address_and_port_again() {
    let registry = registry(V4);
    let first = spec_of(&registry, "web", json!({"type": "NodePort"}));
    let other = spec_of(&registry, "other", json!({"type": "NodePort"}));
    assert_ne!(first["clusterIP"], other["clusterIP"]);
    assert_ne!(node_ports(&first), node_ports(&other));
    delete(&registry, Resource::Service, "web");
    let again = spec_of(&registry, "web", json!({"type": "NodePort"}));
    assert_eq!(again, first);
}

#[test]
fn a_given_cluster_ip_must_be_in_range_and_free() {
    let registry = registry(V4);
    let spec = spec_of(&registry, "a", json!({"clusterIP": "10.96.3.4"}));
    assert_eq!(spec["clusterIPs"], json!(["10.96.3.4"]));
    let taken = refusal(&registry, json!({"clusterIP": "10.96.3.4"}));
    let expected =
        "spec.clusterIPs[0]: Invalid value: \"10.96.3.4\": provided IP is already allocated";
    assert!(taken.contains(expected), "{taken}");
    for ip in ["10.97.0.1", "10.96.0.0", "10.96.255.255"] {
        let message = refusal(&registry, json!({"clusterIP": ip}));
        let expected =
            "provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/16";
        assert!(message.contains(expected), "{message}");
    }
    // Nothing is configured for this family, so nothing can be said against it.
    let spec = spec_of(&registry, "six", json!({"clusterIP": "fd00::1"}));
    assert_eq!(spec["ipFamilies"], json!(["IPv6"]));
    delete(&registry, Resource::Service, "a");
    spec_of(&registry, "b", json!({"clusterIP": "10.96.3.4"}));
}

#[test]
fn the_search_for_an_address_goes_round_and_ends() {
    let cidr: IpNet = "10.0.0.0/30".parse().unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut used = BTreeSet::new();
    assert_eq!(first_free(&cidr, 1, &used), Some(ip("10.0.0.2")));
    used.insert(ip("10.0.0.2"));
    assert_eq!(first_free(&cidr, 1, &used), Some(ip("10.0.0.1")));
    used.insert(ip("10.0.0.1"));
    assert_eq!(first_free(&cidr, 1, &used), None);
    let large: IpNet = "fd00::/64".parse().unwrap();
    let found = first_free(&large, u64::from(u32::MAX), &used).unwrap();
    assert!(
        large.contains(&found) && found != large.network(),
        "{found}"
    );
}

#[test]
fn a_service_for_which_nothing_is_left_is_refused() {
    let registry = registry(&["10.96.0.0/30"]);
    for name in ["a", "b"] {
        spec_of(&registry, name, json!({}));
    }
    let error = try_create(&registry, Resource::Service, service("c", json!({}))).unwrap_err();
    assert_eq!(error.code, 500);
    assert!(error.message.contains("range is full"), "{error}");
}

#[test]
fn headless_and_external_services_get_no_address() {
    let registry = registry(V4);
    let spec = spec_of(
        &registry,
        "none",
        json!({"clusterIP": "None", "selector": {"app": "web"}}),
    );
    assert_eq!(spec["clusterIPs"], json!(["None"]));
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    let free = spec_of(&registry, "free", json!({"clusterIP": "None"}));
    assert_eq!(free["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(free["ipFamilies"], json!(["IPv4", "IPv6"]));
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let external = spec_of(&registry, "out", external);
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert!(external.get(field).is_none(), "{external}");
    }
}

#[test]
fn dual_stack_services_get_an_address_of_each_family() {
    let registry = registry(DUAL);
    for policy in ["PreferDualStack", "RequireDualStack"] {
        let spec = spec_of(
            &registry,
            &policy.to_lowercase(),
            json!({"ipFamilyPolicy": policy}),
        );
        assert_eq!(spec["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert!(in_cidr(&spec["clusterIPs"][0], "10.96.0.0/16"));
        assert!(in_cidr(&spec["clusterIPs"][1], "fd00:96::/108"));
        assert_eq!(spec["clusterIP"], spec["clusterIPs"][0]);
    }
    let six_first = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]});
    let spec = spec_of(&registry, "six-first", six_first);
    assert_eq!(spec["ipFamilies"], json!(["IPv6", "IPv4"]));
    assert!(in_cidr(&spec["clusterIP"], "fd00:96::/108"));
    let single = spec_of(&registry, "single", json!({"ipFamilies": ["IPv6"]}));
    assert_eq!(single["clusterIPs"].as_array().unwrap().len(), 1);
    assert!(in_cidr(&single["clusterIP"], "fd00:96::/108"));
}

#[test]
fn families_that_are_not_to_be_had_are_refused() {
    let one = registry(V4);
    let spec = spec_of(&one, "prefer", json!({"ipFamilyPolicy": "PreferDualStack"}));
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    let message = refusal(&one, json!({"ipFamilyPolicy": "RequireDualStack"}));
    let expected = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services";
    assert!(message.contains(expected), "{message}");
    let message = refusal(&one, json!({"ipFamilies": ["IPv6"]}));
    assert!(message.contains("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured"));
    let two = registry(DUAL);
    for (spec, expected) in [
        (
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple ipFamilies",
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilies[1]: Duplicate value",
        ),
        (
            json!({"ipFamilies": ["IPv5"]}),
            "supported values: \"IPv4\", \"IPv6\"",
        ),
        (
            json!({"ipFamilyPolicy": "Both"}),
            "spec.ipFamilyPolicy: Unsupported value",
        ),
        (
            json!({"ipFamilies": ["IPv6"], "clusterIP": "10.96.0.9"}),
            "expected an IPv6 value as indicated by `ipFamilies[0]`",
        ),
        (
            json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.8"]}),
            "first value must match `clusterIP`",
        ),
        (
            json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "10.96.0.8"],
                "ipFamilyPolicy": "RequireDualStack"}),
            "may specify no more than one IP for each IP family",
        ),
        (
            json!({"clusterIPs": ["10.96.0.9"]}),
            "spec.clusterIP: Required value",
        ),
        (
            json!({"clusterIP": "10.96.0"}),
            "spec.clusterIPs[0]: Invalid value",
        ),
    ] {
        let message = refusal(&two, spec);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_service_can_go_to_two_families_and_back() {
    let registry = registry(DUAL);
    let single = spec_of(&registry, "web", json!({}));
    let dual = put(
        &registry,
        "web",
        json!({"ipFamilyPolicy": "PreferDualStack"}),
    )
    .unwrap();
    assert_eq!(dual["clusterIP"], single["clusterIP"]);
    assert!(in_cidr(&dual["clusterIPs"][1], "fd00:96::/108"));
    assert_eq!(dual["ipFamilies"], json!(["IPv4", "IPv6"]));
    let kept = put(&registry, "web", json!({})).unwrap();
    assert_eq!(kept, dual, "a manifest that says nothing changes nothing");
    let back = json!({"spec": {"ipFamilyPolicy": "SingleStack"}});
    let back = patch(&registry, Resource::Service, "web", back);
    assert_eq!(back["spec"], single);
}

#[test]
fn without_cidrs_services_have_only_the_addresses_they_name() {
    let registry = registry(&[]);
    let spec = spec_of(&registry, "web", json!({"type": "NodePort"}));
    assert!(spec.get("clusterIP").is_none(), "{spec}");
    assert_eq!(node_ports(&spec).len(), 1);
    let spec = spec_of(&registry, "own", json!({"clusterIP": "172.30.0.1"}));
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert!(refusal(&registry, json!({"clusterIP": "172.30.0.1"})).contains("already allocated"));
}

#[test]
fn services_stored_without_an_address_get_one_when_there_are_some() {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let registry = open(Arc::clone(&store), &[]);
    spec_of(&registry, "web", json!({}));
    drop(registry);
    let registry = open(Arc::clone(&store), V4);
    let web = registry.get(Resource::Service, "default", "web").unwrap();
    assert!(in_cidr(&web["spec"]["clusterIP"], "10.96.0.0/16"));
    let version = registry.current_version();
    drop(registry);
    let registry = open(Arc::clone(&store), &["10.97.0.0/16"]);
    assert_eq!(registry.current_version(), version, "what it has it keeps");
}

#[test]
fn the_cluster_ip_is_kept_and_cannot_be_changed() {
    let registry = registry(V4);
    let first = spec_of(&registry, "web", json!({"type": "NodePort"}));
    let again = put(&registry, "web", json!({"type": "NodePort"})).unwrap();
    assert_eq!(again, first);
    for ip in ["10.96.7.7", "None"] {
        let error = put(&registry, "web", json!({"clusterIP": ip})).unwrap_err();
        assert_eq!(error.code, 422);
        assert!(
            error.message.contains("spec.clusterIP: Invalid value"),
            "{error}"
        );
        assert!(error.message.contains("field is immutable"), "{error}");
    }
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let external = put(&registry, "web", external).unwrap();
    assert!(external.get("clusterIP").is_none(), "{external}");
    put(&registry, "web", json!({"clusterIP": "10.96.7.7"})).unwrap();
}

#[test]
fn a_patch_to_another_type_gives_and_takes_node_ports() {
    let registry = registry(V4);
    let first = spec_of(&registry, "web", json!({}));
    let typed = |kind: &str| {
        let change = json!({"spec": {"type": kind}});
        patch(&registry, Resource::Service, "web", change)["spec"].clone()
    };
    let spec = typed("LoadBalancer");
    assert_eq!(node_ports(&spec).len(), 1);
    assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(typed("ClusterIP"), first);
    let change = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let spec = patch(&registry, Resource::Service, "web", change);
    assert!(spec["spec"].get("clusterIPs").is_none(), "{spec}");
}

#[test]
fn node_ports_are_given_out_and_kept_by_name() {
    let registry = registry(V4);
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 443},
        {"name": "c", "port": 80, "protocol": "UDP", "nodePort": 0}]);
    let spec = spec_of(
        &registry,
        "web",
        json!({"type": "NodePort", "ports": ports}),
    );
    let given = node_ports(&spec);
    let numbers: BTreeSet<i64> = given.iter().copied().collect();
    assert_eq!(numbers.len(), 3, "{spec}");
    assert!(
        numbers
            .iter()
            .all(|number| (30000..=30009).contains(number))
    );
    let fewer = json!([{"name": "b", "port": 8443}, {"name": "d", "port": 90}]);
    let spec = put(
        &registry,
        "web",
        json!({"type": "NodePort", "ports": fewer}),
    )
    .unwrap();
    assert_eq!(node_ports(&spec)[0], given[1]);
}

#[test]
fn a_node_port_belongs_to_one_service() {
    let registry = registry(V4);
    let both = json!({"type": "NodePort", "ports": [
        {"name": "t", "port": 53, "nodePort": 30005},
        {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30005}]});
    let spec = spec_of(&registry, "dns", both);
    assert_eq!(node_ports(&spec), [30005, 30005]);
    let with = |port: Value| json!({"type": "NodePort", "ports": [port]});
    for protocol in ["TCP", "SCTP"] {
        let port = json!({"port": 1, "nodePort": 30005, "protocol": protocol});
        let message = refusal(&registry, with(port));
        let expected =
            "spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated";
        assert!(message.contains(expected), "{message}");
    }
    let message = refusal(&registry, with(json!({"port": 1, "nodePort": 29999})));
    assert!(
        message.contains("The range of valid ports is 30000-30009"),
        "{message}"
    );
    let twice = json!({"type": "NodePort", "ports": [
        {"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30001}]});
    let message = refusal(&registry, twice);
    assert!(
        message.contains("spec.ports[1].nodePort: Duplicate value: 30001"),
        "{message}"
    );
    let message = refusal(
        &registry,
        json!({"ports": [{"port": 1, "nodePort": 30001}]}),
    );
    assert!(
        message.contains("may not be used when `type` is 'ClusterIP'"),
        "{message}"
    );
}

#[test]
fn node_ports_run_out() {
    let registry = registry(V4);
    for number in 0..10 {
        spec_of(
            &registry,
            &format!("s{number}"),
            json!({"type": "NodePort"}),
        );
    }
    let one_more = service("more", json!({"type": "NodePort"}));
    let error = try_create(&registry, Resource::Service, one_more).unwrap_err();
    assert!(
        error
            .message
            .contains("failed to allocate a nodePort: range is full")
    );
}

#[test]
fn load_balancers_get_what_their_policy_asks_for() {
    let registry = registry(V4);
    let plain = spec_of(
        &registry,
        "plain",
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}),
    );
    assert!(node_ports(&plain).is_empty());
    assert!(plain.get("healthCheckNodePort").is_none());
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let spec = spec_of(&registry, "local", local.clone());
    let health = spec["healthCheckNodePort"].as_i64().unwrap();
    assert!(!node_ports(&spec).contains(&health));
    assert_eq!(put(&registry, "local", local).unwrap(), spec);
    let taken = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": health}]});
    assert!(refusal(&registry, taken).contains("already allocated"));
    let cluster = put(
        &registry,
        "local",
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}),
    );
    assert!(cluster.unwrap().get("healthCheckNodePort").is_none());
    let message = refusal(&registry, json!({"healthCheckNodePort": 30001}));
    assert!(
        message.contains("spec.healthCheckNodePort: Invalid value"),
        "{message}"
    );
}

#[test]
fn external_ips_bring_a_traffic_policy() {
    let registry = registry(V4);
    let spec = spec_of(&registry, "web", json!({"externalIPs": ["192.0.2.1"]}));
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    let change = json!({"spec": {"externalIPs": null}});
    let spec = patch(&registry, Resource::Service, "web", change);
    assert!(
        spec["spec"].get("externalTrafficPolicy").is_none(),
        "{spec}"
    );
}

#[test]
fn session_affinity_lasts_three_hours_unless_it_says_otherwise() {
    let registry = registry(V4);
    let spec = spec_of(&registry, "web", json!({"sessionAffinity": "ClientIP"}));
    let timeout =
        |spec: &Value| spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].clone();
    assert_eq!(timeout(&spec), 10_800);
    let spec = put(&registry, "web", json!({"sessionAffinity": "None"})).unwrap();
    assert!(spec.get("sessionAffinityConfig").is_none());
    for seconds in [0, 86_401] {
        let message = refusal(
            &registry,
            json!({"sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}),
        );
        assert!(
            message.contains("timeoutSeconds: Invalid value"),
            "{message}"
        );
    }
    assert!(refusal(&registry, json!({"sessionAffinity": "Cookie"})).contains("Unsupported value"));
}

#[test]
fn services_are_validated_in_the_words_of_the_api_server() {
    let registry = registry(V4);
    for (spec, expected) in [
        (
            json!({"internalTrafficPolicy": "Near"}),
            "spec.internalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            json!({"type": "NodePort", "externalTrafficPolicy": "Near"}),
            "spec.externalTrafficPolicy: Unsupported value",
        ),
        (
            json!({"externalTrafficPolicy": "Local"}),
            "may only be set for externally-accessible services",
        ),
        (
            json!({"externalIPs": ["192.0.2"]}),
            "spec.externalIPs[0]: Invalid value: \"192.0.2\": must be a valid IP address",
        ),
        (
            json!({"externalIPs": ["127.0.0.1"]}),
            "may not be in the loopback range",
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0"]}),
            "spec.loadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value",
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            "may only be used when `type` is 'LoadBalancer'",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 65536}]}),
            "spec.ports[0].nodePort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}),
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ),
        (
            json!({"type": "ExternalName"}),
            "spec.externalName: Required value",
        ),
        (
            json!({"type": "ExternalName", "externalName": "a b"}),
            "spec.externalName: Invalid value",
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.7"}),
            "spec.clusterIP: Forbidden: may not be set for ExternalName services",
        ),
        (
            json!({"type": "NodePort", "clusterIP": "None"}),
            "may not be set to 'None' for NodePort services",
        ),
        (
            json!({"type": "Tunnel"}),
            "spec.type: Unsupported value: \"Tunnel\"",
        ),
    ] {
        let message = refusal(&registry, spec);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_status_of_a_load_balancer_is_what_was_written() {
    let registry = registry(V4);
    let before = spec_of(&registry, "web", json!({"type": "LoadBalancer"}));
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}});
    let web = set_status(&registry, Resource::Service, "web", status.clone());
    let ingress = &web["status"]["loadBalancer"]["ingress"];
    assert_eq!(ingress[0]["ip"], "192.0.2.7");
    assert_eq!(web["spec"], before);
    put(
        &registry,
        "web",
        json!({"type": "LoadBalancer", "ports": [{"port": 81}]}),
    )
    .unwrap();
    let again = registry.get(Resource::Service, "default", "web").unwrap();
    assert_eq!(again["status"], web["status"]);
}

/// A spec that may make sense or not.
fn any_spec() -> impl Strategy<Value = Value> {
    let fields = [
        (
            "type",
            json!(["NodePort", "LoadBalancer", "NodePort", "ExternalName", 1]),
        ),
        (
            "clusterIP",
            json!(["", "None", "10.96.0.1", "10.96.0.2", "fd00:96::1", "x", 1]),
        ),
        (
            "clusterIPs",
            json!([
                [],
                ["10.96.0.1"],
                ["10.96.0.1", "fd00:96::1"],
                ["None"],
                [""]
            ]),
        ),
        (
            "ipFamilies",
            json!([[], ["IPv4"], ["IPv6"], ["IPv6", "IPv4"], ["IPv4", "IPv4"]]),
        ),
        (
            "ipFamilyPolicy",
            json!(["SingleStack", "PreferDualStack", "RequireDualStack"]),
        ),
        ("externalTrafficPolicy", json!(["Cluster", "Local", "X"])),
        ("healthCheckNodePort", json!([0, 30001, 30002])),
        ("allocateLoadBalancerNodePorts", json!([true, false])),
        ("sessionAffinity", json!(["ClientIP", "None"])),
        ("externalName", json!(["", "a.b"])),
        ("selector", json!([{}, {"app": "web"}])),
        (
            "ports",
            json!([[], [{"port": 1}], [{"port": 1, "nodePort": 30001}],
            [{"name": "a", "port": 1}, {"name": "b", "port": 2, "nodePort": 30001}],
            [{"port": 1, "nodePort": -1, "targetPort": 0}]]),
        ),
    ];
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(field, values)| {
            let mut values = values.as_array().unwrap().clone();
            values.push(Value::Null);
            let value = prop::option::weighted(0.2, prop::sample::select(values));
            value.prop_map(move |value| value.map(|value| (field.to_owned(), value)))
        })
        .collect();
    fields.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_is_ever_given_out_twice(
        writes in prop::collection::vec(("[a-e]", any::<bool>(), any_spec()), 8..24),
    ) {
        let registry = registry(DUAL);
        for (name, is_patch, spec) in writes {
            let _ = try_create(&registry, Resource::Service, service(&name, spec.clone()));
            if is_patch {
                let _ = try_patch(&registry, Resource::Service, &name, json!({"spec": spec}), false);
            } else {
                let _ = put(&registry, &name, spec);
            }
        }
        let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for service in list(&registry, Resource::Service) {
            let spec = &service["spec"];
            prop_assert_eq!(&spec["clusterIP"], &spec["clusterIPs"][0]);
            prop_assert_eq!(spec["type"] == "ExternalName", spec["clusterIP"].is_null());
            let given = spec["clusterIPs"].as_array().into_iter().flatten();
            for ip in given.filter(|ip| *ip != "None") {
                prop_assert!(ips.insert(ip.to_string()), "{} is given out twice", ip);
            }
            let own: BTreeSet<i64> = node_ports(spec).into_iter().collect();
            for port in own.into_iter().chain(spec["healthCheckNodePort"].as_i64()) {
                prop_assert!(ports.insert(port), "{} is given out twice", port);
            }
        }
    }
}
