//! The gateway, and the numbers of ports.

use std::net::IpAddr;

use vswitch_api::{IfName, MacAddr, PortNo};

use crate::port::TapOffloads;

/// The gateway's port number.
pub const GATEWAY_PORT: PortNo = PortNo(1);

/// Numbers of all other ports.
pub const PORT_NUMBERS: std::ops::RangeInclusive<u32> = 2..=999_999;

/// The gateway as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its interface.
    pub ifname: IfName,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// What its TAP can take.
    pub offloads: TapOffloads,
}
