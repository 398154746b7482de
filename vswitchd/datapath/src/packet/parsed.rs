//! Result of parsing a frame: the flow key, and what connection tracking needs.

use std::net::IpAddr;

use crate::flow::FlowKey;

/// TCP header flags as they stand in byte 13.
#[expect(missing_docs, reason = "the names are RFC 9293's")]
pub mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
}

/// What connection tracking needs of a TCP segment (a GSO super-frame counts as one long segment).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpSegment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window as sent, unscaled.
    pub window: u16,
    /// Flags, see [`tcp_flags`].
    pub flags: u8,
    /// Payload bytes.
    pub payload_len: u32,
    /// Window scale option of a SYN.
    pub window_scale: Option<u8>,
    /// SACK-permitted option of a SYN.
    pub sack_permitted: bool,
    /// Highest right edge among SACK blocks.
    pub sack_right_edge: Option<u32>,
}

impl TcpSegment {
    /// Returns whether it opens a connection, or answers what does.
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        self.flags & tcp_flags::SYN != 0
    }
}

/// Where a packet stands in a fragmented datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fragment {
    /// Not fragmented.
    #[default]
    No,
    /// First fragment: has the transport header.
    First {
        /// IP identification.
        id: u32,
    },
    /// A later one: no transport header, ports are zero in the key.
    Later {
        /// IP identification.
        id: u32,
    },
}

/// The packet quoted inside an ICMP or ICMPv6 error, as its sender had sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpQuote {
    /// Source address of the quoted packet.
    pub src: IpAddr,
    /// Destination address of the quoted packet.
    pub dst: IpAddr,
    /// Its IP protocol.
    pub proto: u8,
    /// Source port, or ICMP echo identifier.
    pub tp_src: u16,
    /// Destination port, or ICMP echo identifier.
    pub tp_dst: u16,
    /// Where the quoted IP header starts, from the Ethernet header.
    pub offset: usize,
}

/// A frame taken apart. Offsets count from the Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedPacket {
    /// The flow key.
    pub key: FlowKey,
    /// Where the network header (IP, ARP) starts.
    pub l3_offset: usize,
    /// Where the transport header starts; equals `l3_end` where there is none.
    pub l4_offset: usize,
    /// End of the network packet (Ethernet padding excluded).
    pub l3_end: usize,
    /// Fragment state.
    pub fragment: Fragment,
    /// Set for TCP segments that carry their header.
    pub tcp: Option<TcpSegment>,
    /// SCTP verification tag and the first chunk's type.
    pub sctp: Option<(u32, u8)>,
    /// ICMP echo identifier of an echo request or reply.
    pub icmp_echo_id: Option<u16>,
    /// Set for ICMP and ICMPv6 errors.
    pub icmp_quote: Option<IcmpQuote>,
    /// IPv4 DF flag (always true for IPv6).
    pub dont_fragment: bool,
}
