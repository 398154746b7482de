//! What is compiled decides as the naive evaluator does, whatever the cluster looks like.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use vswitch_datapath::flow::ip_proto;

use super::program::Program;
use super::world::{CompiledCluster, NODE, Pod, Policy, World, compile, key, labels};
use super::{naive, walker};
use crate::policy::{NodeFacts, PolicyProblem};
use crate::rules::RuleDelta;
use crate::state::{
    NetworkSetRecord, NodeRecord, PodPhase, PolicyKey, ServiceAccountRecord, TierRecord,
};

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

fn policy() -> BoxedStrategy<(&'static str, Value)> {
    let types = prop::sample::select(vec![
        Value::Null,
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ]);
    let namespace = prop::sample::select(&NAMESPACES[..]);
    (namespace, selector(), types, rules("from"), rules("to"))
        .prop_map(|(namespace, pods, types, ingress, egress)| {
            let mut spec = json!({ "podSelector": pods, "ingress": ingress, "egress": egress });
            if !types.is_null() {
                spec["policyTypes"] = types;
            }
            (namespace, spec)
        })
        .boxed()
}

fn named_ports() -> impl Strategy<Value = Vec<(String, u16, u8)>> {
    let names = prop::sample::select(vec!["web", "dns"]).prop_map(str::to_owned);
    let protos = prop::sample::select(&PROTOS[..3]);
    prop::collection::vec((names, prop::sample::select(&PORTS[..]), protos), 0..3)
}

/// Pods take the addresses of their index; some records claim the address of pod 0.
fn pod() -> BoxedStrategy<Pod> {
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
    let strategy = (
        namespace,
        some_labels(),
        kind,
        phase,
        named_ports(),
        lies,
        any::<bool>(),
    );
    strategy
        .prop_map(
            |(
                namespace,
                with,
                (is_local, is_known, host_network),
                phase,
                ports,
                lies,
                has_account,
            )| {
                Pod {
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
                    service_account: (if has_account { "web" } else { "default" }).to_owned(),
                }
            },
        )
        .boxed()
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

fn cluster_rules(peers: &'static str) -> BoxedStrategy<Value> {
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
    prop::collection::vec(rule, 0..4)
        .prop_map(Value::Array)
        .boxed()
}

/// Few priorities, so that some are equal.
fn cluster_policy() -> BoxedStrategy<Value> {
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
        .boxed()
}

/// In the words of Calico's selector language.
fn calico_selector() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "all()",
        "a == '1'",
        "a != '1'",
        "has(b)",
        "!has(b)",
        "a in {'1', '2'}",
        "a not in {'2'} && has(b)",
        "a == '1' || b == '2'",
        "a starts with '1'",
        "projectcalico.org/namespace == 'x'",
    ])
}

fn namespace_selector() -> impl Strategy<Value = &'static str> {
    let selectors = ["all()", "global()", "a == '1'", "has(b)", "!has(b)"];
    prop::sample::select(selectors.to_vec())
}

fn account_selector() -> impl Strategy<Value = &'static str> {
    let selectors = ["all()", "a == '1'", "has(b)", "!has(b)"];
    prop::sample::select(selectors.to_vec())
}

fn nets() -> impl Strategy<Value = Vec<&'static str>> {
    let nets = vec![
        "0.0.0.0/0",
        "10.0.0.0/30",
        "10.0.0.3",
        "10.0.0.2/32",
        "8.8.8.8/32",
        "::/0",
        "fd00::/126",
        "fd00::2",
        "192.168.0.0/16",
    ];
    prop::sample::subsequence(nets, 1..3)
}

/// Sets a field, in one of so many cases.
fn sometimes<T: serde::Serialize + std::fmt::Debug>(
    field: &'static str,
    weight: f64,
    of: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<(&'static str, Value)> {
    prop::option::weighted(weight, of)
        .prop_map(move |value| (field, json!(value)))
        .boxed()
}

fn object(fields: Vec<(&'static str, Value)>) -> Value {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

/// One end of a rule; `ports` are those that its protocol may have.
fn calico_end(ports: &'static [&'static str]) -> BoxedStrategy<Value> {
    let accounts = prop_oneof![
        Just(json!({ "names": ["web"] })),
        account_selector().prop_map(|selector| json!({ "selector": selector })),
        account_selector().prop_map(|selector| json!({ "names": ["web"], "selector": selector })),
    ];
    let ports = prop::sample::subsequence(ports, 0..=ports.len().min(2));
    let ports = ports.prop_map(|ports| {
        let port = |text: &&str| {
            text.parse::<u16>()
                .map_or(json!(text), |number| json!(number))
        };
        ports.iter().map(port).collect::<Vec<_>>()
    });
    let fields = (
        sometimes("selector", 0.4, calico_selector()),
        sometimes("notSelector", 0.2, calico_selector()),
        sometimes("namespaceSelector", 0.2, namespace_selector()),
        sometimes("serviceAccounts", 0.1, accounts),
        sometimes("nets", 0.2, nets()),
        sometimes("notNets", 0.2, nets()),
        sometimes("ports", 0.5, ports),
    );
    fields
        .prop_map(|(a, b, c, d, e, f, g)| object(vec![a, b, c, d, e, f, g]))
        .boxed()
}

fn calico_rule() -> BoxedStrategy<Value> {
    let action = prop::sample::select(vec!["Allow", "Deny", "Pass", "Log"]);
    let with_ports = (
        prop::sample::select(vec![json!("TCP"), json!("UDP"), json!(132)]),
        calico_end(&["40000", "1024:65535", "80"]),
        calico_end(&["80", "81:85", "web", "dns"]),
        prop::option::weighted(0.2, Just(json!([80, "85:90"]))),
    )
        .prop_map(|(protocol, source, mut destination, not_ports)| {
            let has_names = destination["ports"].to_string().contains(['w', 'd']);
            if let Some(not_ports) = not_ports.filter(|_| !has_names) {
                destination["notPorts"] = not_ports;
            }
            json!({ "protocol": protocol, "source": source, "destination": destination })
        });
    let ends = || (calico_end(&[]), calico_end(&["web", "dns"]));
    let plain = (ends(), prop::option::weighted(0.3, 4_u8..=4)).prop_map(
        |((source, destination), version)| {
            let mut rule = json!({ "source": source, "destination": destination });
            if let Some(version) = version {
                rule["ipVersion"] = json!(version);
            }
            rule
        },
    );
    let not = ends().prop_map(|(source, destination)| {
        json!({ "notProtocol": "TCP", "source": source, "destination": destination })
    });
    let icmp = prop::sample::select(vec![
        json!({ "icmp": { "type": 8 } }),
        json!({ "icmp": { "type": 8, "code": 1 } }),
        json!({ "notICMP": { "type": 8 } }),
        json!({ "notICMP": { "type": 8, "code": 0 } }),
    ]);
    let icmp = (icmp, calico_end(&[])).prop_map(|(mut rule, source)| {
        rule["protocol"] = json!("ICMP");
        rule["source"] = source;
        rule
    });
    let unserved = prop::sample::select(vec![
        json!({ "http": { "methods": ["GET"] } }),
        json!({ "source": { "services": { "name": "web" } } }),
    ]);
    let rule = prop_oneof![
        8 => with_ports,
        6 => plain,
        1 => not,
        2 => icmp,
        1 => unserved,
    ];
    (action, rule)
        .prop_map(|(action, mut rule)| {
            rule["action"] = json!(action);
            rule
        })
        .boxed()
}

fn calico_policy() -> BoxedStrategy<Policy> {
    let rules = || prop::collection::vec(calico_rule(), 0..3);
    let types = vec![
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ];
    let tiers = vec!["default", "early", "late", "lost"];
    let fields = (
        sometimes("tier", 0.7, prop::sample::select(tiers)),
        sometimes(
            "order",
            0.7,
            prop::sample::select(vec![1.0, 1_000.0, 2_000.5]),
        ),
        sometimes("selector", 0.7, calico_selector()),
        sometimes("types", 0.5, prop::sample::select(types)),
        sometimes("ingress", 0.8, rules()),
        sometimes("egress", 0.6, rules()),
        sometimes("serviceAccountSelector", 0.1, account_selector()),
    );
    let namespace = prop::sample::select(vec!["", "", "x", "y"]);
    let of_namespaces = sometimes("namespaceSelector", 0.3, namespace_selector());
    (namespace, fields, of_namespaces)
        .prop_map(|(namespace, (a, b, c, d, e, f, g), of_namespaces)| {
            let mut fields = vec![a, b, c, d, e, f, g];
            fields.extend(namespace.is_empty().then_some(of_namespaces));
            Policy {
                key: key(&format!("{namespace}/policy")),
                spec: object(fields),
            }
        })
        .boxed()
}

fn tiers() -> BoxedStrategy<Vec<TierRecord>> {
    let tier = |name: &'static str, orders: Vec<Option<f64>>| {
        let tier = (prop::sample::select(orders), any::<bool>());
        prop::option::weighted(0.9, tier).prop_map(move |tier| {
            tier.map(|(order, passes)| TierRecord {
                name: name.to_owned(),
                order,
                passes,
            })
        })
    };
    let early = tier("early", vec![Some(100.0), Some(5_000.0)]);
    let late = tier("late", vec![Some(2_000_000.0), Some(500.0), None]);
    (early, late)
        .prop_map(|(early, late)| early.into_iter().chain(late).collect())
        .boxed()
}

fn accounts() -> BoxedStrategy<Vec<ServiceAccountRecord>> {
    let account = |name: &'static str| {
        prop::option::weighted(0.7, some_labels()).prop_map(move |with| {
            with.map(|with| ServiceAccountRecord {
                key: key(name),
                labels: labels(&with),
            })
        })
    };
    (account("x/web"), account("x/default"), account("y/web"))
        .prop_map(|(a, b, c)| [a, b, c].into_iter().flatten().collect())
        .boxed()
}

fn network_sets() -> BoxedStrategy<Vec<NetworkSetRecord>> {
    let namespace = prop::sample::select(vec!["", "", "x", "y"]);
    let set = (namespace, some_labels(), nets());
    prop::collection::vec(set, 0..3)
        .prop_map(|sets| {
            let sets = sets.into_iter().enumerate();
            let set = |(index, (namespace, with, nets)): (usize, (&str, String, Vec<&str>))| {
                let whole = |net: &&str| {
                    let one = net.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
                    one.unwrap_or_else(|_| net.parse().unwrap())
                };
                NetworkSetRecord {
                    key: key(&format!("{namespace}/set{index}")),
                    labels: labels(&with),
                    nets: nets.iter().map(whole).collect(),
                }
            };
            sets.map(set).collect()
        })
        .boxed()
}

/// Two nodes, one of which may have the address of the other as well.
fn nodes() -> BoxedStrategy<Vec<NodeRecord>> {
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
    (here, there)
        .prop_map(|(here, there)| here.into_iter().chain(there).collect())
        .boxed()
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
    let of_calico = prop_oneof![
        1 => Just(Vec::new()),
        3 => prop::collection::vec(calico_policy(), 1..5),
    ];
    let of_calico = (of_calico, network_sets(), tiers(), accounts());
    let world = (namespaces, pods, policies, of_cluster, nodes(), of_calico);
    world.prop_map(
        |(namespaces, pods, policies, of_cluster, nodes, of_calico)| {
            let (mut calico, network_sets, tiers, accounts) = of_calico;
            for (index, policy) in calico.iter_mut().enumerate() {
                policy.key.name = format!("policy{index}");
            }
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
                older: Vec::new(),
                calico,
                network_sets,
                tiers,
                accounts,
                nodes,
            }
        },
    )
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
        // Where tiers that pass outnumber tables a Pass denies.
        prop_assume!(!program.problems.iter().any(|of| of.problem.contains("no table")));
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
                    let has_tiers = !(world.cluster_policies.is_empty() && world.calico.is_empty());
                    let is_judged = !has_tiers || !is_loop(&flow);
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
        let mut compiler = CompiledCluster::new();
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
