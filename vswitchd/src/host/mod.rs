//! What the daemon changes in the host: gateway, veth pairs, masquerade, shields.
//!
//! The only module that speaks netlink or runs the `nft` binary. Everything here acts on
//! the network namespace of the calling thread (the daemon's own), except for the container
//! end of a veth pair, which is configured from a helper thread inside the container's
//! namespace. All functions block for some milliseconds: call them from `spawn_blocking` or
//! a plain thread; only [`HostWatcher`] is asynchronous.
//!
//! Invariant: what is made here carries the daemon's names (`vsw…` links, `vswitch…` tables)
//! and can be found and removed again by [`cleanup`] without any record, except for sysctls,
//! whose earlier values are kept in a [`SysctlLedger`] before they are changed.

mod cleanup;
mod conntrack;
mod gateway;
mod kept_masquerade;
mod kube_proxy;
mod masquerade;
mod names;
mod netlink;
mod nft;
mod nodes;
mod services;
mod shield;
mod sysctl;
#[cfg(test)]
mod testing;
mod uplink;
mod veth;
mod veth_check;
mod watch;

pub use cleanup::{CleanupProblem, Leftovers, cleanup};
pub use conntrack::ConntrackError;
pub use gateway::{GatewayDeviceSpec, GatewayError, configure_gateway, gateway_addresses};
pub use kept_masquerade::KeptMasquerade;
pub use kube_proxy::{KubeProxy, kube_proxy};
pub use masquerade::{Masquerade, MasqueradeSpec};
pub use names::{HOST_VETH_PREFIX, NftTable, NftTableError, container_mac, host_ifname};
pub use netlink::NetlinkError;
pub use nft::NftError;
pub use nodes::{
    NODE_DROPS, NodeDrop, NodeNetwork, NodeNetworkError, NodeNetworkStatus, NodePlan,
    NodePublication, NodesSpec, PeerProblem, Tunnel, Underlay, node_publication, plan_nodes,
    tunnel_ifnames, tunnel_overhead,
};
pub use services::{ServiceSteering, Steered, SteeringError};
pub use shield::Shield;
pub use sysctl::{SysctlError, SysctlLedger};
pub use uplink::{Uplink, uplink};
pub use veth::{HostVeth, VethError, VethSpec, create_veth, delete_veth, is_tap, list_host_veths};
pub use veth_check::{VethMismatch, check_veth};
pub use watch::{HostEvent, HostWatcher, LinkEvent, node_addresses};
