//! The fields of a packet and of the pipeline that rules can match on.

use std::fmt;
use std::net::IpAddr;

use vswitch_api::{MacAddr, PortNo};

/// EtherTypes the switch knows.
#[expect(missing_docs, reason = "the names are IEEE's")]
pub mod ether_type {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const QINQ: u16 = 0x88a8;
    pub const IPV6: u16 = 0x86dd;

    /// Returns that of IPv6 or of IPv4.
    #[must_use]
    pub const fn of_ip(is_ipv6: bool) -> u16 {
        if is_ipv6 { IPV6 } else { IPV4 }
    }
}

/// IP protocols the switch knows.
#[expect(missing_docs, reason = "the names are IANA's")]
pub mod ip_proto {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;

    /// Returns whether packets of the protocol have a source and a destination port.
    #[must_use]
    #[inline]
    pub const fn has_ports(proto: u8) -> bool {
        matches!(proto, TCP | UDP | SCTP)
    }

    /// Returns whether it is ICMP or ICMPv6, whose packets have a type.
    #[must_use]
    #[inline]
    pub const fn is_icmp(proto: u8) -> bool {
        matches!(proto, ICMP | ICMPV6)
    }

    const NAMES: [(u8, &str); 5] = [
        (TCP, "TCP"),
        (UDP, "UDP"),
        (SCTP, "SCTP"),
        (ICMP, "ICMP"),
        (ICMPV6, "ICMPv6"),
    ];

    /// Returns the usual name of a protocol.
    #[must_use]
    pub fn name(proto: u8) -> Option<&'static str> {
        let mut names = NAMES.into_iter();
        names.find_map(|(of, name)| (of == proto).then_some(name))
    }

    /// Returns the protocol of a usual name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<u8> {
        let mut names = NAMES.into_iter();
        names.find_map(|(proto, of)| (of == name).then_some(proto))
    }
}

/// What hangs on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum PortClass {
    /// Not classified yet.
    #[default]
    Unknown,
    /// A pod's veth, or a virtual machine's TAP: the same rules hold for both.
    Pod,
    /// The gateway port into the node's own stack.
    Gateway,
}

impl PortClass {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::Pod, Self::Gateway];

    /// Returns the name in match syntax and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Pod => "pod",
            Self::Gateway => "gateway",
        }
    }

    /// Returns the class that has this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

impl fmt::Display for PortClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Connection state flags, as OVS names them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CtState(pub u8);

impl CtState {
    /// Not yet committed.
    pub const NEW: Self = Self(0x01);
    /// Part of a committed connection.
    pub const EST: Self = Self(0x02);
    /// Related to a committed connection (ICMP error).
    pub const REL: Self = Self(0x04);
    /// In the reply direction.
    pub const RPL: Self = Self(0x08);
    /// Not acceptable in its connection's state.
    pub const INV: Self = Self(0x10);
    /// Went through connection tracking.
    pub const TRK: Self = Self(0x20);
    /// Source address translated.
    pub const SNAT: Self = Self(0x40);
    /// Destination address translated.
    pub const DNAT: Self = Self(0x80);

    /// Each flag with its name.
    pub const FLAGS: [(Self, &'static str); 8] = [
        (Self::NEW, "new"),
        (Self::EST, "est"),
        (Self::REL, "rel"),
        (Self::RPL, "rpl"),
        (Self::INV, "inv"),
        (Self::TRK, "trk"),
        (Self::SNAT, "snat"),
        (Self::DNAT, "dnat"),
    ];

    /// Returns whether all flags of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for CtState {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl fmt::Debug for CtState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (flag, name) in Self::FLAGS {
            if self.contains(flag) {
                write!(f, "{}{name}", if first { "" } else { "|" })?;
                first = false;
            }
        }
        if first { f.write_str("0") } else { Ok(()) }
    }
}

/// Everything of one packet that a rule can match on.
///
/// As in OVS, ARP and neighbour discovery reuse the IP fields: `ip_proto` is the ARP
/// operation, `ip_src`/`ip_dst` are SPA/TPA; for neighbour solicitations and
/// advertisements `nd_target` is set. ICMP type and code stand in `tp_src` and `tp_dst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowKey {
    /// Port the frame came in on.
    pub in_port: PortNo,
    /// Source MAC.
    pub eth_src: MacAddr,
    /// Destination MAC.
    pub eth_dst: MacAddr,
    /// TCI of the outermost 802.1Q tag with bit 0x1000 set, 0 if untagged (as in OVS).
    pub vlan_tci: u16,
    /// EtherType behind the tags.
    pub eth_type: u16,
    /// IP protocol behind the extension headers, or ARP operation.
    pub ip_proto: u8,
    /// DSCP and ECN.
    pub ip_tos: u8,
    /// TTL or hop limit.
    pub ip_ttl: u8,
    /// Whether it is a later fragment (ports are zero then).
    pub is_later_fragment: bool,
    /// Source address.
    pub ip_src: Option<IpAddr>,
    /// Destination address.
    pub ip_dst: Option<IpAddr>,
    /// Source port, or ICMP type.
    pub tp_src: u16,
    /// Destination port, or ICMP code.
    pub tp_dst: u16,
    /// ARP sender MAC, or ND source/target link-layer option.
    pub arp_sha: MacAddr,
    /// ARP target MAC.
    pub arp_tha: MacAddr,
    /// Target of a neighbour solicitation or advertisement.
    pub nd_target: Option<std::net::Ipv6Addr>,
    /// Set by table 0: what hangs on `in_port`.
    pub class: PortClass,
    /// Set by the conntrack table.
    pub ct_state: CtState,
    /// Set by the forward table.
    pub out_port: PortNo,
}
