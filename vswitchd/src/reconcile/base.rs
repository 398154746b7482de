//! Rules of the node's own parts: ports and their addresses, the gateway, flows of operators.
//! Compiled anew only for pods that came, went or changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::PortNo;
use vswitch_datapath::Action;
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::pipeline::{Bandwidth, Origin, PortSpec, PortUpdate, Rule, TableId};

use super::intent::{AdminFlow, Attached, Intent};
use super::{forward, gateway, responder, spoof_guard};
use crate::rules::virtual_addresses;
use crate::rules::{Ledger, RuleDelta, RuleSet};
use crate::state::{ClusterState, LocalEndpoint};

/// A port, with what hangs on it: a number that is given to another container is another port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DesiredPort {
    /// What the datapath is told.
    pub(super) spec: PortSpec,
    /// Container behind it; empty for the gateway.
    pub(super) container_id: String,
    /// Limits of its pod.
    pub(super) bandwidth: Bandwidth,
}

/// A pod's port with the rules of its addresses.
#[derive(Debug, Default)]
struct PodRules {
    endpoint: Option<LocalEndpoint>,
    rules: Vec<Rule>,
}

/// What is installed besides policies.
#[derive(Debug)]
pub(super) struct Base {
    ledger: Ledger,
    /// The gateway, and flows of operators.
    common: Vec<Rule>,
    pods: BTreeMap<PortNo, PodRules>,
    ports: BTreeMap<PortNo, DesiredPort>,
}

impl Base {
    pub(super) fn new() -> Self {
        let mut ledger = Ledger::default();
        ledger.create_set(&gateway::local_pods_set());
        Self {
            ledger,
            common: Vec::new(),
            pods: BTreeMap::new(),
            ports: BTreeMap::new(),
        }
    }

    /// Brings everything in line with what is wanted; returns what changed.
    pub(super) fn update(
        &mut self,
        intent: &Intent,
        endpoints: &BTreeMap<PortNo, LocalEndpoint>,
        cluster: &ClusterState,
    ) -> (RuleDelta, Vec<PortUpdate>) {
        self.ledger
            .replace_rules(&mut self.common, common_rules(intent));
        let gone = self.pods.keys().filter(|no| !endpoints.contains_key(no));
        for no in gone.copied().collect::<Vec<_>>() {
            self.set_pod(no, None);
        }
        for (no, endpoint) in endpoints {
            let is_same = |pod: &PodRules| pod.endpoint.as_ref() == Some(endpoint);
            if !self.pods.get(no).is_some_and(is_same) {
                self.set_pod(*no, Some(endpoint));
            }
        }
        let wanted = ports(intent, cluster);
        let changes = port_updates(&wanted, &self.ports);
        self.ports = wanted;
        (self.ledger.take(), changes)
    }

    fn set_pod(&mut self, no: PortNo, endpoint: Option<&LocalEndpoint>) {
        let mut pod = self.pods.remove(&no).unwrap_or_default();
        let set = gateway::local_pods_set();
        for ip in pod.endpoint.iter().flat_map(|old| &old.addresses) {
            self.ledger.remove_member(&set, IpNet::from(*ip));
        }
        for ip in endpoint.iter().flat_map(|new| &new.addresses) {
            self.ledger.add_member(&set, IpNet::from(*ip));
        }
        let rules = endpoint.map(pod_rules).unwrap_or_default();
        self.ledger.replace_rules(&mut pod.rules, rules);
        if let Some(endpoint) = endpoint {
            pod.endpoint = Some(endpoint.clone());
            self.pods.insert(no, pod);
        }
    }
}

fn common_rules(intent: &Intent) -> Vec<Rule> {
    let spec = &intent.config.gateway;
    let mut rules = RuleSet::default();
    gateway::add_gateway(&mut rules, spec);
    let origin = Arc::new(Origin {
        kind: "Gateway",
        name: spec.name.clone(),
        part: String::new(),
    });
    for ip in &spec.addresses {
        responder::add_address(&mut rules, (spec.port_no, spec.mac), *ip, &origin);
        let hairpin = virtual_addresses(*ip).hairpin;
        responder::add_virtual_address(&mut rules, spec.port_no, hairpin, &origin);
    }
    forward::add_gateway(&mut rules, &intent.config);
    for flow in &intent.admin_flows {
        add_admin_flow(&mut rules, flow);
    }
    rules.into_list()
}

fn pod_rules(endpoint: &LocalEndpoint) -> Vec<Rule> {
    let mut rules = RuleSet::default();
    let origin = Arc::new(Origin {
        kind: "Pod",
        name: endpoint.pod.to_string(),
        part: format!("port {}", endpoint.port_no),
    });
    spoof_guard::add_pod(&mut rules, endpoint, &origin);
    for ip in &endpoint.addresses {
        let place = (endpoint.port_no, endpoint.mac);
        responder::add_address(&mut rules, place, *ip, &origin);
    }
    forward::add_pod(&mut rules, endpoint, &origin);
    rules.into_list()
}

fn add_admin_flow(rules: &mut RuleSet, flow: &AdminFlow) {
    let mut actions = flow.actions.clone();
    if !actions.iter().any(Action::decides) {
        actions.push(Action::Goto(TableId::Conntrack));
    }
    let origin = Arc::new(Origin {
        kind: "AdminFlow",
        name: flow.name.clone(),
        part: String::new(),
    });
    let at = (TableId::Admin, flow.priority);
    rules.add_with_cookie(at, flow.matches.clone(), actions, &origin, flow.cookie);
}

fn ports(intent: &Intent, cluster: &ClusterState) -> BTreeMap<PortNo, DesiredPort> {
    let gateway = &intent.config.gateway;
    let spec = |no, class, name, mac, mtu| PortSpec {
        no,
        class,
        name,
        mac,
        mtu: intent.mtus.get(&no).copied().unwrap_or(mtu),
        midstream_pickup: intent.midstream.contains(&no),
    };
    let no = gateway.port_no;
    let name = gateway.name.clone();
    let own = spec(no, PortClass::Gateway, name, gateway.mac, gateway.mtu);
    let pods = intent.attached.values().map(|Attached { attachment, .. }| {
        let (no, name) = (attachment.port_no, attachment.pod.to_string());
        let container_id = attachment.container_id.clone();
        let spec = spec(no, PortClass::Pod, name, attachment.mac, attachment.mtu);
        let pod = cluster.pod(&attachment.pod);
        let port = DesiredPort {
            spec,
            container_id,
            bandwidth: pod.map(|pod| pod.bandwidth).unwrap_or_default(),
        };
        (no, port)
    });
    let mut ports: BTreeMap<PortNo, DesiredPort> = pods.collect();
    ports.insert(
        no,
        DesiredPort {
            spec: own,
            container_id: String::new(),
            bandwidth: Bandwidth::default(),
        },
    );
    ports
}

/// A port number that passes to another container is removed first, with its connections.
fn port_updates(
    wanted: &BTreeMap<PortNo, DesiredPort>,
    installed: &BTreeMap<PortNo, DesiredPort>,
) -> Vec<PortUpdate> {
    let is_kept = |no, container_id: &str| {
        wanted
            .get(no)
            .is_some_and(|port| port.container_id == container_id)
    };
    let gone = installed
        .iter()
        .filter(|(no, port)| !is_kept(no, &port.container_id));
    let differing = wanted
        .iter()
        .filter(|(no, port)| installed.get(no) != Some(port));
    let removals = gone.map(|(no, _)| PortUpdate::Remove(*no));
    removals
        .chain(differing.flat_map(|(no, port)| {
            let is_same = |old: &&DesiredPort| old.container_id == port.container_id;
            let kept = installed.get(no).filter(is_same);
            let before = kept.map(|port| port.bandwidth).unwrap_or_default();
            let limit = PortUpdate::Limit(*no, port.bandwidth);
            let limit = (port.bandwidth != before).then_some(limit);
            [PortUpdate::Upsert(port.spec.clone())]
                .into_iter()
                .chain(limit)
        }))
        .collect()
}
