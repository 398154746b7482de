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
