//! NetworkPolicy as the API's documentation words it, read from the JSON, one packet at a time.
//! Shares nothing with the compiler.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use vswitch_datapath::flow::ip_proto;

use super::walker::Flow;
use super::world::{Labels, NODE, Pod, Policy, World};
use crate::state::PodPhase;

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Both directions, each judged at the pod if it is on this node.
pub(super) fn allows(world: &World, flow: &Flow) -> bool {
    let local = |ip: IpAddr| {
        world
            .pods
            .iter()
            .find(|p| p.is_local && p.ips.contains(&ip))
    };
    let is_node = flow.src == NODE.parse::<IpAddr>().unwrap();
    local(flow.src).is_none_or(|pod| egress_allows(world, pod, flow))
        && local(flow.dst).is_none_or(|pod| is_node || ingress_allows(world, pod, flow))
}

fn is_judged(pod: &Pod) -> bool {
    let is_over = matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed);
    pod.is_known && !is_over && !pod.host_network
}

fn egress_allows(world: &World, pod: &Pod, flow: &Flow) -> bool {
    if pod.ips.contains(&flow.dst) {
        return true;
    }
    let destination = pod_at(world, flow.dst);
    let policies = isolating(world, pod, "Egress");
    is_judged(pod)
        && (policies.is_empty()
            || policies.iter().any(|policy| {
                items(&policy.spec, "egress").iter().any(|rule| {
                    let ports = ports_match(items(rule, "ports"), flow, destination);
                    ports && peers_match(world, policy, items(rule, "to"), flow.dst)
                })
            }))
}

fn ingress_allows(world: &World, pod: &Pod, flow: &Flow) -> bool {
    if pod.ips.contains(&flow.src) {
        return true;
    }
    let policies = isolating(world, pod, "Ingress");
    is_judged(pod)
        && (policies.is_empty()
            || policies.iter().any(|policy| {
                items(&policy.spec, "ingress").iter().any(|rule| {
                    let ports = ports_match(items(rule, "ports"), flow, Some(pod));
                    ports && peers_match(world, policy, items(rule, "from"), flow.src)
                })
            }))
}

fn isolating<'a>(world: &'a World, pod: &Pod, policy_type: &str) -> Vec<&'a Policy> {
    let concerns = |policy: &&Policy| {
        let types = items(&policy.spec, "policyTypes");
        let by_default = policy_type == "Ingress" || !items(&policy.spec, "egress").is_empty();
        let is_of_type = if types.is_empty() {
            by_default
        } else {
            types.iter().any(|t| t == policy_type)
        };
        let selects = selected(&policy.spec["podSelector"], &pod.labels);
        policy.key.namespace == pod.key.namespace && is_of_type && selects
    };
    world.policies.iter().filter(concerns).collect()
}

/// The pod that has an address: the local one if there is one, else who claims it.
fn pod_at(world: &World, ip: IpAddr) -> Option<&Pod> {
    let has = |pod: &&Pod| pod.ips.contains(&ip);
    let local = world.pods.iter().find(|pod| pod.is_local && has(pod));
    let pod = local.or_else(|| world.pods.iter().find(|pod| is_judged(pod) && has(pod)));
    pod.filter(|pod| is_judged(pod) && ip != NODE.parse::<IpAddr>().unwrap())
}

fn peers_match(world: &World, policy: &Policy, peers: &[Value], ip: IpAddr) -> bool {
    let mut all = peers.iter();
    peers.is_empty() || all.any(|peer| peer_matches(world, policy, peer, ip))
}

fn peer_matches(world: &World, policy: &Policy, peer: &Value, ip: IpAddr) -> bool {
    if let Some(cidr) = peer["ipBlock"]["cidr"].as_str() {
        let inside = |text: &str| text.parse::<IpNet>().unwrap().contains(&ip);
        let mut excepts = items(&peer["ipBlock"], "except").iter();
        return inside(cidr) && !excepts.any(|except| inside(except.as_str().unwrap()));
    }
    let Some(pod) = pod_at(world, ip) else {
        return false;
    };
    let in_namespace = match &peer["namespaceSelector"] {
        Value::Null => pod.key.namespace == policy.key.namespace,
        selector => {
            let labels = world.namespaces.get(&pod.key.namespace);
            labels.is_some_and(|labels| selected(selector, labels))
        }
    };
    in_namespace && (peer["podSelector"].is_null() || selected(&peer["podSelector"], &pod.labels))
}

fn selected(selector: &Value, labels: &Labels) -> bool {
    let by_label = selector["matchLabels"].as_object().is_none_or(|wanted| {
        wanted
            .iter()
            .all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
    });
    by_label
        && items(selector, "matchExpressions").iter().all(|e| {
            let value = labels.get(e["key"].as_str().unwrap());
            let listed = value.is_some_and(|v| items(e, "values").iter().any(|x| x == v.as_str()));
            match e["operator"].as_str().unwrap() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

fn ports_match(ports: &[Value], flow: &Flow, resolver: Option<&Pod>) -> bool {
    ports.is_empty()
        || ports.iter().any(|port| {
            let proto = match port["protocol"].as_str() {
                None | Some("TCP") => ip_proto::TCP,
                Some("UDP") => ip_proto::UDP,
                _ => ip_proto::SCTP,
            };
            let number = i64::from(flow.port);
            proto == flow.proto
                && match &port["port"] {
                    Value::Null => true,
                    Value::String(name) => resolver.is_some_and(|pod| {
                        let this = |p: &&(String, u16, u8)| p.0 == *name && p.2 == proto;
                        pod.ports.iter().filter(this).any(|p| p.1 == flow.port)
                    }),
                    first => {
                        let first = first.as_i64().unwrap();
                        let last = port["endPort"].as_i64().unwrap_or(first);
                        first <= number && number <= last
                    }
                }
        })
}
