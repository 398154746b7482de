//! Replays the NetworkPolicy cases of Kubernetes' e2e suite, every step of each.

use serde_json::Value;
use vswitch_datapath::flow::ip_proto;

use super::walker;
use super::world::{Pod, World, labels};

fn cases() -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/conformance/e2e-cases.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(file["cases"].take()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn proto(name: &Value) -> u8 {
    match text(name) {
        "TCP" => ip_proto::TCP,
        "UDP" => ip_proto::UDP,
        "SCTP" => ip_proto::SCTP,
        other => panic!("protocol {other}"),
    }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap()
}

fn named_ports(pod: &Value) -> Vec<(String, u16, u8)> {
    let named = |p: &Value| {
        let number = u16::try_from(p["port"].as_u64().unwrap()).unwrap();
        (text(&p["name"]).to_owned(), number, proto(&p["protocol"]))
    };
    list(pod, "ports").iter().map(named).collect()
}

/// The state of a step, as the node sees it that has the pods `is_here` names.
fn world(state: &Value, is_here: impl Fn(&Pod) -> bool) -> World {
    let mut world = World::default();
    for namespace in list(state, "namespaces") {
        let labels = serde_json::from_value(namespace["labels"].clone()).unwrap();
        world
            .namespaces
            .insert(text(&namespace["name"]).to_owned(), labels);
    }
    for pod in list(state, "pods") {
        let name = format!("{}/{}", text(&pod["namespace"]), text(&pod["name"]));
        world = world.pod(&name, "", &[text(&pod["ip"])]).last_pod(|p| {
            p.labels = serde_json::from_value(pod["labels"].clone()).unwrap_or(labels(""));
            p.ports = named_ports(pod);
            p.is_local = is_here(p);
        });
    }
    for policy in list(state, "policies") {
        let name = format!(
            "{}/{}",
            text(&policy["metadata"]["namespace"]),
            text(&policy["metadata"]["name"])
        );
        world = world.policy(&name, policy["spec"].clone());
    }
    world
}

/// Judges one line of the expected table by the programs of both pods' nodes.
fn check(what: &str, nodes: &[(World, super::program::Program)], line: &Value) {
    let port = u16::try_from(line["port"].as_u64().unwrap()).unwrap();
    let (mut egress, mut ingress) = (true, true);
    for (world, program) in nodes {
        let flow = world.flow(
            text(&line["from"]),
            text(&line["to"]),
            proto(&line["protocol"]),
            port,
        );
        egress &= walker::egress(program, &flow).is_ok();
        ingress &= walker::ingress(program, &flow).is_ok();
    }
    assert_eq!(
        egress,
        line["egress"].as_bool().unwrap(),
        "{what}: egress of {line}"
    );
    assert_eq!(
        ingress,
        line["ingress"].as_bool().unwrap(),
        "{what}: ingress of {line}"
    );
}

/// Replays all cases with the pods spread over nodes; returns how many lines were judged.
fn replay(spread: &[fn(&Pod) -> bool]) -> usize {
    let mut judged = 0;
    for case in cases() {
        for (index, step) in list(&case, "steps").iter().enumerate() {
            let what = format!("{} step {index}", text(&case["id"]));
            let node = |is_here: &fn(&Pod) -> bool| {
                let world = world(&step["state"], is_here);
                let program = world.program();
                assert_eq!(program.problems, [], "{what}");
                (world, program)
            };
            let nodes: Vec<_> = spread.iter().map(node).collect();
            // A pod to itself never leaves its namespace; the suite does not judge it.
            for line in list(step, "expected")
                .iter()
                .filter(|line| line["loopback"] != true)
            {
                check(&what, &nodes, line);
                judged += 1;
            }
        }
    }
    judged
}

#[test]
fn every_step_of_the_e2e_cases_holds_on_one_node() {
    assert!(replay(&[|_| true]) > 500);
}

#[test]
fn every_step_of_the_e2e_cases_holds_with_a_node_for_namespace_x_and_one_for_the_rest() {
    let x: fn(&Pod) -> bool = |pod| pod.key.namespace == "x";
    let rest: fn(&Pod) -> bool = |pod| pod.key.namespace != "x";
    assert!(replay(&[x, rest]) > 500);
}
