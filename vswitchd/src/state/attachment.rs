//! An attachment: one interface of one container, as CNI ADD made it. Kept in the store.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_api::{IfName, MacAddr, PortNo};

use super::ObjectKey;

/// Everything needed to attach the port again after a restart, and to undo ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME inside the container.
    pub ifname: IfName,
    /// Name of the CNI network (its `name` in the configuration).
    pub network: String,
    /// Path of the container's network namespace.
    pub netns: PathBuf,
    /// Host end of the veth pair.
    pub host_ifname: IfName,
    /// Switch port; the same across restarts.
    pub port_no: PortNo,
    /// MAC of the container's end.
    pub mac: MacAddr,
    /// The container's addresses with the prefix length of its subnet.
    pub addresses: Vec<IpNet>,
    /// MTU of the interface, bytes.
    pub mtu: u16,
    /// The pod it belongs to.
    pub pod: ObjectKey,
    /// `ipam.type` of a delegated IPAM plugin; `None` means built in.
    pub delegated_ipam: Option<String>,
    /// Ports of the node that lead to the container: `runtimeConfig.portMappings`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// A port of the node that leads to a port of one container (CNI conventions, capability
/// `portMappings`; Kubernetes `containers[].ports[].hostPort`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// IP protocol: TCP, UDP or SCTP.
    pub proto: u8,
    /// Port of the node.
    pub port: u16,
    /// The one address of the node that has the port. An unspecified address stands for all
    /// of its family, `None` for all of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Port of the container.
    pub container_port: u16,
}

impl HostPort {
    /// Returns the one address that has the port; `None` if all of a family do.
    #[must_use]
    pub fn only_ip(&self) -> Option<IpAddr> {
        self.ip.filter(|ip| !ip.is_unspecified())
    }

    /// Returns whether connections to addresses of this family are led on.
    #[must_use]
    pub fn is_of_family(&self, is_ipv6: bool) -> bool {
        self.ip.is_none_or(|ip| ip.is_ipv6() == is_ipv6)
    }

    /// Returns what only one container of a node can have: protocol, port and address.
    #[must_use]
    pub const fn key(&self) -> (u8, u16, Option<IpAddr>) {
        (self.proto, self.port, self.ip)
    }
}

/// A pod's port on this node, reduced to what rules are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Switch port.
    pub port_no: PortNo,
    /// The pod behind it.
    pub pod: ObjectKey,
    /// MAC of the pod's end.
    pub mac: MacAddr,
    /// The addresses it really has, whatever the pod object's status says.
    pub addresses: Vec<IpAddr>,
}

impl From<&Attachment> for LocalEndpoint {
    fn from(attachment: &Attachment) -> Self {
        Self {
            port_no: attachment.port_no,
            pod: attachment.pod.clone(),
            mac: attachment.mac,
            addresses: attachment.addresses.iter().map(IpNet::addr).collect(),
        }
    }
}
