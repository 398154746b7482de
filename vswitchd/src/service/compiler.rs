//! The Service compiler: turns changes of Services and endpoints into changes of rules and
//! groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use imbl::OrdMap;
use ipnet::IpNet;
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::group::{GroupId, GroupUpdate, LostEndpoint, ServiceAddress};

use super::host_ports::{HostPortForward, HostPortMapping, HostPorts, Output};
use super::node::ServiceNode;
use super::program::{self, GroupKey, Numbers, Program, Surface, cluster_ip_set, node_port_set};
use crate::rules::{Ledger, RuleDelta};
use crate::state::{Changed, ClusterState, EndpointSliceRecord, ObjectKey, PodPhase, PodRecord};

/// What a round of changes comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceDelta {
    /// Rules and sets.
    pub rules: RuleDelta,
    /// Groups that are new, gone or different.
    pub groups: Vec<GroupUpdate>,
    /// Endpoints whose connections must not go on.
    pub lost: Vec<LostEndpoint>,
    /// Addresses and ports that had no Service before.
    pub served: Vec<ServiceAddress>,
}

/// A Service with what it came to.
#[derive(Debug, Default)]
struct CompiledService {
    program: Program,
    numbers: BTreeMap<GroupKey, GroupId>,
}

/// Keeps the rules and groups of all Services up to date.
#[derive(Debug)]
pub struct ServiceCompiler {
    node: ServiceNode,
    compiled: HashMap<ObjectKey, CompiledService>,
    surfaces: OrdMap<ObjectKey, Surface>,
    host_ports: HostPorts,
    /// Endpoints that no longer get connections, whose pods still run: what they have goes on.
    left: BTreeMap<IpAddr, BTreeSet<LostEndpoint>>,
    /// Addresses among them whose pods changed.
    doubtful: BTreeSet<IpAddr>,
    ledger: Ledger,
    next_group: u32,
    dirty: BTreeSet<ObjectKey>,
    is_node_dirty: bool,
}

impl ServiceCompiler {
    /// Returns a compiler that knows of nothing but this node's name.
    #[must_use]
    pub fn new(node_name: String) -> Self {
        let mut ledger = Ledger::default();
        ledger.create_set(&cluster_ip_set());
        ledger.create_set(&node_port_set());
        ledger.replace_rules(&mut Vec::new(), program::common_rules());
        Self {
            node: ServiceNode {
                name: node_name,
                ..ServiceNode::default()
            },
            compiled: HashMap::new(),
            surfaces: OrdMap::new(),
            host_ports: HostPorts::default(),
            left: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            ledger,
            next_group: 1,
            dirty: BTreeSet::new(),
            is_node_dirty: false,
        }
    }

    /// Notes what is different in the cluster now.
    pub fn changed(&mut self, changed: &Changed, cluster: &ClusterState) {
        match changed {
            Changed::Service(key) => {
                self.dirty.insert(key.clone());
            }
            Changed::EndpointSlice { key, before } => {
                self.slice_changed(key, before.as_deref(), cluster);
            }
            Changed::Node { name, .. } => self.is_node_dirty |= *name == self.node.name,
            Changed::Pod { before, .. } => {
                if let Some(before) = before {
                    self.pod_changed(before);
                }
            }
            // No Service depends on them.
            Changed::Namespace { .. }
            | Changed::Policy(_)
            | Changed::NetworkSet(_)
            | Changed::ServiceAccount(_)
            | Changed::Tier(_) => {}
        }
    }

    fn pod_changed(&mut self, before: &PodRecord) {
        let left = before.ips.iter().filter(|ip| self.left.contains_key(*ip));
        self.doubtful.extend(left);
    }

    /// A slice may pass from one Service to another.
    fn slice_changed(
        &mut self,
        key: &ObjectKey,
        before: Option<&EndpointSliceRecord>,
        cluster: &ClusterState,
    ) {
        let after = cluster.slice(key).map(AsRef::as_ref);
        let slices = [before, after].into_iter().flatten();
        self.dirty.extend(slices.map(|slice| slice.service.clone()));
    }

    /// Sets the addresses of this node.
    pub fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) {
        if self.node.addresses == *addresses {
            return;
        }
        let before = self.node.node_port_addresses();
        self.node.addresses.clone_from(addresses);
        let after = self.node.node_port_addresses();
        let set = node_port_set();
        for gone in before.difference(&after) {
            self.ledger.remove_member(&set, IpNet::from(*gone));
        }
        for new in after.difference(&before) {
            self.ledger.add_member(&set, IpNet::from(*new));
        }
        self.is_node_dirty = true;
    }

    /// Sets the host ports of this node's containers; of two that exclude each other, the
    /// first counts.
    pub fn set_host_ports(&mut self, mappings: Vec<HostPortMapping>) {
        self.host_ports.set(mappings);
    }

    /// Works out what the changes since the last call come to.
    #[must_use]
    pub fn flush(&mut self, cluster: &ClusterState) -> ServiceDelta {
        let mut dirty = std::mem::take(&mut self.dirty);
        let is_node_dirty = std::mem::take(&mut self.is_node_dirty);
        if is_node_dirty {
            let node = cluster.node(&self.node.name);
            self.node.zone = node.and_then(|node| node.zone.clone());
            dirty.extend(self.compiled.keys().cloned());
        }
        let mut delta = ServiceDelta::default();
        for key in dirty {
            self.refresh(&key, cluster, &mut delta);
        }
        for ip in std::mem::take(&mut self.doubtful) {
            if !is_running(cluster, ip) {
                delta.lost.extend(self.left.remove(&ip).unwrap_or_default());
            }
        }
        let mut out = Output {
            ledger: &mut self.ledger,
            next_group: &mut self.next_group,
            groups: &mut delta.groups,
            lost: &mut delta.lost,
            served: &mut delta.served,
        };
        self.host_ports.flush(&self.node, is_node_dirty, &mut out);
        delta.rules = self.ledger.take();
        delta
    }

    fn refresh(&mut self, key: &ObjectKey, cluster: &ClusterState, delta: &mut ServiceDelta) {
        let CompiledService {
            program: mut before,
            mut numbers,
        } = self.compiled.remove(key).unwrap_or_default();
        let service = cluster.service(key);
        let mut after = service.map_or_else(Program::default, |service| {
            let slices: Vec<_> = cluster.slices_of(key).cloned().collect();
            let mut numbers = NumbersOf {
                given: &mut numbers,
                next: &mut self.next_group,
            };
            program::compile(service, &slices, &self.node, &mut numbers)
        });
        self.replace(&mut before, &mut after);
        for (key, group) in &after.groups {
            if before.groups.get(key) != Some(group) {
                delta.groups.push(GroupUpdate::Set(group.clone()));
            }
        }
        let gone = before.groups.iter();
        for (key, group) in gone.filter(|(key, _)| !after.groups.contains_key(key)) {
            delta.groups.push(GroupUpdate::Remove(group.id));
            // A number is never another group's: what comes back gets a new one.
            numbers.remove(key);
        }
        delta
            .served
            .extend(after.entrances.difference(&before.entrances));
        for back in after.kept.difference(&before.kept) {
            self.take_back(back);
        }
        for gone in before.kept.difference(&after.kept) {
            // UDP has no end: its next datagram is the first one of another connection.
            if gone.proto == ip_proto::UDP || !is_running(cluster, gone.endpoint.ip) {
                delta.lost.push(*gone);
            } else {
                self.left.entry(gone.endpoint.ip).or_default().insert(*gone);
            }
        }
        if service.is_some() {
            let program = after;
            if self.surfaces.get(key) != Some(&program.surface) {
                self.surfaces.insert(key.clone(), program.surface.clone());
            }
            self.compiled
                .insert(key.clone(), CompiledService { program, numbers });
        } else {
            self.surfaces.remove(key);
        }
    }

    /// Notes that an endpoint gets connections again.
    fn take_back(&mut self, endpoint: &LostEndpoint) {
        let ip = endpoint.endpoint.ip;
        if let Some(left) = self.left.get_mut(&ip) {
            left.remove(endpoint);
            if left.is_empty() {
                self.left.remove(&ip);
            }
        }
    }

    /// Puts the rules and set members of one program in the place of another's.
    fn replace(&mut self, before: &mut Program, after: &mut Program) {
        let ledger = &mut self.ledger;
        let set = cluster_ip_set();
        for ip in before.cluster_ips.difference(&after.cluster_ips) {
            ledger.remove_member(&set, IpNet::from(*ip));
        }
        for ip in after.cluster_ips.difference(&before.cluster_ips) {
            ledger.add_member(&set, IpNet::from(*ip));
        }
        if before.sources != after.sources {
            if let Some((name, _)) = &before.sources {
                ledger.drop_set(name);
            }
            if let Some((name, members)) = &after.sources {
                ledger.create_set(name);
                let members: BTreeSet<IpNet> = members.iter().map(IpNet::trunc).collect();
                members
                    .into_iter()
                    .for_each(|net| ledger.add_member(name, net));
            }
        }
        if before.rules != after.rules {
            let rules = std::mem::take(&mut after.rules);
            ledger.replace_rules(&mut before.rules, rules);
            after.rules = std::mem::take(&mut before.rules);
        }
    }

    /// Returns what outside the switch has to lead to Services.
    #[must_use]
    pub const fn surfaces(&self) -> &OrdMap<ObjectKey, Surface> {
        &self.surfaces
    }

    /// Returns the host ports that the node's kernel has to translate.
    #[must_use]
    pub fn host_port_forwards(&self) -> BTreeSet<HostPortForward> {
        self.host_ports.forwards()
    }
}

/// Returns whether a pod has the address and has not finished.
fn is_running(cluster: &ClusterState, ip: IpAddr) -> bool {
    let is_over = |phase| matches!(phase, PodPhase::Succeeded | PodPhase::Failed);
    cluster.owner_of(ip).is_some_and(|pod| !is_over(pod.phase))
}

/// Numbers of one Service's groups.
struct NumbersOf<'a> {
    given: &'a mut BTreeMap<GroupKey, GroupId>,
    next: &'a mut u32,
}

impl Numbers for NumbersOf<'_> {
    fn number(&mut self, group: &GroupKey) -> GroupId {
        *self.given.entry(group.clone()).or_insert_with(|| {
            let id = GroupId(*self.next);
            *self.next += 1;
            id
        })
    }
}
