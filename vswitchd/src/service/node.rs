//! This node, as far as Services depend on it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::rules::virtual_addresses;
use crate::state::EndpointRecord;

/// What Services depend on besides the cluster's objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceNode {
    /// Name of this node.
    pub name: String,
    /// Zone of this node.
    pub zone: Option<String>,
    /// Addresses of this node: its NodePorts are there.
    pub addresses: BTreeSet<IpAddr>,
}

impl ServiceNode {
    pub(super) fn is_local(&self, endpoint: &EndpointRecord) -> bool {
        endpoint.node_name.as_ref() == Some(&self.name)
    }

    /// Returns where connections to NodePorts may be addressed to.
    pub(super) fn node_port_addresses(&self) -> BTreeSet<IpAddr> {
        let own = self.addresses.iter();
        let virtuals = own.clone().map(|ip| virtual_addresses(*ip).node_port);
        own.copied().chain(virtuals).collect()
    }
}
