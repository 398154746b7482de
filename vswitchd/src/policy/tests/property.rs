//! What is compiled decides as the naive evaluator does, whatever the cluster looks like.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use vswitch_datapath::flow::ip_proto;

use super::program::Program;
use super::world::{NODE, Pod, Policy, World, compile, key, labels};
use super::{naive, walker};
use crate::config::Deny;
use crate::policy::{Compiler, NodeFacts, PolicyProblem};
use crate::rules::RuleDelta;
use crate::state::{NodeRecord, PodPhase, PolicyKey};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
pub(super) const PORTS: [u16; 4] = [80, 81, 85, 90];
pub(super) const PROTOS: [u8; 4] = [ip_proto::TCP, ip_proto::UDP, ip_proto::SCTP, ip_proto::ICMP];
const OUTSIDE: [&str; 4] = [NODE, "8.8.8.8", "10.0.0.200", "2001:db8::8"];

fn some_labels() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a=1", "a=2", "a=", "b=1", "a=1,b=1", "a=2,b=2"])
        .prop_map(str::to_owned)
}

fn selector() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(json!({})),
        2 => prop::sample::select(vec!["1", "2", ""])
            .prop_map(|v| json!({ "matchLabels": { "a": v } })),
        1 => Just(json!({ "matchLabels": { "a": "1", "b": "1" } })),
        3 => (
            prop::sample::select(vec!["a", "b"]),
            prop::sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist"]),
            prop::sample::subsequence(vec!["1", "2"], 1..=2),
        )
            .prop_map(|(key, operator, values)| {
                let values = if operator.ends_with("In") { values } else { Vec::new() };
                json!({ "matchExpressions": [
                    { "key": key, "operator": operator, "values": values }
                ] })
            }),
    ]
}

fn ip_block() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({ "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"] })),
        Just(json!({ "cidr": "10.0.0.0/24", "except": ["10.0.0.2/31", "10.0.0.200/32"] })),
        Just(json!({ "cidr": "10.0.0.3/32" })),
        Just(json!({ "cidr": "0.0.0.0/0" })),
        Just(json!({ "cidr": "10.0.0.0/29", "except": ["10.0.0.1/32"] })),
        Just(json!({ "cidr": "fd00::/125" })),
        Just(json!({ "cidr": "::/0", "except": ["fd00::4/127"] })),
        Just(json!({ "cidr": "192.168.0.0/16" })),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        selector().prop_map(|pods| json!({ "podSelector": pods })),
        selector().prop_map(|namespaces| json!({ "namespaceSelector": namespaces })),
        (selector(), selector())
            .prop_map(|(p, n)| json!({ "podSelector": p, "namespaceSelector": n })),
        ip_block().prop_map(|block| json!({ "ipBlock": block })),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol =
        prop::sample::select(vec![Value::Null, json!("TCP"), json!("UDP"), json!("SCTP")]);
    let number = prop_oneof![
        Just((Value::Null, Value::Null)),
        prop::sample::select(vec!["web", "dns"]).prop_map(|name| (json!(name), Value::Null)),
        prop::sample::select(&PORTS[..]).prop_map(|n| (json!(n), Value::Null)),
        Just((json!(80), json!(85))),
    ];
    (protocol, number).prop_map(|(protocol, (port, end))| {
        let mut entry = json!({});
        for (field, value) in [("protocol", protocol), ("port", port), ("endPort", end)] {
            if !value.is_null() {
                entry[field] = value;
            }
        }
        entry
    })
}

fn rules(peers: &'static str) -> impl Strategy<Value = Value> {
    let rule = (
        prop::collection::vec(peer(), 0..3),
        prop::collection::vec(port(), 0..3),
    )
        .prop_map(move |(from, ports)| json!({ peers: from, "ports": ports }));
    prop::collection::vec(rule, 0..3).prop_map(Value::Array)
}

fn policy() -> impl Strategy<Value = (&'static str, Value)> {
    let types = prop::sample::select(vec![
        Value::Null,
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ]);
    let namespace = prop::sample::select(&NAMESPACES[..]);
    (namespace, selector(), types, rules("from"), rules("to")).prop_map(
        |(namespace, pods, types, ingress, egress)| {
            let mut spec = json!({ "podSelector": pods, "ingress": ingress, "egress": egress });
            if !types.is_null() {
                spec["policyTypes"] = types;
            }
            (namespace, spec)
        },
    )
}

fn named_ports() -> impl Strategy<Value = Vec<(String, u16, u8)>> {
    let names = prop::sample::select(vec!["web", "dns"]).prop_map(str::to_owned);
    let protos = prop::sample::select(&PROTOS[..3]);
    prop::collection::vec((names, prop::sample::select(&PORTS[..]), protos), 0..3)
}

/// Pods take the addresses of their index; some records claim the address of pod 0.
fn pod() -> impl Strategy<Value = Pod> {
    let kind = (
        prop::bool::weighted(0.6),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.1),
    );
    let phase = prop_oneof![
        8 => Just(PodPhase::Running),
        1 => Just(PodPhase::Succeeded),
        1 => Just(PodPhase::Pending),
    ];
    let namespace = prop::sample::select(&NAMESPACES[..]);
    let lies = prop::bool::weighted(0.4);
    (namespace, some_labels(), kind, phase, named_ports(), lies).prop_map(
        |(namespace, with, (is_local, is_known, host_network), phase, ports, lies)| Pod {
            key: key(&format!("{namespace}/p")),
            labels: labels(&with),
            ips: Vec::new(),
            status_ips: if lies {
                vec!["10.0.0.1".parse().unwrap()]
            } else {
                Vec::new()
            },
            is_local,
            is_known,
            host_network,
            phase,
            ports,
        },
    )
}

fn place(pods: Vec<Pod>) -> Vec<Pod> {
    let mut placed = Vec::new();
    for (index, mut pod) in pods.into_iter().enumerate() {
        pod.key.name = format!("p{index}");
        let number = index + 1;
        pod.ips = vec![
            format!("10.0.0.{number}").parse().unwrap(),
            format!("fd00::{number}").parse().unwrap(),
        ];
        pod.is_local |= index == 0;
        if !pod.is_local {
            // A remote pod's status is all that is known of it.
            pod.is_known = true;
            pod.ips.append(&mut pod.status_ips);
        }
        placed.push(pod);
    }
    placed
}

/// A peer, of pods three times out of four; one in twenty is of a kind that is not known.
fn cluster_peer(is_egress: bool) -> BoxedStrategy<Value> {
    let pods = prop_oneof![
        selector().prop_map(|namespaces| json!({ "namespaces": namespaces })),
        selector().prop_map(|pods| json!({ "pods": { "podSelector": pods } })),
        (selector(), selector()).prop_map(|(pods, namespaces)| {
            json!({ "pods": { "podSelector": pods, "namespaceSelector": namespaces } })
        }),
    ];
    let unknown = prop::sample::select(vec!["services", "domainNames"])
        .prop_map(|field| json!({ field: ["example.com"] }));
    let networks = vec![
        "0.0.0.0/0",
        "10.0.0.0/30",
        "10.0.0.3/32",
        "8.8.8.8/32",
        "::/0",
        "fd00::/126",
        "192.168.0.0/16",
        "2001:db8::/32",
    ];
    let networks = prop::sample::subsequence(networks, 1..3)
        .prop_map(|networks| json!({ "networks": networks }));
    let nodes = selector().prop_map(|nodes| json!({ "nodes": nodes }));
    if is_egress {
        prop_oneof![14 => pods, 1 => unknown, 3 => networks, 2 => nodes].boxed()
    } else {
        prop_oneof![19 => pods, 1 => unknown].boxed()
    }
}

fn cluster_port() -> impl Strategy<Value = Value> {
    let protocol = prop::sample::select(vec!["tcp", "udp", "sctp"]);
    let port = prop_oneof![
        3 => prop::sample::select(&PORTS[..]).prop_map(|number| json!({ "number": number })),
        1 => Just(json!({ "range": { "start": 80, "end": 85 } })),
    ];
    let unknown = prop::sample::select(vec![
        json!({ "icmp": {} }),
        json!({ "tcp": { "destinationPort": { "number": 80 }, "flags": ["syn"] } }),
    ]);
    prop_oneof![
        14 => (protocol, port).prop_map(|(protocol, port)| {
            json!({ protocol: { "destinationPort": port } })
        }),
        5 => prop::sample::select(vec!["web", "dns"])
            .prop_map(|name| json!({ "destinationNamedPort": name })),
        1 => unknown,
    ]
}

fn cluster_rules(peers: &'static str) -> impl Strategy<Value = Value> {
    let action = prop::sample::select(vec!["Accept", "Deny", "Pass"]);
    let rule = (
        action,
        prop::collection::vec(cluster_peer(peers == "to"), 1..3),
        prop::collection::vec(cluster_port(), 0..3),
    )
        .prop_map(move |(action, list, ports)| {
            let mut rule = json!({ "action": action, peers: list });
            if !ports.is_empty() {
                rule["protocols"] = json!(ports);
            }
            rule
        });
    prop::collection::vec(rule, 0..4).prop_map(Value::Array)
}

/// Few priorities, so that some are equal.
fn cluster_policy() -> impl Strategy<Value = Value> {
    let tier = prop::sample::select(vec!["Admin", "Baseline"]);
    let priority = prop::sample::select(vec![0, 7, 1_000]);
    let subject = cluster_peer(false);
    (
        tier,
        priority,
        subject,
        cluster_rules("from"),
        cluster_rules("to"),
    )
        .prop_map(|(tier, priority, subject, ingress, egress)| {
            json!({ "tier": tier, "priority": priority, "subject": subject,
                "ingress": ingress, "egress": egress })
        })
}

/// Two nodes, one of which may have the address of the other as well.
fn nodes() -> impl Strategy<Value = Vec<NodeRecord>> {
    let node = |name: &'static str, ips: Vec<&'static str>| {
        let ips = prop::sample::subsequence(ips, 0..=2);
        prop::option::weighted(0.8, (some_labels(), ips)).prop_map(move |node| {
            node.map(|(with, ips)| NodeRecord {
                name: name.to_owned(),
                labels: labels(&with),
                ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
                ..NodeRecord::default()
            })
        })
    };
    let (here, there) = (
        node("here", vec![NODE, "8.8.8.8"]),
        node("there", vec!["8.8.8.8", "2001:db8::8"]),
    );
    (here, there).prop_map(|(here, there)| here.into_iter().chain(there).collect())
}

/// Whether both ends are one pod: it reaches itself without the switch.
fn is_loop(flow: &walker::Flow) -> bool {
    flow.in_port == flow.out_port && flow.in_port != super::world::GATEWAY
}

pub(super) fn world() -> impl Strategy<Value = World> {
    let namespaces = prop::collection::vec(prop::option::weighted(0.9, some_labels()), 3);
    let pods = prop::collection::vec(pod(), 2..6).prop_map(place);
    let policies = prop::collection::vec(policy(), 0..4);
    let of_cluster = prop::collection::vec(cluster_policy(), 0..4);
    let world = (namespaces, pods, policies, of_cluster, nodes());
    world.prop_map(|(namespaces, pods, policies, of_cluster, nodes)| {
        let of_cluster = of_cluster.into_iter().enumerate();
        let named = NAMESPACES.iter().zip(namespaces);
        let known = named.filter_map(|(name, l)| l.map(|l| ((*name).to_owned(), labels(&l))));
        let policies = policies
            .into_iter()
            .enumerate()
            .map(|(index, (namespace, spec))| Policy {
                key: key(&format!("{namespace}/policy{index}")),
                spec,
            });
        World {
            namespaces: known.collect(),
            pods,
            policies: policies.collect(),
            cluster_policies: of_cluster
                .map(|(index, spec)| (format!("guard{index}"), spec))
                .collect(),
            nodes,
        }
    })
}

pub(super) fn every_address(world: &World) -> Vec<String> {
    let pods = world
        .pods
        .iter()
        .flat_map(|pod| &pod.ips)
        .map(ToString::to_string);
    pods.chain(OUTSIDE.map(str::to_owned)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn compiled_rules_decide_as_the_api_is_worded(world in world()) {
        let program = world.program();
        let of_namespaces = |problem: &&PolicyProblem| {
            matches!(problem.policy, PolicyKey::NetworkPolicy(_))
        };
        let problem = program.problems.iter().find(of_namespaces);
        prop_assert!(problem.is_none(), "{:?}", problem);
        let addresses = every_address(&world);
        for from in &addresses {
            for to in &addresses {
                for (proto, port) in PROTOS.into_iter().flat_map(|p| PORTS.map(|n| (p, n))) {
                    let flow = world.flow(from, to, proto, port);
                    let is_judged = world.cluster_policies.is_empty() || !is_loop(&flow);
                    if flow.src.is_ipv4() != flow.dst.is_ipv4() || !is_judged {
                        continue;
                    }
                    let compiled = walker::verdict(&program, &flow);
                    let expected = naive::allows(&world, &flow);
                    prop_assert_eq!(compiled.is_ok(), expected, "{:?} {:?}", flow, compiled);
                }
            }
        }
    }

    #[test]
    fn the_program_does_not_depend_on_the_order_of_delivery(
        (world, changes) in world().prop_flat_map(|world| {
            let changes = Just(world.changes()).prop_shuffle();
            (Just(world), changes)
        })
    ) {
        let shuffled = compile(changes, world.locals(), super::world::node());
        prop_assert_eq!(shuffled, world.program());
    }

    /// Worlds that follow each other, the changes in any order and taken in in any portions.
    #[test]
    fn what_changes_come_to_is_what_is_compiled_from_nothing(
        steps in prop::collection::vec(step(), 1..6)
    ) {
        let mut compiler = Compiler::new(Deny::default());
        let mut installed = Program::default();
        let mut before = World::default();
        for (world, seed, portion, is_synced) in steps {
            let node = NodeFacts { is_synced, ..super::world::node() };
            let mut changes = world.changes_since(&before);
            shuffle(&mut changes, seed);
            let node_at = usize::from(seed[0]) % (changes.len() + 1);
            for (index, change) in changes.into_iter().enumerate() {
                if index == node_at {
                    compiler.set_node(world.locals(), node.clone());
                }
                compiler.cluster(change);
                if index % portion == 0 {
                    installed.apply(compiler.flush());
                }
            }
            compiler.set_node(world.locals(), node.clone());
            installed.apply(compiler.flush());
            installed.problems = compiler.problems();
            prop_assert_eq!(&installed, &compile(world.changes(), world.locals(), node));
            prop_assert_eq!(compiler.flush(), RuleDelta::default());
            before = world;
        }
        for change in World::default().changes_since(&before) {
            compiler.cluster(change);
        }
        compiler.set_node(BTreeMap::new(), super::world::node());
        installed.apply(compiler.flush());
        installed.problems = compiler.problems();
        prop_assert_eq!(installed, World::default().program(), "nothing is left behind");
    }
}

/// A world, how the way to it is shuffled, changes between two flushes, whether it is synced.
fn step() -> impl Strategy<Value = (World, [u8; 16], usize, bool)> {
    (
        world(),
        any::<[u8; 16]>(),
        1usize..5,
        prop::bool::weighted(0.9),
    )
}

fn shuffle<T>(items: &mut [T], seed: [u8; 16]) {
    for index in (1..items.len()).rev() {
        let roll = usize::from(seed[index % 16]) + index / 16;
        items.swap(index, roll % (index + 1));
    }
}
