//! Tests of the reconciler: the rules it makes, walked one by one; the transactions it plans;
//! and its thread.

mod audit;
mod frames;
mod planning;
mod rules;
mod thread;
mod walker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::pipeline::{PortSpec, PortUpdate, SetUpdate, Transaction};

use super::intent::{GatewayPort, PortAttachMode, ReconcileConfig};
use super::model::{Model, ModelInput};
use crate::config::Deny;
use crate::policy::tests::program::Program;
use crate::rules::RuleDelta;
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
    let gateway = GatewayPort {
        port_no: GATEWAY,
        name,
        mac: GATEWAY_MAC,
        addresses,
        mtu: 1500,
    };
    let pod_cidrs = ["10.0.0.0/24", "fd00::/64"]
        .map(|net| net.parse().unwrap())
        .to_vec();
    ReconcileConfig {
        node_name: "node".to_owned(),
        gateway,
        pod_cidrs,
        deny: Deny::Drop,
    }
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
        host_ports: Vec::new(),
    }
}

fn pod(name: &str, ips: &[&str]) -> ClusterChange {
    ClusterChange::Pod(PodRecord {
        service_account: "default".to_owned(),
        key: key(name),
        uid: format!("uid-{name}"),
        ips: ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect(),
        phase: PodPhase::Running,
        ..PodRecord::default()
    })
}

/// A pod isolated in both directions.
fn deny_all() -> ClusterChange {
    let spec = serde_json::json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
    let spec = serde_json::from_value(spec).unwrap();
    ClusterChange::Policy(crate::state::PolicyRecord {
        key: key("deny"),
        spec,
        mode: None,
    })
}

/// A model with what it gave out so far.
#[derive(Debug)]
struct RecordedModel {
    model: Model,
    policies: Program,
    ports: BTreeMap<PortNo, PortSpec>,
}

impl RecordedModel {
    fn new() -> Self {
        let mut switch = Self {
            model: Model::new(config()),
            policies: Program::default(),
            ports: BTreeMap::new(),
        };
        switch.flush();
        switch
    }

    fn take(&mut self, told: ModelInput) -> &mut Self {
        self.model.take(told);
        self
    }

    fn apply(&mut self, changes: Vec<ClusterChange>) -> &mut Self {
        self.take(ModelInput::Cluster(changes))
    }

    fn attach(&mut self, attachment: Attachment, mode: PortAttachMode) -> &mut Self {
        self.take(ModelInput::Attach(Box::new(attachment), mode))
    }

    /// Brings what was told into force.
    fn flush(&mut self) -> Transaction {
        let changes = self.model.flush();
        self.policies.apply(RuleDelta {
            remove_rules: changes.remove_rules.clone(),
            add_rules: changes.add_rules.clone(),
            sets: changes.sets.clone(),
        });
        for update in &changes.ports {
            match update {
                PortUpdate::Remove(no) => drop(self.ports.remove(no)),
                PortUpdate::Upsert(spec) => drop(self.ports.insert(spec.no, spec.clone())),
                PortUpdate::Limit(..) => {}
            }
        }
        changes
    }

    /// All that is in force, as one transaction.
    fn everything(&self) -> Transaction {
        let sets = self.policies.sets.iter();
        let replace =
            |members: &BTreeSet<IpNet>| SetUpdate::Replace(members.iter().copied().collect());
        Transaction {
            add_rules: self.policies.rules.values().cloned().collect(),
            sets: sets
                .map(|(name, members)| (name.clone(), replace(members)))
                .collect(),
            ports: self
                .ports
                .values()
                .cloned()
                .map(PortUpdate::Upsert)
                .collect(),
            ..Transaction::default()
        }
    }
}

/// The pods a (port 10) and b (port 11) of this node, known and attached.
fn two_pods() -> RecordedModel {
    let mut switch = RecordedModel::new();
    switch.take(ModelInput::Synced);
    switch.apply(vec![pod("a", &[]), pod("b", &[])]);
    for (port, name) in [(10, "a"), (11, "b")] {
        let addresses = [format!("10.0.0.{port}/24"), format!("fd00::{port}/64")];
        let addresses = [addresses[0].as_str(), addresses[1].as_str()];
        switch.attach(
            attachment(port, name, &addresses),
            PortAttachMode::default(),
        );
    }
    switch.flush();
    switch
}
