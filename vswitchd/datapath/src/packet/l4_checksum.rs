//! Verifies transport checksums, for connection tracking and neighbour discovery.

use std::net::IpAddr;

use super::bytes::chunk;
use super::checksum::{Sum, checksum, pseudo_header};
use super::parsed::{Fragment, ParsedPacket};
use super::udp::{self, UdpView};
use super::{Frame, VnetHeader, sctp};
use crate::flow::{ether_type, ip_proto};

/// Returns whether the transport checksum is right, or cannot or need not be verified: the
/// kernel says that it was verified or is still to be completed, the packet is a fragment
/// or a super-frame, or its protocol has none that the switch knows.
#[must_use]
pub fn verify_l4_checksum(frame: &Frame, packet: &ParsedPacket) -> bool {
    const TRUSTED: u8 = VnetHeader::F_DATA_VALID | VnetHeader::F_NEEDS_CSUM;
    if frame.vnet.flags & TRUSTED != 0 || frame.vnet.is_gso() || packet.fragment != Fragment::No {
        return true;
    }
    let (Some(src), Some(dst)) = (packet.key.ip_src, packet.key.ip_dst) else {
        return true;
    };
    let Some(l4) = frame.bytes().get(packet.l4_offset..packet.l3_end) else {
        return false;
    };
    match (packet.key.eth_type, packet.key.ip_proto) {
        (ether_type::IPV4, ip_proto::ICMP) => checksum(l4) == 0,
        (ether_type::IPV6, ip_proto::ICMPV6) => verifies(src, dst, ip_proto::ICMPV6, l4),
        (ether_type::IPV4 | ether_type::IPV6, proto) => match proto {
            ip_proto::TCP => verifies(src, dst, proto, l4),
            ip_proto::UDP => verify_udp(src, dst, l4),
            ip_proto::SCTP => verify_sctp(l4),
            _ => true,
        },
        _ => true,
    }
}

fn verifies(src: IpAddr, dst: IpAddr, proto: u8, l4: &[u8]) -> bool {
    sum(src, dst, proto, l4).finish() == 0
}

/// Returns the sum of a transport header, its payload and its pseudo-header.
pub(super) fn sum(src: IpAddr, dst: IpAddr, proto: u8, l4: &[u8]) -> Sum {
    pseudo_header(src, dst, proto, l4.len()).bytes(l4)
}

/// A stored zero is "not computed". Over IPv6 only tunnels may do that (RFC 6935); whether
/// a socket takes it is for the receiver to decide.
fn verify_udp(src: IpAddr, dst: IpAddr, l4: &[u8]) -> bool {
    let Some(udp) = UdpView::new_checked(l4) else {
        return false;
    };
    if udp.checksum() == 0 {
        return true;
    }
    // Bytes behind the stated length are not covered.
    l4.get(..udp.length().max(udp::LEN))
        .is_some_and(|datagram| verifies(src, dst, ip_proto::UDP, datagram))
}

fn verify_sctp(l4: &[u8]) -> bool {
    sctp::checksum(l4).is_some_and(|right| chunk(l4, sctp::CHECKSUM) == Some(&right))
}
