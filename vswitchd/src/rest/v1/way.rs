//! Where a packet goes that leaves through a port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vswitch_api::PortNo;

use super::super::RestState;
use crate::switch::{Ends, GATEWAY_PORT};

/// Names of ports, for people.
#[derive(Debug, Clone, Default)]
pub(super) struct PortNames(BTreeMap<PortNo, String>);

impl PortNames {
    /// Returns those of now.
    pub(super) fn of(state: &RestState) -> Self {
        let ports = state.switch.datapath().ports().into_iter();
        Self(ports.map(|spec| (spec.no, spec.name)).collect())
    }

    /// Returns whether there is a name for it.
    pub(super) fn has(&self, port: PortNo) -> bool {
        self.0.contains_key(&port)
    }

    /// Returns the name, or the number.
    pub(super) fn name(&self, port: PortNo) -> String {
        let known = self.0.get(&port).filter(|name| !name.is_empty());
        known.map_or_else(|| format!("port {port}"), String::clone)
    }
}

/// Returns where a packet to this address goes: a port of the switch, or what is behind the gateway.
pub(super) fn way(
    state: &RestState,
    names: &PortNames,
    port: PortNo,
    to: Option<IpAddr>,
) -> String {
    let name = names.name(port);
    let Some(to) = to.filter(|_| port == GATEWAY_PORT) else {
        return name;
    };
    let snapshot = state.switch.reconcile().snapshot();
    if Ends::of(&snapshot, state.switch.datapath()).is_node(to) {
        return format!("this node, by {name}");
    }
    let others = || {
        let nodes = snapshot.cluster.nodes();
        nodes.filter(|node| node.name != state.node)
    };
    let has_pod = |nets: &[ipnet::IpNet]| nets.iter().any(|net| net.contains(&to));
    if let Some(node) = others().find(|node| has_pod(&node.pod_cidrs)) {
        let backend = state.node_network.borrow().backend;
        return match backend {
            "" => format!("node {}, by {name}", node.name),
            backend => format!("node {}, by {name} and {backend}", node.name),
        };
    }
    match others().find(|node| node.ips.contains(&to)) {
        Some(node) => format!("node {} itself, by {name} and the uplink", node.name),
        None => format!("outside of the cluster, by {name} and the uplink"),
    }
}
