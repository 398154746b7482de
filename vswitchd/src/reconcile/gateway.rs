//! The rules that every switch has besides the datapath's own: the gateway port, and replies.

use std::sync::Arc;

use vswitch_api::Priority;
use vswitch_datapath::flow::{AddressMatch, Match, PortClass, SetName, ether_type, ip_proto};
use vswitch_datapath::pipeline::{Origin, TableId};
use vswitch_datapath::{Action, DropReason};

use super::intent::GatewayPort;
use crate::rules::RuleSet;
use crate::rules::virtual_addresses;

/// The set of all local pods' addresses.
pub(super) fn local_pods_set() -> SetName {
    SetName("local-pods".into())
}

/// ICMPv6 types of neighbour discovery (RFC 4861 section 4) and multicast listeners (RFC 3810).
pub(super) mod icmpv6_type {
    pub(in super::super) const ROUTER_SOLICITATION: u16 = 133;
    pub(in super::super) const NEIGHBOUR_SOLICITATION: u16 = 135;
    pub(in super::super) const NEIGHBOUR_ADVERTISEMENT: u16 = 136;
    pub(in super::super) const REDIRECT: u16 = 137;
    pub(in super::super) const MULTICAST_LISTENER_REPORT_V2: u16 = 143;
}

/// Demands an ICMPv6 type, or one of a range of them.
pub(super) fn icmpv6(first: u16, last: u16) -> Match {
    Match {
        eth_type: Some(ether_type::IPV6),
        ip_proto: Some(ip_proto::ICMPV6),
        tp_src: Some(vswitch_datapath::flow::PortRange { first, last }),
        ..Match::default()
    }
}

/// Demands ARP.
pub(super) fn arp() -> Match {
    Match {
        eth_type: Some(ether_type::ARP),
        ..Match::default()
    }
}

/// Adds the gateway port. What comes out of the node's stack may have any source but a local
/// pod's, which send through their own ports, and the switch's own, which never come in.
pub(super) fn add_gateway(rules: &mut RuleSet, gateway: &GatewayPort) {
    let origin = Arc::new(Origin {
        kind: "Gateway",
        name: gateway.name.clone(),
        part: String::new(),
    });
    let from = Match {
        in_port: Some(gateway.port_no),
        ..Match::default()
    };
    let classify = vec![
        Action::SetClass(PortClass::Gateway),
        Action::Goto(TableId::SpoofGuard),
    ];
    rules.add(
        (TableId::Classify, Priority(100)),
        from.clone(),
        classify,
        &origin,
    );
    let as_pod = Match {
        ip_src: Some(AddressMatch::Set(local_pods_set())),
        ..from.clone()
    };
    let as_switch = gateway.addresses.iter().map(|ip| Match {
        ip_src: Some(AddressMatch::Net(virtual_addresses(*ip).hairpin.into())),
        ..from.clone()
    });
    for matches in as_switch.chain([as_pod]) {
        let spoofed = vec![Action::Drop(DropReason::Spoofed)];
        let at = (TableId::SpoofGuard, Priority(200));
        rules.add(at, matches, spoofed, &origin);
    }
    let on = vec![Action::Goto(TableId::ArpResponder)];
    rules.add((TableId::SpoofGuard, Priority(100)), from, on, &origin);
}
