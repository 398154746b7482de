//! One test for each kind of sentence of an explanation, and that it agrees with the naive
//! evaluator: in its verdicts, and in what becomes of them once its advice is taken.

mod property;

use serde_json::{Value, json};
use vswitch_datapath::flow::ip_proto::{ICMP, TCP, UDP};

use super::world::{NODE, World};
use crate::policy::explain::{End, Explanation, Judgement, Question, explain};
use crate::state::{ClusterState, PodPhase};

/// Local pods a and b in x, c in y; d of y on another node; e in the host's network.
fn cluster() -> World {
    World::default()
        .namespace("x", "team=x")
        .namespace("y", "team=y")
        .pod("x/a", "app=a", &["10.0.0.1"])
        .pod("x/b", "app=b", &["10.0.0.2"])
        .pod("y/c", "app=c,role=web", &["10.0.0.3"])
        .remote("y/d", "app=d", &["10.0.1.4"])
        .remote("y/e", "app=e", &["192.168.0.2"])
        .last_pod(|pod| pod.host_network = true)
}

fn state(world: &World) -> ClusterState {
    let mut state = ClusterState::default();
    for change in world.changes() {
        state.apply(change);
    }
    state
}

/// A pod by name, else an address; who has it is found out as the daemon does.
fn end(world: &World, state: &ClusterState, text: &str) -> End {
    let named = world.pods.iter().find(|pod| pod.key.to_string() == text);
    let address = named.map_or_else(|| text.parse().unwrap(), |pod| pod.ips[0]);
    let local = world
        .pods
        .iter()
        .find(|pod| pod.is_local && pod.ips.contains(&address));
    let owner = || state.owner_of(address).map(|pod| pod.key.clone());
    let is_node = text == NODE;
    let named = named.or(local).map(|pod| pod.key.clone());
    End {
        pod: named.or_else(owner).filter(|_| !is_node),
        address: Some(address),
        is_node,
        is_local: local.is_some(),
    }
}

fn ask(world: &World, from: &str, to: &str, protocol: u8, port: u16) -> Explanation {
    let state = state(world);
    let question = Question {
        from: end(world, &state, from),
        to: end(world, &state, to),
        protocol,
        port,
    };
    explain(&state, &question)
}

/// What is said of TCP to port 80 of a, under these ingress rules.
fn into_a(from: &str, rules: Value) -> Judgement {
    ingress_of(&with_ingress(rules), from, 80)
}

fn ingress_of(world: &World, from: &str, port: u16) -> Judgement {
    let explanation = ask(world, from, "x/a", TCP, port);
    assert!(explanation.egress.allowed);
    explanation.ingress
}

fn on_a() -> Value {
    json!({ "matchLabels": { "app": "a" } })
}

fn with_ingress(rules: Value) -> World {
    cluster().policy("x/p", json!({ "podSelector": on_a(), "ingress": rules }))
}

fn with_egress(rules: Value) -> World {
    let types = ["Egress"];
    let spec = json!({ "podSelector": on_a(), "policyTypes": types, "egress": rules });
    cluster().policy("x/p", spec)
}

/// The misses, one line each: rule, cause, advice.
fn misses(judgement: &Judgement) -> Vec<String> {
    let line = |miss: &crate::policy::explain::Miss| {
        let advice = miss.advice.as_ref().map(|advice| format!(" -> {advice}"));
        format!(
            "{}: {}{}",
            miss.rule,
            miss.cause,
            advice.unwrap_or_default()
        )
    };
    judgement.misses.iter().map(line).collect()
}

#[track_caller]
fn check(judgement: &Judgement, allowed: bool, sentence: &str) {
    assert_eq!(judgement.ground.to_string(), sentence);
    assert_eq!(judgement.allowed, allowed);
}

fn pods(labels: &Value) -> Value {
    json!({ "podSelector": { "matchLabels": labels } })
}

#[test]
fn a_pod_without_policies_is_not_isolated() {
    let explanation = ask(&cluster(), "x/b", "x/a", TCP, 80);
    assert!(explanation.allowed);
    check(
        &explanation.egress,
        true,
        "no policy isolates pod x/b for egress",
    );
    check(
        &explanation.ingress,
        true,
        "no policy isolates pod x/a for ingress",
    );
    assert!(explanation.ingress.isolated_by.is_empty());
}

#[test]
fn the_first_rule_that_allows_is_named_with_its_peer_and_port() {
    let rules = json!([
        { "from": [pods(&json!({ "app": "z" }))] },
        {
            "from": [pods(&json!({ "app": "z" })), pods(&json!({ "app": "b" }))],
            "ports": [{ "port": 79 }, { "port": 80 }]
        },
        {}
    ]);
    let judgement = into_a("x/b", rules);
    check(
        &judgement,
        true,
        "allowed by x/p ingress[1].from[1].ports[1]",
    );
    assert!(judgement.misses.is_empty());
}

#[test]
fn a_policy_without_rules_allows_nothing() {
    let judgement = into_a("x/b", json!([]));
    check(
        &judgement,
        false,
        "pod x/a is isolated for ingress, and no rule allows it",
    );
    assert_eq!(judgement.isolated_by.len(), 1);
    assert_eq!(
        misses(&judgement),
        ["x/p ingress: the policy has no rule in this direction"]
    );
}

#[test]
fn a_missed_port_is_named_with_those_that_would_pass() {
    let rules = json!([{
        "from": [pods(&json!({ "app": "b" }))],
        "ports": [{ "port": 80 }, { "protocol": "UDP", "port": 8000, "endPort": 8010 }, { "protocol": "SCTP" }]
    }]);
    assert_eq!(
        misses(&ingress_of(&with_ingress(rules), "x/b", 8080)),
        [
            "x/p ingress[0].from[0]: peer matches, TCP port 8080 does not: the rule wants TCP 80 or \
             UDP 8000-8010 or any SCTP port -> would pass to TCP 80 or UDP 8000-8010 or any SCTP port"
        ]
    );
}

#[test]
fn icmp_matches_no_port() {
    let world = with_ingress(json!([{ "ports": [{ "port": 80 }] }]));
    let judgement = ask(&world, "x/b", "x/a", ICMP, 0).ingress;
    assert_eq!(
        misses(&judgement),
        [
            "x/p ingress[0]: peer matches, ICMP does not: the rule wants TCP 80 -> would pass to TCP 80"
        ]
    );
}

#[test]
fn a_missing_pod_label_is_named_and_advised() {
    let rules = json!([{ "from": [pods(&json!({ "role": "db" }))] }]);
    assert_eq!(
        misses(&into_a("x/b", rules)),
        [
            "x/p ingress[0].from[0]: port matches, peer does not: pod x/b lacks label role=db -> \
             would pass with label role=db on pod x/b"
        ]
    );
}

#[test]
fn an_excluded_pod_label_is_to_be_removed() {
    let expression = json!([{ "key": "app", "operator": "NotIn", "values": ["b"] }]);
    let rules = json!([{ "from": [{ "podSelector": { "matchExpressions": expression } }] }]);
    assert_eq!(
        misses(&into_a("x/b", rules)),
        [
            "x/p ingress[0].from[0]: port matches, peer does not: pod x/b has label app=b, which is \
             excluded -> would pass with no label app on pod x/b"
        ]
    );
}

#[test]
fn namespace_and_pod_labels_are_advised_together() {
    let peer = json!({
        "namespaceSelector": { "matchLabels": { "team": "a" } },
        "podSelector": { "matchLabels": { "role": "db" } }
    });
    assert_eq!(
        misses(&into_a("y/c", json!([{ "from": [peer] }]))),
        [
            "x/p ingress[0].from[0]: port matches, peer does not: pod y/c has label role=web, not \
             role=db, namespace y has label team=y, not team=a -> would pass with label role=db on \
             pod y/c and with label team=a on namespace y"
        ]
    );
}

#[test]
fn a_pod_selector_alone_does_not_mean_other_namespaces() {
    let rules = json!([{ "from": [{ "podSelector": {} }] }]);
    assert_eq!(
        misses(&into_a("y/c", rules)),
        [
            "x/p ingress[0].from[0]: port matches, peer does not: pod y/c is not in namespace x, \
             which a podSelector alone means"
        ]
    );
}

#[test]
fn a_namespace_that_is_not_known_has_no_labels() {
    let rules = json!([{ "from": [{ "namespaceSelector": {} }] }]);
    let mut world = with_ingress(rules);
    world.namespaces.remove("y");
    assert_eq!(
        misses(&ingress_of(&world, "y/c", 80)),
        ["x/p ingress[0].from[0]: port matches, peer does not: namespace y is not known"]
    );
}

#[test]
fn an_address_in_an_exception_is_told_from_one_outside_the_block() {
    let block = |cidr: &str| json!({ "ipBlock": { "cidr": cidr, "except": ["10.0.0.0/29"] } });
    let peers = json!([block("10.0.0.0/8"), { "ipBlock": { "cidr": "11.0.0.0/8" } }]);
    assert_eq!(
        misses(&into_a("10.0.0.7", json!([{ "from": peers }]))),
        [
            "x/p ingress[0].from[0]: port matches, peer does not: 10.0.0.7 is in the except \
             10.0.0.0/29 of 10.0.0.0/8",
            "x/p ingress[0].from[1]: port matches, peer does not: 10.0.0.7 is not in 11.0.0.0/8"
        ]
    );
}

#[test]
fn an_address_outside_has_neither_policies_nor_labels() {
    let world = with_ingress(json!([{ "from": [{ "podSelector": {} }] }]));
    let explanation = ask(&world, "8.8.8.8", "x/a", TCP, 80);
    check(
        &explanation.egress,
        true,
        "8.8.8.8 is no pod: no policy judges its egress",
    );
    assert_eq!(
        misses(&explanation.ingress),
        [
            "x/p ingress[0].from[0]: port matches, peer does not: 8.8.8.8 is no pod: it has no labels"
        ]
    );
}

#[test]
fn an_ingress_name_resolves_at_the_selected_pod() {
    let rules = json!([{ "ports": [{ "port": "web" }] }]);
    let mut world = with_ingress(rules);
    let line = |world: &World| misses(&ingress_of(world, "x/b", 80)).remove(0);
    assert_eq!(
        line(&world),
        "x/p ingress[0]: peer matches, TCP port 80 does not: the rule wants web (TCP, which pod x/a \
         does not have)"
    );
    world.pods[0].ports = vec![("web".to_owned(), 8080, TCP), ("web".to_owned(), 80, UDP)];
    assert_eq!(
        line(&world),
        "x/p ingress[0]: peer matches, TCP port 80 does not: the rule wants web (TCP 8080 at pod \
         x/a) -> would pass to TCP 8080"
    );
    assert!(ingress_of(&world, "x/b", 8080).allowed);
}

#[test]
fn an_egress_name_resolves_at_each_peer_by_itself() {
    let mut world = with_egress(json!([{ "ports": [{ "port": "web" }] }]));
    world.pods[1].ports = vec![("web".to_owned(), 80, TCP)];
    world.pods[2].ports = vec![("web".to_owned(), 81, TCP)];
    let egress = |to: &str| ask(&world, "x/a", to, TCP, 80).egress;
    check(&egress("x/b"), true, "allowed by x/p egress[0].ports[0]");
    assert_eq!(
        misses(&egress("y/c")),
        [
            "x/p egress[0]: peer matches, TCP port 80 does not: the rule wants web (TCP 81 at pod \
             y/c) -> would pass to TCP 81"
        ]
    );
    assert_eq!(
        misses(&egress("8.8.8.8")),
        [
            "x/p egress[0]: peer matches, TCP port 80 does not: the rule wants web (TCP, a name that \
             only a pod can resolve)"
        ]
    );
}

#[test]
fn the_nearest_miss_comes_first() {
    let rules = json!([
        { "from": [pods(&json!({ "role": "db" }))], "ports": [{ "port": 443 }] },
        { "from": [{ "ipBlock": { "cidr": "11.0.0.0/8" } }] },
        { "from": [pods(&json!({ "role": "db", "tier": "1" }))] },
        { "from": [{}] },
        { "from": [pods(&json!({ "role": "db" }))] }
    ]);
    let judgement = into_a("x/b", rules);
    let parts: Vec<&str> = judgement
        .misses
        .iter()
        .map(|miss| miss.rule.part.as_str())
        .collect();
    let nearest_first = [4, 2, 1, 0, 3].map(|rule| format!("ingress[{rule}].from[0]"));
    assert_eq!(parts, nearest_first);
    assert!(misses(&judgement)[3].ends_with(
        "neither matches: pod x/b lacks label role=db; the rule wants TCP 443, not TCP port 80"
    ));
}

#[test]
fn a_label_that_shuts_the_pod_in_elsewhere_is_not_advised() {
    let locked = json!({
        "podSelector": { "matchLabels": { "role": "db" } },
        "policyTypes": ["Egress"]
    });
    let rules = json!([{ "from": [pods(&json!({ "role": "db" }))] }]);
    let judgement = ingress_of(&with_ingress(rules).policy("x/locked", locked), "x/b", 80);
    assert_eq!(
        misses(&judgement),
        ["x/p ingress[0].from[0]: port matches, peer does not: pod x/b lacks label role=db"]
    );
}

#[test]
fn what_is_not_understood_isolates_and_allows_nothing() {
    let gt = json!({ "matchExpressions": [{ "key": "k", "operator": "Gt", "values": ["1"] }] });
    let world = with_ingress(json!([{ "from": [{ "podSelector": gt }] }]))
        .policy("x/q", json!({ "podSelector": gt, "ingress": [{}] }));
    let problem = "label key \"k\" has the unknown operator \"Gt\"";
    let said = "not understood, therefore allows nothing:";
    assert_eq!(
        misses(&ingress_of(&world, "x/b", 80)),
        [
            format!("x/p ingress[0].from[0]: {said} podSelector: {problem}"),
            format!("x/q podSelector: {said} {problem}")
        ]
    );
}

#[test]
fn a_policy_type_that_is_not_known_isolates_both_ways() {
    let types = ["Ingres"];
    let world = cluster().policy("x/p", json!({ "podSelector": {}, "policyTypes": types }));
    let explanation = ask(&world, "x/b", "x/a", TCP, 80);
    assert!(!explanation.egress.allowed && !explanation.ingress.allowed);
}

#[test]
fn the_node_always_reaches_its_own_pods_but_not_those_of_others() {
    let closed = json!({ "podSelector": {} });
    let world = cluster()
        .policy("x/p", closed.clone())
        .policy("y/p", closed);
    let own = ask(&world, NODE, "x/a", TCP, 80);
    check(&own.ingress, true, "the node always reaches its pods");
    check(
        &own.egress,
        true,
        "the node is no pod: no policy judges its egress",
    );
    assert!(!ask(&world, NODE, "y/d", TCP, 80).allowed);
}

#[test]
fn pods_in_the_hosts_network_are_neither_selected_nor_found() {
    let world = with_ingress(json!([{ "from": [{ "namespaceSelector": {} }] }])).policy(
        "y/p",
        json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }),
    );
    let explanation = ask(&world, "y/e", "x/a", TCP, 80);
    check(
        &explanation.egress,
        true,
        "pod y/e is in the host's network: no policy selects it",
    );
    assert_eq!(
        misses(&explanation.ingress),
        [
            "x/p ingress[0].from[0]: port matches, peer does not: pod y/e is in the host's network: \
             an ipBlock can mean it, a selector cannot"
        ]
    );
}

#[test]
fn a_pod_to_itself_is_not_judged() {
    let world = with_ingress(json!([])).policy(
        "x/q",
        json!({ "podSelector": {}, "policyTypes": ["Egress"] }),
    );
    let explanation = ask(&world, "x/a", "x/a", TCP, 80);
    check(&explanation.egress, true, "a pod to itself is not judged");
    check(&explanation.ingress, true, "a pod to itself is not judged");
}

#[test]
fn a_pod_without_a_known_object_is_isolated() {
    let mut world = cluster();
    world.pods[0].is_known = false;
    let explanation = ask(&world, "x/a", "x/b", TCP, 80);
    check(
        &explanation.egress,
        false,
        "pod x/a is isolated until its object is known",
    );
    let world = world.policy(
        "x/p",
        json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] }),
    );
    assert_eq!(
        misses(&ask(&world, "x/a", "x/b", TCP, 80).ingress),
        [
            "x/p ingress[0].from[0]: port matches, peer does not: pod x/a has no known object: no \
             selector finds it"
        ]
    );
}

#[test]
fn a_finished_pod_has_no_address() {
    let mut world = cluster();
    world.pods[3].phase = PodPhase::Succeeded;
    check(
        &ask(&world, "x/a", "y/d", TCP, 80).ingress,
        false,
        "pod y/d has finished: its address belongs to nobody",
    );
}

#[test]
fn the_pod_of_another_node_is_judged_there() {
    let world = cluster().policy("y/p", json!({ "podSelector": {} }));
    let explanation = ask(&world, "x/a", "y/d", TCP, 80);
    assert!(!explanation.ingress.allowed && !explanation.ingress.is_here);
    assert!(!explanation.allowed && explanation.allowed_here());
}

#[test]
fn a_port_of_the_source_is_demanded_beside_a_name_of_the_destinations() {
    let with_source = |ports: Value| {
        let rule = json!({"action": "Allow", "protocol": "TCP", "source": {"ports": ports},
            "destination": {"ports": ["web"]}});
        let spec = json!({"selector": "app == 'b'", "types": ["Ingress"], "ingress": [rule]});
        let mut world = cluster().calico("/p", spec);
        world.pods[1].ports = vec![("web".to_owned(), 80, TCP)];
        ask(&world, "x/a", "x/b", TCP, 80).allowed
    };
    // A question is about a port as clients get it.
    assert!(with_source(json!(["32768:60999"])));
    assert!(!with_source(json!([80])));
}

#[test]
fn a_pass_for_which_no_table_is_left_denies_and_is_said_to() {
    let passing = |count: u8| {
        (1..=count).fold(cluster(), |world, number| {
            let tier = format!("t{number}");
            let spec = json!({"tier": tier, "order": 1, "selector": "app == 'a'",
                "types": ["Ingress"], "ingress": [{"action": "Pass"}]});
            let world = world.tier(&tier, f64::from(number), false);
            world.calico(&format!("/p{number}"), spec)
        })
    };
    check(
        &ingress_of(&passing(4), "x/b", 80),
        true,
        "no policy isolates pod x/a for ingress",
    );
    check(
        &ingress_of(&passing(5), "x/b", 80),
        false,
        "denied by GlobalNetworkPolicy calico:p4 t4 1 Deny ingress[0], a Pass for which no table \
         is left: too many tiers pass on",
    );
    assert!(passing(4).tcp("x/b", "x/a", 80) && !passing(5).tcp("x/b", "x/a", 80));
}

/// What is said of TCP to port 80 at the receiver.
pub(super) fn reason_of_ingress(world: &World, from: &str, to: &str) -> String {
    ask(world, from, to, TCP, 80).ingress.ground.to_string()
}
