//! One test for each demand on the semantics of ClusterNetworkPolicy, on the smallest cluster that
//! shows it.

use serde_json::{Value, json};
use vswitch_datapath::flow::ip_proto::{ICMP, TCP, UDP};
use vswitch_datapath::pipeline::{Rule, TableId};

use super::world::{NODE, World, labels, newer};
use crate::policy::overview;
use crate::state::{ClusterState, ObjectKey, PolicyKey};

/// Two local pods a and b in x, one remote in y, another node.
fn cluster() -> World {
    World::small().node("n2", "role=db", &["192.168.0.2"])
}

fn app(name: &str) -> Value {
    json!({ "pods": { "podSelector": { "matchLabels": { "app": name } } } })
}

/// A policy on pod a.
fn on_a(tier: &str, priority: u16, direction: &str, rules: Value) -> Value {
    json!({ "tier": tier, "priority": priority, "subject": app("a"), direction: rules })
}

fn rule(action: &str, peers: &str, peer: Value) -> Value {
    json!({ "action": action, peers: [peer] })
}

fn deny_all() -> Value {
    json!([rule("Deny", "from", json!({ "namespaces": {} }))])
}

const NP_DENIES: &str = r#"{ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }"#;

fn np_denies() -> Value {
    serde_json::from_str(NP_DENIES).unwrap()
}

#[test]
fn an_accept_of_tier_admin_counts_more_than_isolation_and_only_in_its_direction() {
    let accept = json!([rule("Accept", "from", app("b"))]);
    let w = cluster()
        .policy(
            "x/p",
            json!({ "podSelector": { "matchLabels": { "app": "a" } } }),
        )
        .cluster_policy("open", on_a("Admin", 5, "ingress", accept));
    assert!(w.tcp("x/b", "x/a", 80));
    assert!(!w.tcp("y/c", "x/a", 80), "the NetworkPolicy isolates");
    let sender_too = w.policy("x/q", np_denies());
    assert!(
        !sender_too.tcp("x/b", "x/a", 80),
        "its own egress is denied"
    );
}

#[test]
fn a_deny_of_tier_admin_counts_more_than_what_networkpolicies_allow() {
    let w = cluster()
        .policy("x/p", json!({ "podSelector": {}, "ingress": [{}] }))
        .cluster_policy("closed", on_a("Admin", 5, "ingress", deny_all()));
    assert!(!w.tcp("x/b", "x/a", 80) && !w.tcp("y/c", "x/a", 80));
    assert!(
        w.tcp("x/a", "x/b", 80),
        "no egress rule, and b is no subject"
    );
    assert!(
        w.tcp("8.8.8.8", "x/a", 80),
        "no peer means an address outside"
    );
}

#[test]
fn pass_skips_the_rest_of_its_tier_and_no_more() {
    let pass = json!([rule("Pass", "from", app("b"))]);
    let w = cluster()
        .cluster_policy("first", on_a("Admin", 1, "ingress", pass.clone()))
        .cluster_policy("second", on_a("Admin", 2, "ingress", deny_all()));
    assert!(w.tcp("x/b", "x/a", 80) && !w.tcp("y/c", "x/a", 80));
    let baseline = w
        .clone()
        .cluster_policy("third", on_a("Baseline", 1, "ingress", deny_all()));
    assert!(!baseline.tcp("x/b", "x/a", 80), "Baseline is asked");
    let passed = w
        .cluster_policy("third", on_a("Baseline", 1, "ingress", pass))
        .cluster_policy("fourth", on_a("Baseline", 2, "ingress", deny_all()));
    assert!(passed.tcp("x/b", "x/a", 80), "the default allows");
}

#[test]
fn baseline_is_asked_only_where_no_networkpolicy_isolates_in_that_direction() {
    let w = cluster().cluster_policy("base", on_a("Baseline", 0, "ingress", deny_all()));
    assert!(!w.tcp("x/b", "x/a", 80));
    let open = w
        .clone()
        .policy("x/p", json!({ "podSelector": {}, "ingress": [{}] }));
    assert!(open.tcp("x/b", "x/a", 80));
    let egress = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] });
    assert!(!w.policy("x/p", egress).tcp("x/b", "x/a", 80));
}

#[test]
fn lower_priorities_come_first_and_names_decide_among_equals() {
    let accept = || json!([rule("Accept", "from", app("b"))]);
    let allows = |accepts: (&str, u16), denies: (&str, u16)| {
        cluster()
            .cluster_policy(denies.0, on_a("Admin", denies.1, "ingress", deny_all()))
            .cluster_policy(accepts.0, on_a("Admin", accepts.1, "ingress", accept()))
            .tcp("x/b", "x/a", 80)
    };
    assert!(allows(("z", 0), ("a", 1)) && !allows(("a", 1_000), ("z", 999)));
    assert!(allows(("a", 7), ("b", 7)) && !allows(("b", 7), ("a", 7)));
}

#[test]
fn the_rules_of_a_policy_are_not_mixed_with_those_of_another_of_its_priority() {
    let nobody = rule("Deny", "from", app("nobody"));
    let first = json!([nobody, rule("Accept", "from", app("b"))]);
    let w = cluster()
        .cluster_policy("a", on_a("Admin", 3, "ingress", first))
        .cluster_policy("b", on_a("Admin", 3, "ingress", deny_all()));
    assert!(
        w.tcp("x/b", "x/a", 80),
        "a's second rule comes before b's first"
    );
}

#[test]
fn ports_are_the_destination_s_and_names_bring_their_protocol() {
    let mut deny = rule("Deny", "from", app("b"));
    deny["protocols"] = json!([
        { "destinationNamedPort": "dns" },
        { "tcp": { "destinationPort": { "range": { "start": 8000, "end": 8002 } } } },
    ]);
    let w = cluster().cluster_policy("ports", on_a("Admin", 5, "ingress", json!([deny])));
    let mut w = w;
    w.pods[0].ports = vec![("dns".to_owned(), 5353, UDP), ("dns".to_owned(), 53, TCP)];
    assert!(!w.allows("x/b", "x/a", UDP, 5353) && !w.tcp("x/b", "x/a", 53));
    assert!(w.tcp("x/b", "x/a", 5353) && w.allows("x/b", "x/a", UDP, 53));
    let tcp = [7999, 8000, 8002, 8003].map(|port| w.tcp("x/b", "x/a", port));
    assert_eq!(tcp, [true, false, false, true]);
    assert!(w.allows("x/b", "x/a", ICMP, 0), "no entry can mean ICMP");
    let all = cluster().cluster_policy("all", on_a("Admin", 5, "ingress", deny_all()));
    assert!(
        !all.allows("x/b", "x/a", ICMP, 0),
        "without entries every protocol is meant"
    );
}

#[test]
fn networks_mean_any_address_and_nodes_those_of_their_status() {
    let to = |peer: Value| {
        cluster().cluster_policy(
            "out",
            on_a("Admin", 5, "egress", json!([rule("Deny", "to", peer)])),
        )
    };
    let networks = to(json!({ "networks": ["10.0.0.2/31", "192.168.0.0/24"] }));
    for (target, passes) in [
        ("x/b", false),
        (NODE, false),
        ("y/c", true),
        ("fd00::2", true),
    ] {
        let from = if target.contains("::") {
            "fd00::1"
        } else {
            "x/a"
        };
        assert_eq!(networks.tcp(from, target, 80), passes, "{target}");
    }
    let nodes = to(json!({ "nodes": { "matchLabels": { "role": "db" } } }));
    assert!(!nodes.tcp("x/a", "192.168.0.2", 80));
    assert!(nodes.tcp("x/a", "192.168.0.3", 80) && nodes.tcp("x/a", "y/c", 80));
    let mut relabelled = nodes;
    relabelled.nodes[0].labels = labels("role=web");
    assert!(relabelled.tcp("x/a", "192.168.0.2", 80));
}

#[test]
fn what_is_not_known_fails_closed_with_its_whole_rule_and_is_said() {
    let with = |action: &str| {
        let unknown = json!({ "action": action, "to": [app("b"), { "services": {} }] });
        cluster().cluster_policy("new", on_a("Admin", 5, "egress", json!([unknown])))
    };
    let accept = with("Accept").policy("x/p", np_denies());
    assert!(!accept.tcp("x/a", "x/b", 80), "an Accept matches nothing");
    let deny = with("Deny");
    assert!(!deny.tcp("x/a", "y/c", 80) && !deny.allows("x/a", "8.8.8.8", ICMP, 0));
    assert!(!with("Pass").tcp("x/a", "y/c", 80), "Pass denies all");
    let problems = deny.program().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].policy, PolicyKey::ClusterPolicy(newer("new")));
    assert_eq!(problems[0].part, "egress[0].to[1]");
    assert!(problems[0].problem.contains("\"services\""), "{problems:?}");
}

#[test]
fn every_other_unknown_part_fails_closed_too() {
    let to_b = || json!({ "action": "Accept", "to": [app("b")] });
    let changed = |pointer: &str, field: &str, value: Value| {
        let mut rule = to_b();
        rule.pointer_mut(pointer).unwrap()[field] = value;
        rule
    };
    let port = json!({ "destinationPort": { "number": 80 } });
    let cases = [
        changed("", "protocols", json!([{}])),
        changed("", "protocols", json!([{ "icmp": {} }])),
        changed(
            "",
            "protocols",
            json!([{ "tcp": { "destinationPort": { "number": 80 }, "flags": [] } }]),
        ),
        changed("", "protocols", json!([{ "tcp": port, "udp": port }])),
        changed(
            "",
            "protocols",
            json!([{ "tcp": { "destinationPort": { "number": 65536 } } }]),
        ),
        changed(
            "",
            "protocols",
            json!([{ "tcp": { "destinationPort": { "number": "80" } } }]),
        ),
        changed("", "protocols", json!([])),
        changed("", "protocols", json!("tcp")),
        changed("", "when", json!("always")),
        changed("", "to", json!([])),
        changed("", "to", json!([{ "networks": ["10.0.0.0/33"] }])),
        changed("", "to", json!([{ "domainNames": ["example.com"] }])),
        changed("", "to", json!([{ "namespaces": {}, "nodes": {} }])),
        changed("/to/0/pods/podSelector", "matchFields", json!({})),
        changed("/to/0/pods", "serviceAccount", json!("x")),
    ];
    for case in cases {
        let w = cluster()
            .policy("x/p", np_denies())
            .policy(
                "x/q",
                json!({ "podSelector": { "matchLabels": { "app": "b" } }, "ingress": [{}] }),
            )
            .cluster_policy("new", on_a("Admin", 5, "egress", json!([case])));
        assert!(!w.tcp("x/a", "x/b", 80), "{case}");
        assert_eq!(w.program().problems.len(), 1, "{case}");
    }
    let action = cluster().cluster_policy(
        "new",
        on_a("Admin", 5, "egress", json!([rule("Log", "to", app("b"))])),
    );
    assert!(
        !action.tcp("x/a", "y/c", 80),
        "an unknown action denies all"
    );
}

#[test]
fn a_policy_of_which_nobody_knows_whom_it_concerns_does_nothing_and_that_is_said() {
    let good = on_a("Admin", 5, "ingress", deny_all());
    for (field, value) in [
        ("tier", json!("Middle")),
        ("priority", json!(1_001)),
        ("priority", json!(-1)),
        ("subject", json!({ "nodes": {} })),
        ("subject", Value::Null),
    ] {
        let mut spec = good.clone();
        spec[field] = value.clone();
        let w = cluster().cluster_policy("odd", spec);
        assert!(w.tcp("x/b", "x/a", 80), "{field} {value}");
        let problems = w.program().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].part, field);
    }
}

#[test]
fn the_node_reaches_its_pods_whatever_tier_admin_says() {
    let unknown = json!([rule("Deny", "from", json!({ "services": {} }))]);
    let w = cluster().cluster_policy("closed", on_a("Admin", 5, "ingress", unknown));
    assert!(!w.tcp("8.8.8.8", "x/a", 80), "denies all");
    assert!(w.tcp(NODE, "x/a", 80));
}

#[test]
fn rules_say_tier_priority_action_and_part() {
    let w = cluster().cluster_policy("guard", on_a("Admin", 7, "ingress", deny_all()));
    let program = w.program();
    let of_policy = |rule: &&Rule| rule.origin.kind == "ClusterNetworkPolicy";
    let rules: Vec<&Rule> = program.rules.values().filter(of_policy).collect();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].table, TableId::IngressAdminTier);
    assert_eq!(rules[0].origin.name, "guard");
    assert_eq!(rules[0].origin.part, "Admin 7 Deny ingress[0].from[0]");
}

#[test]
fn without_policies_of_the_cluster_the_tables_of_tiers_have_no_rules() {
    let in_tiers = |w: &World| {
        let tables = [
            TableId::EgressAdminTier,
            TableId::EgressBaselineTier,
            TableId::IngressAdminTier,
            TableId::IngressBaselineTier,
        ];
        let program = w.program();
        program
            .rules
            .values()
            .filter(|rule| tables.contains(&rule.table))
            .count()
    };
    assert_eq!(in_tiers(&cluster().policy("x/p", np_denies())), 0);
    let elsewhere =
        json!({ "tier": "Admin", "priority": 1, "subject": app("c"), "ingress": deny_all() });
    assert_eq!(
        in_tiers(&cluster().cluster_policy("elsewhere", elsewhere)),
        0
    );
    let base = on_a("Baseline", 1, "ingress", deny_all());
    assert_eq!(
        in_tiers(&cluster().cluster_policy("base", base)),
        1,
        "its rule: the node's way in does not lead there"
    );
}

#[test]
fn policies_are_listed_as_they_are_judged_with_the_pods_that_they_select() {
    let guard = |tier: &str, priority: u16| json!({ "tier": tier, "priority": priority, "subject": { "namespaces": {} } });
    let world = World::default()
        .pod("x/a", "app=a", &["10.0.0.1"])
        .pod("y/b", "app=a", &["10.0.0.2"])
        .last_pod(|pod| pod.host_network = true)
        .pod("y/c", "app=c", &["10.0.0.3"])
        .policy("y/all", json!({ "podSelector": {} }))
        .policy(
            "x/none",
            json!({ "podSelector": { "matchLabels": { "app": "z" } } }),
        )
        .cluster_policy("late", guard("Admin", 9))
        .cluster_policy("base", guard("Baseline", 0))
        .cluster_policy("early", guard("Admin", 1))
        .cluster_policy("odd", guard("Middle", 1));
    let mut cluster = ClusterState::default();
    for change in world.changes() {
        cluster.apply(change);
    }
    let pods: Vec<ObjectKey> = world.pods.iter().map(|pod| pod.key.clone()).collect();
    let listed = overview(&cluster, &pods);
    let listed: Vec<(String, usize)> = listed
        .into_iter()
        .map(|of| (of.policy.to_string(), of.selected))
        .collect();
    let expected = [
        ("early", 2),
        ("late", 2),
        ("x/none", 0),
        ("y/all", 1),
        ("base", 2),
        ("odd", 0),
    ];
    assert_eq!(
        listed,
        expected.map(|(name, count)| (name.to_owned(), count))
    );
}
