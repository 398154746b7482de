//! This node as its part of the network between nodes is planned from.

use ipnet::IpNet;
use vswitch_api::IfName;

use crate::config::{Backend, VxlanConfig};

/// What does not change while the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodesSpec {
    /// Name of this node's Node object.
    pub node_name: String,
    /// How packets get to other nodes.
    pub backend: Backend,
    /// Tunnels.
    pub vxlan: VxlanConfig,
    /// This node's pods.
    pub pod_cidrs: Vec<IpNet>,
    /// The gateway TAP, behind which the pods of this node are.
    pub gateway_ifname: IfName,
    /// MTU of tunnels, bytes.
    pub mtu: u16,
}

/// Returns the names of the tunnel devices, over IPv4 and over IPv6 (`true`).
///
/// # Panics
/// If the name has 15 bytes, which the configuration does not take.
#[must_use]
pub fn tunnel_ifnames(ifname: &IfName) -> [(bool, IfName); 2] {
    let v6 = format!("{ifname}6").parse();
    [
        (false, ifname.clone()),
        (true, v6.expect("a name of 14 bytes has room for one more")),
    ]
}
