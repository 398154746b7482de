//! Input of ADD and of `POST /v1/ports`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;
use vswitch_api::MacAddr;
use vswitch_api::cni::CniCall;

use super::record::{Kind, PodIdentity};
use crate::ipam::{LeaseOwner, Route};
use crate::state::HostPort;

/// What shall hang on the switch.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose it is; of a VM or mirror see [`Kind::owner`].
    pub owner: LeaseOwner,
    /// What it is; the gateway is never asked for.
    pub kind: Kind,
    /// Name of the CNI network; empty for a VM or mirror.
    pub network: String,
    /// The container's namespace, looked at by the caller; empty for a VM or mirror.
    pub netns: PathBuf,
    /// MAC of the container or guest, if a certain one.
    pub mac: Option<MacAddr>,
    /// MTU in bytes, if a certain one.
    pub mtu: Option<u16>,
    /// Whose pod; `None` for a mirror.
    pub pod: Option<PodIdentity>,
    /// Where its addresses come from.
    pub addresses: WantedAddresses,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
}

/// Where addresses come from.
#[derive(Debug, Clone)]
pub enum WantedAddresses {
    /// It has none.
    None,
    /// The built-in management.
    BuiltIn {
        /// Certain ones.
        requested: Vec<IpAddr>,
        /// The container's routes; none means a default route of each family.
        routes: Vec<Route>,
        /// DNS settings to hand on.
        dns: Option<Value>,
    },
    /// A plugin.
    Delegated(Delegation),
}

/// An IPAM plugin and the call that it sees.
#[derive(Debug, Clone)]
pub struct Delegation {
    /// `ipam.type`.
    pub plugin: String,
    /// The call as it came.
    pub call: CniCall,
}
