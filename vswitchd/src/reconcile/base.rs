//! What the node itself needs: ports and the rules of their addresses, the gateway, flows of
//! operators. It is small, made anew when any of it changes, and compared with the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::PortNo;
use vswitch_datapath::Action;
use vswitch_datapath::flow::{PortClass, SetName};
use vswitch_datapath::pipeline::{
    Origin, PortSpec, PortUpdate, Rule, RuleId, SetUpdate, TableId, Transaction,
};

use super::intent::{AdminFlow, Attached, Intent};
use super::{forward, gateway, responder, spoof_guard};
use crate::policy::RuleSet;
use crate::state::LocalEndpoint;

/// A port, with what hangs on it: a number that is given to another container is another port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DesiredPort {
    /// What the datapath is told.
    pub(super) spec: PortSpec,
    /// Container behind it; empty for the gateway.
    pub(super) container_id: String,
}

/// What ought to be installed besides policies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Base {
    pub(super) rules: BTreeMap<RuleId, Rule>,
    pub(super) sets: BTreeMap<SetName, BTreeSet<IpNet>>,
    pub(super) ports: BTreeMap<PortNo, DesiredPort>,
}

impl Base {
    pub(super) fn build(intent: &Intent, endpoints: &BTreeMap<PortNo, LocalEndpoint>) -> Self {
        let mut rules = base_rules(intent, endpoints);
        for flow in &intent.admin_flows {
            add_admin_flow(&mut rules, flow);
        }
        let local = endpoints.values().flat_map(|endpoint| &endpoint.addresses);
        let local = local.map(|ip| IpNet::from(*ip)).collect();
        Self {
            rules: rules.into_rules(),
            sets: BTreeMap::from([(gateway::local_pods_set(), local)]),
            ports: ports(intent),
        }
    }
}

fn base_rules(intent: &Intent, endpoints: &BTreeMap<PortNo, LocalEndpoint>) -> RuleSet {
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
    }
    forward::add_gateway(&mut rules, &intent.config);
    for endpoint in endpoints.values() {
        add_pod(&mut rules, endpoint);
    }
    rules
}

fn add_pod(rules: &mut RuleSet, endpoint: &LocalEndpoint) {
    let name = endpoint.pod.to_string();
    let part = format!("port {}", endpoint.port_no);
    let origin = Arc::new(Origin {
        kind: "Pod",
        name,
        part,
    });
    spoof_guard::add_pod(rules, endpoint, &origin);
    for ip in &endpoint.addresses {
        responder::add_address(rules, (endpoint.port_no, endpoint.mac), *ip, &origin);
    }
    forward::add_pod(rules, endpoint, &origin);
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

fn ports(intent: &Intent) -> BTreeMap<PortNo, DesiredPort> {
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
        (no, DesiredPort { spec, container_id })
    });
    let mut ports: BTreeMap<PortNo, DesiredPort> = pods.collect();
    ports.insert(
        no,
        DesiredPort {
            spec: own,
            container_id: String::new(),
        },
    );
    ports
}

/// Returns what turns `installed` into `desired`; empty if they are the same.
pub(super) fn plan(desired: &Base, installed: &Base) -> Transaction {
    let gone = installed
        .rules
        .keys()
        .filter(|id| !desired.rules.contains_key(id));
    let differing = desired
        .rules
        .iter()
        .filter(|(id, rule)| installed.rules.get(id) != Some(rule));
    Transaction {
        remove_rules: gone.copied().collect(),
        add_rules: differing.map(|(_, rule)| rule.clone()).collect(),
        sets: set_updates(desired, installed),
        ports: port_updates(desired, installed),
        forget_addresses: Vec::new(),
    }
}

fn set_updates(desired: &Base, installed: &Base) -> Vec<(SetName, SetUpdate)> {
    let mut updates = Vec::new();
    for (name, members) in &desired.sets {
        match installed.sets.get(name) {
            None => {
                let all = members.iter().copied().collect();
                updates.push((name.clone(), SetUpdate::Replace(all)));
            }
            Some(before) => member_updates(name, members, before, &mut updates),
        }
    }
    let gone = installed
        .sets
        .keys()
        .filter(|name| !desired.sets.contains_key(name));
    updates.extend(gone.map(|name| (name.clone(), SetUpdate::Delete)));
    updates
}

fn member_updates(
    name: &SetName,
    members: &BTreeSet<IpNet>,
    before: &BTreeSet<IpNet>,
    updates: &mut Vec<(SetName, SetUpdate)>,
) {
    let removed: Vec<IpNet> = before.difference(members).copied().collect();
    if !removed.is_empty() {
        updates.push((name.clone(), SetUpdate::Remove(removed)));
    }
    let added: Vec<IpNet> = members.difference(before).copied().collect();
    if !added.is_empty() {
        updates.push((name.clone(), SetUpdate::Add(added)));
    }
}

fn port_updates(desired: &Base, installed: &Base) -> Vec<PortUpdate> {
    let is_kept = |no, container_id: &str| {
        desired
            .ports
            .get(no)
            .is_some_and(|port| port.container_id == container_id)
    };
    let gone = installed
        .ports
        .iter()
        .filter(|(no, port)| !is_kept(no, &port.container_id));
    let differing = desired
        .ports
        .iter()
        .filter(|(no, port)| installed.ports.get(no) != Some(port));
    // A number that passes to another container is removed first, with its connections.
    let removals = gone.map(|(no, _)| PortUpdate::Remove(*no));
    removals
        .chain(differing.map(|(_, port)| PortUpdate::Upsert(port.spec.clone())))
        .collect()
}
