//! A large cluster, the same in every run.
//!
//! 1,000 namespaces of 10 pods; 110 of the pods are at this node, in the first 100 namespaces.
//! Policies come in rounds of ten a namespace, namespace after namespace, so that the first
//! 1,000 are those that concern this node and all later ones do not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde_json::{Value, json};
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::pipeline::Bandwidth;
use vswitchd::state::{
    Attachment, ClusterChange, ClusterPolicyKey, ClusterPolicyKind, ClusterPolicyRecord,
    EndpointPort, EndpointRecord, EndpointSliceRecord, NamedPort, NamespaceRecord, ObjectKey,
    PodPhase, PodRecord, PolicyRecord, ServicePort, ServiceRecord,
};

/// This node.
pub const NODE: &str = "node-0";
pub const NAMESPACES: usize = 1_000;
pub const PODS: usize = 10_000;
pub const LOCAL_PODS: usize = 110;
/// Endpoints of each Service.
pub const ENDPOINTS_EACH: usize = 20;
const LOCAL_NAMESPACES: usize = 100;
const PODS_EACH: usize = PODS / NAMESPACES;
/// First port of a pod; 1 is the gateway's.
const FIRST_PORT: usize = 2;

fn key(namespace: usize, name: String) -> ObjectKey {
    ObjectKey {
        namespace: format!("ns-{namespace:04}"),
        name,
    }
}

fn labels(pairs: &[(&str, String)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

pub fn namespace(number: usize) -> ClusterChange {
    ClusterChange::Namespace(NamespaceRecord {
        name: format!("ns-{number:04}"),
        mode: None,
        labels: labels(&[
            ("kubernetes.io/metadata.name", format!("ns-{number:04}")),
            ("team", format!("team-{}", number % 20)),
            ("tier", ["front", "back", "data"][number % 3].to_owned()),
        ]),
    })
}

pub fn address(pod: usize) -> IpAddr {
    let [_, high, middle, low] = u32::try_from(pod).unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(10, 1 + high, middle, low).into()
}

/// The pods of this node: the first of 100 namespaces, and the second of the first ten.
pub fn local_pod(index: usize) -> usize {
    let (namespace, place) = (index % LOCAL_NAMESPACES, index / LOCAL_NAMESPACES);
    namespace * PODS_EACH + place
}

/// A pod; `version` is a label that changes.
pub fn pod(number: usize, version: usize) -> PodRecord {
    let namespace = number / PODS_EACH % NAMESPACES;
    PodRecord {
        service_account: "default".to_owned(),
        key: key(namespace, format!("pod-{number}")),
        uid: format!("uid-{number}"),
        labels: labels(&[
            ("app", format!("app-{}", number % PODS_EACH)),
            ("version", format!("v{version}")),
            ("role", ["server", "client"][number % 2].to_owned()),
        ]),
        ips: vec![address(number)],
        host_network: false,
        phase: PodPhase::Running,
        node_name: None,
        named_ports: vec![NamedPort {
            name: "http".to_owned(),
            port: 8080,
            proto: 6,
        }],
        bandwidth: Bandwidth::default(),
    }
}

/// A policy of the mix that real clusters have; `number / 10` is its namespace.
pub fn policy(number: usize) -> PolicyRecord {
    let (namespace, place) = (number / 10 % NAMESPACES, number % 10);
    let of_app = |app: usize| json!({ "matchLabels": { "app": format!("app-{app}") } });
    let spec = match place {
        0 => json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }),
        // Everybody may ask the DNS.
        1 => json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [
            { "to": [{ "namespaceSelector": { "matchLabels":
                { "kubernetes.io/metadata.name": "ns-0000" } } }],
              "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }] }] }),
        2 if namespace % 10 == 0 => networks(),
        // Namespaces of one team reach each other.
        2 => json!({ "podSelector": {}, "ingress": [{ "from": [{ "namespaceSelector":
            { "matchLabels": { "team": format!("team-{}", namespace % 20) } } }] }] }),
        3 => json!({ "podSelector": of_app(0), "ingress": [{
            "from": [{ "podSelector": of_app(1) },
                     { "namespaceSelector": { "matchLabels": { "tier": "front" } },
                       "podSelector": of_app(2) }],
            "ports": [{ "port": "http" }] }] }),
        4 => json!({ "podSelector": of_app(0), "policyTypes": ["Egress"], "egress": [{
            "to": [{ "podSelector": of_app(1) }, { "podSelector": of_app(3) }],
            "ports": [{ "port": "http" }, { "port": 9000, "endPort": 9010 }] }] }),
        app => json!({ "podSelector": of_app(app % PODS_EACH), "ingress": [{
            "from": [{ "podSelector": { "matchExpressions": [
                { "key": "role", "operator": "In", "values": ["client"] },
                { "key": "version", "operator": "NotIn", "values": ["v0"] }] } }],
            "ports": [{ "port": 8080 }] }] }),
    };
    record(key(namespace, format!("policy-{number}")), spec)
}

/// 500 networks of partners may come in.
fn networks() -> Value {
    let block = |n: usize| json!({ "ipBlock": { "cidr": format!("172.{}.{}.0/28", 16 + n / 256, n % 256) } });
    let blocks: Vec<Value> = (0..500).map(block).collect();
    json!({ "podSelector": {}, "ingress": [{ "from": blocks }] })
}

fn record(key: ObjectKey, spec: Value) -> PolicyRecord {
    let spec = serde_json::from_value(spec).expect("the spec is a NetworkPolicy's");
    PolicyRecord {
        key,
        spec,
        mode: None,
    }
}

/// ClusterNetworkPolicies, however many NetworkPolicies are beside them: they concern this node.
pub const CLUSTER_POLICIES: usize = 200;

/// A ClusterNetworkPolicy, each other one of tier Admin, for the namespaces of one team.
pub fn cluster_policy(number: usize) -> ClusterChange {
    let team = |of: usize| json!({ "matchLabels": { "team": format!("team-{}", of % 20) } });
    let port = |port: usize| json!([{ "tcp": { "destinationPort": { "number": port } } }]);
    let action = if number.is_multiple_of(5) {
        "Pass"
    } else {
        "Deny"
    };
    let spec = json!({
        "tier": if number.is_multiple_of(2) { "Admin" } else { "Baseline" },
        "priority": number / 2,
        "subject": { "namespaces": team(number) },
        "ingress": [{ "action": action, "from": [{ "namespaces": team(number + 7) }],
            "protocols": port(6_000 + number) }],
        "egress": [{ "action": "Deny",
            "to": [{ "networks": [format!("198.18.{}.0/24", number % 256)] }] }],
    });
    ClusterChange::ClusterPolicy(ClusterPolicyRecord {
        key: ClusterPolicyKey {
            kind: ClusterPolicyKind::ClusterNetworkPolicy,
            name: format!("guard-{number}"),
        },
        spec,
        mode: None,
    })
}

/// A policy that is new in a namespace of this node.
pub fn new_policy(number: usize) -> PolicyRecord {
    let spec = json!({ "podSelector": {}, "ingress": [{
        "from": [{ "podSelector": { "matchLabels": { "app": "app-4" } } }],
        "ports": [{ "port": 8443 }] }] });
    record(
        key(number % LOCAL_NAMESPACES, format!("new-{number}")),
        spec,
    )
}

pub fn port_of(local: usize) -> PortNo {
    PortNo(u32::try_from(FIRST_PORT + local).unwrap_or_default())
}

pub fn mac_of(PortNo(port): PortNo) -> MacAddr {
    let [a, b, c, d] = port.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

/// ClusterIP of a Service.
pub fn cluster_ip(number: usize) -> IpAddr {
    let [_, _, high, low] = u32::try_from(number + 1).unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(10, 200, high, low).into()
}

/// A Service; five in a namespace.
pub fn service(number: usize) -> ServiceRecord {
    ServiceRecord {
        key: key(number % NAMESPACES, format!("svc-{number}")),
        cluster_ips: vec![cluster_ip(number)],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort {
            name: "http".to_owned(),
            proto: 6,
            port: 80,
            node_port: None,
        }],
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_node_port: None,
    }
}

/// A pod as an endpoint.
pub fn endpoint(pod: usize) -> EndpointRecord {
    EndpointRecord {
        ip: address(pod),
        ready: true,
        serving: true,
        terminating: false,
        node_name: None,
        zones: Vec::new(),
        nodes: Vec::new(),
    }
}

/// The slice of a Service with so many endpoints.
pub fn slice(number: usize, endpoints: usize) -> EndpointSliceRecord {
    let nth = |nth: usize| endpoint((number * ENDPOINTS_EACH + nth) * 7 % PODS);
    EndpointSliceRecord {
        key: key(number % NAMESPACES, format!("svc-{number}-1")),
        service: key(number % NAMESPACES, format!("svc-{number}")),
        endpoints: (0..endpoints).map(nth).collect(),
        ports: vec![EndpointPort {
            name: "http".to_owned(),
            proto: 6,
            port: 8080,
        }],
    }
}

/// What CNI ADD would tell of a pod of this node.
pub fn attachment(local: usize, pod: usize) -> Attachment {
    let port_no = port_of(local);
    Attachment {
        container_id: format!("container-{pod}"),
        ifname: "eth0".parse().expect("a name"),
        network: "vswitch".to_owned(),
        netns: "/run/netns/none".into(),
        host_ifname: format!("vp{local}").parse().expect("a name"),
        port_no,
        mac: mac_of(port_no),
        addresses: vec![IpNet::from(address(pod))],
        mtu: 1450,
        pod: self::pod(pod, 0).key,
        delegated_ipam: None,
        host_ports: Vec::new(),
    }
}
