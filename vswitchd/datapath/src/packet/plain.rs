//! Plain packets, taken apart in one pass over their first bytes: what nearly all traffic is.
//!
//! Plain is an untagged IPv4 packet without options or IPv6 packet without extension headers,
//! whole, of UDP or of TCP without options other than timestamps, whose transport checksum the
//! virtio-net header vouches for. Whatever is not, or is not well-formed, is for [`parse`](super::parse); it decides alone what is
//! dropped.
//!
//! Invariant: what [`PlainPacket::read`] returns is what `parse` says of the same frame.

use super::bytes::chunk;
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

/// A plain packet. What names its flow is packed as it stands in the frame, the order of bytes
/// left as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainPacket<'a> {
    /// Destination and source MAC, source and destination port.
    pub(crate) ends: [u64; 2],
    /// Source and destination address: of IPv4 in the first word, the others zero.
    pub(crate) addresses: [u64; 4],
    pub(crate) is_ipv6: bool,
    /// TCP or UDP.
    pub(crate) ip_proto: u8,
    /// Bytes from the IP header on, Ethernet padding excluded.
    pub(crate) l3_len: usize,
    /// The same of the largest packet that the frame will be on a wire: of a super-frame one
    /// segment.
    pub(crate) segment_l3_len: usize,
    /// Header of TCP.
    tcp: Option<TcpView<'a>>,
    payload_len: u32,
}

/// What the IP header of a plain packet says.
struct Network {
    addresses: [u64; 4],
    is_ipv6: bool,
    ip_proto: u8,
    header_len: usize,
    l3_len: usize,
}

impl<'a> PlainPacket<'a> {
    /// Returns the packet if it is plain and of IPv4.
    #[inline(always)]
    pub(crate) fn read_ipv4(frame: &'a Frame) -> Option<Self> {
        Self::read(frame, ether_type::IPV4, read_ipv4)
    }

    /// Returns the packet if it is plain and of IPv6.
    #[inline(always)]
    pub(crate) fn read_ipv6(frame: &'a Frame) -> Option<Self> {
        Self::read(frame, ether_type::IPV6, read_ipv6)
    }

    #[inline(always)]
    fn read(
        frame: &'a Frame,
        eth_type: u16,
        read_network: impl FnOnce(&[u8]) -> Option<Network>,
    ) -> Option<Self> {
        let (bytes, vnet) = (frame.bytes(), frame.vnet);
        let (ethernet, packet) = bytes.split_first_chunk::<HEADER_LEN>()?;
        if u16::from_be_bytes([ethernet[12], ethernet[13]]) != eth_type {
            return None;
        }
        let network = read_network(packet)?;
        if !is_vouched_for(vnet, bytes.len(), &network) {
            return None;
        }
        let l4 = packet.get(network.header_len..network.l3_len)?;
        let (tcp, l4_header_len) = match network.ip_proto {
            ip_proto::TCP => {
                let tcp = TcpView::new_checked(l4)?;
                if !tcp.has_no_options() {
                    return None;
                }
                (Some(tcp.without_options()), tcp.header_len())
            }
            ip_proto::UDP => {
                let is_whole = UdpView::new_checked(l4)?.length_fits(l4.len(), vnet.is_gso());
                is_whole.then_some((None, udp::LEN))?
            }
            _ => return None,
        };
        let segment_l3_len = if vnet.is_gso() {
            let of_segment = network.header_len + l4_header_len + usize::from(vnet.gso_size);
            network.l3_len.min(of_segment)
        } else {
            network.l3_len
        };
        Some(Self {
            ends: pack(ethernet.first_chunk()?, l4.first_chunk()?),
            addresses: network.addresses,
            is_ipv6: network.is_ipv6,
            ip_proto: network.ip_proto,
            l3_len: network.l3_len,
            segment_l3_len,
            tcp,
            payload_len: short(l4.len() - l4_header_len),
        })
    }

    /// Returns what connection tracking needs of a TCP segment; `None` for UDP.
    #[inline(always)]
    pub(crate) fn tcp_segment(&self) -> Option<TcpSegment> {
        self.tcp.map(|tcp| tcp.bare_segment(self.payload_len))
    }
}

/// Narrows the length of a packet that states its own in 16 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 64 KiB")]
const fn short(len: usize) -> u32 {
    len as u32
}

/// Packs MACs and ports for [`PlainPacket::ends`].
#[inline(always)]
pub(crate) const fn pack(macs: &[u8; 12], ports: &[u8; 4]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *macs;
    let (last, ports) = (u32::from_ne_bytes([i, j, k, l]), u32::from_ne_bytes(*ports));
    let first = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    [first, (last as u64) << 32 | ports as u64]
}

/// Packs both addresses for [`PlainPacket::addresses`].
#[inline]
pub(crate) fn pack_ipv6(addresses: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(addresses.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Returns whether the virtio-net header is right and vouches for the transport checksum.
#[inline(always)]
fn is_vouched_for(vnet: VnetHeader, frame_len: usize, network: &Network) -> bool {
    const TRUSTED: u8 = VnetHeader::F_DATA_VALID | VnetHeader::F_NEEDS_CSUM;
    let eth_type = if network.is_ipv6 {
        ether_type::IPV6
    } else {
        ether_type::IPV4
    };
    let kind = (eth_type, network.ip_proto);
    (vnet.flags & TRUSTED != 0 || vnet.is_gso())
        && check_vnet(vnet, frame_len).is_ok()
        && check_gso_type(vnet, kind, Fragment::No).is_ok()
}

#[inline(always)]
fn read_ipv4(packet: &[u8]) -> Option<Network> {
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
        addresses: [
            u64::from_ne_bytes(*chunk(header, ipv4::field::SRC)?),
            0,
            0,
            0,
        ],
        is_ipv6: false,
        ip_proto: header[9],
        header_len: ipv4::MIN_HEADER_LEN,
        l3_len,
    })
}

/// Returns whether the header holds its own right checksum. RFC 1071 section 2(B): the sum is
/// the same in any byte order, so that nothing has to be swapped.
#[inline(always)]
fn is_sum_right(header: &[u8; ipv4::MIN_HEADER_LEN]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    // All ones, once the carries are added; not zero, as the version is in it.
    sum.is_multiple_of(0xffff)
}

#[inline(always)]
fn read_ipv6(packet: &[u8]) -> Option<Network> {
    let header: &[u8; ipv6::HEADER_LEN] = packet.first_chunk()?;
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let l3_len = ipv6::HEADER_LEN + payload_len;
    // A super-frame that is too large for the field states 0.
    if header[0] >> 4 != 6 || payload_len == 0 || l3_len > packet.len() {
        return None;
    }
    Some(Network {
        addresses: pack_ipv6(chunk(header, ipv6::field::SRC)?),
        is_ipv6: true,
        ip_proto: header[6],
        header_len: ipv6::HEADER_LEN,
        l3_len,
    })
}
