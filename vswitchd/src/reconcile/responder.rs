//! ARP and neighbour discovery: the switch answers for every address it knows and forwards
//! none of it. What it does not know ends at the datapath's own rules.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::{MacAddr, PortNo, Priority};
use vswitch_datapath::flow::{AddressMatch, Match};
use vswitch_datapath::pipeline::{Origin, TableId};
use vswitch_datapath::{Action, DropReason};

use super::gateway::{arp, icmpv6, icmpv6_type};
use crate::rules::RuleSet;

/// The owner of an address, who asks only whether somebody else has it.
const OWNER: Priority = Priority(200);
const ANSWER: Priority = Priority(100);
const ARP_REQUEST: u8 = 1;
/// Where the node sends what goes to Services; locally administered, no port's.
const VIRTUAL_MAC: MacAddr = MacAddr([0x02, 0x56, 0x53, 0x57, 0, 1]);

/// Adds the answer for one of the switch's own addresses, which only the node may ask for.
pub(super) fn add_virtual_address(
    rules: &mut RuleSet,
    gateway: PortNo,
    ip: IpAddr,
    origin: &Arc<Origin>,
) {
    let (asked, answer, _) = question(VIRTUAL_MAC, ip);
    let by_node = Match {
        in_port: Some(gateway),
        ..asked
    };
    let at = (TableId::ArpResponder, ANSWER);
    rules.add(at, by_node, vec![answer], origin);
}

/// Adds the answer for one address that is behind a port.
pub(super) fn add_address(
    rules: &mut RuleSet,
    (port, mac): (PortNo, MacAddr),
    ip: IpAddr,
    origin: &Arc<Origin>,
) {
    let (asked, answer, unknown) = question(mac, ip);
    let by_owner = Match {
        in_port: Some(port),
        ..asked.clone()
    };
    // An answer to the owner would tell it that its address is taken (RFC 5227, RFC 4862).
    let at = (TableId::ArpResponder, OWNER);
    rules.add(at, by_owner, vec![Action::Drop(unknown)], origin);
    rules.add((TableId::ArpResponder, ANSWER), asked, vec![answer], origin);
}

/// Returns the question for an address, the answer that it is at `mac`, and the reason to drop it.
fn question(mac: MacAddr, ip: IpAddr) -> (Match, Action, DropReason) {
    match ip {
        IpAddr::V4(_) => {
            let ip_dst = Some(AddressMatch::Net(IpNet::from(ip)));
            let asked = Match {
                ip_proto: Some(ARP_REQUEST),
                ip_dst,
                ..arp()
            };
            (asked, Action::ArpReply(mac), DropReason::ArpUnknown)
        }
        IpAddr::V6(target) => {
            let asked = Match {
                nd_target: Some(target),
                ..solicitation()
            };
            (asked, Action::NdAdvertise(mac), DropReason::NdUnknown)
        }
    }
}

fn solicitation() -> Match {
    icmpv6(
        icmpv6_type::NEIGHBOUR_SOLICITATION,
        icmpv6_type::NEIGHBOUR_SOLICITATION,
    )
}
