//! One test for each demand on NetworkPolicy semantics, on the smallest cluster that shows it.
//! (Selectors by themselves are tested where they are.)

use serde_json::{Value, json};
use vswitch_datapath::DropReason;
use vswitch_datapath::flow::ip_proto::{ICMP, ICMPV6, SCTP, TCP, UDP};

use super::walker;
use super::world::{CompiledCluster, NODE, World, node};
use crate::policy::NodeFacts;
use crate::state::PodPhase;

/// Two local pods a and b in x, one remote in y, one address outside.
fn cluster() -> World {
    World::small()
}

const OUTSIDE: &str = "8.8.8.8";

/// A policy on pod a with these ingress rules.
fn ingress(rules: Value) -> Value {
    json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": rules })
}

/// A policy on pod a with these egress rules, of type Egress alone.
fn egress(rules: Value) -> Value {
    json!({
        "podSelector": { "matchLabels": { "app": "a" } },
        "policyTypes": ["Egress"],
        "egress": rules
    })
}

fn with_ingress(rules: Value) -> World {
    cluster().policy("x/p", ingress(rules))
}

fn with_egress(rules: Value) -> World {
    cluster().policy("x/p", egress(rules))
}

/// Who of b, the remote c and the outside reaches a at TCP 80.
fn reach_a(world: &World) -> [bool; 3] {
    ["x/b", "y/c", OUTSIDE].map(|from| world.tcp(from, "x/a", 80))
}

#[test]
fn an_empty_pod_selector_selects_all_pods_of_the_policys_namespace() {
    let w = cluster().pod("y/d", "", &["10.0.0.4"]).policy(
        "x/p",
        json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
    );
    assert!(!w.tcp("y/c", "x/a", 80) && !w.tcp("y/c", "x/b", 80));
    assert!(
        w.tcp("y/c", "y/d", 80),
        "pods of other namespaces stay open"
    );
}

#[test]
fn a_pod_selector_alone_means_the_policys_own_namespace() {
    assert_eq!(
        reach_a(&with_ingress(json!([{ "from": [{ "podSelector": {} }] }]))),
        [true, false, false]
    );
}

#[test]
fn a_namespace_selector_alone_means_all_pods_of_those_namespaces() {
    let y = json!({ "matchLabels": { "team": "y" } });
    let w = with_ingress(json!([{ "from": [{ "namespaceSelector": y }] }]));
    assert_eq!(reach_a(&w), [false, true, false]);
}

#[test]
fn with_both_selectors_both_must_match() {
    let peer = |app: &str| {
        json!([{ "from": [{
            "namespaceSelector": { "matchLabels": { "team": "y" } },
            "podSelector": { "matchLabels": { "app": app } }
        }] }])
    };
    assert_eq!(reach_a(&with_ingress(peer("c"))), [false, true, false]);
    assert_eq!(reach_a(&with_ingress(peer("b"))), [false, false, false]);
}

#[test]
fn a_peer_with_selectors_and_an_ip_block_allows_nothing_and_is_reported() {
    let peer = json!({ "podSelector": {}, "ipBlock": { "cidr": "0.0.0.0/0" } });
    let w = with_ingress(json!([{ "from": [peer, {}] }]));
    assert_eq!(reach_a(&w), [false, false, false]);
    let parts: Vec<String> = w.program().problems.into_iter().map(|p| p.part).collect();
    assert_eq!(parts, ["ingress[0].from[0]", "ingress[0].from[1]"]);
}

#[test]
fn absent_or_empty_peers_mean_everyone() {
    for rule in [json!({}), json!({ "from": [] }), json!({ "from": null })] {
        assert_eq!(
            reach_a(&with_ingress(json!([rule]))),
            [true, true, true],
            "{rule}"
        );
    }
    let w = with_egress(json!([{ "to": [] }]));
    assert!(
        ["x/b", "y/c", OUTSIDE, NODE]
            .iter()
            .all(|to| w.tcp("x/a", to, 80))
    );
}

#[test]
fn no_ingress_rules_allow_nothing() {
    for rules in [json!([]), json!(null)] {
        assert_eq!(
            reach_a(&with_ingress(rules.clone())),
            [false, false, false],
            "{rules}"
        );
    }
}

#[test]
fn without_policy_types_ingress_is_isolated_and_egress_only_if_it_has_a_rule() {
    let spec = |egress: Value| json!({ "podSelector": {}, "egress": egress });
    for (rules, leaves) in [(json!(null), true), (json!([]), true)] {
        let w = cluster().policy("x/p", spec(rules));
        assert_eq!(w.tcp("x/a", "y/c", 80), leaves);
        assert!(!w.tcp("y/c", "x/a", 80));
    }
    let only_udp = json!([{ "ports": [{ "protocol": "UDP" }] }]);
    let w = cluster().policy("x/p", spec(only_udp));
    assert!(!w.tcp("x/a", "y/c", 80) && w.allows("x/a", "y/c", UDP, 80));
}

#[test]
fn policy_types_decide_whatever_rules_there_are() {
    let rule = json!([{ "ports": [{ "port": 1 }] }]);
    let w = |types: Value| {
        let spec = json!({
            "podSelector": {}, "policyTypes": types, "ingress": rule, "egress": rule
        });
        let w = cluster().policy("x/p", spec);
        (w.tcp("y/c", "x/a", 80), w.tcp("x/a", "y/c", 80))
    };
    assert_eq!(w(json!(["Ingress"])), (false, true));
    assert_eq!(w(json!(["Egress"])), (true, false));
    assert_eq!(w(json!(["Egress", "Ingress"])), (false, false));
    assert_eq!(w(json!(["Sideways"])), (false, false), "fails closed");
}

#[test]
fn what_any_policy_allows_is_allowed() {
    let w = with_ingress(json!([{ "from": [{ "podSelector": {} }] }]))
        .policy("x/deny", ingress(json!([])))
        .policy(
            "x/q",
            ingress(json!([{ "from": [{ "ipBlock": { "cidr": "8.0.0.0/8" } }] }])),
        );
    assert_eq!(reach_a(&w), [true, false, true]);
}

#[test]
fn a_port_entry_is_tcp_unless_it_says_otherwise() {
    let w = with_ingress(json!([{ "ports": [{ "port": 80 }] }]));
    assert!(w.tcp("y/c", "x/a", 80));
    assert!(!w.tcp("y/c", "x/a", 81) && !w.allows("y/c", "x/a", UDP, 80));
}

#[test]
fn a_port_entry_without_port_means_all_ports_of_its_protocol() {
    let w = with_ingress(json!([{ "ports": [{ "protocol": "SCTP" }] }]));
    assert!(w.allows("y/c", "x/a", SCTP, 1) && w.allows("y/c", "x/a", SCTP, 65535));
    assert!(!w.tcp("y/c", "x/a", 80));
}

#[test]
fn without_ports_every_protocol_passes_and_with_ports_icmp_does_not() {
    for none in [json!([{}]), json!([{ "ports": [] }])] {
        let w = with_ingress(none);
        assert!(w.allows("y/c", "x/a", ICMP, 0) && w.allows("fd00:1::3", "fd00::1", ICMPV6, 0));
        assert!(w.allows("y/c", "x/a", 47, 0), "any other protocol too");
    }
    let w = with_ingress(json!([{ "ports": [{ "protocol": "TCP" }, { "protocol": "UDP" }] }]));
    assert!(!w.allows("y/c", "x/a", ICMP, 0));
}

fn web(number: u16) -> Vec<(String, u16, u8)> {
    vec![("web".to_owned(), number, TCP)]
}

#[test]
fn a_named_port_is_the_number_it_has_at_each_destination_pod() {
    let w = World::default()
        .remote("x/c", "", &["10.0.1.3"])
        .pod("x/a", "", &["10.0.0.1"])
        .last_pod(|p| p.ports = web(8080))
        .pod("x/b", "", &["10.0.0.2"])
        .last_pod(|p| p.ports = web(9090))
        .policy(
            "x/p",
            json!({
                "podSelector": {}, "ingress": [{ "ports": [{ "port": "web" }] }]
            }),
        );
    assert!(w.tcp("x/c", "x/a", 8080) && w.tcp("x/c", "x/b", 9090));
    assert!(!w.tcp("x/c", "x/a", 9090) && !w.tcp("x/c", "x/b", 8080));
    assert!(!w.allows("x/c", "x/a", UDP, 8080), "the protocol counts");
}

#[test]
fn a_named_port_of_an_egress_rule_resolves_at_the_peer_and_never_outside() {
    for to in [json!([]), json!([{ "namespaceSelector": {} }])] {
        let w = cluster()
            .remote("y/e", "", &["10.0.1.9"])
            .last_pod(|p| p.ports = web(8080))
            .policy(
                "x/p",
                egress(json!([{ "to": to, "ports": [{ "port": "web" }] }])),
            );
        assert!(w.tcp("x/a", "y/e", 8080));
        assert!(!w.tcp("x/a", "y/e", 80) && !w.tcp("x/a", "y/c", 8080));
        assert!(!w.tcp("x/a", OUTSIDE, 8080));
    }
}

/// As Calico and the e2e tests of Kubernetes have it: the block says which pods are meant, the pod
/// says what the name is.
#[test]
fn a_named_port_of_an_ip_block_resolves_at_the_pods_inside() {
    let world = |block: Value| {
        cluster()
            .remote("y/e", "", &["10.0.1.9", "fd00:1::9"])
            .last_pod(|p| p.ports = web(8080))
            .remote("y/f", "", &["10.0.1.10", "fd00:1::a"])
            .last_pod(|p| p.ports = web(9090))
            .policy(
                "x/p",
                egress(json!([{ "to": [{ "ipBlock": block }], "ports": [{ "port": "web" }] }])),
            )
    };
    let reached = |w: &World| {
        let to = ["10.0.1.9", "10.0.1.10", "fd00:1::9", "fd00:1::a"];
        let from = |to: &str| {
            if to.contains(':') {
                "fd00::1"
            } else {
                "10.0.0.1"
            }
        };
        to.map(|to| [8080, 9090].map(|port| w.tcp(from(to), to, port)))
    };
    let [e, f, none] = [[true, false], [false, true], [false, false]];
    for (block, expected) in [
        (json!({ "cidr": "0.0.0.0/0" }), [e, f, none, none]),
        (json!({ "cidr": "10.0.1.9/32" }), [e, none, none, none]),
        (
            json!({ "cidr": "10.0.0.0/8", "except": ["10.0.1.9/32"] }),
            [none, f, none, none],
        ),
        (json!({ "cidr": "fd00::/16" }), [none, none, e, f]),
        (json!({ "cidr": "192.168.0.0/16" }), [none; 4]),
    ] {
        let w = world(block.clone());
        assert_eq!(reached(&w), expected, "{block}");
        assert!(!w.tcp("x/a", OUTSIDE, 8080) && !w.tcp("x/a", "y/e", 80));
    }
}

#[test]
fn a_named_port_of_an_ip_block_that_is_changed_follows_it() {
    let with = |cidr: &str| {
        let to = json!([{ "ipBlock": { "cidr": cidr } }]);
        cluster()
            .remote("y/e", "", &["10.0.1.9"])
            .last_pod(|p| p.ports = web(8080))
            .remote("y/f", "", &["10.0.1.10"])
            .last_pod(|p| p.ports = web(8080))
            .policy(
                "x/p",
                egress(json!([{ "to": to, "ports": [{ "port": "web" }] }])),
            )
    };
    let (before, after) = (with("10.0.1.9/32"), with("10.0.1.10/32"));
    let mut compiler = CompiledCluster::new();
    let mut program = super::program::Program::default();
    let mut take_in = |changes: Vec<crate::state::ClusterChange>| {
        changes
            .into_iter()
            .for_each(|change| compiler.cluster(change));
        compiler.set_node(before.locals(), node());
        program.apply(compiler.flush());
        ["y/e", "y/f"].map(|to| {
            let flow = before.flow("x/a", to, TCP, 8080);
            walker::verdict(&program, &flow).is_ok()
        })
    };
    assert_eq!(take_in(before.changes()), [true, false]);
    assert_eq!(take_in(after.changes_since(&before)), [false, true]);
}

#[test]
fn an_end_port_makes_an_inclusive_range() {
    let w = with_ingress(json!([{ "ports": [{ "port": 80, "endPort": 82 }] }]));
    let open = [79, 80, 82, 83].map(|port| w.tcp("y/c", "x/a", port));
    assert_eq!(open, [false, true, true, false]);
}

#[test]
fn a_port_entry_that_means_nothing_allows_nothing_and_is_reported() {
    for port in [
        json!({ "endPort": 90 }),
        json!({ "port": "web", "endPort": 90 }),
        json!({ "port": 80, "endPort": 79 }),
        json!({ "port": 0 }),
        json!({ "port": 65616 }),
        json!({ "port": 80, "protocol": "ICMP" }),
    ] {
        let w = with_ingress(json!([{ "ports": [port] }]));
        assert_eq!(reach_a(&w), [false, false, false], "{port}");
        assert_eq!(w.program().problems[0].part, "ingress[0].ports[0]");
    }
}

#[test]
fn an_ip_block_matches_pods_and_outsiders_alike_but_not_its_exceptions() {
    let block = json!({ "cidr": "0.0.0.0/0", "except": ["10.0.0.0/24"] });
    let w = with_ingress(json!([{ "from": [{ "ipBlock": block }] }]));
    assert_eq!(reach_a(&w), [false, true, true]);
}

#[test]
fn an_exception_of_one_block_may_be_allowed_by_another_rule() {
    let block = json!({ "cidr": "0.0.0.0/0", "except": ["10.0.0.0/24"] });
    let w = with_ingress(json!([
        { "from": [{ "ipBlock": block }] },
        { "from": [{ "ipBlock": { "cidr": "10.0.0.2/32" } }] }
    ]));
    assert_eq!(reach_a(&w), [true, true, true]);
}

#[test]
fn an_ip_block_that_means_nothing_allows_nothing_and_is_reported() {
    for block in [
        json!({ "cidr": "10.0.0.0" }),
        json!({ "cidr": "0.0.0.0/0", "except": ["x"] }),
        json!({ "cidr": "10.0.0.0/16", "except": ["10.0.0.0/8"] }),
    ] {
        let w = with_ingress(json!([{ "from": [{ "ipBlock": block }] }]));
        assert_eq!(reach_a(&w), [false, false, false], "{block}");
        assert_eq!(w.program().problems[0].part, "ingress[0].from[0]");
    }
}

#[test]
fn both_families_of_a_pod_are_under_the_same_policies() {
    let w = with_ingress(json!([{ "from": [{ "podSelector": {} }] }]));
    assert!(w.tcp("fd00::2", "fd00::1", 80));
    assert!(!w.tcp("fd00:1::3", "fd00::1", 80) && !w.tcp("2001:db8::1", "fd00::1", 80));
}

#[test]
fn an_ipv4_mapped_address_is_nobodys() {
    let w = cluster()
        .remote("x/liar", "", &["::ffff:8.8.8.8"])
        .policy("x/p", ingress(json!([{ "from": [{ "podSelector": {} }] }])));
    assert!(!w.tcp(OUTSIDE, "x/a", 80) && !w.tcp("::ffff:8.8.8.8", "fd00::1", 80));
}

#[test]
fn host_network_pods_match_ip_blocks_and_no_selector() {
    let host = |from: Value| {
        cluster()
            .remote("x/host", "app=a", &["192.168.0.2"])
            .last_pod(|p| p.host_network = true)
            .policy("x/p", ingress(json!([{ "from": [from] }])))
    };
    assert!(!host(json!({ "namespaceSelector": {} })).tcp("x/host", "x/a", 80));
    assert!(host(json!({ "ipBlock": { "cidr": "192.168.0.2/32" } })).tcp("x/host", "x/a", 80));
}

#[test]
fn a_pod_that_claims_the_nodes_address_does_not_get_it() {
    let w = cluster().remote("y/liar", "", &[NODE]).policy(
        "x/p",
        egress(json!([{ "to": [{ "namespaceSelector": {} }] }])),
    );
    assert!(!w.tcp("x/a", NODE, 80) && w.tcp("x/a", "y/c", 80));
}

#[test]
fn the_node_reaches_its_pods_and_other_nodes_are_outsiders() {
    let w = with_ingress(json!([]));
    assert!(w.tcp(NODE, "x/a", 80));
    assert!(!w.tcp("192.168.0.2", "x/a", 80));
}

#[test]
fn a_pod_is_not_the_node_by_using_the_nodes_address() {
    let w = with_ingress(json!([]));
    let mut flow = w.flow("x/b", "x/a", TCP, 80);
    flow.src = NODE.parse().unwrap();
    assert_eq!(
        walker::verdict(&w.program(), &flow),
        Err(DropReason::PolicyIngress)
    );
}

#[test]
fn a_local_pods_addresses_are_its_attachments_and_nobody_elses() {
    let peer_b = json!([{ "from": [{ "podSelector": { "matchLabels": { "app": "b" } } }] }]);
    let w = cluster()
        .last_pod(|c| c.ips.push("10.0.0.2".parse().unwrap()))
        .pod("x/e", "app=e", &["10.0.0.5"])
        .last_pod(|p| p.status_ips = vec!["10.0.0.77".parse().unwrap()])
        .policy("x/p", ingress(peer_b))
        .policy(
            "x/q",
            json!({ "podSelector": { "matchLabels": { "app": "e" } } }),
        );
    assert!(w.tcp("x/b", "x/a", 80), "c claims b's address in vain");
    assert!(
        !w.tcp("x/b", "x/e", 80),
        "e is isolated at the address it has"
    );
    let y = json!([{ "from": [{ "namespaceSelector": { "matchLabels": { "team": "y" } } }] }]);
    let w = cluster()
        .last_pod(|c| c.ips.push("10.0.0.2".parse().unwrap()))
        .policy("x/p", ingress(y));
    assert_eq!(reach_a(&w), [false, true, false]);
}

#[test]
fn a_pod_to_itself_is_allowed() {
    let w = cluster().policy(
        "x/p",
        json!({
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"]
        }),
    );
    assert!(w.tcp("x/a", "x/a", 80) && w.tcp("fd00::1", "fd00::1", 80));
    assert!(!w.tcp("x/a", "x/b", 80));
}

#[test]
fn a_pod_whose_object_is_not_known_is_isolated() {
    let w = cluster()
        .pod("x/new", "", &["10.0.0.9"])
        .last_pod(|p| p.is_known = false);
    let unknown = Err(DropReason::PodUnknown);
    let verdict = |from, to| walker::verdict(&w.program(), &w.flow(from, to, TCP, 80));
    assert_eq!(verdict("x/new", "x/a"), unknown);
    assert_eq!(verdict("x/a", "x/new"), unknown);
    assert_eq!(verdict(OUTSIDE, "x/new"), unknown);
}

#[test]
fn every_pod_is_isolated_until_all_policies_were_heard_of() {
    let w = cluster();
    let facts = NodeFacts {
        is_synced: false,
        ..node()
    };
    let program = super::world::compile(w.changes(), w.locals(), facts);
    let verdict = walker::verdict(&program, &w.flow("x/a", "x/b", TCP, 80));
    assert_eq!(verdict, Err(DropReason::PodUnknown));
    assert_eq!(
        walker::verdict(&program, &w.flow(NODE, "x/b", TCP, 80)),
        Ok(()),
        "probes of the node"
    );
}

#[test]
fn what_policies_allow_waits_too_until_all_were_heard_of() {
    // One of tier Admin that denies it may be among those to come.
    let accept = json!({ "tier": "Admin", "priority": 5, "subject": { "namespaces": {} },
        "ingress": [{ "action": "Accept", "from": [{ "namespaces": {} }] }] });
    let w = cluster()
        .policy("x/p", json!({ "podSelector": {}, "ingress": [{}] }))
        .cluster_policy("open", accept);
    let facts = NodeFacts {
        is_synced: false,
        ..node()
    };
    let program = super::world::compile(w.changes(), w.locals(), facts);
    let verdict = walker::verdict(&program, &w.flow("x/a", "x/b", TCP, 80));
    assert_eq!(verdict, Err(DropReason::PodUnknown));
    assert!(w.tcp("x/a", "x/b", 80));
}

#[test]
fn a_pod_without_address_is_a_member_nowhere() {
    let w = cluster()
        .remote("x/pending", "", &[])
        .last_pod(|p| p.phase = PodPhase::Pending)
        .policy("x/p", ingress(json!([{ "from": [{ "podSelector": {} }] }])));
    let members: usize = w.program().sets.values().map(|set| set.len()).sum();
    // a selected, a and b as peers, each with two addresses; the node.
    assert_eq!(members, 2 + 4 + 1);
}

#[test]
fn a_finished_pods_address_belongs_to_nobody_and_a_terminating_ones_still_to_it() {
    let from_y = json!([{ "from": [{ "namespaceSelector": { "matchLabels": { "team": "y" } } }] }]);
    for (phase, passes) in [
        (PodPhase::Succeeded, false),
        (PodPhase::Failed, false),
        (PodPhase::Running, true),
        (PodPhase::Unknown, true),
    ] {
        let w = cluster()
            .last_pod(|c| c.phase = phase)
            .policy("x/p", ingress(from_y.clone()));
        assert_eq!(w.tcp("y/c", "x/a", 80), passes, "{phase:?}");
    }
}

#[test]
fn a_label_change_counts_and_moves_members_but_no_rule() {
    let rules = json!([{ "from": [{
        "namespaceSelector": { "matchLabels": { "team": "y" } },
        "podSelector": { "matchLabels": { "role": "client" } }
    }] }]);
    let before = with_ingress(rules);
    let mut after = before.clone();
    after.pods[2]
        .labels
        .insert("role".to_owned(), "client".to_owned());
    assert!(!before.tcp("y/c", "x/a", 80) && after.tcp("y/c", "x/a", 80));
    assert_eq!(before.program().rules, after.program().rules);
    let mut renamed = after.clone();
    renamed.namespaces.get_mut("y").unwrap().clear();
    assert!(!renamed.tcp("y/c", "x/a", 80));
}

#[test]
fn without_its_last_isolating_policy_a_pod_is_open() {
    let mut w = with_ingress(json!([]));
    assert!(!w.tcp("y/c", "x/a", 80));
    w.policies.clear();
    assert!(w.tcp("y/c", "x/a", 80));
}

#[test]
fn pods_of_a_namespace_that_was_not_heard_of_match_no_namespace_selector() {
    let not_x = json!({ "matchExpressions": [
        { "key": "team", "operator": "NotIn", "values": ["x"] }
    ] });
    let mut w = with_ingress(json!([{ "from": [{ "namespaceSelector": not_x }] }]));
    assert!(w.tcp("y/c", "x/a", 80));
    w.namespaces.remove("y");
    assert!(!w.tcp("y/c", "x/a", 80));
}

#[test]
fn a_policy_whose_subject_is_not_understood_isolates_all_it_could_mean() {
    let selector = json!({
        "matchLabels": { "app": "a" },
        "matchExpressions": [{ "key": "v", "operator": "Gt", "values": ["1"] }]
    });
    let w = cluster().policy("x/p", json!({ "podSelector": selector, "ingress": [{}] }));
    assert_eq!(reach_a(&w), [false, false, false]);
    assert!(w.tcp("y/c", "x/b", 80));
    assert_eq!(w.program().problems[0].part, "podSelector");
}

#[test]
fn egress_and_ingress_are_judged_each_at_its_own_pod() {
    let w = with_egress(json!([{ "to": [{ "podSelector": {} }] }])).policy(
        "x/q",
        json!({ "podSelector": { "matchLabels": { "app": "b" } } }),
    );
    let verdict = |from, to| walker::verdict(&w.program(), &w.flow(from, to, TCP, 80));
    assert_eq!(verdict("x/a", "y/c"), Err(DropReason::PolicyEgress));
    assert_eq!(verdict("x/a", "x/b"), Err(DropReason::PolicyIngress));
}

#[test]
fn policies_without_local_pods_make_no_rules() {
    let w = cluster();
    let with = w
        .clone()
        .policy("y/p", json!({ "podSelector": {}, "ingress": [{}] }));
    assert_eq!(w.program(), with.program());
}

#[test]
fn equal_selectors_of_different_policies_share_a_set() {
    let from = json!([{ "from": [{ "podSelector": { "matchLabels": { "role": "client" } } }] }]);
    let one = with_ingress(from.clone()).program().sets.len();
    let two = with_ingress(from.clone())
        .policy("x/q", ingress(from))
        .program()
        .sets
        .len();
    assert_eq!(
        two,
        one + 1,
        "the second policy adds only the set of what it selects"
    );
}

#[test]
fn every_rule_says_which_part_of_which_policy_it_is() {
    let w = with_ingress(json!([
        { "from": [{ "podSelector": {} }], "ports": [{ "port": 1 }, { "port": 2 }] }
    ]));
    let program = w.program();
    let of_policy = program
        .rules
        .values()
        .filter(|rule| rule.origin.name == "x/p");
    let mut parts: Vec<&str> = of_policy.map(|rule| rule.origin.part.as_str()).collect();
    parts.sort_unstable();
    assert_eq!(
        parts,
        [
            "ingress",
            "ingress[0].from[0].ports[0]",
            "ingress[0].from[0].ports[1]"
        ]
    );
}
