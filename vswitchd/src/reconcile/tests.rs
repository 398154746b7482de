//! Tests of the reconciler: the rules it makes, walked one by one; the transactions it plans;
//! and its thread.

mod frames;
mod planning;
mod rules;
mod thread;
mod walker;

use std::net::IpAddr;

use vswitch_api::{MacAddr, PortNo};

use super::intent::{GatewaySpec, Intent, PortAttachMode, ReconcileConfig};
use crate::state::{Attachment, ClusterChange, ObjectKey, PodPhase, PodRecord};

const GATEWAY: PortNo = PortNo(1);
const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

fn mac(port: u32) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, u8::try_from(port).unwrap()])
}

fn config() -> ReconcileConfig {
    let addresses = ["10.0.0.1", "fd00::1"]
        .map(|ip| ip.parse().unwrap())
        .to_vec();
    let name = "vsw0".to_owned();
    let gateway = GatewaySpec {
        port_no: GATEWAY,
        name,
        mac: GATEWAY_MAC,
        addresses,
        mtu: 1500,
    };
    let pod_cidrs = ["10.0.0.0/24", "fd00::/64"]
        .map(|net| net.parse().unwrap())
        .to_vec();
    ReconcileConfig { gateway, pod_cidrs }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
    }
}

/// An attachment of the pod `ns/NAME` at a port, in the container `cNAME`.
fn attachment(port: u32, name: &str, addresses: &[&str]) -> Attachment {
    Attachment {
        container_id: format!("c{name}"),
        ifname: "eth0".parse().unwrap(),
        network: "vswitch".to_owned(),
        netns: "/var/run/netns/x".into(),
        host_ifname: format!("vp{port}").parse().unwrap(),
        port_no: PortNo(port),
        mac: mac(port),
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        mtu: 1450,
        pod: key(name),
        delegated_ipam: None,
    }
}

fn pod(name: &str, ips: &[&str]) -> ClusterChange {
    ClusterChange::Pod(PodRecord {
        key: key(name),
        uid: format!("uid-{name}"),
        labels: Default::default(),
        ips: ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect(),
        host_network: false,
        phase: PodPhase::Running,
        node_name: None,
        named_ports: Vec::new(),
    })
}

/// A pod isolated in both directions.
fn deny_all() -> ClusterChange {
    let spec = serde_json::json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
    let spec = serde_json::from_value(spec).unwrap();
    ClusterChange::Policy(crate::state::PolicyRecord {
        key: key("deny"),
        spec,
    })
}

/// The pods a (port 10) and b (port 11) of this node, known and attached.
fn two_pods() -> Intent {
    let mut intent = Intent::new(config());
    intent.is_synced = true;
    tell(&mut intent, vec![pod("a", &[]), pod("b", &[])]);
    for (port, name) in [(10, "a"), (11, "b")] {
        let addresses = [format!("10.0.0.{port}/24"), format!("fd00::{port}/64")];
        let addresses = [addresses[0].as_str(), addresses[1].as_str()];
        intent.attach(
            attachment(port, name, &addresses),
            PortAttachMode::default(),
        );
    }
    intent
}

fn tell(intent: &mut Intent, changes: Vec<ClusterChange>) {
    let mut cluster = (*intent.cluster).clone();
    for change in changes {
        cluster.apply(change);
    }
    intent.cluster = cluster.into();
}
