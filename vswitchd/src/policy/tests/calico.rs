//! One test for each sentence about Calico's policies.

use serde_json::{Value, json};
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::pipeline::Rule;

use super::world::World;

/// Namespaces x and y; pods a and b in x, c in y, d in y on another node.
fn cluster() -> World {
    World::default()
        .namespace("x", "team=red")
        .namespace("y", "team=blue")
        .pod("x/a", "app=a", &["10.0.0.1"])
        .last_pod(|pod| pod.ports = vec![("web".into(), 80, ip_proto::TCP)])
        .pod("x/b", "app=b", &["10.0.0.2"])
        .pod("y/c", "app=c", &["10.0.0.3"])
        .last_pod(|pod| pod.service_account = "robot".to_owned())
        .remote("y/d", "app=d", &["10.0.0.4"])
}

/// A policy for pods `a` with ingress rules.
fn on_a(ingress: Value) -> Value {
    json!({ "selector": "app == 'a'", "types": ["Ingress"], "ingress": ingress })
}

fn in_tier(tier: &str, order: f64, ingress: Value) -> Value {
    let mut spec = on_a(ingress);
    spec["tier"] = json!(tier);
    spec["order"] = json!(order);
    spec
}

fn rule(action: &str, more: Value) -> Value {
    let mut rule = more;
    rule["action"] = json!(action);
    rule
}

fn from(action: &str, selector: &str) -> Value {
    rule(action, json!({ "source": { "selector": selector } }))
}

#[test]
fn a_policy_isolates_what_it_selects_and_its_rules_are_asked_in_order() {
    let spec = on_a(json!([from("Deny", "app == 'b'"), from("Allow", "all()")]));
    let w = cluster().calico("/guard", spec);
    assert!(!w.tcp("x/b", "x/a", 80));
    assert!(w.tcp("y/c", "x/a", 80));
    assert!(!w.tcp("8.8.8.8", "x/a", 80), "no endpoint: the tier ends");
    assert!(w.tcp("8.8.8.8", "x/b", 80), "not selected");
    assert!(w.tcp("x/a", "x/b", 80), "egress is not concerned");
}

#[test]
fn a_networkpolicy_of_calicos_is_about_its_namespace() {
    let spec = on_a(json!([from("Allow", "all()")]));
    let w = cluster().calico("x/own", spec.clone());
    assert!(w.tcp("x/b", "x/a", 80));
    assert!(
        !w.tcp("y/c", "x/a", 80),
        "a selector means its own namespace"
    );
    assert!(cluster().calico("y/other", spec).tcp("y/c", "x/a", 80));
    let all = rule(
        "Allow",
        json!({ "source": { "selector": "all()", "namespaceSelector": "team == 'blue'" } }),
    );
    let w = cluster().calico("x/own", on_a(json!([all])));
    assert!(w.tcp("y/d", "x/a", 80));
    assert!(!w.tcp("x/b", "x/a", 80));
}

#[test]
fn tiers_are_asked_in_order_and_a_pass_goes_on_to_the_next() {
    let tiers = |w: World| w.tier("first", 10.0, false).tier("second", 20.0, false);
    let pass_b = json!([from("Pass", "app == 'b'")]);
    let allow = json!([from("Allow", "all()")]);
    let w = tiers(cluster())
        .calico("/one", in_tier("first", 1.0, pass_b.clone()))
        .calico("/two", in_tier("second", 1.0, allow));
    assert!(w.tcp("x/b", "x/a", 80));
    assert!(!w.tcp("y/c", "x/a", 80), "the first tier ends with Deny");
    let w = cluster()
        .tier("first", 10.0, true)
        .calico("/one", in_tier("first", 1.0, pass_b.clone()));
    assert!(w.tcp("y/c", "x/a", 80), "its end passes on");
    let w = tiers(cluster())
        .calico("/one", in_tier("first", 1.0, pass_b))
        .policy("x/none", json!({ "podSelector": {} }));
    assert!(
        !w.tcp("x/b", "x/a", 80),
        "NetworkPolicies are in tier default"
    );
}

#[test]
fn networkpolicies_are_at_order_1000_of_tier_default() {
    let allow_b = json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] });
    let deny = json!([from("Deny", "all()")]);
    let w = cluster().policy("x/allow", allow_b);
    assert!(w.tcp("x/b", "x/a", 80));
    assert!(!w.tcp("y/c", "x/a", 80));
    let early = w
        .clone()
        .calico("/early", in_tier("default", 999.0, deny.clone()));
    assert!(!early.tcp("x/b", "x/a", 80));
    let late = w.clone().calico("/late", in_tier("default", 1_001.0, deny));
    assert!(late.tcp("x/b", "x/a", 80));
    let mut allow = on_a(json!([from("Allow", "app == 'c'")]));
    let without_order = w.clone().calico("/late", allow.clone());
    assert!(without_order.tcp("y/c", "x/a", 80), "both kinds allow");
    allow["ingress"] = json!([from("Pass", "app == 'c'")]);
    assert!(
        w.calico("/late", allow).tcp("y/c", "x/a", 80),
        "past what isolates"
    );
}

#[test]
fn clusternetworkpolicies_stand_between_tiers_by_their_orders() {
    let accept = json!({ "tier": "Admin", "priority": 1, "subject": { "namespaces": {} },
        "ingress": [{ "action": "Accept", "from": [{ "namespaces": {} }] }] });
    let deny = json!([from("Deny", "all()")]);
    let at = |order: f64| {
        cluster()
            .cluster_policy("open", accept.clone())
            .tier("mine", order, false)
            .calico("/guard", in_tier("mine", 1.0, deny.clone()))
            .tcp("x/b", "x/a", 80)
    };
    assert!(!at(999.0));
    assert!(at(1_001.0));
    let base = json!({ "tier": "Baseline", "priority": 1, "subject": { "namespaces": {} },
        "ingress": [{ "action": "Deny", "from": [{ "namespaces": {} }] }] });
    let w = cluster().cluster_policy("base", base);
    assert!(!w.tcp("x/b", "x/a", 80));
    let allow = on_a(json!([from("Allow", "app == 'b'")]));
    assert!(w.calico("/allow", allow).tcp("x/b", "x/a", 80));
}

#[test]
fn policies_of_a_tier_that_is_not_there_come_last_and_count() {
    let w = cluster().calico("/lost", in_tier("nowhere", 1.0, json!([])));
    assert!(!w.tcp("x/b", "x/a", 80));
    let w = w.calico("/allow", on_a(json!([from("Allow", "all()")])));
    assert!(w.tcp("x/b", "x/a", 80), "tier default comes first");
}

#[test]
fn network_sets_are_found_by_their_labels() {
    let rules = json!([from("Allow", "role == 'partner'")]);
    let w = cluster().calico("/partners", on_a(rules.clone()));
    assert!(!w.tcp("8.8.8.8", "x/a", 80));
    let w = w.network_set("/dns", "role=partner", &["8.8.8.0/24"]);
    assert!(w.tcp("8.8.8.8", "x/a", 80));
    assert!(!w.tcp("9.9.9.9", "x/a", 80));
    let w = cluster()
        .calico("x/partners", on_a(rules))
        .network_set("/global", "role=partner", &["8.8.8.0/24"])
        .network_set("y/other", "role=partner", &["9.9.9.0/24"])
        .network_set("x/own", "role=partner", &["7.7.7.0/24"]);
    assert!(w.tcp("7.7.7.7", "x/a", 80), "of the policy's namespace");
    assert!(!w.tcp("8.8.8.8", "x/a", 80) && !w.tcp("9.9.9.9", "x/a", 80));
    let global = json!({ "source": { "selector": "all()", "namespaceSelector": "global()" } });
    let w = cluster()
        .calico("x/partners", on_a(json!([rule("Allow", global)])))
        .network_set("/global", "", &["8.8.8.0/24"]);
    assert!(w.tcp("8.8.8.8", "x/a", 80) && !w.tcp("x/b", "x/a", 80));
}

#[test]
fn what_a_not_selector_leaves_out_is_everybody_else() {
    let rules = json!([
        rule("Deny", json!({ "source": { "notSelector": "app == 'b'" } })),
        rule("Allow", json!({}))
    ]);
    let w = cluster().calico("/only-b", on_a(rules));
    assert!(w.tcp("x/b", "x/a", 80));
    assert!(!w.tcp("y/c", "x/a", 80) && !w.tcp("8.8.8.8", "x/a", 80) && !w.tcp("y/d", "x/a", 80));
}

#[test]
fn nets_ports_protocols_and_types_are_as_they_are_written() {
    let allows = |more: Value, from: &str, proto: u8, port: u16| {
        let w = cluster().calico("/p", on_a(json!([rule("Allow", more)])));
        w.allows(from, "x/a", proto, port)
    };
    let (tcp, udp) = (ip_proto::TCP, ip_proto::UDP);
    let nets = json!({ "source": { "nets": ["10.0.0.0/29"], "notNets": ["10.0.0.2/32"] } });
    assert!(allows(nets.clone(), "y/c", tcp, 80) && !allows(nets, "x/b", tcp, 80));
    let ports =
        json!({ "protocol": "TCP", "destination": { "ports": [80, "90:92"], "notPorts": [91] } });
    for (port, is_allowed) in [(80, true), (81, false), (90, true), (91, false), (92, true)] {
        assert_eq!(
            allows(ports.clone(), "x/b", tcp, port),
            is_allowed,
            "{port}"
        );
    }
    assert!(!allows(ports, "x/b", udp, 80));
    let source = json!({ "protocol": "TCP", "source": { "ports": ["1024:65535"] } });
    assert!(allows(source, "x/b", tcp, 80), "from port 40000");
    let source = json!({ "protocol": "TCP", "source": { "ports": [1024] } });
    assert!(!allows(source, "x/b", tcp, 80));
    for (proto, is_allowed) in [(tcp, true), (udp, false), (ip_proto::SCTP, false)] {
        assert_eq!(
            allows(json!({ "protocol": 6 }), "x/b", proto, 80),
            is_allowed
        );
        assert_eq!(
            allows(json!({ "notProtocol": "TCP" }), "x/b", proto, 80),
            !is_allowed
        );
    }
    let icmp = ip_proto::ICMP;
    let echo = json!({ "protocol": "ICMP", "icmp": { "type": 8, "code": 0 } });
    assert!(allows(echo.clone(), "x/b", icmp, 80) && !allows(echo, "x/b", icmp, 90));
    let not_echo = json!({ "protocol": "ICMP", "notICMP": { "type": 8 } });
    assert!(!allows(not_echo.clone(), "x/b", icmp, 80) && allows(not_echo, "x/b", icmp, 90));
    assert!(!allows(json!({ "ipVersion": 6 }), "x/b", tcp, 80));
    assert!(allows(json!({ "ipVersion": 4 }), "x/b", tcp, 80));
}

#[test]
fn a_named_port_is_that_of_the_receiving_pod() {
    let named = json!({ "protocol": "TCP", "destination": { "ports": ["web"] } });
    let w = cluster().calico("/p", on_a(json!([rule("Allow", named)])));
    assert!(w.tcp("x/b", "x/a", 80) && !w.tcp("x/b", "x/a", 81));
    let to = json!({ "destination": { "selector": "app == 'a'", "ports": ["web"] } });
    let egress =
        json!({ "selector": "app == 'b'", "types": ["Egress"], "egress": [rule("Allow", to)] });
    let w = cluster().calico("x/p", egress);
    assert!(w.tcp("x/b", "x/a", 80) && !w.tcp("x/b", "x/a", 81));
    assert!(!w.allows("x/b", "x/a", ip_proto::UDP, 80));
}

#[test]
fn a_named_port_is_none_of_a_pod_beside_which_a_network_set_has_the_address() {
    let to = |selector: &str| {
        let to = json!({ "protocol": "TCP", "destination":
            { "namespaceSelector": "all() || global()", "selector": selector, "ports": ["web"] } });
        json!({ "selector": "app == 'b'", "types": ["Egress"], "egress": [rule("Allow", to)] })
    };
    let w = |selector| {
        let set = ["10.0.0.0/8"];
        let w = cluster().network_set("/all", "app=set", &set);
        w.calico("/p", to(selector))
    };
    assert!(w("app == 'a'").tcp("x/b", "x/a", 80));
    assert!(!w("app == 'set'").tcp("x/b", "x/a", 80));
}

#[test]
fn service_accounts_are_known_by_their_names_and_labels() {
    let allows_c_alone = |accounts: Value| {
        let source = json!({ "source": { "serviceAccounts": accounts } });
        let w = cluster()
            .account("y/robot", "role=robot")
            .account("x/default", "role=human")
            .calico("/p", on_a(json!([rule("Allow", source)])));
        w.tcp("y/c", "x/a", 80) && !w.tcp("x/b", "x/a", 80)
    };
    assert!(allows_c_alone(json!({ "names": ["robot"] })));
    let by_label = json!({ "selector": "role == 'robot'" });
    assert!(allows_c_alone(by_label.clone()));
    assert!(allows_c_alone(
        json!({ "selector": "projectcalico.org/name == 'robot'" })
    ));
    assert!(allows_c_alone(json!({ "selector": "role != 'human'" })));
    let both = json!({ "names": ["default"], "selector": "role == 'robot'" });
    assert!(!allows_c_alone(both), "both have to hold");
    let source = json!({ "source": { "serviceAccounts": by_label } });
    let w = cluster().calico("/p", on_a(json!([rule("Allow", source)])));
    assert!(
        !w.tcp("y/c", "x/a", 80),
        "an account without its object has no labels"
    );
}

#[test]
fn a_policy_selects_pods_by_their_service_accounts() {
    let policy = |selector: &str| json!({ "serviceAccountSelector": selector, "types": ["Ingress"], "ingress": [] });
    let with = |policy: Value| cluster().account("y/robot", "role=x").calico("/p", policy);
    let w = with(policy("role == 'x'"));
    assert!(!w.tcp("x/a", "y/c", 80), "c is of that account");
    assert!(w.tcp("y/c", "x/a", 80) && w.tcp("x/a", "x/b", 80));
    let w = with(policy("all()"));
    assert!(!w.tcp("y/c", "x/a", 80), "every pod has an account");
    assert!(w.program().problems.is_empty());
}

#[test]
fn what_is_not_served_fails_closed_and_is_named() {
    let cases = [
        (json!({ "http": { "methods": ["GET"] } }), "ingress[0].http"),
        (
            json!({ "source": { "services": { "name": "s" } } }),
            "ingress[0].source.services",
        ),
        (
            json!({ "source": { "serviceAccounts": { "selector": "a = 'b'" } } }),
            "ingress[0].source.serviceAccounts.selector",
        ),
        (
            json!({ "source": { "selector": "a = b" } }),
            "ingress[0].source.selector",
        ),
        (
            json!({ "source": { "cities": ["x"] } }),
            "ingress[0].source",
        ),
        (json!({ "when": "always" }), "ingress[0]"),
        (json!({ "protocol": "GRE" }), "ingress[0].protocol"),
        (
            json!({ "destination": { "ports": [80] } }),
            "ingress[0].destination.ports",
        ),
        (
            json!({ "protocol": "TCP", "icmp": { "type": 8 } }),
            "ingress[0].icmp",
        ),
    ];
    for (more, part) in cases {
        let w = cluster().calico("/p", on_a(json!([rule("Allow", more.clone())])));
        assert!(!w.tcp("x/b", "x/a", 80), "{more}");
        let problems = w.program().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].part, part);
        assert_eq!(problems[0].policy.to_string(), "calico:p");
        for action in ["Deny", "Pass"] {
            let rules = json!([rule(action, more.clone()), rule("Allow", json!({}))]);
            let w = cluster().calico("/p", on_a(rules));
            assert!(!w.tcp("x/b", "x/a", 80), "{action} {more}");
        }
    }
}

#[test]
fn what_concerns_no_pod_does_nothing_and_that_is_said() {
    for (field, value) in [
        ("doNotTrack", json!(true)),
        ("preDNAT", json!(true)),
        ("selector", json!("app = 'a'")),
        ("order", json!("first")),
        ("serviceAccountSelector", json!("role = 'x'")),
    ] {
        let mut spec = on_a(json!([]));
        spec[field] = value;
        let w = cluster().calico("/odd", spec);
        assert!(w.tcp("x/b", "x/a", 80), "{field}");
        let problems = w.program().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].part, field);
    }
}

#[test]
fn log_goes_on_with_the_next_rule() {
    let rules = json!([from("Log", "all()"), from("Allow", "all()")]);
    let w = cluster().calico("/p", on_a(rules));
    assert!(w.tcp("x/b", "x/a", 80));
    assert_eq!(w.program().problems[0].part, "ingress[0].action");
}

#[test]
fn where_tiers_that_pass_outnumber_tables_a_pass_denies() {
    let pass = json!([from("Pass", "all()")]);
    let tiers = |count: u32| {
        let mut w = cluster();
        for number in 0..count {
            let name = format!("tier{number}");
            w = w.tier(&name, f64::from(number), false);
            w = w.calico(&format!("/p{number}"), in_tier(&name, 1.0, pass.clone()));
        }
        w
    };
    assert!(tiers(4).tcp("x/b", "x/a", 80));
    assert!(tiers(4).program().problems.is_empty());
    let five = tiers(5);
    assert!(!five.tcp("x/b", "x/a", 80));
    let problems = five.program().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].policy.to_string(), "calico:p3");
    assert_eq!(problems[0].part, "ingress[0].action");
}

#[test]
fn rules_say_tier_order_action_and_part() {
    let w = cluster().tier("security", 10.0, false).calico(
        "/guard",
        in_tier("security", 7.5, json!([from("Deny", "all()")])),
    );
    let program = w.program();
    let of_policy = |rule: &&Rule| rule.origin.name == "calico:guard";
    let mut parts: Vec<&str> = program
        .rules
        .values()
        .filter(of_policy)
        .map(|rule| rule.origin.part.as_str())
        .collect();
    parts.sort_unstable();
    assert_eq!(
        parts,
        [
            "security 7.5 Deny end of tier ingress",
            "security 7.5 Deny ingress[0]"
        ]
    );
}
