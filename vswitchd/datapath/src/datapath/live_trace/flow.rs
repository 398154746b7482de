//! Which packets a live trace is of: those of connections between two ends, both directions.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::conntrack::Direction;
use crate::flow::{FlowKey, ether_type, ip_proto};
use crate::packet::ParsedPacket;

/// Connections from one of some addresses to one of some others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracedFlow {
    /// Who begins.
    pub sources: HashSet<IpAddr>,
    /// With whom, and at which port; 0 where the protocol has none. Both the address of a Service
    /// and those of its endpoints, so that a packet is known before and behind the translation.
    pub destinations: HashSet<(IpAddr, u16)>,
    /// IP protocol; ICMP stands for ICMPv6 as well.
    pub proto: u8,
    /// Source port, if only one is meant.
    pub src_port: Option<u16>,
}

/// Both ends of a packet, with ports.
type Ends = ((IpAddr, u16), (IpAddr, u16));

impl TracedFlow {
    /// Returns which way a packet goes if it is of the description, or an ICMP error about one that
    /// is.
    #[must_use]
    pub fn direction_of(&self, packet: &ParsedPacket) -> Option<Direction> {
        let Some(quote) = &packet.icmp_quote else {
            return self.direction(&packet.key);
        };
        if !self.has_protocol(quote.proto) {
            return self.direction(&packet.key);
        }
        let ports = self.ports(quote.tp_src, quote.tp_dst);
        // An error goes the other way than what it is about.
        let about = self.between(((quote.src, ports.0), (quote.dst, ports.1)));
        about.map(Direction::opposite)
    }

    /// Returns which way a packet with this key goes if it is of the description.
    #[must_use]
    pub fn direction(&self, key: &FlowKey) -> Option<Direction> {
        // In ARP the protocol field holds the operation.
        let is_ip = matches!(key.eth_type, ether_type::IPV4 | ether_type::IPV6);
        if !is_ip || !self.has_protocol(key.ip_proto) {
            return None;
        }
        let ports = self.ports(key.tp_src, key.tp_dst);
        self.between(((key.ip_src?, ports.0), (key.ip_dst?, ports.1)))
    }

    fn has_protocol(&self, proto: u8) -> bool {
        let are_icmp = ip_proto::is_icmp(self.proto) && ip_proto::is_icmp(proto);
        self.proto == proto || are_icmp
    }

    /// Type and code of ICMP stand where ports do.
    const fn ports(&self, src: u16, dst: u16) -> (u16, u16) {
        if ip_proto::has_ports(self.proto) {
            (src, dst)
        } else {
            (0, 0)
        }
    }

    fn between(&self, (src, dst): Ends) -> Option<Direction> {
        let goes = |from: (IpAddr, u16), to| {
            let is_meant = self.src_port.is_none_or(|port| port == from.1);
            is_meant && self.sources.contains(&from.0) && self.destinations.contains(&to)
        };
        if goes(src, dst) {
            Some(Direction::Original)
        } else {
            goes(dst, src).then_some(Direction::Reply)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(proto: u8, src: (&str, u16), dst: (&str, u16)) -> FlowKey {
        FlowKey {
            eth_type: ether_type::IPV4,
            ip_proto: proto,
            ip_src: src.0.parse().ok(),
            ip_dst: dst.0.parse().ok(),
            tp_src: src.1,
            tp_dst: dst.1,
            ..FlowKey::default()
        }
    }

    fn flow(proto: u8, port: u16) -> TracedFlow {
        TracedFlow {
            sources: ["10.0.0.1".parse().unwrap()].into(),
            destinations: [
                ("10.96.0.1".parse().unwrap(), port),
                ("10.0.0.2".parse().unwrap(), port),
            ]
            .into(),
            proto,
            src_port: None,
        }
    }

    #[test]
    fn both_directions_are_meant_before_and_behind_a_service() {
        let flow = flow(ip_proto::TCP, 80);
        let client = ("10.0.0.1", 40_000);
        for server in [("10.96.0.1", 80), ("10.0.0.2", 80)] {
            let asks = key(ip_proto::TCP, client, server);
            let answers = key(ip_proto::TCP, server, client);
            assert_eq!(flow.direction(&asks), Some(Direction::Original));
            assert_eq!(flow.direction(&answers), Some(Direction::Reply));
        }
    }

    #[test]
    fn other_ports_protocols_and_ends_are_not_meant() {
        let flow = flow(ip_proto::TCP, 80);
        let client = ("10.0.0.1", 40_000);
        for other in [
            key(ip_proto::TCP, client, ("10.0.0.2", 81)),
            key(ip_proto::UDP, client, ("10.0.0.2", 80)),
            key(ip_proto::TCP, ("10.0.0.3", 40_000), ("10.0.0.2", 80)),
            // Of connections that the server begins, this is not a part.
            key(ip_proto::TCP, ("10.0.0.2", 40_000), ("10.0.0.1", 80)),
        ] {
            assert_eq!(flow.direction(&other), None, "{other}");
        }
        let one = TracedFlow {
            src_port: Some(5_000),
            ..flow
        };
        let meant = key(ip_proto::TCP, ("10.0.0.1", 5_000), ("10.0.0.2", 80));
        assert_eq!(one.direction(&meant), Some(Direction::Original));
        let other = key(ip_proto::TCP, client, ("10.0.0.2", 80));
        assert_eq!(one.direction(&other), None);
    }

    #[test]
    fn icmp_is_meant_whatever_its_type() {
        let flow = flow(ip_proto::ICMP, 0);
        let asks = key(ip_proto::ICMP, ("10.0.0.1", 8), ("10.0.0.2", 0));
        let answers = key(ip_proto::ICMP, ("10.0.0.2", 0), ("10.0.0.1", 0));
        assert_eq!(flow.direction(&asks), Some(Direction::Original));
        assert_eq!(flow.direction(&answers), Some(Direction::Reply));
    }
}
