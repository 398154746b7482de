//! One test for each demand on the semantics of AdminNetworkPolicy and BaselineAdminNetworkPolicy,
//! and that they decide as ClusterNetworkPolicies that say the same.

use proptest::prelude::*;
use serde_json::{Value, json};
use vswitch_datapath::flow::ip_proto::{ICMP, SCTP, TCP, UDP};
use vswitch_datapath::pipeline::{Rule, TableId};

use super::property::{PORTS, PROTOS, every_address, world};
use super::walker;
use super::world::{NODE, World};
use crate::policy::{denial, overview};
use crate::state::{ClusterPolicyKey, ClusterPolicyKind, ClusterState, ObjectKey};

#[path = "../../../../tests/conformance/older.rs"]
mod older;

/// Two local pods a and b in x, one remote in y, another node.
fn cluster() -> World {
    World::small().node("n2", "role=db", &["192.168.0.2"])
}

fn app(name: &str) -> Value {
    let pods = json!({ "matchLabels": { "app": name } });
    json!({ "pods": { "namespaceSelector": {}, "podSelector": pods } })
}

/// An AdminNetworkPolicy on pod a.
fn on_a(priority: u16, direction: &str, rules: Value) -> Value {
    json!({ "priority": priority, "subject": app("a"), direction: rules })
}

/// The BaselineAdminNetworkPolicy on pod a.
fn base_on_a(direction: &str, rules: Value) -> Value {
    json!({ "subject": app("a"), direction: rules })
}

/// A ClusterNetworkPolicy on pod a.
fn newer_on_a(tier: &str, priority: u16, rules: Value) -> Value {
    json!({ "tier": tier, "priority": priority, "subject": app("a"), "ingress": rules })
}

fn rule(action: &str, peers: &str, peer: Value) -> Value {
    json!({ "action": action, peers: [peer] })
}

fn deny_all() -> Value {
    json!([rule("Deny", "from", json!({ "namespaces": {} }))])
}

fn from_b(action: &str) -> Value {
    json!([rule(action, "from", app("b"))])
}

fn np_denies() -> Value {
    json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] })
}

#[test]
fn allow_counts_more_than_isolation_and_only_in_its_direction() {
    let w = cluster()
        .policy(
            "x/p",
            json!({ "podSelector": { "matchLabels": { "app": "a" } } }),
        )
        .admin("open", on_a(5, "ingress", from_b("Allow")));
    assert!(w.tcp("x/b", "x/a", 80));
    assert!(!w.tcp("y/c", "x/a", 80), "the NetworkPolicy isolates");
    let sender_too = w.policy("x/q", np_denies());
    assert!(!sender_too.tcp("x/b", "x/a", 80), "the sender is isolated");
}

#[test]
fn deny_counts_more_than_what_networkpolicies_allow() {
    let w = cluster()
        .policy("x/p", json!({ "podSelector": {}, "ingress": [{}] }))
        .admin("closed", on_a(5, "ingress", deny_all()));
    assert!(!w.tcp("x/b", "x/a", 80) && !w.tcp("y/c", "x/a", 80));
    assert!(
        w.tcp("x/a", "x/b", 80),
        "no egress rule, and b is no subject"
    );
    assert!(w.tcp("8.8.8.8", "x/a", 80), "no peer is an address outside");
}

#[test]
fn pass_goes_on_with_networkpolicies_then_with_the_baseline() {
    let w = cluster()
        .admin("first", on_a(1, "ingress", from_b("Pass")))
        .admin("second", on_a(2, "ingress", deny_all()))
        .cluster_policy("third", newer_on_a("Admin", 3, deny_all()));
    assert!(w.tcp("x/b", "x/a", 80) && !w.tcp("y/c", "x/a", 80));
    let baseline = w.clone().baseline(base_on_a("ingress", deny_all()));
    assert!(!baseline.tcp("x/b", "x/a", 80), "the baseline is asked");
    let allowed = baseline.policy("x/p", json!({ "podSelector": {}, "ingress": [{}] }));
    assert!(allowed.tcp("x/b", "x/a", 80), "the NetworkPolicy decides");
    let isolated = w.policy("x/p", np_denies());
    assert!(!isolated.tcp("x/b", "x/a", 80), "the NetworkPolicy decides");
}

#[test]
fn the_baseline_is_asked_only_where_no_networkpolicy_isolates_in_that_direction() {
    let w = cluster().baseline(base_on_a("ingress", deny_all()));
    assert!(!w.tcp("x/b", "x/a", 80));
    let open = json!({ "podSelector": {}, "ingress": [{}] });
    assert!(w.clone().policy("x/p", open).tcp("x/b", "x/a", 80));
    let egress = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] });
    assert!(!w.policy("x/p", egress).tcp("x/b", "x/a", 80));
}

#[test]
fn the_baseline_comes_behind_clusternetworkpolicies_of_its_tier() {
    let w = cluster()
        .baseline(base_on_a("ingress", deny_all()))
        .cluster_policy("z", newer_on_a("Baseline", 1_000, from_b("Accept")));
    assert!(w.tcp("x/b", "x/a", 80), "the last priority comes before it");
    assert!(!w.tcp("y/c", "x/a", 80));
}

#[test]
fn both_kinds_of_tier_admin_stand_in_one_order_by_priority() {
    let allows = |admin: u16, newer: u16| {
        cluster()
            .admin("p", on_a(admin, "ingress", from_b("Allow")))
            .cluster_policy("p", newer_on_a("Admin", newer, deny_all()))
            .tcp("x/b", "x/a", 80)
    };
    assert!(allows(0, 1) && !allows(1, 0));
    assert!(allows(999, 1_000) && !allows(1_000, 999));
}

#[test]
fn among_equal_priorities_names_decide_and_among_equal_names_kinds() {
    let allows = |admin: &str, newer: &str| {
        cluster()
            .admin(admin, on_a(7, "ingress", from_b("Allow")))
            .cluster_policy(newer, newer_on_a("Admin", 7, deny_all()))
            .tcp("x/b", "x/a", 80)
    };
    assert!(allows("a", "b") && !allows("b", "a"));
    assert!(allows("a", "a-b") && !allows("a-b", "a"), "whole names");
    assert!(allows("p", "p"), "AdminNetworkPolicy comes first");
}

#[test]
fn rules_count_in_their_order() {
    let first = json!([from_b("Allow")[0], deny_all()[0]]);
    let w = cluster().admin("p", on_a(1, "ingress", first));
    assert!(w.tcp("x/b", "x/a", 80) && !w.tcp("y/c", "x/a", 80));
    let last = json!([deny_all()[0], from_b("Allow")[0]]);
    let w = cluster().admin("p", on_a(1, "ingress", last));
    assert!(!w.tcp("x/b", "x/a", 80));
}

#[test]
fn a_hundred_rules_have_their_places() {
    let mut rules = vec![rule("Deny", "from", app("nobody")); 99];
    rules.push(rule("Deny", "from", app("b")));
    let w = cluster().admin("long", on_a(1, "ingress", json!(rules)));
    assert!(!w.tcp("x/b", "x/a", 80) && w.tcp("y/c", "x/a", 80));
    assert!(w.program().problems.is_empty());
}

#[test]
fn ports_are_the_destination_s_of_one_protocol_each() {
    let with = |ports: Value| {
        let mut deny = rule("Deny", "from", app("b"));
        deny["ports"] = ports;
        cluster().admin("ports", on_a(5, "ingress", json!([deny])))
    };
    let number = with(json!([{ "portNumber": { "protocol": "UDP", "port": 53 } }]));
    assert!(!number.allows("x/b", "x/a", UDP, 53) && number.tcp("x/b", "x/a", 53));
    let range = json!({ "protocol": "SCTP", "start": 8000, "end": 8002 });
    let range = with(json!([{ "portRange": range }]));
    let sctp = [7999, 8000, 8002, 8003].map(|port| range.allows("x/b", "x/a", SCTP, port));
    assert_eq!(sctp, [true, false, false, true]);
    assert!(range.allows("x/b", "x/a", ICMP, 0), "no port is ICMP's");
    let one = with(json!([{ "portRange": { "protocol": "TCP", "start": 80, "end": 80 } }]));
    let tcp = [79, 80, 81].map(|port| one.tcp("x/b", "x/a", port));
    assert_eq!(tcp, [true, false, true], "the CRD lets a range of one pass");
}

#[test]
fn ports_without_a_protocol_are_tcp_s() {
    let mut deny = rule("Deny", "from", app("b"));
    deny["ports"] =
        json!([{ "portNumber": { "port": 53 } }, { "portRange": { "start": 1, "end": 2 } }]);
    let w = cluster().admin("ports", on_a(5, "ingress", json!([deny])));
    assert!(!w.tcp("x/b", "x/a", 53) && !w.tcp("x/b", "x/a", 2));
    assert!(w.allows("x/b", "x/a", UDP, 53) && w.allows("x/b", "x/a", UDP, 2));
    assert!(w.program().problems.is_empty());
}

#[test]
fn a_named_port_brings_protocol_and_number_of_each_pod_s_own() {
    let mut deny = rule("Deny", "from", app("b"));
    deny["ports"] = json!([{ "namedPort": "dns" }]);
    let mut w = cluster().admin("ports", on_a(5, "ingress", json!([deny])));
    w.pods[0].ports = vec![("dns".to_owned(), 5353, UDP), ("dns".to_owned(), 53, TCP)];
    assert!(!w.allows("x/b", "x/a", UDP, 5353) && !w.tcp("x/b", "x/a", 53));
    assert!(w.tcp("x/b", "x/a", 5353) && w.allows("x/b", "x/a", UDP, 53));
}

#[test]
fn without_ports_every_protocol_is_meant() {
    let w = cluster().admin("all", on_a(5, "ingress", deny_all()));
    for protocol in [TCP, UDP, SCTP, ICMP] {
        assert!(!w.allows("x/b", "x/a", protocol, 80), "{protocol}");
    }
}

#[test]
fn networks_mean_any_address_and_nodes_those_of_their_status() {
    let to = |peer: Value| {
        let deny = json!([rule("Deny", "to", peer)]);
        [
            cluster().admin("out", on_a(5, "egress", deny.clone())),
            cluster().baseline(base_on_a("egress", deny)),
        ]
    };
    for w in to(json!({ "networks": ["10.0.0.2/31", "192.168.0.0/24"] })) {
        assert!(!w.tcp("x/a", "x/b", 80) && !w.tcp("x/a", NODE, 80));
        assert!(w.tcp("x/a", "y/c", 80) && w.tcp("fd00::1", "fd00::2", 80));
    }
    for w in to(json!({ "nodes": { "matchLabels": { "role": "db" } } })) {
        assert!(!w.tcp("x/a", "192.168.0.2", 80));
        assert!(w.tcp("x/a", "192.168.0.3", 80) && w.tcp("x/a", "y/c", 80));
    }
}

#[test]
fn namespaces_select_by_their_labels_and_empty_ones_all() {
    let of_x = json!({ "namespaces": { "matchLabels": { "team": "x" } } });
    let deny = json!([rule(
        "Deny",
        "from",
        json!({ "namespaces": { "matchLabels": { "team": "y" } } })
    )]);
    let spec = json!({ "priority": 1, "subject": of_x, "ingress": deny });
    let w = cluster().admin("teams", spec);
    assert!(!w.tcp("y/c", "x/a", 80) && !w.tcp("y/c", "x/b", 80));
    assert!(w.tcp("x/b", "x/a", 80));
    let all = json!({ "priority": 1, "subject": { "namespaces": {} }, "ingress": deny_all() });
    assert!(!cluster().admin("all", all).tcp("x/a", "x/b", 80));
}

#[test]
fn pods_in_the_host_s_network_are_neither_subjects_nor_peers() {
    let mut w = cluster().admin("p", on_a(1, "ingress", deny_all())).remote(
        "y/h",
        "app=a",
        &["192.168.0.7"],
    );
    let selected = |w: &World| {
        let mut cluster = ClusterState::default();
        for change in w.changes() {
            cluster.apply(change);
        }
        let pods: Vec<ObjectKey> = w.pods.iter().map(|pod| pod.key.clone()).collect();
        overview(&cluster, &pods)[0].selected
    };
    assert!(!w.tcp("y/h", "x/a", 80));
    assert_eq!(selected(&w), 2);
    w = w.last_pod(|pod| pod.host_network = true);
    assert!(w.tcp("y/h", "x/a", 80) && !w.tcp("y/c", "x/a", 80));
    assert_eq!(selected(&w), 1);
}

#[test]
fn what_is_not_known_fails_closed_with_its_whole_rule_and_is_said() {
    let with = |action: &str| {
        let unknown = json!({ "action": action, "to": [app("b"), { "services": {} }] });
        cluster().admin("new", on_a(5, "egress", json!([unknown])))
    };
    let allow = with("Allow").policy("x/p", np_denies());
    assert!(!allow.tcp("x/a", "x/b", 80), "an Allow matches nothing");
    let deny = with("Deny");
    assert!(!deny.tcp("x/a", "y/c", 80) && !deny.allows("x/a", "8.8.8.8", ICMP, 0));
    assert!(!with("Pass").tcp("x/a", "y/c", 80), "Pass denies all");
    let problems = deny.program().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].policy.to_string(), "AdminNetworkPolicy new");
    assert_eq!(problems[0].part, "egress[0].to[1]");
    assert!(problems[0].problem.contains("\"services\""), "{problems:?}");
}

#[test]
fn every_other_unknown_part_fails_closed_too_and_is_named_as_it_is_written() {
    let changed = |pointer: &str, field: &str, value: Value| {
        let mut rule = rule("Allow", "to", app("b"));
        rule.pointer_mut(pointer).unwrap()[field] = value;
        rule
    };
    let port = |port: Value| {
        (
            changed("", "ports", json!([{ "namedPort": "x" }, port])),
            "ports[1]",
        )
    };
    let tcp = json!({ "protocol": "TCP", "port": 80 });
    let peer = |peer: Value| (changed("", "to", json!([app("b"), peer])), "to[1]");
    let cases = [
        port(json!({})),
        port(json!({ "allPorts": true })),
        port(json!({ "portNumber": tcp, "namedPort": "web" })),
        port(json!({ "portNumber": { "protocol": "ICMP", "port": 80 } })),
        port(json!({ "portNumber": { "protocol": "", "port": 80 } })),
        port(json!({ "portNumber": { "protocol": 6, "port": 80 } })),
        port(json!({ "portNumber": { "protocol": "TCP", "port": 0 } })),
        port(json!({ "portNumber": { "protocol": "TCP", "port": 80, "flags": [] } })),
        port(json!({ "portNumber": { "protocol": "TCP" } })),
        port(json!({ "portRange": { "protocol": "TCP", "start": 2, "end": 1 } })),
        port(json!({ "portRange": { "protocol": "TCP", "start": 2 } })),
        port(json!({ "tcp": { "destinationPort": { "number": 80 } } })),
        peer(json!({})),
        peer(json!({ "networks": ["10.0.0.0/33"] })),
        peer(json!({ "networks": [] })),
        peer(json!({ "domainNames": ["example.com"] })),
        peer(json!({ "namespaces": {}, "nodes": {} })),
        peer(json!({ "pods": { "podSelector": {} } })),
        peer(json!({ "pods": { "namespaceSelector": {} } })),
        peer(json!({ "namespaces": { "notSameLabels": ["a"] } })),
        (changed("", "ports", json!([])), "ports"),
        (changed("", "to", json!([])), "to"),
        (changed("", "protocols", json!([])), ""),
        (changed("", "when", json!("always")), ""),
    ];
    for (case, part) in cases {
        let open_b = json!({ "podSelector": { "matchLabels": { "app": "b" } }, "ingress": [{}] });
        let w = cluster().policy("x/p", np_denies()).policy("x/q", open_b);
        for w in [
            w.clone().admin("new", on_a(5, "egress", json!([case]))),
            w.baseline(base_on_a("egress", json!([case]))),
        ] {
            assert!(!w.tcp("x/a", "x/b", 80), "{case}");
            let problems = w.program().problems;
            assert_eq!(problems.len(), 1, "{case}: {problems:?}");
            let expected = format!("egress[0].{part}");
            assert_eq!(problems[0].part, expected.trim_end_matches('.'), "{case}");
        }
    }
}

#[test]
fn an_action_of_another_kind_is_unknown_and_denies_all() {
    let admin = cluster().admin("new", on_a(5, "ingress", from_b("Accept")));
    assert!(!admin.tcp("y/c", "x/a", 80));
    let problems = admin.program().problems;
    assert_eq!(problems[0].part, "ingress[0].action");
    assert_eq!(
        problems[0].problem,
        "\"Accept\" is none of Allow, Deny, Pass"
    );
    let baseline = cluster().baseline(base_on_a("ingress", from_b("Pass")));
    assert!(
        !baseline.tcp("y/c", "x/a", 80),
        "there is nothing to pass on to"
    );
    let problems = baseline.program().problems;
    assert_eq!(problems[0].problem, "\"Pass\" is none of Allow, Deny");
    assert_eq!(
        problems[0].policy.to_string(),
        "BaselineAdminNetworkPolicy default"
    );
}

#[test]
fn a_policy_of_which_nobody_knows_whom_it_concerns_does_nothing_and_that_is_said() {
    let good = on_a(5, "ingress", deny_all());
    for (field, value) in [
        ("priority", json!(1_001)),
        ("priority", json!(-1)),
        ("priority", Value::Null),
        ("subject", json!({ "nodes": {} })),
        ("subject", json!({ "pods": { "podSelector": {} } })),
        ("subject", Value::Null),
    ] {
        let mut spec = good.clone();
        spec[field] = value.clone();
        let w = cluster().admin("odd", spec.clone());
        assert!(w.tcp("x/b", "x/a", 80), "{field} {value}");
        let problems = w.program().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].part, field);
    }
    let w = cluster().baseline(json!({ "ingress": deny_all() }));
    assert!(w.tcp("x/b", "x/a", 80));
    assert_eq!(w.program().problems[0].part, "subject");
}

#[test]
fn the_node_reaches_its_pods_whatever_a_policy_says() {
    let unknown = json!([rule("Deny", "from", json!({ "services": {} }))]);
    let w = cluster().admin("closed", on_a(5, "ingress", unknown));
    assert!(!w.tcp("8.8.8.8", "x/a", 80), "denies all");
    assert!(w.tcp(NODE, "x/a", 80));
}

#[test]
fn rules_say_kind_tier_priority_action_as_written_and_part() {
    let w = cluster()
        .admin("guard", on_a(7, "ingress", from_b("Allow")))
        .baseline(base_on_a("ingress", deny_all()));
    let program = w.program();
    let of = |kind: &str| -> Vec<&Rule> {
        let rules = program.rules.values();
        rules.filter(|rule| rule.origin.kind == kind).collect()
    };
    let [admin] = of("AdminNetworkPolicy")[..] else {
        panic!("one rule");
    };
    assert_eq!(admin.table, TableId::IngressAdminTier);
    assert_eq!(admin.origin.name, "guard");
    assert_eq!(admin.origin.part, "Admin 7 Allow ingress[0].from[0]");
    let [base] = of("BaselineAdminNetworkPolicy")[..] else {
        panic!("one rule");
    };
    assert_eq!(base.table, TableId::IngressBaselineTier);
    assert_eq!(base.origin.name, "default");
    assert_eq!(base.origin.part, "Baseline last Deny ingress[0].from[0]");
}

#[test]
fn policies_of_one_name_and_different_kinds_are_different_policies() {
    let networks = |net: &str| json!([rule("Deny", "to", json!({ "networks": [net] }))]);
    let newer = json!({ "tier": "Admin", "priority": 1, "subject": app("a"),
        "egress": networks("10.0.1.0/24") });
    let both = cluster()
        .admin("default", on_a(1, "egress", networks("10.0.0.2/32")))
        .baseline(base_on_a("egress", networks("8.8.8.8/32")))
        .cluster_policy("default", newer);
    let passes = |w: &World| {
        let targets = ["x/b", "y/c", "8.8.8.8"];
        targets.map(|target| w.tcp("x/a", target, 80))
    };
    assert_eq!(passes(&both), [false, false, false]);
    let mut less = both.clone();
    less.older.remove(0);
    assert_eq!(passes(&less), [true, false, false]);
    let mut less = both.clone();
    less.cluster_policies.clear();
    assert_eq!(passes(&less), [false, true, false]);
}

#[test]
fn who_decided_is_named_with_its_kind() {
    let only = |name: &str| denial("receiver", &[name.to_owned()]);
    assert_eq!(
        only("AdminNetworkPolicy guard"),
        "AdminNetworkPolicy guard denies it"
    );
    assert_eq!(only("guard"), "ClusterNetworkPolicy guard denies it");
    let w = cluster().admin("guard", on_a(7, "ingress", deny_all()));
    let decided = super::explain::reason_of_ingress(&w, "x/b", "x/a");
    assert_eq!(
        decided,
        "denied by AdminNetworkPolicy guard Admin 7 Deny ingress[0].from[0]"
    );
}

#[test]
fn policies_are_listed_as_they_are_judged() {
    let all = json!({ "namespaces": {} });
    let newer = |tier: &str| json!({ "tier": tier, "priority": 5, "subject": all });
    let world = cluster()
        .policy("x/p", np_denies())
        .baseline(json!({ "subject": all }))
        .admin("m", json!({ "priority": 5, "subject": all }))
        .admin("early", json!({ "priority": 1, "subject": all }))
        .cluster_policy("a", newer("Admin"))
        .cluster_policy("z", newer("Admin"))
        .cluster_policy("base", newer("Baseline"));
    let mut cluster = ClusterState::default();
    for change in world.changes() {
        cluster.apply(change);
    }
    let pods: Vec<ObjectKey> = world.pods.iter().map(|pod| pod.key.clone()).collect();
    let listed = overview(&cluster, &pods).into_iter();
    let listed: Vec<String> = listed.map(|of| of.policy.to_string()).collect();
    let expected = [
        "AdminNetworkPolicy early",
        "a",
        "AdminNetworkPolicy m",
        "z",
        "x/p",
        "base",
        "BaselineAdminNetworkPolicy default",
    ];
    assert_eq!(listed, expected);
}

/// Returns the world with those ClusterNetworkPolicies in the form before that are chosen and can
/// be written so.
fn rewritten(world: &World, chosen: &[bool]) -> World {
    let mut rewritten = world.clone();
    let place = |(name, spec): &(String, Value)| (spec["priority"].as_u64(), name.clone());
    let of_baseline = world.cluster_policies.iter();
    let of_baseline = of_baseline.filter(|(_, spec)| spec["tier"] == "Baseline");
    let last = of_baseline.map(place).max();
    let mut index = 0;
    rewritten.cluster_policies.retain(|of| {
        index += 1;
        let is_last = Some(place(of)) == last;
        let older = older::older(&of.0, &of.1, is_last).filter(|_| chosen[index - 1]);
        let is_admin = |kind: &str| kind == ClusterPolicyKind::AdminNetworkPolicy.name();
        if let Some((kind, name, spec)) = &older {
            let kind = if is_admin(kind) {
                ClusterPolicyKind::AdminNetworkPolicy
            } else {
                ClusterPolicyKind::BaselineAdminNetworkPolicy
            };
            let name = name.clone();
            let key = ClusterPolicyKey { kind, name };
            rewritten.older.push((key, spec.clone()));
        }
        older.is_none()
    });
    rewritten
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_older_form_decides_as_the_newer_one(
        world in world(),
        chosen in prop::collection::vec(prop::bool::weighted(0.8), 4),
    ) {
        let older = rewritten(&world, &chosen);
        prop_assume!(!older.older.is_empty());
        let (before, after) = (world.program(), older.program());
        prop_assert_eq!(before.problems.len(), after.problems.len());
        let addresses = every_address(&world);
        for (from, to) in addresses.iter().flat_map(|a| addresses.iter().map(move |b| (a, b))) {
            for (proto, port) in PROTOS.into_iter().flat_map(|p| PORTS.map(|n| (p, n))) {
                let flow = world.flow(from, to, proto, port);
                if flow.src.is_ipv4() == flow.dst.is_ipv4() {
                    let verdicts = [&before, &after].map(|of| walker::verdict(of, &flow).is_ok());
                    prop_assert_eq!(verdicts[0], verdicts[1], "{:?}", flow);
                }
            }
        }
    }
}
