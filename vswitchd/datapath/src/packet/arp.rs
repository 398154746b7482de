//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use vswitch_api::MacAddr;

use super::bytes::chunk;
use crate::drop_reason::DropReason;
use crate::flow::ether_type;

/// Bytes of a packet.
pub(super) const LEN: usize = 28;
/// Operation of a request.
pub(super) const REQUEST: u8 = 1;

const HARDWARE_ETHERNET: u16 = 1;

/// An ARP packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArpView<'a> {
    bytes: &'a [u8; LEN],
}

impl<'a> ArpView<'a> {
    /// Checks that it is whole and Ethernet/IPv4.
    pub(super) fn new_checked(packet: &'a [u8]) -> Result<Self, DropReason> {
        let bytes: &[u8; LEN] = chunk(packet, 0).ok_or(DropReason::MalformedArp)?;
        let [h0, h1, p0, p1, hardware_len, protocol_len, ..] = *bytes;
        let is_ethernet = u16::from_be_bytes([h0, h1]) == HARDWARE_ETHERNET && hardware_len == 6;
        let is_ipv4 = u16::from_be_bytes([p0, p1]) == ether_type::IPV4 && protocol_len == 4;
        if is_ethernet && is_ipv4 {
            Ok(Self { bytes })
        } else {
            Err(DropReason::MalformedArp)
        }
    }

    /// Returns the operation, 0 for one past 255 (as OVS does).
    pub(super) fn operation(self) -> u8 {
        u8::try_from(u16::from_be_bytes([self.bytes[6], self.bytes[7]])).unwrap_or(0)
    }

    /// Returns the sender's MAC.
    pub(super) fn sender_mac(self) -> MacAddr {
        let b = self.bytes;
        MacAddr([b[8], b[9], b[10], b[11], b[12], b[13]])
    }

    /// Returns the sender's address.
    pub(super) fn sender_ip(self) -> Ipv4Addr {
        let b = self.bytes;
        Ipv4Addr::new(b[14], b[15], b[16], b[17])
    }

    /// Returns the target's MAC.
    pub(super) fn target_mac(self) -> MacAddr {
        let b = self.bytes;
        MacAddr([b[18], b[19], b[20], b[21], b[22], b[23]])
    }

    /// Returns the target's address.
    pub(super) fn target_ip(self) -> Ipv4Addr {
        let b = self.bytes;
        Ipv4Addr::new(b[24], b[25], b[26], b[27])
    }
}
