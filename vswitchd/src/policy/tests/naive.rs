//! NetworkPolicy and ClusterNetworkPolicy as the documentation of the APIs words them, read from
//! the JSON, one packet at a time. Shares nothing with the compiler.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use vswitch_datapath::flow::ip_proto;

use super::naive_calico;
use super::walker::Flow;
use super::world::{Labels, NODE, Pod, Policy, World};
use crate::state::PodPhase;

pub(super) fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
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
    let tier = |tier| tier_decides(world, pod, flow, ("egress", "to", flow.dst), tier);
    let allows = || {
        policies.iter().any(|policy| {
            items(&policy.spec, "egress").iter().any(|rule| {
                let ports = ports_match(items(rule, "ports"), flow, destination);
                ports && peers_match(world, policy, items(rule, "to"), flow.dst)
            })
        })
    };
    let end = naive_calico::End {
        world,
        pod,
        flow,
        direction: "egress",
    };
    is_judged(pod) && end.passes(tier, !policies.is_empty(), allows)
}

fn ingress_allows(world: &World, pod: &Pod, flow: &Flow) -> bool {
    if pod.ips.contains(&flow.src) {
        return true;
    }
    let policies = isolating(world, pod, "Ingress");
    let tier = |tier| tier_decides(world, pod, flow, ("ingress", "from", flow.src), tier);
    let allows = || {
        policies.iter().any(|policy| {
            items(&policy.spec, "ingress").iter().any(|rule| {
                let ports = ports_match(items(rule, "ports"), flow, Some(pod));
                ports && peers_match(world, policy, items(rule, "from"), flow.src)
            })
        })
    };
    let end = naive_calico::End {
        world,
        pod,
        flow,
        direction: "ingress",
    };
    is_judged(pod) && end.passes(tier, !policies.is_empty(), allows)
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
pub(super) fn pod_at(world: &World, ip: IpAddr) -> Option<&Pod> {
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

/// What the first rule of a tier that matches says: `Some(false)` denies. `None`: nothing matches,
/// or Pass.
fn tier_decides(
    world: &World,
    pod: &Pod,
    flow: &Flow,
    (direction, peers, ip): (&str, &str, IpAddr),
    tier: &str,
) -> Option<bool> {
    let of_tier = world.cluster_policies.iter();
    let mut of_tier: Vec<_> = of_tier.filter(|(_, spec)| spec["tier"] == tier).collect();
    of_tier.sort_by_key(|(name, spec)| (spec["priority"].as_u64(), name));
    let selecting = of_tier.into_iter().filter(|(_, spec)| {
        let subject = pods_of(&spec["subject"], Some(pod), world);
        subject.is_some_and(|is_selected| is_selected)
    });
    let mut rules = selecting.flat_map(|(_, spec)| items(spec, direction));
    let action = rules.find_map(|rule| {
        let receiver = pod_at(world, flow.dst);
        let peers: Vec<Option<bool>> = items(rule, peers)
            .iter()
            .map(|peer| cluster_peer(world, peer, ip))
            .collect();
        let entries: Vec<Option<bool>> = items(rule, "protocols")
            .iter()
            .map(|entry| cluster_port(entry, flow, receiver))
            .collect();
        let is_unknown = peers.iter().chain(&entries).any(Option::is_none);
        let any = |of: &[Option<bool>]| of.contains(&Some(true));
        let matches = if is_unknown {
            rule["action"] != "Accept"
        } else {
            any(&peers) && (rule["protocols"].is_null() || any(&entries))
        };
        let action = rule["action"].as_str().unwrap();
        matches.then_some(if is_unknown { "Deny" } else { action })
    });
    match action {
        Some("Accept") => Some(true),
        Some("Deny") => Some(false),
        _ => None,
    }
}

/// Whether a subject, or a peer that means pods, means this one; `None`: it is of another kind.
fn pods_of(written: &Value, pod: Option<&Pod>, world: &World) -> Option<bool> {
    let (of_namespace, of_pod) = match (&written["namespaces"], &written["pods"]) {
        (Value::Null, Value::Null) => return None,
        (Value::Null, pods) => (&pods["namespaceSelector"], &pods["podSelector"]),
        (namespaces, _) => (namespaces, &Value::Null),
    };
    let Some(pod) = pod.filter(|pod| is_judged(pod)) else {
        return Some(false);
    };
    // A namespace of which nothing is known is a namespace.
    let is_any = of_namespace
        .as_object()
        .is_none_or(serde_json::Map::is_empty);
    let labels = world.namespaces.get(&pod.key.namespace);
    let is_in = is_any || labels.is_some_and(|labels| selected(of_namespace, labels));
    Some(is_in && (of_pod.is_null() || selected(of_pod, &pod.labels)))
}

fn cluster_peer(world: &World, peer: &Value, ip: IpAddr) -> Option<bool> {
    if let Some(is_meant) = pods_of(peer, pod_at(world, ip), world) {
        return Some(is_meant);
    }
    if !peer["nodes"].is_null() {
        let has = |node: &&crate::state::NodeRecord| node.ips.contains(&ip);
        let mut nodes = world.nodes.iter().filter(has);
        return Some(nodes.any(|node| selected(&peer["nodes"], &node.labels)));
    }
    let networks = peer["networks"].as_array()?;
    let inside = |text: &Value| {
        text.as_str()
            .unwrap()
            .parse::<IpNet>()
            .unwrap()
            .contains(&ip)
    };
    Some(networks.iter().any(inside))
}

fn cluster_port(entry: &Value, flow: &Flow, receiver: Option<&Pod>) -> Option<bool> {
    if let Some(name) = entry["destinationNamedPort"].as_str() {
        let this = |p: &&(String, u16, u8)| p.0 == name && (p.1, p.2) == (flow.port, flow.proto);
        return Some(receiver.is_some_and(|pod| pod.ports.iter().any(|port| this(&port))));
    }
    let of = [
        ("tcp", ip_proto::TCP),
        ("udp", ip_proto::UDP),
        ("sctp", ip_proto::SCTP),
    ];
    let (field, proto) = of.into_iter().find(|(field, _)| !entry[field].is_null())?;
    if entry[field]
        .as_object()?
        .keys()
        .any(|key| key != "destinationPort")
    {
        return None;
    }
    let port = &entry[field]["destinationPort"];
    let number = |value: &Value| value.as_u64().unwrap();
    let (first, last) = match &port["range"] {
        Value::Null => (number(&port["number"]), number(&port["number"])),
        range => (number(&range["start"]), number(&range["end"])),
    };
    Some(proto == flow.proto && (first..=last).contains(&u64::from(flow.port)))
}
