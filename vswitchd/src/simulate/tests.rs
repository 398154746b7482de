//! Whole worlds through the simulator.

use serde_json::{Value, json};

use super::{Answer, Cluster, End, PortName, Probe, Protocol, Simulator, World};
use crate::state::ObjectKey;

fn answers(world: &Value) -> Vec<Answer> {
    World::parse(&world.to_string()).unwrap().answers().unwrap()
}

fn refusal(world: &Value) -> String {
    match World::parse(&world.to_string()) {
        Err(error) => error.to_string(),
        Ok(world) => world.answers().unwrap_err().to_string(),
    }
}

fn pod(namespace: &str, name: &str, ip: &str) -> Value {
    json!({ "namespace": namespace, "name": name, "labels": { "pod": name }, "ip": ip,
            "ports": [{ "name": "web", "port": 80, "protocol": "TCP" }] })
}

fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "namespace": namespace, "name": name }, "spec": spec })
}

fn probe(from: &str, to: &str, port: Value, protocol: &str) -> Value {
    let end = |text: &str| match text.split_once('/') {
        Some((namespace, name)) => json!({ "namespace": namespace, "name": name }),
        None => json!({ "ip": text }),
    };
    json!({ "from": end(from), "to": end(to), "port": port, "protocol": protocol })
}

/// Pods x/a, x/b and y/a, a default deny in x, and y/a's egress to TCP 81 alone.
fn world(probes: Vec<Value>) -> Value {
    json!({
        "namespaces": [{ "name": "x", "labels": {} }, { "name": "y", "labels": { "n": "y" } }],
        "pods": [pod("x", "a", "10.0.0.1"), pod("x", "b", "fd00::2"), pod("y", "a", "10.0.0.3")],
        "policies": [
            policy("x", "deny", json!({ "podSelector": {}, "policyTypes": ["Ingress"] })),
            policy("x", "icmp", json!({ "podSelector": { "matchLabels": { "pod": "a" } },
                "ingress": [{ "from": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }] }] })),
            policy("y", "out", json!({ "podSelector": {}, "policyTypes": ["Egress"],
                "egress": [{ "ports": [{ "port": 81 }] }] })),
        ],
        "probes": probes,
    })
}

#[test]
fn both_directions_are_judged_where_they_are_enforced() {
    let found = answers(&world(vec![
        probe("y/a", "x/a", json!(80), "TCP"),
        probe("y/a", "x/a", json!(81), "TCP"),
        probe("x/a", "y/a", json!(80), "TCP"),
        probe("y/a", "192.0.2.1", json!(80), "UDP"),
    ]));
    let sides: Vec<_> = found
        .iter()
        .map(|a| (a.egress, a.ingress, a.allowed))
        .collect();
    let expected = [
        (false, false, false),
        (true, false, false),
        (true, true, true),
        (false, true, false),
    ];
    assert_eq!(sides, expected);
    // Those that isolate together are in no order.
    let sorted = |policies: &[String]| {
        let mut policies = policies.to_vec();
        policies.sort();
        policies
    };
    assert_eq!(sorted(&found[0].policies), ["x/deny", "x/icmp", "y/out"]);
    assert_eq!(found[0].policies[0], "y/out", "the sender's first");
    assert_eq!(sorted(&found[1].policies), ["x/deny", "x/icmp"]);
    assert!(found[2].policies.is_empty());
    assert!(
        found[3].reason.starts_with("egress denied"),
        "{}",
        found[3].reason
    );
}

#[test]
fn every_protocol_is_a_frame_that_the_datapath_understands() {
    let everyone = vec!["TCP", "UDP", "SCTP", "ICMP"];
    for (from, to, allowed) in [
        ("192.0.2.7", "x/a", true),
        ("198.51.100.7", "x/a", false),
        ("x/a", "192.0.2.7", true),
        ("x/b", "2001:db8::1", true),
        ("2001:db8::1", "x/b", false),
    ] {
        for protocol in &everyone {
            let port = if *protocol == "ICMP" {
                Value::Null
            } else {
                json!(80)
            };
            let found = answers(&world(vec![probe(from, to, port, protocol)]));
            assert_eq!(
                found[0].allowed, allowed,
                "{from} {to} {protocol}: {}",
                found[0].reason
            );
            let by_policy = found[0].reason.contains("denied") || allowed;
            assert!(by_policy, "{from} {to} {protocol}: {}", found[0].reason);
        }
    }
}

#[test]
fn a_pod_to_itself_and_strangers_to_each_other_are_not_judged() {
    let found = answers(&world(vec![
        probe("x/a", "x/a", json!(80), "TCP"),
        probe("192.0.2.1", "192.0.2.2", json!(80), "TCP"),
    ]));
    assert!(
        found
            .iter()
            .all(|answer| answer.allowed && answer.policies.is_empty())
    );
}

#[test]
fn a_port_may_be_asked_for_by_its_name() {
    let found = answers(&world(vec![probe("x/a", "y/a", json!("web"), "TCP")]));
    assert!(found[0].allowed);
    let unknown = refusal(&world(vec![probe("x/a", "y/a", json!("web"), "UDP")]));
    assert_eq!(
        unknown,
        "probes[0]: y/a has no port \"web\" for this protocol"
    );
}

#[test]
fn what_means_nothing_is_named() {
    let no_pod = refusal(&world(vec![probe("x/q", "y/a", json!(80), "TCP")]));
    assert_eq!(no_pod, "probes[0]: there is no pod x/q");
    let no_port = refusal(&world(vec![probe("x/a", "y/a", Value::Null, "TCP")]));
    assert_eq!(no_port, "probes[0]: TCP needs a port");
    let families = refusal(&world(vec![probe("x/b", "y/a", json!(80), "TCP")]));
    assert_eq!(
        families,
        "probes[0]: x/b and y/a have no address family in common"
    );
    let mut twice = world(Vec::new());
    twice["pods"]
        .as_array_mut()
        .unwrap()
        .push(pod("x", "a", "10.0.0.9"));
    assert_eq!(refusal(&twice), "pod x/a is there twice");
    let mut invalid = world(Vec::new());
    invalid["policies"][0]["spec"]["policyTypes"] = json!(["Sideways"]);
    assert!(
        refusal(&invalid).starts_with("NetworkPolicy x/deny: "),
        "{}",
        refusal(&invalid)
    );
    let mut typo = world(Vec::new());
    typo["pods"][0]["label"] = json!({});
    assert!(refusal(&typo).contains("label"), "{}", refusal(&typo));
}

#[test]
fn finished_and_pending_pods_have_no_address_and_host_network_pods_are_the_node() {
    let mut w = world(Vec::new());
    w["pods"][0]["phase"] = json!("Succeeded");
    w["probes"] = json!([probe("x/a", "y/a", json!(80), "TCP")]);
    assert_eq!(refusal(&w), "probes[0]: pod x/a has no address");
    w["pods"][0]["phase"] = json!("Running");
    w["pods"][0]["hostNetwork"] = json!(true);
    w["probes"] = json!([
        probe("x/a", "y/a", json!(80), "TCP"),
        probe("x/a", "x/b", json!(80), "TCP"),
    ]);
    w["pods"][0]["ips"] = json!(["fd00::1"]);
    assert!(
        answers(&w).iter().all(|answer| answer.allowed),
        "the node reaches its pods"
    );
}

#[test]
fn changes_are_taken_in_like_the_running_switch_takes_them_in() {
    let world = World::parse(&world(Vec::new()).to_string()).unwrap();
    let mut simulator = Simulator::new(world.cluster().unwrap());
    let key = |namespace: &str, name: &str| ObjectKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let probe = Probe {
        from: End::Address {
            ip: "198.51.100.7".parse().unwrap(),
        },
        to: End::Pod(key("x", "a")),
        port: Some(PortName::Number(80)),
        protocol: Protocol::Tcp,
    };
    assert!(!simulator.judge(&probe).unwrap().allowed);
    for name in ["deny", "icmp"] {
        let gone = crate::state::ClusterChange::PolicyGone(key("x", name));
        simulator.apply(vec![gone]);
    }
    assert!(simulator.judge(&probe).unwrap().allowed);
}

#[test]
fn manifests_are_checked_and_their_namespaces_made() {
    let mut cluster = Cluster::default();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "namespace": "x" },
          "spec": { "containers": [{ "name": "c", "image": "i",
                                     "ports": [{ "containerPort": 80 }] }] },
          "status": { "phase": "Running", "podIP": "10.0.0.1" } },
        { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "b", "namespace": "y" },
          "spec": { "containers": [{ "name": "c", "image": "i" }] },
          "status": { "phase": "Running", "podIPs": [{ "ip": "10.0.0.2" }] } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" } },
        policy("x", "p", json!({ "podSelector": {}, "ingress": [{ "from": [
            { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "y" } } }
        ] }] })),
    ] });
    cluster.add(&list).unwrap();
    cluster.complete();
    let matrix = Simulator::new(cluster.clone()).matrix(|_| true);
    assert_eq!(matrix.len(), 1, "b declares no port");
    assert_eq!(matrix[0].0.to_string(), "y/b -> x/a:80/TCP");
    assert!(matrix[0].1.allowed, "{}", matrix[0].1.reason);
    let bad = policy(
        "x",
        "p",
        json!({ "ingress": [{ "ports": [{ "endPort": 5 }] }] }),
    );
    let error = cluster.add(&bad).unwrap_err().to_string();
    assert!(error.starts_with("NetworkPolicy x/p: "), "{error}");
    assert!(cluster.add(&json!([])).is_err());
}

#[test]
fn policies_of_the_cluster_may_be_of_the_kinds_before_and_are_named_with_them() {
    let pods = |name: &str| json!({ "namespaceSelector": {}, "podSelector": { "matchLabels": { "pod": name } } });
    let deny = |ports: Value| json!([{ "action": "Deny", "from": [{ "namespaces": {} }], "ports": ports }]);
    let named = |kind: &str, name: &str, spec: Value| json!({ "kind": kind, "metadata": { "name": name }, "spec": spec });
    let allow = json!([{ "action": "Allow", "from": [{ "pods": pods("a") }],
        "ports": [{ "portNumber": { "port": 80 } }] }]);
    let mut world = world(vec![
        probe("y/a", "x/a", json!(81), "TCP"),
        probe("x/a", "y/a", json!(80), "TCP"),
        probe("x/a", "y/a", json!(82), "TCP"),
        probe("x/a", "y/a", json!(83), "TCP"),
    ]);
    world["clusterPolicies"] = json!([
        named("AdminNetworkPolicy", "default", json!({ "priority": 1,
            "subject": { "pods": pods("a") }, "ingress": allow })),
        named("BaselineAdminNetworkPolicy", "default", json!({
            "subject": { "namespaces": {} },
            "ingress": deny(json!([{ "portRange": { "start": 80, "end": 82 } }])) })),
        { "metadata": { "name": "default" }, "spec": { "tier": "Admin", "priority": 1,
            "subject": { "pods": { "podSelector": {} } },
            "ingress": [{ "action": "Deny", "from": [{ "namespaces": {} }],
                "protocols": [{ "tcp": { "destinationPort": { "number": 81 } } }] }] } },
    ]);
    let found = answers(&world);
    let by: Vec<(bool, &[String])> = found
        .iter()
        .map(|answer| (answer.ingress, answer.ingress_by.as_slice()))
        .collect();
    let newer = ["default".to_owned()];
    let admin = ["AdminNetworkPolicy default".to_owned()];
    let base = ["BaselineAdminNetworkPolicy default".to_owned()];
    let expected = [
        (false, &newer[..]),
        (true, &admin),
        (false, &base),
        (true, &[]),
    ];
    assert_eq!(by, expected);
    assert!(
        found[2]
            .reason
            .contains("BaselineAdminNetworkPolicy default denies it"),
        "{}",
        found[2].reason
    );

    let twice = world["clusterPolicies"][0].clone();
    world["clusterPolicies"].as_array_mut().unwrap().push(twice);
    assert_eq!(refusal(&world), "clusterPolicy default is there twice");
    world["clusterPolicies"] = json!([named("Admin", "x", json!({}))]);
    assert!(
        refusal(&world).contains("unrecognized"),
        "{}",
        refusal(&world)
    );
    world["clusterPolicies"] = json!([named("AdminNetworkPolicy", "x", json!({ "priority": 1 }))]);
    let refused = refusal(&world);
    assert!(
        refused.contains("AdminNetworkPolicy x") && refused.contains("spec.subject"),
        "{refused}"
    );
}
