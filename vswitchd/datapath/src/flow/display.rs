//! Keys and matches as text, in OVS's words. What is printed for a [`Match`] parses back to it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_api::PortNo;

use super::{
    AddressMatch, CtState, CtStateMatch, FlowKey, Match, PortClass, PortRange, ether_type, ip_proto,
};

/// Shorthands of match syntax: name, EtherType, IP protocol.
pub(super) const SHORTHANDS: [(&str, u16, Option<u8>); 11] = [
    ("ip", ether_type::IPV4, None),
    ("ipv6", ether_type::IPV6, None),
    ("arp", ether_type::ARP, None),
    ("icmp", ether_type::IPV4, Some(ip_proto::ICMP)),
    ("icmp6", ether_type::IPV6, Some(ip_proto::ICMPV6)),
    ("tcp", ether_type::IPV4, Some(ip_proto::TCP)),
    ("udp", ether_type::IPV4, Some(ip_proto::UDP)),
    ("sctp", ether_type::IPV4, Some(ip_proto::SCTP)),
    ("tcp6", ether_type::IPV6, Some(ip_proto::TCP)),
    ("udp6", ether_type::IPV6, Some(ip_proto::UDP)),
    ("sctp6", ether_type::IPV6, Some(ip_proto::SCTP)),
];

/// Writes `item` values with commas between them.
struct Fields<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    any: bool,
}

impl<'a, 'b> Fields<'a, 'b> {
    fn new(f: &'a mut fmt::Formatter<'b>) -> Self {
        Self { f, any: false }
    }

    fn bare(&mut self, item: fmt::Arguments<'_>) -> fmt::Result {
        if self.any {
            self.f.write_str(",")?;
        }
        self.any = true;
        self.f.write_fmt(item)
    }

    fn field(&mut self, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
        match value {
            Some(value) => self.bare(format_args!("{name}={value}")),
            None => Ok(()),
        }
    }

    fn protocol(&mut self, eth_type: Option<u16>, proto: Option<u8>) -> fmt::Result {
        let Some(ether) = eth_type else {
            return self.field("nw_proto", proto);
        };
        let find = |proto| SHORTHANDS.iter().find(|s| s.1 == ether && s.2 == proto);
        if let Some((name, ..)) = find(proto) {
            return self.bare(format_args!("{name}"));
        }
        match find(None) {
            Some((name, ..)) => self.bare(format_args!("{name}"))?,
            None => self.bare(format_args!("dl_type={ether:#06x}"))?,
        }
        self.field(
            if ether == ether_type::ARP {
                "arp_op"
            } else {
                "nw_proto"
            },
            proto,
        )
    }
}

/// Names of the two transport fields under this EtherType and protocol.
fn transport_names(eth_type: Option<u16>, proto: Option<u8>) -> (&'static str, &'static str) {
    match (eth_type, proto) {
        (Some(ether_type::IPV4), Some(ip_proto::ICMP)) => ("icmp_type", "icmp_code"),
        (Some(ether_type::IPV6), Some(ip_proto::ICMPV6)) => ("icmp_type", "icmp_code"),
        _ => ("tp_src", "tp_dst"),
    }
}

impl fmt::Display for AddressMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Set(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for CtStateMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, name) in CtState::FLAGS {
            if self.mask.contains(flag) {
                write!(
                    f,
                    "{}{name}",
                    if self.value.contains(flag) { '+' } else { '-' }
                )?;
            }
        }
        Ok(())
    }
}

/// Field name by family: OVS has `nw_*` for IPv4 and `ipv6_*`; a set may hold both families.
fn address_field(address: &AddressMatch, names: [&'static str; 3]) -> &'static str {
    let [v4, v6, any] = names;
    match address {
        AddressMatch::Net(IpNet::V4(_)) => v4,
        AddressMatch::Net(IpNet::V6(_)) => v6,
        AddressMatch::Set(_) => any,
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Fields::new(f);
        out.field("ct_state", self.ct_state.filter(|m| m.mask.0 != 0))?;
        out.protocol(self.eth_type, self.ip_proto)?;
        out.field("in_port", self.in_port)?;
        out.field("out_port", self.out_port)?;
        out.field("class", self.class)?;
        if let Some(tci) = self.vlan_tci {
            out.bare(format_args!("vlan_tci={tci:#06x}"))?;
        }
        if let Some(tagged) = self.is_tagged {
            out.bare(format_args!(
                "vlan_tci={:#06x}/0x1000",
                u16::from(tagged) << 12
            ))?;
        }
        out.field("dl_src", self.eth_src)?;
        out.field("dl_dst", self.eth_dst)?;
        if let Some(src) = &self.ip_src {
            out.field(
                address_field(src, ["nw_src", "ipv6_src", "ip_src"]),
                Some(src),
            )?;
        }
        if let Some(dst) = &self.ip_dst {
            out.field(
                address_field(dst, ["nw_dst", "ipv6_dst", "ip_dst"]),
                Some(dst),
            )?;
        }
        out.field(
            "ip_frag",
            self.is_later_fragment
                .map(|l| if l { "later" } else { "not_later" }),
        )?;
        let (tp_src, tp_dst) = transport_names(self.eth_type, self.ip_proto);
        out.field(tp_src, self.tp_src)?;
        out.field(tp_dst, self.tp_dst)?;
        out.field("arp_sha", self.arp_sha)?;
        out.field("nd_target", self.nd_target)
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Fields::new(f);
        let has_protocol = self.eth_type == ether_type::ARP || self.ip_src.is_some();
        if self.ct_state != CtState::default() {
            out.bare(format_args!("ct_state={:?}", self.ct_state))?;
        }
        out.protocol(Some(self.eth_type), has_protocol.then_some(self.ip_proto))?;
        out.field("in_port", Some(self.in_port))?;
        out.field(
            "out_port",
            Some(self.out_port).filter(|port| *port != PortNo(0)),
        )?;
        out.field(
            "class",
            Some(self.class).filter(|class| *class != PortClass::Unknown),
        )?;
        if self.vlan_tci != 0 {
            out.bare(format_args!("vlan_tci={:#06x}", self.vlan_tci))?;
        }
        out.field("dl_src", Some(self.eth_src))?;
        out.field("dl_dst", Some(self.eth_dst))?;
        let name = |address: &IpAddr, v4, v6| if address.is_ipv4() { v4 } else { v6 };
        if let Some(src) = &self.ip_src {
            out.field(name(src, "nw_src", "ipv6_src"), Some(src))?;
        }
        if let Some(dst) = &self.ip_dst {
            out.field(name(dst, "nw_dst", "ipv6_dst"), Some(dst))?;
        }
        if self.eth_type == ether_type::ARP {
            out.field("arp_sha", Some(self.arp_sha))?;
            return out.field("arp_tha", Some(self.arp_tha));
        }
        if has_protocol {
            out.bare(format_args!(
                "nw_tos={},nw_ttl={}",
                self.ip_tos, self.ip_ttl
            ))?;
            out.field("ip_frag", self.is_later_fragment.then_some("later"))?;
            let (src, dst) = transport_names(Some(self.eth_type), Some(self.ip_proto));
            out.field(src, Some(self.tp_src))?;
            out.field(dst, Some(self.tp_dst))?;
        }
        out.field("nd_target", self.nd_target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_what_its_packet_has() {
        let key = FlowKey {
            in_port: PortNo(3),
            eth_type: ether_type::IPV4,
            ip_proto: ip_proto::TCP,
            ip_ttl: 64,
            ip_src: Some(IpAddr::from([10, 0, 0, 1])),
            ip_dst: Some(IpAddr::from([10, 0, 0, 2])),
            tp_src: 5000,
            tp_dst: 80,
            ct_state: CtState::TRK | CtState::NEW,
            ..FlowKey::default()
        };
        assert_eq!(
            key.to_string(),
            "ct_state=new|trk,tcp,in_port=3,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,\
             nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_tos=0,nw_ttl=64,tp_src=5000,tp_dst=80"
        );
        let arp = FlowKey {
            eth_type: ether_type::ARP,
            ip_proto: 1,
            ..FlowKey::default()
        };
        assert!(
            arp.to_string().starts_with("arp,arp_op=1,in_port=0,"),
            "{arp}"
        );
        let lldp = FlowKey {
            eth_type: 0x88cc,
            ..FlowKey::default()
        };
        assert!(
            lldp.to_string().starts_with("dl_type=0x88cc,in_port=0,"),
            "{lldp}"
        );
    }
}
