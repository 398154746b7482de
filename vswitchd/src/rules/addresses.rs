//! The switch's own addresses behind the gateway port. No pod and no process has one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The switch's own addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualAddresses {
    /// Next hop of the node's routes to Services, and the source of connections that a Service
    /// leads back to where they came from.
    pub hairpin: IpAddr,
    /// Where the node sends what arrives at a NodePort.
    pub node_port: IpAddr,
}

/// Link-local (RFC 3927): never forwarded beyond the node under this address.
const V4: VirtualAddresses = VirtualAddresses {
    hairpin: IpAddr::V4(Ipv4Addr::new(169, 254, 86, 1)),
    node_port: IpAddr::V4(Ipv4Addr::new(169, 254, 86, 2)),
};

/// Unique local (RFC 4193): link-local ones would need a zone in every socket.
const V6: VirtualAddresses = VirtualAddresses {
    hairpin: IpAddr::V6(Ipv6Addr::new(0xfd56, 0x5357, 0x4954, 0x4348, 0, 0, 0, 1)),
    node_port: IpAddr::V6(Ipv6Addr::new(0xfd56, 0x5357, 0x4954, 0x4348, 0, 0, 0, 2)),
};

/// Returns the switch's own addresses of the family of `ip`.
#[must_use]
pub const fn virtual_addresses(ip: IpAddr) -> VirtualAddresses {
    match ip {
        IpAddr::V4(_) => V4,
        IpAddr::V6(_) => V6,
    }
}

/// Returns the networks that the switch's own addresses are of: nobody else has any of them.
#[must_use]
pub const fn virtual_networks() -> [IpNet; 2] {
    [
        IpNet::new_assert(V4.hairpin, 24),
        IpNet::new_assert(V6.hairpin, 64),
    ]
}
