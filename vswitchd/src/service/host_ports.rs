//! Host ports: ports of the node's addresses that lead to one container each.
//!
//! A pod's connection to a host port of its own node is translated in the switch, as one to a
//! Service is, so that policies judge the pod that sends and the pod that is reached. What
//! comes from elsewhere is translated by the node's kernel (`host/services`) into the pod's
//! address before it comes to the switch, with the sender's address as it was: the switch
//! gives out what that takes as [`HostPortForward`]s.
//!
//! A NodePort of the same number wins: it is the cluster's, not one container's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::Priority;
use vswitch_datapath::Action;
use vswitch_datapath::flow::AddressMatch;
use vswitch_datapath::group::{
    Endpoint, Group, GroupId, GroupUpdate, LostEndpoint, ServiceAddress,
};
use vswitch_datapath::pipeline::{Origin, Rule, TableId};

use super::entrance_match::to_port;
use super::node::ServiceNode;
use super::program::{node_port_set, protocol_name};
use crate::rules::{Ledger, RuleOwner, RuleSet, virtual_addresses};
use crate::state::{HostPort, ObjectKey};

/// Priorities inside the ServiceLb table, below those of Services.
mod priority {
    use vswitch_api::Priority;

    /// A host port of one address, where another container has it on all others.
    pub(super) const OF_ONE_ADDRESS: Priority = Priority(55);
    pub(super) const OF_ALL_ADDRESSES: Priority = Priority(50);
}

/// A host port with the pod that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPortMapping {
    /// The host port.
    pub port: HostPort,
    /// The pod.
    pub pod: ObjectKey,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

/// What the node's kernel has to translate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPortForward {
    /// IP protocol.
    pub proto: u8,
    /// The one address of the node that has the port; `None` for all of the pod's family.
    pub ip: Option<IpAddr>,
    /// Port of the node.
    pub port: u16,
    /// Address and port of the pod.
    pub to: SocketAddr,
}

/// What one host port comes to.
#[derive(Debug)]
struct CompiledHostPort {
    mapping: HostPortMapping,
    rules: Vec<Rule>,
    groups: Vec<Group>,
    /// Connections that may go on.
    kept: BTreeSet<LostEndpoint>,
}

/// What a host port is compiled into.
#[derive(Debug)]
pub(super) struct Output<'a> {
    pub(super) ledger: &'a mut Ledger,
    pub(super) next_group: &'a mut u32,
    pub(super) groups: &'a mut Vec<GroupUpdate>,
    pub(super) lost: &'a mut Vec<LostEndpoint>,
    pub(super) served: &'a mut Vec<ServiceAddress>,
}

/// The host ports of this node's containers.
#[derive(Debug, Default)]
pub(super) struct HostPorts {
    wanted: Vec<HostPortMapping>,
    compiled: BTreeMap<(u8, u16, Option<IpAddr>), CompiledHostPort>,
    is_dirty: bool,
}

impl HostPorts {
    /// Sets all host ports; of two that exclude each other, the first counts.
    pub(super) fn set(&mut self, wanted: Vec<HostPortMapping>) {
        self.is_dirty |= self.wanted != wanted;
        self.wanted = wanted;
    }

    /// Compiles what changed; everything if the node's addresses did.
    pub(super) fn flush(&mut self, node: &ServiceNode, is_node_dirty: bool, out: &mut Output<'_>) {
        if !std::mem::take(&mut self.is_dirty) && !is_node_dirty {
            return;
        }
        let mut before = std::mem::take(&mut self.compiled);
        for mapping in &self.wanted {
            let key = mapping.port.key();
            if self.compiled.contains_key(&key) {
                continue;
            }
            let old = before.remove(&key);
            let compiled = match old {
                Some(old) if old.mapping == *mapping && !is_node_dirty => old,
                old => replace(old, mapping, node, out),
            };
            self.compiled.insert(key, compiled);
        }
        before.into_values().for_each(|old| remove(old, out));
    }

    /// Returns what the node's kernel has to translate.
    pub(super) fn forwards(&self) -> BTreeSet<HostPortForward> {
        let mappings = self.compiled.values().map(|compiled| &compiled.mapping);
        let forwards = mappings.flat_map(|mapping| {
            let port = mapping.port;
            targets(mapping).map(move |to| HostPortForward {
                proto: port.proto,
                ip: port.only_ip(),
                port: port.port,
                to: SocketAddr::new(to.ip, to.port),
            })
        });
        forwards.collect()
    }
}

/// Returns where the host port leads, one endpoint a family.
fn targets(mapping: &HostPortMapping) -> impl Iterator<Item = Endpoint> {
    let port = mapping.port;
    [false, true].into_iter().filter_map(move |is_ipv6| {
        let mut of_family = mapping
            .addresses
            .iter()
            .filter(|ip| ip.is_ipv6() == is_ipv6);
        let ip = *of_family.next().filter(|_| port.is_of_family(is_ipv6))?;
        Some(Endpoint {
            ip,
            port: port.container_port,
        })
    })
}

fn replace(
    old: Option<CompiledHostPort>,
    mapping: &HostPortMapping,
    node: &ServiceNode,
    out: &mut Output<'_>,
) -> CompiledHostPort {
    let mut rules = RuleSet::of(RuleOwner::Services);
    let (mut groups, mut kept) = (Vec::new(), BTreeSet::new());
    let old_groups = old.as_ref().map(|old| old.groups.clone());
    let mut numbers = old_groups.iter().flatten().map(|group| group.id);
    for endpoint in targets(mapping) {
        let Some((priority, to)) = destination(&mapping.port, node) else {
            continue;
        };
        // A number stays with its host port while the pod behind it changes.
        let id = numbers.next().unwrap_or_else(|| {
            let id = GroupId(*out.next_group);
            *out.next_group += 1;
            id
        });
        let addresses = node.node_port_addresses().into_iter();
        let entrances: Vec<ServiceAddress> = addresses
            .filter(|ip| ip.is_ipv4() == endpoint.ip.is_ipv4())
            .map(|ip| ServiceAddress {
                proto: mapping.port.proto,
                service: Endpoint {
                    ip,
                    port: mapping.port.port,
                },
            })
            .collect();
        kept.extend(entrances.iter().map(|entrance| LostEndpoint {
            proto: entrance.proto,
            service: entrance.service,
            endpoint,
        }));
        let group = group(id, mapping, endpoint, &entrances);
        add_rule(&mut rules, (priority, to), mapping, &group);
        groups.push(group);
    }
    let mut installed = old.map_or_else(
        || (Vec::new(), Vec::new(), BTreeSet::new()),
        |old| (old.rules, old.groups, old.kept),
    );
    out.ledger
        .replace_rules(&mut installed.0, rules.into_list());
    let is_new = |group: &&Group| !installed.1.contains(*group);
    let new = groups.iter().filter(is_new).cloned();
    out.groups.extend(new.map(GroupUpdate::Set));
    out.groups.extend(numbers.map(GroupUpdate::Remove));
    out.lost.extend(installed.2.difference(&kept));
    let new = kept.difference(&installed.2);
    out.served.extend(new.map(|new| ServiceAddress {
        proto: new.proto,
        service: new.service,
    }));
    CompiledHostPort {
        mapping: mapping.clone(),
        rules: installed.0,
        groups,
        kept,
    }
}

fn remove(mut old: CompiledHostPort, out: &mut Output<'_>) {
    out.ledger.replace_rules(&mut old.rules, Vec::new());
    let numbers = old.groups.iter().map(|group| group.id);
    out.groups.extend(numbers.map(GroupUpdate::Remove));
    out.lost.extend(old.kept);
}

/// Returns what addresses the node has the port on; `None` if on none that others can reach.
fn destination(port: &HostPort, node: &ServiceNode) -> Option<(Priority, AddressMatch)> {
    match port.only_ip() {
        None => Some((
            priority::OF_ALL_ADDRESSES,
            AddressMatch::Set(node_port_set()),
        )),
        Some(ip) if node.addresses.contains(&ip) => {
            Some((priority::OF_ONE_ADDRESS, AddressMatch::Net(IpNet::from(ip))))
        }
        Some(_) => None,
    }
}

fn name(port: &HostPort) -> String {
    format!("hostPort {}/{}", port.port, protocol_name(port.proto))
}

fn group(
    id: GroupId,
    mapping: &HostPortMapping,
    endpoint: Endpoint,
    entrances: &[ServiceAddress],
) -> Group {
    Group {
        id,
        name: format!("{} {}", mapping.pod, name(&mapping.port)).into(),
        endpoints: [endpoint].into(),
        entrances: entrances.into(),
        affinity: None,
        hairpin_source: virtual_addresses(endpoint.ip).hairpin,
    }
}

fn add_rule(
    rules: &mut RuleSet,
    (priority, to): (Priority, AddressMatch),
    mapping: &HostPortMapping,
    group: &Group,
) {
    let port = mapping.port;
    let is_ipv6 = group.hairpin_source.is_ipv6();
    let matches = to_port(is_ipv6, port.proto, to, port.port);
    let origin = Arc::new(Origin {
        kind: "Pod",
        name: mapping.pod.to_string(),
        part: name(&port),
    });
    let actions = vec![
        Action::Group(group.id),
        Action::Goto(TableId::EgressAdminTier),
    ];
    rules.add((TableId::ServiceLb, priority), matches, actions, &origin);
}
