//! Table 70: where a destination is. Groups are nowhere: the datapath's own rules drop them.

use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::Priority;
use vswitch_datapath::flow::{AddressMatch, CtState, CtStateMatch, Match, PortClass};
use vswitch_datapath::pipeline::{Origin, TableId};
use vswitch_datapath::{Action, DropReason};

use super::gateway::ether_type_of;
use super::intent::{GatewayPort, ReconcileConfig};
use super::spoof_guard::link_local;
use crate::rules::RuleSet;
use crate::state::LocalEndpoint;

/// An address that the switch knows.
const KNOWN: Priority = Priority(200);
/// A network that is nowhere else.
const NOWHERE_ELSE: Priority = Priority(100);
const SERVICE_AT_GATEWAY: Priority = Priority(60);
const FROM_GATEWAY: Priority = Priority(50);
const TO_GATEWAY: Priority = Priority(10);

fn to(net: IpNet) -> Match {
    let (eth_type, ip_dst) = (Some(ether_type_of(net)), Some(AddressMatch::Net(net)));
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
            Action::Goto(TableId::IngressRule),
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
    for class in [PortClass::Pod, PortClass::Vm] {
        let matches = Match {
            class: Some(class),
            ..Match::default()
        };
        rules.add(
            (TableId::Forward, TO_GATEWAY),
            matches,
            leave_through(gateway),
            &origin,
        );
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

/// Policies of the receiving pod do not concern the gateway.
fn leave_through(gateway: &GatewayPort) -> Vec<Action> {
    vec![
        Action::SetEthDst(gateway.mac),
        Action::SetOutPort(gateway.port_no),
        Action::Goto(TableId::Output),
    ]
}
