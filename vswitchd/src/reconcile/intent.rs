//! Intent: what is wanted of this node's switch, apart from the objects of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::{Cookie, MacAddr, PortNo, Priority};
use vswitch_datapath::Action;
use vswitch_datapath::flow::Match;

use crate::config::Deny;
use crate::policy::NodeFacts;
use crate::service::HostPortMapping;
use crate::state::{Attachment, LocalEndpoint, names_a_pod};

/// The port into the node's own stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPort {
    /// Its number.
    pub port_no: PortNo,
    /// Name of its interface, for people.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its addresses: what pods use as their gateway.
    pub addresses: Vec<IpAddr>,
    /// Its MTU, bytes.
    pub mtu: u16,
}

/// What does not change while the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconcileConfig {
    /// Name of this node's Node object.
    pub node_name: String,
    /// The gateway port.
    pub gateway: GatewayPort,
    /// Networks that this node's pods have their addresses from: a destination in them that
    /// no local pod has does not exist.
    pub pod_cidrs: Vec<IpNet>,
    /// What becomes of packets that a policy denies.
    pub deny: Deny,
}

/// How a port came to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortAttachMode {
    /// Attached again after a restart: its TCP connections may be in the middle.
    pub midstream: bool,
}

/// A flow of an operator or orchestrator, for the Admin table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminFlow {
    /// Its name, for people and for its identity.
    pub name: String,
    /// Priority inside the table.
    pub priority: Priority,
    /// What it matches.
    pub matches: Match,
    /// What it does; where it decides nothing, the packet goes on to the next table.
    pub actions: Vec<Action>,
    /// Chosen by its owner.
    pub cookie: Cookie,
}

/// An attachment with the order of its arrival.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    pub(super) attachment: Arc<Attachment>,
    order: u64,
}

/// Ports, flows and the node as they were told.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) config: ReconcileConfig,
    pub(super) is_synced: bool,
    pub(super) attached: BTreeMap<PortNo, Attached>,
    pub(super) midstream: BTreeSet<PortNo>,
    pub(super) mtus: BTreeMap<PortNo, u16>,
    pub(super) admin_flows: Vec<AdminFlow>,
    pub(super) node_addresses: BTreeSet<IpAddr>,
    next_order: u64,
}

impl Intent {
    pub(super) fn new(config: ReconcileConfig) -> Self {
        Self {
            config,
            is_synced: false,
            attached: BTreeMap::new(),
            midstream: BTreeSet::new(),
            mtus: BTreeMap::new(),
            admin_flows: Vec::new(),
            node_addresses: BTreeSet::new(),
            next_order: 0,
        }
    }

    pub(super) fn attach(&mut self, attachment: Attachment, mode: PortAttachMode) {
        let port = attachment.port_no;
        let order = self.next_order;
        self.next_order += 1;
        self.mtus.remove(&port);
        self.set_midstream(port, mode.midstream);
        self.attached.insert(
            port,
            Attached {
                attachment: Arc::new(attachment),
                order,
            },
        );
    }

    pub(super) fn detach(&mut self, port: PortNo) -> bool {
        self.midstream.remove(&port);
        self.mtus.remove(&port);
        self.attached.remove(&port).is_some()
    }

    pub(super) fn set_midstream(&mut self, port: PortNo, midstream: bool) -> bool {
        if midstream {
            self.midstream.insert(port)
        } else {
            self.midstream.remove(&port)
        }
    }

    /// Returns the node's addresses, the gateway's included.
    pub(super) fn node_facts(&self) -> NodeFacts {
        let mut addresses = self.node_addresses.clone();
        addresses.extend(&self.config.gateway.addresses);
        NodeFacts {
            addresses,
            is_synced: self.is_synced,
        }
    }

    /// Returns the local pods' ports, each address at one of them: the one attached last has
    /// it, since addresses are given out only when free. None has an address of the node.
    pub(super) fn endpoints(&self, node: &NodeFacts) -> BTreeMap<PortNo, LocalEndpoint> {
        let mut latest_first: Vec<&Attached> = self.attached.values().collect();
        latest_first.sort_by_key(|attached| std::cmp::Reverse(attached.order));
        let mut taken = node.addresses.clone();
        let mut endpoints = BTreeMap::new();
        for attached in latest_first {
            let mut endpoint = LocalEndpoint::from(attached.attachment.as_ref());
            endpoint
                .addresses
                .retain(|ip| names_a_pod(*ip) && taken.insert(*ip));
            endpoints.insert(endpoint.port_no, endpoint);
        }
        endpoints
    }

    /// Returns the host ports of the local pods, those of the pod attached last first: a pod
    /// that was started anew has its host port while the old container is still being removed.
    pub(super) fn host_ports(
        &self,
        endpoints: &BTreeMap<PortNo, LocalEndpoint>,
    ) -> Vec<HostPortMapping> {
        let mut latest_first: Vec<&Attached> = self.attached.values().collect();
        latest_first.sort_by_key(|attached| std::cmp::Reverse(attached.order));
        let mappings = latest_first.into_iter().flat_map(|attached| {
            let attachment = &attached.attachment;
            let endpoint = endpoints.get(&attachment.port_no);
            let addresses = endpoint.map(|endpoint| &endpoint.addresses);
            attachment
                .host_ports
                .iter()
                .map(move |port| HostPortMapping {
                    port: *port,
                    pod: attachment.pod.clone(),
                    addresses: addresses.cloned().unwrap_or_default(),
                })
        });
        mappings.collect()
    }
}
