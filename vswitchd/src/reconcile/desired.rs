//! Everything that ought to be installed, made from everything that was told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::PortNo;
use vswitch_datapath::Action;
use vswitch_datapath::flow::{PortClass, SetName};
use vswitch_datapath::pipeline::{Origin, PortSpec, Rule, RuleId, TableId};

use super::intent::{AdminFlow, Attached, Intent};
use super::{base, forward, responder, spoof_guard};
use crate::policy::{PolicyProgram, RuleSet, compile};
use crate::state::{ClusterState, LocalEndpoint, ObjectKey};

/// Who has an address. When that changes, nothing of the connections of the one before may
/// live on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressOwner {
    /// The node, at the gateway port.
    Gateway,
    /// A container of this node.
    Attachment {
        /// Its port.
        port_no: PortNo,
        /// Its container.
        container_id: String,
    },
    /// A pod by its own word.
    Pod {
        /// Namespace and name.
        key: ObjectKey,
        /// metadata.uid.
        uid: String,
    },
}

/// A port, with what hangs on it: a number that is given to another container is another port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPort {
    /// What the datapath is told.
    pub spec: PortSpec,
    /// Container behind it; empty for the gateway.
    pub container_id: String,
}

/// What ought to be installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Rules of all tables.
    pub rules: BTreeMap<RuleId, Rule>,
    /// Address sets with their members.
    pub sets: BTreeMap<SetName, BTreeSet<IpNet>>,
    /// Ports.
    pub ports: BTreeMap<PortNo, DesiredPort>,
    /// Owners of all known addresses.
    pub owners: BTreeMap<IpAddr, AddressOwner>,
}

/// Makes rules, sets and ports of what was told.
pub(super) fn build(intent: &Intent) -> (Desired, PolicyProgram) {
    let node = intent.node_facts();
    let endpoints = intent.endpoints(&node);
    let program = compile(&intent.cluster, &endpoints, &node);
    let mut rules = base_rules(intent, &endpoints);
    for rule in &program.rules {
        rules.insert(rule.clone());
    }
    for flow in intent.admin_flows.iter() {
        add_admin_flow(&mut rules, flow);
    }
    let mut sets = program.sets.clone();
    let local = endpoints.values().flat_map(|endpoint| &endpoint.addresses);
    sets.insert(
        base::local_pods_set(),
        local.map(|ip| IpNet::from(*ip)).collect(),
    );
    let desired = Desired {
        rules: rules.into_rules(),
        sets,
        ports: ports(intent),
        owners: owners(intent, &endpoints),
    };
    (desired, program)
}

fn base_rules(intent: &Intent, endpoints: &BTreeMap<PortNo, LocalEndpoint>) -> RuleSet {
    let gateway = &intent.config.gateway;
    let mut rules = RuleSet::default();
    base::add_gateway(&mut rules, gateway);
    let origin = Arc::new(Origin {
        kind: "Gateway",
        name: gateway.name.clone(),
        part: String::new(),
    });
    for ip in &gateway.addresses {
        responder::add_address(&mut rules, (gateway.port_no, gateway.mac), *ip, &origin);
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
    let decides = |action: &Action| {
        matches!(
            action,
            Action::Goto(_)
                | Action::Drop(_)
                | Action::Redirect(_)
                | Action::Output
                | Action::ArpReply(_)
                | Action::NdAdvertise(_)
        )
    };
    if !actions.iter().any(decides) {
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

fn owners(
    intent: &Intent,
    endpoints: &BTreeMap<PortNo, LocalEndpoint>,
) -> BTreeMap<IpAddr, AddressOwner> {
    let mut owners = pod_owners(&intent.cluster);
    for endpoint in endpoints.values() {
        let Some(attached) = intent.attached.get(&endpoint.port_no) else {
            continue;
        };
        let container_id = attached.attachment.container_id.clone();
        let owner = AddressOwner::Attachment {
            port_no: endpoint.port_no,
            container_id,
        };
        owners.extend(endpoint.addresses.iter().map(|ip| (*ip, owner.clone())));
    }
    let gateway = intent.config.gateway.addresses.iter();
    owners.extend(gateway.map(|ip| (*ip, AddressOwner::Gateway)));
    owners
}

fn pod_owners(cluster: &ClusterState) -> BTreeMap<IpAddr, AddressOwner> {
    let mut owners = BTreeMap::new();
    for ip in cluster.pods().flat_map(|pod| &pod.ips) {
        if let Some(pod) = cluster.owner_of(*ip) {
            let (key, uid) = (pod.key.clone(), pod.uid.clone());
            owners.insert(*ip, AddressOwner::Pod { key, uid });
        }
    }
    owners
}
