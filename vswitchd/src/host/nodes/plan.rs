//! From the Nodes of a cluster to tunnels, next hops and permitted sources. Pure.
//!
//! Pods' networks go through the tunnel over their own family, as flannel's do; where one of
//! the two nodes has no address of that family, through the other tunnel. Both ends come to
//! the same result.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_api::{IfName, MacAddr};

use super::peer::{Underlay, Vtep, backend_of, underlay_of, vtep_of};
use super::spec::{NodesSpec, tunnel_ifnames};
use crate::config::Backend;
use crate::host::container_mac;
use crate::state::NodeRecord;

/// Bytes that a tunnel over IPv4 adds: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20 (RFC 7348).
const OVERHEAD_V4: u16 = 50;
/// The same with an IPv6 header, 40 bytes.
const OVERHEAD_V6: u16 = 70;

/// Shortest prefixes that are taken for the network of one node's pods: a shorter one would
/// lead half the Internet astray.
const SHORTEST_PREFIX: [u8; 2] = [8, 16];

/// A tunnel device and what is reached through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Name of the device.
    pub ifname: IfName,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// This node's own address.
    pub local: IpAddr,
    /// MAC of the device, which other nodes know it by.
    pub mac: MacAddr,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// The node's own addresses in the pod network, which it is seen under at the other ends.
    pub addresses: BTreeSet<IpNet>,
    /// Where the other ends are.
    pub vteps: BTreeMap<MacAddr, IpAddr>,
    /// Pods' networks and the ends behind which they are.
    pub networks: BTreeMap<IpNet, MacAddr>,
}

/// The wanted state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePlan {
    /// Tunnels with somebody at the other end.
    pub tunnels: Vec<Tunnel>,
    /// Pods' networks that are reached by a node's address on a common link.
    pub next_hops: BTreeMap<IpNet, IpAddr>,
    /// Pods' networks of all other nodes, also those that cannot be reached.
    pub networks: BTreeSet<IpNet>,
    /// What keeps a node's pods from being reached.
    pub problems: Vec<PeerProblem>,
}

/// Why the pods of another node cannot be reached, or some of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerProblem {
    /// The network is not one of pods.
    #[error("node {node}: {cidr} cannot be the network of its pods")]
    NotPods {
        /// Name of the node.
        node: String,
        /// The network.
        cidr: IpNet,
    },
    /// The network is taken, or an address of a node is in it.
    #[error("node {node}: its pod network {cidr} overlaps {other}")]
    Overlap {
        /// Name of the node.
        node: String,
        /// The network.
        cidr: IpNet,
        /// The other network and whose it is.
        other: String,
    },
    /// Another backend.
    #[error("node {node} has backend {theirs}, this node {ours}")]
    Backend {
        /// Name of the node.
        node: String,
        /// What its annotation says.
        theirs: String,
        /// What is configured here.
        ours: &'static str,
    },
    /// Another VNI.
    #[error("node {node} has VNI {theirs}, this node {ours}")]
    Vni {
        /// Name of the node.
        node: String,
        /// What its annotation says.
        theirs: u32,
        /// What is configured here.
        ours: u32,
    },
    /// Its address or MAC is another node's or this one's.
    #[error("node {node} has the address or the VTEP MAC of another node ({address}, {mac})")]
    Taken {
        /// Name of the node.
        node: String,
        /// Its address.
        address: IpAddr,
        /// Its MAC.
        mac: MacAddr,
    },
    /// It did not say where it is, or in no family that this node has.
    #[error("node {node} cannot be reached: {missing}")]
    NoWay {
        /// Name of the node.
        node: String,
        /// What is missing.
        missing: &'static str,
    },
}

/// Returns the bytes to keep free in each packet for a tunnel. Which of the two tunnels a
/// node will use is not known when its first pod comes: IPv6 pods, or a node that has no
/// address of IPv4, may use the one over IPv6.
#[must_use]
pub fn tunnel_overhead(backend: Backend, pod_cidrs: &[IpNet], own: Underlay) -> u16 {
    let may_use_v6 = pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6())
        || (own.v4.is_none() && own.v6.is_some());
    match backend {
        Backend::HostGw | Backend::None => 0,
        Backend::Vxlan if may_use_v6 => OVERHEAD_V6,
        Backend::Vxlan => OVERHEAD_V4,
    }
}

/// Returns the wanted state: the ways to all nodes but the own one, by their names.
#[must_use]
pub fn plan_nodes<'a>(
    spec: &NodesSpec,
    own: Underlay,
    nodes: impl IntoIterator<Item = &'a NodeRecord>,
) -> NodePlan {
    let nodes = nodes.into_iter().filter(|node| node.name != spec.node_name);
    let nodes: Vec<&NodeRecord> = nodes.collect();
    let addresses = nodes.iter().flat_map(|node| underlay_of(node).addresses());
    let addresses = addresses.chain(own.addresses()).collect();
    let mut planner = Planner::new(spec, own, addresses);
    for node in nodes {
        planner.add(node);
    }
    planner.finish()
}

struct Planner<'a> {
    spec: &'a NodesSpec,
    own: Underlay,
    plan: NodePlan,
    /// Tunnels over IPv4 and IPv6, whether or not anybody uses them.
    tunnels: Vec<(bool, Tunnel)>,
    /// Networks with their owners.
    taken: Vec<(IpNet, String)>,
    /// Addresses of nodes.
    addresses: BTreeSet<IpAddr>,
}

impl<'a> Planner<'a> {
    fn new(spec: &'a NodesSpec, own: Underlay, addresses: BTreeSet<IpAddr>) -> Self {
        let ours = |cidr: &IpNet| (*cidr, format!("{cidr} of this node"));
        let tunnels =
            tunnel_ifnames(&spec.vxlan.ifname)
                .into_iter()
                .filter_map(|(is_v6, ifname)| {
                    let tunnel = Tunnel {
                        mac: container_mac(&spec.node_name, &ifname),
                        ifname,
                        vni: spec.vxlan.vni,
                        port: spec.vxlan.port,
                        local: own.of(is_v6)?,
                        mtu: spec.mtu,
                        addresses: BTreeSet::new(),
                        vteps: BTreeMap::new(),
                        networks: BTreeMap::new(),
                    };
                    Some((is_v6, tunnel))
                });
        Self {
            spec,
            own,
            plan: NodePlan::default(),
            tunnels: tunnels.collect(),
            taken: spec.pod_cidrs.iter().map(ours).collect(),
            addresses,
        }
    }

    fn add(&mut self, node: &NodeRecord) {
        let networks: Vec<IpNet> = node
            .pod_cidrs
            .iter()
            .copied()
            .filter(|cidr| self.claim(node, *cidr))
            .collect();
        self.plan.networks.extend(&networks);
        for cidr in networks {
            let added = match self.spec.backend {
                Backend::Vxlan => self.tunnel_to(node, cidr),
                Backend::HostGw => self.route_to(node, cidr),
                Backend::None => Ok(()),
            };
            if let Err(problem) = added {
                self.report(problem);
            }
        }
    }

    /// Tells once what holds for both networks of a node.
    fn report(&mut self, problem: PeerProblem) {
        if !self.plan.problems.contains(&problem) {
            self.plan.problems.push(problem);
        }
    }

    /// Checks that a network can be that of the node's pods and is nobody else's.
    fn claim(&mut self, node: &NodeRecord, cidr: IpNet) -> bool {
        let name = || node.name.clone();
        if !is_network_of_pods(cidr) {
            self.report(PeerProblem::NotPods { node: name(), cidr });
            return false;
        }
        let overlaps = |net: &IpNet| net.contains(&cidr) || cidr.contains(net);
        let mut addresses = self.addresses.iter();
        let other = match self.taken.iter().find(|(net, _)| overlaps(net)) {
            Some((_, owner)) => Some(owner.clone()),
            None => addresses
                .find(|ip| cidr.contains(*ip))
                .map(|ip| format!("the address {ip} of a node")),
        };
        if let Some(other) = other {
            let node = name();
            self.report(PeerProblem::Overlap { node, cidr, other });
            return false;
        }
        let owner = format!("{cidr} of node {}", node.name);
        self.taken.push((cidr, owner));
        true
    }

    fn tunnel_to(&mut self, node: &NodeRecord, cidr: IpNet) -> Result<(), PeerProblem> {
        let name = || node.name.clone();
        if let Some(theirs) = backend_of(node).filter(|theirs| *theirs != "vxlan") {
            return Err(PeerProblem::Backend {
                node: name(),
                theirs: theirs.to_owned(),
                ours: self.spec.backend.name(),
            });
        }
        let own_family = cidr.addr().is_ipv6();
        let ends = [own_family, !own_family].into_iter().find_map(|is_v6| {
            let index = self.tunnels.iter().position(|(v6, _)| *v6 == is_v6)?;
            Some((index, vtep_of(node, is_v6)?))
        });
        let Some((index, vtep)) = ends else {
            return Err(PeerProblem::NoWay {
                node: name(),
                missing: "no address and VTEP MAC (annotations public-ip, backend-data) in a family \
                          that this node has an address of",
            });
        };
        if let Some(theirs) = vtep.vni.filter(|vni| *vni != self.spec.vxlan.vni) {
            return Err(PeerProblem::Vni {
                node: name(),
                theirs,
                ours: self.spec.vxlan.vni,
            });
        }
        let tunnel = &mut self.tunnels[index].1;
        if !is_free(tunnel, &vtep) {
            return Err(PeerProblem::Taken {
                node: name(),
                address: vtep.address,
                mac: vtep.mac,
            });
        }
        tunnel.vteps.insert(vtep.mac, vtep.address);
        tunnel.networks.insert(cidr, vtep.mac);
        let of_family = |own: &&IpNet| own.addr().is_ipv6() == own_family;
        let own = self.spec.pod_cidrs.iter().filter(of_family);
        tunnel
            .addresses
            .extend(own.map(|cidr| IpNet::from(cidr.network())));
        Ok(())
    }

    fn route_to(&mut self, node: &NodeRecord, cidr: IpNet) -> Result<(), PeerProblem> {
        if let Some(theirs) = backend_of(node).filter(|theirs| *theirs != "host-gw") {
            return Err(PeerProblem::Backend {
                node: node.name.clone(),
                theirs: theirs.to_owned(),
                ours: self.spec.backend.name(),
            });
        }
        let is_v6 = cidr.addr().is_ipv6();
        let next_hop = underlay_of(node).of(is_v6);
        match next_hop.filter(|ip| Some(*ip) != self.own.of(is_v6)) {
            Some(next_hop) => {
                self.plan.next_hops.insert(cidr, next_hop);
                Ok(())
            }
            None => Err(PeerProblem::NoWay {
                node: node.name.clone(),
                missing: "no address of its own (InternalIP, annotation public-ip) in the family of \
                          its pods",
            }),
        }
    }

    fn finish(mut self) -> NodePlan {
        let used = self.tunnels.into_iter().map(|(_, tunnel)| tunnel);
        self.plan.tunnels = used.filter(|tunnel| !tunnel.networks.is_empty()).collect();
        self.plan
    }
}

/// Returns whether an end is nobody else's: one MAC at one address, and neither this node's.
fn is_free(tunnel: &Tunnel, vtep: &Vtep) -> bool {
    let is_same_or_free = tunnel.vteps.iter().all(|(mac, address)| {
        (*mac == vtep.mac && *address == vtep.address)
            || (*mac != vtep.mac && *address != vtep.address)
    });
    is_same_or_free && vtep.mac != tunnel.mac && vtep.address != tunnel.local
}

fn is_network_of_pods(cidr: IpNet) -> bool {
    let ip = cidr.network();
    let is_link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    cidr.prefix_len() >= SHORTEST_PREFIX[usize::from(ip.is_ipv6())]
        && !(is_link_local || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

#[cfg(test)]
mod tests;
