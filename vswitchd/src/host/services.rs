//! Leads what is addressed to Services from the node's own stack into the switch.
//!
//! Routes for addresses, translation for NodePorts, which have addresses of the node itself:
//! both end at the gateway TAP, behind which the switch chooses an endpoint. The hooks come
//! after those of kube-proxy: where that serves NodePorts too, it goes on doing so. Blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_api::IfName;

use super::NftTable;
use super::netlink::{self, NetlinkError, Route, Session};
use super::nft::{self, NftError};
use crate::rules::{VirtualAddresses, virtual_addresses};

/// IP protocols that have ports, with their names in rules.
const PROTOCOLS: [(u8, &str); 3] = [(6, "tcp"), (17, "udp"), (132, "sctp")];

/// Priority of the hooks: kube-proxy's are at -100 (`dstnat`).
const AFTER_KUBE_PROXY: i32 = -90;

/// What has to be led into the switch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steered {
    /// Networks and addresses of Services.
    pub routes: BTreeSet<IpNet>,
    /// NodePorts, by IP protocol and number.
    pub node_ports: BTreeSet<(u8, u16)>,
}

/// Steering that failed.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// A route.
    #[error("routes to services")]
    Routes {
        /// Cause.
        #[from]
        source: NetlinkError,
    },
    /// A rule.
    #[error("rules for NodePorts")]
    Rules {
        /// Cause.
        #[from]
        source: NftError,
    },
    /// The gateway is not there.
    #[error("there is no interface {ifname}")]
    NoGateway {
        /// Its name.
        ifname: IfName,
    },
}

/// The steering of one daemon.
#[derive(Debug, Clone)]
pub struct ServiceSteering {
    table: String,
    gateway_ifname: IfName,
    families: Vec<VirtualAddresses>,
}

impl ServiceSteering {
    /// Returns the steering into the TAP that has these addresses. Rules are in a table of
    /// their own, named after `table`.
    #[must_use]
    pub fn new(table: &NftTable, gateway_ifname: IfName, gateway_addresses: &[IpAddr]) -> Self {
        let families = gateway_addresses.iter().map(|ip| virtual_addresses(*ip));
        Self {
            table: table_name(table),
            gateway_ifname,
            families: families.collect(),
        }
    }

    /// Brings routes and rules in line with what is wanted; does nothing where they are.
    ///
    /// # Errors
    /// [`SteeringError`]; a repetition goes on where this ended.
    pub fn apply(&self, wanted: &Steered) -> Result<(), SteeringError> {
        self.set_routes(wanted)?;
        nft::apply("lead NodePorts into the switch", &self.ruleset(wanted)?)?;
        Ok(())
    }

    /// Returns whether rules and routes are still there.
    ///
    /// # Errors
    /// [`SteeringError`].
    pub fn is_installed(&self, wanted: &Steered) -> Result<bool, SteeringError> {
        let chains = nft::chains(&format!("inet {}", self.table))?;
        let present: BTreeSet<IpNet> = self.own_routes()?.into_keys().collect();
        Ok(chains.is_some() && present == self.routes(wanted).into_keys().collect())
    }

    /// Removes the rules; routes go with the gateway TAP.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn remove(table: &NftTable) -> Result<(), NftError> {
        let removal = removal(&table_name(table));
        nft::apply("remove rules for NodePorts", &removal)
    }

    /// Returns the wanted routes with their next hops; the next hop is on the link.
    fn routes(&self, wanted: &Steered) -> BTreeMap<IpNet, Option<IpAddr>> {
        let mut routes = BTreeMap::new();
        for family in &self.families {
            let hairpin = family.hairpin;
            routes.insert(IpNet::from(hairpin), None);
            routes.insert(IpNet::from(family.node_port), Some(hairpin));
            let is_of_family = |net: &&IpNet| net.addr().is_ipv4() == hairpin.is_ipv4();
            for net in wanted.routes.iter().filter(is_of_family) {
                // The ways to the switch itself are nobody else's.
                routes.entry(net.trunc()).or_insert(Some(hairpin));
            }
        }
        routes
    }

    /// Returns the routes that are this steering's.
    fn own_routes(&self) -> Result<BTreeMap<IpNet, Route>, SteeringError> {
        let routes = netlink::in_host(async |host: Session| {
            let Some(link) = host.link(self.gateway_ifname.as_str()).await? else {
                return Err(self.no_gateway());
            };
            let mut routes = host.routes().await?;
            routes.retain(|route| route.index == Some(link.index));
            Ok(routes)
        })?;
        let hairpins: Vec<IpAddr> = self.families.iter().map(|family| family.hairpin).collect();
        let is_own = |route: &Route| {
            route
                .gateway
                .is_some_and(|gateway| hairpins.contains(&gateway))
                || hairpins
                    .iter()
                    .any(|ip| IpNet::from(*ip) == route.destination)
        };
        let own = routes.into_iter().filter(is_own);
        Ok(own.map(|route| (route.destination, route)).collect())
    }

    fn no_gateway(&self) -> SteeringError {
        SteeringError::NoGateway {
            ifname: self.gateway_ifname.clone(),
        }
    }

    fn set_routes(&self, wanted: &Steered) -> Result<(), SteeringError> {
        let wanted = self.routes(wanted);
        let present = self.own_routes()?;
        netlink::in_host(async |host: Session| {
            let Some(link) = host.link(self.gateway_ifname.as_str()).await? else {
                return Err(self.no_gateway());
            };
            for route in present.values() {
                if !wanted.contains_key(&route.destination) {
                    host.delete_route(&link, route.destination, route.gateway)
                        .await?;
                }
            }
            // Next hops first: without one a route through it is refused.
            let (hops, others): (Vec<_>, Vec<_>) =
                wanted.iter().partition(|(_, via)| via.is_none());
            for (destination, via) in hops.into_iter().chain(others) {
                if !present.contains_key(destination) {
                    host.add_route(&link, *destination, *via).await?;
                }
            }
            Ok(())
        })
    }

    fn ruleset(&self, wanted: &Steered) -> Result<String, NftError> {
        let gateway = nft::quoted(&self.gateway_ifname)?;
        let (mut arriving, mut own, mut leaving) = (String::new(), String::new(), String::new());
        for family in &self.families {
            let (l3, loopback) = match family.hairpin {
                IpAddr::V4(_) => ("ip", "127.0.0.0/8"),
                IpAddr::V6(_) => ("ip6", "::1"),
            };
            for (number, name) in PROTOCOLS {
                let of_protocol = wanted
                    .node_ports
                    .iter()
                    .filter(|(proto, _)| *proto == number);
                let ports: Vec<String> = of_protocol.map(|(_, port)| port.to_string()).collect();
                if ports.is_empty() {
                    continue;
                }
                let steer = format!(
                    "{l3} daddr != {loopback} fib daddr type local {name} dport {{ {} }} \
                     counter dnat {l3} to {}\n",
                    ports.join(", "),
                    family.node_port
                );
                arriving += &steer;
                own += &steer;
            }
            let masquerade = format!("{l3} saddr {} counter masquerade\n", family.hairpin);
            leaving += &masquerade;
        }
        let mut text = removal(&self.table);
        let _never_fails = write!(
            text,
            "table inet {table} {{\n\
             chain prerouting {{\n\
             type nat hook prerouting priority {AFTER_KUBE_PROXY}; policy accept;\n\
             iifname {gateway} return\n{arriving}}}\n\
             chain output {{\n\
             type nat hook output priority {AFTER_KUBE_PROXY}; policy accept;\n{own}}}\n\
             chain postrouting {{\n\
             type nat hook postrouting priority srcnat; policy accept;\n\
             oifname {gateway} return\n{leaving}}}\n}}\n",
            table = self.table,
        );
        Ok(text)
    }
}

fn table_name(table: &NftTable) -> String {
    format!("{table}_services")
}

fn removal(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_new_netns, run};
    use super::*;

    fn steered(routes: &[&str], node_ports: &[(u8, u16)]) -> Steered {
        Steered {
            routes: routes.iter().map(|text| text.parse().unwrap()).collect(),
            node_ports: node_ports.iter().copied().collect(),
        }
    }

    #[test]
    fn routes_and_rules_follow_what_is_wanted_and_leave_others_alone() {
        in_new_netns(|| {
            run(
                "ip tuntap add vsw0 mode tap; ip addr add 10.244.0.1/24 dev vsw0
                 ip -6 addr add fd00::1/64 dev vsw0 nodad; ip link set vsw0 up
                 ip route add 198.51.100.0/24 dev vsw0; nft add table ip nat",
            )
            .unwrap();
            let table = NftTable::default();
            let gateway = ["10.244.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
            let steering = ServiceSteering::new(&table, "vsw0".parse().unwrap(), &gateway);
            let first = steered(
                &["10.96.0.0/16", "fd96::/112"],
                &[(6, 30_080), (17, 30_053)],
            );
            assert!(!steering.is_installed(&first).unwrap());
            steering.apply(&first).unwrap();
            assert!(steering.is_installed(&first).unwrap());
            let routes = run("ip route; ip -6 route").unwrap();
            assert!(
                routes.contains("10.96.0.0/16 via 169.254.86.1 dev vsw0"),
                "{routes}"
            );
            assert!(routes.contains("fd96::/112 via fd56:"), "{routes}");
            let rules = run("nft list table inet vswitch_services").unwrap();
            assert!(
                rules.contains("tcp dport 30080") || rules.contains("tcp dport { 30080 }"),
                "{rules}"
            );

            let second = steered(&["203.0.113.7/32", "169.254.86.1/32"], &[]);
            steering.apply(&second).unwrap();
            let routes = run("ip route; ip -6 route").unwrap();
            assert!(
                !routes.contains("10.96.0.0") && !routes.contains("fd96"),
                "{routes}"
            );
            assert!(routes.contains("203.0.113.7 via 169.254.86.1"), "{routes}");
            assert!(routes.contains("198.51.100.0/24 dev vsw0"), "{routes}");
            assert!(!run("nft list ruleset").unwrap().contains("30080"));

            run("ip route del 203.0.113.7").unwrap();
            assert!(!steering.is_installed(&second).unwrap());
            steering.apply(&second).unwrap();
            assert!(steering.is_installed(&second).unwrap());
            ServiceSteering::remove(&table).unwrap();
            ServiceSteering::remove(&table).unwrap();
            let rules = run("nft list ruleset").unwrap();
            assert!(
                !rules.contains("vswitch") && rules.contains("table ip nat"),
                "{rules}"
            );
        });
    }

    #[test]
    fn without_its_gateway_it_says_so() {
        in_new_netns(|| {
            let gateway = ["10.244.0.1".parse().unwrap()];
            let ifname = "vsw0".parse().unwrap();
            let steering = ServiceSteering::new(&NftTable::default(), ifname, &gateway);
            let error = steering.apply(&Steered::default()).unwrap_err();
            assert_eq!(error.to_string(), "there is no interface vsw0");
        });
    }
}
