//! Table 10, SpoofGuard: a pod's port may send from its own MAC and addresses only, in Ethernet,
//! ARP and neighbour discovery.
//!
//! A pod chooses its link-local address itself (RFC 7217), so that the switch cannot know it.
//! Link-local sources are therefore let in for neighbour discovery alone, which ends in the
//! next table: no packet that policies judge has a source that they do not know.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_api::{MacAddr, Priority};
use vswitch_datapath::flow::{AddressMatch, Match, PortClass, ether_type};
use vswitch_datapath::pipeline::{Origin, TableId};
use vswitch_datapath::{Action, DropReason};

use super::gateway::{arp, icmpv6, icmpv6_type};
use crate::rules::RuleSet;
use crate::state::LocalEndpoint;

/// Own addresses.
const OWN: Priority = Priority(100);
/// Neighbour discovery that is not allowed, above the rule for own addresses.
const FORBIDDEN: Priority = Priority(150);
/// Neighbour discovery that is.
const DISCOVERY: Priority = Priority(200);
/// ARP request.
const ARP_REQUEST: u8 = 1;

/// Adds table 0 and 10 for one pod's port.
pub(super) fn add_pod(rules: &mut RuleSet, endpoint: &LocalEndpoint, origin: &Arc<Origin>) {
    let port = Match {
        in_port: Some(endpoint.port_no),
        ..Match::default()
    };
    let classify = vec![
        Action::SetClass(PortClass::Pod),
        Action::Goto(TableId::SpoofGuard),
    ];
    rules.add((TableId::Classify, Priority(100)), port, classify, origin);
    let mut guard = Guard {
        rules,
        endpoint,
        origin,
    };
    for ip in &endpoint.addresses {
        guard.own_address(*ip);
    }
    guard.arp_probe();
    guard.discovery();
}

struct Guard<'a> {
    rules: &'a mut RuleSet,
    endpoint: &'a LocalEndpoint,
    origin: &'a Arc<Origin>,
}

impl Guard<'_> {
    /// Adds a rule for what has this port's MAC.
    fn add(&mut self, priority: Priority, matches: Match, action: Action) {
        let (in_port, eth_src) = (Some(self.endpoint.port_no), Some(self.endpoint.mac));
        let matches = Match {
            in_port,
            eth_src,
            ..matches
        };
        self.rules.add(
            (TableId::SpoofGuard, priority),
            matches,
            vec![action],
            self.origin,
        );
    }

    fn pass(&mut self, priority: Priority, matches: Match) {
        self.add(priority, matches, Action::Goto(TableId::ArpResponder));
    }

    fn own_address(&mut self, ip: IpAddr) {
        let net = IpNet::from(ip);
        let (eth_type, ip_src) = (
            Some(ether_type::of_ip(net.addr().is_ipv6())),
            Some(AddressMatch::Net(net)),
        );
        self.pass(
            OWN,
            Match {
                eth_type,
                ip_src,
                ..Match::default()
            },
        );
        if ip.is_ipv4() {
            let arp_sha = Some(self.endpoint.mac);
            self.pass(
                OWN,
                Match {
                    arp_sha,
                    ip_src: Some(AddressMatch::Net(net)),
                    ..arp()
                },
            );
        }
    }

    /// RFC 5227: asking whether an address is free, before there is one.
    fn arp_probe(&mut self) {
        let ip_src = Some(AddressMatch::Net(
            Ipv4Net::from(std::net::Ipv4Addr::UNSPECIFIED).into(),
        ));
        let arp_sha = Some(self.endpoint.mac);
        self.pass(
            OWN,
            Match {
                arp_sha,
                ip_src,
                ip_proto: Some(ARP_REQUEST),
                ..arp()
            },
        );
    }

    fn discovery(&mut self) {
        let (own, mac) = (self.own_v6(), self.endpoint.mac);
        let solicitation = icmpv6(
            icmpv6_type::NEIGHBOUR_SOLICITATION,
            icmpv6_type::NEIGHBOUR_SOLICITATION,
        );
        // The source link-layer option is the pod's own, or left out (RFC 4861 section 4.3).
        for net in own.iter().copied().chain([link_local()]) {
            for sha in [mac, MacAddr::default()] {
                let ip_src = Some(AddressMatch::Net(net));
                let arp_sha = Some(sha);
                self.pass(
                    DISCOVERY,
                    Match {
                        ip_src,
                        arp_sha,
                        ..solicitation.clone()
                    },
                );
            }
        }
        // Duplicate address detection has no source and no option (RFC 4862 section 5.4.2).
        let ip_src = Some(AddressMatch::Net(unspecified()));
        let arp_sha = Some(MacAddr::default());
        self.pass(
            DISCOVERY,
            Match {
                ip_src,
                arp_sha,
                ..solicitation
            },
        );
        self.advertisements(&own);
        self.multicast_noise();
        let forbidden = icmpv6(icmpv6_type::ROUTER_SOLICITATION, icmpv6_type::REDIRECT);
        self.add(FORBIDDEN, forbidden, Action::Drop(DropReason::Spoofed));
    }

    /// A pod may speak of its own addresses; nobody hears it, the switch answers for it.
    fn advertisements(&mut self, own: &[IpNet]) {
        let advertisement = icmpv6(
            icmpv6_type::NEIGHBOUR_ADVERTISEMENT,
            icmpv6_type::NEIGHBOUR_ADVERTISEMENT,
        );
        for net in own {
            let IpAddr::V6(target) = net.addr() else {
                continue;
            };
            for source in [*net, link_local()] {
                let ip_src = Some(AddressMatch::Net(source));
                let nd_target = Some(target);
                self.pass(
                    DISCOVERY,
                    Match {
                        ip_src,
                        nd_target,
                        ..advertisement.clone()
                    },
                );
            }
        }
    }

    /// Every IPv6 stack asks for routers and reports its groups at start: no spoofing, but
    /// nobody is to hear it.
    fn multicast_noise(&mut self) {
        let types = [
            icmpv6_type::ROUTER_SOLICITATION,
            icmpv6_type::MULTICAST_LISTENER_REPORT_V2,
        ];
        for number in types {
            for net in [link_local(), unspecified()] {
                let matches = Match {
                    ip_src: Some(AddressMatch::Net(net)),
                    ..icmpv6(number, number)
                };
                let drop = Action::Drop(DropReason::MulticastNotForwarded);
                self.add(DISCOVERY, matches, drop);
            }
        }
    }

    fn own_v6(&self) -> Vec<IpNet> {
        let v6 = self
            .endpoint
            .addresses
            .iter()
            .copied()
            .filter(IpAddr::is_ipv6);
        v6.map(IpNet::from).collect()
    }
}

/// fe80::/10.
pub(super) fn link_local() -> IpNet {
    let prefix = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    Ipv6Net::new_assert(prefix, 10).into()
}

fn unspecified() -> IpNet {
    Ipv6Net::from(std::net::Ipv6Addr::UNSPECIFIED).into()
}
