//! Plain packets, taken apart in one pass over their first bytes: what nearly all traffic is.
//!
//! Plain is an untagged IPv4 packet without options or IPv6 packet without extension headers,
//! whole, of TCP or UDP, whose transport checksum the virtio-net header vouches for. Whatever
//! is not, or is not well-formed, is for [`parse`](super::parse); it decides alone what is
//! dropped.
//!
//! Invariant: what [`PlainPacket::read`] returns is what `parse` says of the same frame.

use super::bytes::{chunk, u16_at};
use super::ethernet::HEADER_LEN;
use super::parsed::{Fragment, TcpSegment};
use super::tcp::TcpView;
use super::udp::{self, UdpView};
use super::vnet_check::{check_gso_type, check_vnet};
use super::{Frame, VnetHeader, ipv4, ipv6};
use crate::flow::{ether_type, ip_proto};

/// Version and header length of an IPv4 header without options.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// More fragments, and the offset: zero in a packet that is whole.
const IPV4_FRAGMENT: u16 = 0x3fff;

/// Source and destination address, as they stand in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlainAddresses {
    /// IPv4.
    V4([u8; 8]),
    /// IPv6.
    V6([u8; 32]),
}

/// A plain packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlainPacket {
    /// Destination and source MAC.
    pub(crate) macs: [u8; 12],
    pub(crate) addresses: PlainAddresses,
    /// TCP or UDP.
    pub(crate) ip_proto: u8,
    /// Source and destination port.
    pub(crate) ports: [u8; 4],
    /// Bytes from the IP header on, Ethernet padding excluded.
    pub(crate) l3_len: usize,
    /// The same of the largest packet that the frame will be on a wire: of a super-frame one
    /// segment.
    pub(crate) segment_l3_len: usize,
    /// Set for TCP.
    pub(crate) tcp: Option<TcpSegment>,
}

/// Where the transport header of a plain packet stands, and what the IP header says of it.
struct Network {
    eth_type: u16,
    addresses: PlainAddresses,
    ip_proto: u8,
    header_len: usize,
    l3_len: usize,
}

impl PlainPacket {
    /// Returns the packet if it is plain.
    #[inline]
    pub(crate) fn read(frame: &Frame) -> Option<Self> {
        let (bytes, vnet) = (frame.bytes(), frame.vnet);
        let macs = *bytes.first_chunk()?;
        let packet = bytes.get(HEADER_LEN..)?;
        let network = match u16_at(bytes, 12)? {
            ether_type::IPV4 => read_ipv4(packet)?,
            ether_type::IPV6 => read_ipv6(packet)?,
            _ => return None,
        };
        if !is_vouched_for(vnet, bytes.len(), &network) {
            return None;
        }
        let l4 = packet.get(network.header_len..network.l3_len)?;
        let (tcp, l4_header_len) = match network.ip_proto {
            ip_proto::TCP => {
                let tcp = TcpView::new_checked(l4)?;
                let payload_len = u32::try_from(l4.len() - tcp.header_len()).ok()?;
                (Some(tcp.segment(payload_len)), tcp.header_len())
            }
            ip_proto::UDP => {
                let is_whole = UdpView::new_checked(l4)?.length_fits(l4.len(), vnet.is_gso());
                is_whole.then_some((None, udp::LEN))?
            }
            _ => return None,
        };
        let of_segment = network.header_len + l4_header_len + usize::from(vnet.gso_size);
        Some(Self {
            macs,
            addresses: network.addresses,
            ip_proto: network.ip_proto,
            ports: *l4.first_chunk()?,
            l3_len: network.l3_len,
            segment_l3_len: if vnet.is_gso() {
                network.l3_len.min(of_segment)
            } else {
                network.l3_len
            },
            tcp,
        })
    }
}

/// Returns whether the virtio-net header is right and vouches for the transport checksum.
#[inline]
fn is_vouched_for(vnet: VnetHeader, frame_len: usize, network: &Network) -> bool {
    const TRUSTED: u8 = VnetHeader::F_DATA_VALID | VnetHeader::F_NEEDS_CSUM;
    let kind = (network.eth_type, network.ip_proto);
    (vnet.flags & TRUSTED != 0 || vnet.is_gso())
        && check_vnet(vnet, frame_len).is_ok()
        && check_gso_type(vnet, kind, Fragment::No).is_ok()
}

#[inline]
fn read_ipv4(packet: &[u8]) -> Option<Network> {
    const SRC: usize = ipv4::field::SRC;
    let header: &[u8; ipv4::MIN_HEADER_LEN] = packet.first_chunk()?;
    let is_plain = header[0] == IPV4_WITHOUT_OPTIONS
        && u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT == 0
        && is_sum_right(header);
    let l3_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // A super-frame that is too large for the field states 0.
    if !is_plain || l3_len < ipv4::MIN_HEADER_LEN || l3_len > packet.len() {
        return None;
    }
    Some(Network {
        eth_type: ether_type::IPV4,
        addresses: PlainAddresses::V4(*chunk(header, SRC)?),
        ip_proto: header[9],
        header_len: ipv4::MIN_HEADER_LEN,
        l3_len,
    })
}

/// Returns whether the header holds its own right checksum. RFC 1071 section 2(B): the sum is
/// the same in any byte order, so that nothing has to be swapped.
#[inline]
fn is_sum_right(header: &[u8; ipv4::MIN_HEADER_LEN]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

#[inline]
fn read_ipv6(packet: &[u8]) -> Option<Network> {
    let header: &[u8; ipv6::HEADER_LEN] = packet.first_chunk()?;
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let l3_len = ipv6::HEADER_LEN + payload_len;
    // A super-frame that is too large for the field states 0.
    if header[0] >> 4 != 6 || payload_len == 0 || l3_len > packet.len() {
        return None;
    }
    Some(Network {
        eth_type: ether_type::IPV6,
        addresses: PlainAddresses::V6(*chunk(header, 8)?),
        ip_proto: header[6],
        header_len: ipv6::HEADER_LEN,
        l3_len,
    })
}
