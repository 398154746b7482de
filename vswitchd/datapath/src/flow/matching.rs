//! Matches: the conditions of a rule on a [`FlowKey`]. A field that is `None` is a wildcard.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::{MacAddr, PortNo};

use super::{CtState, PortClass};

/// Name of an address set, e.g. `default/allow-web/ingress/0/1`; `@NAME` in match syntax.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName(pub Arc<str>);

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// Demand on an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AddressMatch {
    /// In this network (a single address is a /32 or /128).
    Net(IpNet),
    /// Member of this address set.
    Set(SetName),
}

/// Demand on a transport port: an inclusive range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, at least `first`.
    pub last: u16,
}

/// Demand on the connection state: the flags under `mask` must equal `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CtStateMatch {
    /// Flags that must be set.
    pub value: CtState,
    /// Flags that are looked at.
    pub mask: CtState,
}

/// A conjunction of demands on a [`super::FlowKey`].
///
/// `Display` and `FromStr` speak OVS match syntax: `ip,ct_state=+new+trk,nw_src=10.0.0.0/8,
/// nw_dst=@default/web/pods,tcp,tp_dst=80-90,in_port=3,dl_src=02:00:00:00:00:01`; shorthands
/// `ip ipv6 arp icmp icmp6 tcp udp sctp tcp6 udp6 sctp6`; `ip_src`/`ip_dst` take either
/// family, `nw_*` and `ipv6_*` are accepted for them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[expect(
    missing_docs,
    reason = "each field demands the key field of the same name"
)]
pub struct Match {
    pub in_port: Option<PortNo>,
    pub out_port: Option<PortNo>,
    pub class: Option<PortClass>,
    pub eth_src: Option<MacAddr>,
    pub eth_dst: Option<MacAddr>,
    /// Whole TCI with the 0x1000 bit, or 0 for untagged.
    pub vlan_tci: Option<u16>,
    /// Whether there is a tag at all, whatever it holds; `vlan_tci=0x1000/0x1000` in text.
    pub is_tagged: Option<bool>,
    pub eth_type: Option<u16>,
    pub ip_proto: Option<u8>,
    pub ip_src: Option<AddressMatch>,
    pub ip_dst: Option<AddressMatch>,
    pub is_later_fragment: Option<bool>,
    pub tp_src: Option<PortRange>,
    pub tp_dst: Option<PortRange>,
    pub arp_sha: Option<MacAddr>,
    pub nd_target: Option<std::net::Ipv6Addr>,
    pub ct_state: Option<CtStateMatch>,
}

impl Match {
    /// Returns whether any packet at all can match.
    #[must_use]
    pub fn is_satisfiable(&self) -> bool {
        let is_tag_possible = match (self.vlan_tci, self.is_tagged) {
            (Some(tci), Some(tagged)) => (tci & 0x1000 != 0) == tagged,
            _ => true,
        };
        let is_range = |range: Option<PortRange>| range.is_none_or(|r| r.first <= r.last);
        is_tag_possible && is_range(self.tp_src) && is_range(self.tp_dst)
    }
}
