//! Table 70, Forward: the out port of each destination. Multicast groups have none: the
//! datapath's built-in rules drop them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::Priority;
use vswitch_datapath::flow::{AddressMatch, CtState, CtStateMatch, Match, PortClass, ether_type};
use vswitch_datapath::pipeline::{Origin, TableId};
use vswitch_datapath::{Action, DropReason};

use super::intent::{GatewayPort, ReconcileConfig};
use super::spoof_guard::link_local;
use crate::rules::{RuleSet, virtual_networks};
use crate::state::LocalEndpoint;

/// An address that the switch knows.
const KNOWN: Priority = Priority(200);
/// A network that no packet is ever to be sent to.
const MARTIAN: Priority = Priority(150);
/// A network that is nowhere else.
const NOWHERE_ELSE: Priority = Priority(100);
const SERVICE_AT_GATEWAY: Priority = Priority(60);
const FROM_GATEWAY: Priority = Priority(50);
const TO_GATEWAY: Priority = Priority(10);

fn to(net: IpNet) -> Match {
    let (eth_type, ip_dst) = (
        Some(ether_type::of_ip(net.addr().is_ipv6())),
        Some(AddressMatch::Net(net)),
    );
    Match {
        eth_type,
        ip_dst,
        ..Match::default()
    }
}

/// Adds the ways to a local pod's addresses; its ingress policies come next.
pub(super) fn add_pod(rules: &mut RuleSet, endpoint: &LocalEndpoint, origin: &Arc<Origin>) {
    for ip in &endpoint.addresses {
        let actions = vec![
            Action::SetEthDst(endpoint.mac),
            Action::SetOutPort(endpoint.port_no),
            Action::Goto(TableId::IngressAdminTier),
        ];
        rules.add(
            (TableId::Forward, KNOWN),
            to(IpNet::from(*ip)),
            actions,
            origin,
        );
    }
}

/// Adds the way to the node and through it to everything that is not on this switch.
pub(super) fn add_gateway(rules: &mut RuleSet, config: &ReconcileConfig) {
    let gateway = &config.gateway;
    let origin = Arc::new(Origin {
        kind: "Gateway",
        name: gateway.name.clone(),
        part: String::new(),
    });
    for ip in &gateway.addresses {
        let matches = to(IpNet::from(*ip));
        rules.add(
            (TableId::Forward, KNOWN),
            matches,
            leave_through(gateway),
            &origin,
        );
    }
    let from_pods = Match {
        class: Some(PortClass::Pod),
        ..Match::default()
    };
    rules.add(
        (TableId::Forward, TO_GATEWAY),
        from_pods,
        leave_through(gateway),
        &origin,
    );
    let martian = Arc::new(Origin {
        part: "no destination of a packet on a wire".to_owned(),
        ..Origin::clone(&origin)
    });
    for net in martians() {
        let drop = vec![Action::Drop(DropReason::MartianDestination)];
        rules.add((TableId::Forward, MARTIAN), to(net), drop, &martian);
    }
    let nowhere = Arc::new(Origin {
        kind: "Gateway",
        name: gateway.name.clone(),
        part: "not on this switch, nor anywhere else".to_owned(),
    });
    let no_route = || vec![Action::Drop(DropReason::NoRoute)];
    for net in config
        .pod_cidrs
        .iter()
        .map(IpNet::trunc)
        .chain([link_local()])
    {
        rules.add(
            (TableId::Forward, NOWHERE_ELSE),
            to(net),
            no_route(),
            &nowhere,
        );
    }
    let returned = Match {
        class: Some(PortClass::Gateway),
        ..Match::default()
    };
    // The node itself, or somebody behind it, uses a Service whose endpoint is behind it too.
    let translated = Match {
        ct_state: Some(CtStateMatch {
            value: CtState::DNAT,
            mask: CtState::DNAT,
        }),
        ..returned.clone()
    };
    rules.add(
        (TableId::Forward, SERVICE_AT_GATEWAY),
        translated,
        leave_through(gateway),
        &origin,
    );
    rules.add(
        (TableId::Forward, FROM_GATEWAY),
        returned,
        no_route(),
        &nowhere,
    );
}

/// Returns what nobody beyond the gateway has: a node that takes packets to loopback addresses
/// from outside (`route_localnet`) would take a pod's for its own. The switch's own addresses are
/// translated before a packet comes to this table.
fn martians() -> impl Iterator<Item = IpNet> {
    let special: [(IpAddr, u8); 5] = [
        // "This network", loopback, reserved: RFC 6890 section 2.2.2.
        (IpAddr::from([0, 0, 0, 0]), 8),
        (IpAddr::from([127, 0, 0, 0]), 8),
        (IpAddr::from([240, 0, 0, 0]), 4),
        // Unspecified, loopback and what is IPv4 in disguise: RFC 4291 section 2.5.
        (IpAddr::from(Ipv6Addr::UNSPECIFIED), 96),
        (IpAddr::from(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()), 96),
    ];
    let special = special.into_iter();
    let special = special.map(|(ip, length)| IpNet::new_assert(ip, length));
    special.chain(virtual_networks()).map(|net| net.trunc())
}

/// Policies of the receiving pod do not concern the gateway.
fn leave_through(gateway: &GatewayPort) -> Vec<Action> {
    vec![
        Action::SetEthDst(gateway.mac),
        Action::SetOutPort(gateway.port_no),
        Action::Goto(TableId::Output),
    ]
}
