//! Routes and nftables rules that lead traffic of the node's own stack to Services and host ports
//! into the switch.
//!
//! Routes for addresses; translation for NodePorts and host ports, which have addresses of the
//! node itself. All end at the gateway TAP: behind it the switch chooses an endpoint of a
//! Service, a host port is translated into its pod's address here. The hooks come after those
//! of kube-proxy and of the CNI plugin portmap: what they translate stays theirs. Blocks.
//!
//! The kernel goes on with what it has decided for a connection: entries of ports that come or go
//! are forgotten, where the next packet is to be the first one again.
//!
//! Two guards go with it, since a detour through the node's stack would cost a pod's packet
//! its identity. What came out of the switch never goes back into it: whoever translated it
//! on the way (portmap with `snat`, say) may have given it the node's address, which every pod
//! admits. And nothing from behind the gateway has a loopback address as its destination, which
//! `route_localnet` would let in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use vswitch_api::IfName;
use vswitch_datapath::flow::ip_proto;

use super::NftTable;
use super::conntrack::{self, ConntrackError, TrackedConnection};
use super::netlink::{self, NetlinkError, Route, Session};
use super::nft::{self, NftError};
use super::sysctl::{self, SysctlError};
use crate::rules::{VirtualAddresses, virtual_addresses};
use crate::service::HostPortForward;

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
    /// Host ports of containers.
    pub host_ports: BTreeSet<HostPortForward>,
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
    #[error("rules for NodePorts and host ports")]
    Rules {
        /// Cause.
        #[from]
        source: NftError,
    },
    /// What the node's kernel has decided already.
    #[error("have connections to ports that came or went start anew")]
    Conntrack {
        /// Cause.
        #[from]
        source: ConntrackError,
    },
    /// The node's addresses.
    #[error("list the node's addresses")]
    Addresses {
        /// Cause.
        source: std::io::Error,
    },
    /// The way of the node's own connections to a host port on 127.0.0.1.
    #[error("let connections to host ports on loopback addresses through the gateway")]
    Loopback {
        /// Cause.
        #[from]
        source: SysctlError,
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
    pod_cidrs: Vec<IpNet>,
}

impl ServiceSteering {
    /// Returns the steering into the TAP that has these addresses, behind which pods of these
    /// networks are. Rules are in a table of their own, named after `table`.
    #[must_use]
    pub fn new(
        table: &NftTable,
        gateway_ifname: IfName,
        gateway_addresses: &[IpAddr],
        pod_cidrs: &[IpNet],
    ) -> Self {
        let families = gateway_addresses.iter().map(|ip| virtual_addresses(*ip));
        Self {
            table: table_name(table),
            gateway_ifname,
            families: families.collect(),
            pod_cidrs: pod_cidrs.to_vec(),
        }
    }

    /// Brings routes and rules in line with what is wanted; does nothing where they are. `before`
    /// is what was in place last, if that is known. Returns what failed: that keeps nothing else
    /// from being installed, and a repetition tries it again.
    #[must_use]
    pub fn apply(&self, before: Option<&Steered>, wanted: &Steered) -> Vec<SteeringError> {
        let mut failed = self.set_routes(wanted).unwrap_or_else(|error| vec![error]);
        match self.set_rules(wanted) {
            Ok(()) => failed.extend(self.forget_others(before, wanted).err()),
            Err(error) => failed.push(error),
        }
        failed
    }

    /// Has the kernel forget what it decided for ports that have come or gone. Behind the rules:
    /// the next packet is judged by them.
    fn forget_others(
        &self,
        before: Option<&Steered>,
        wanted: &Steered,
    ) -> Result<(), SteeringError> {
        let ports = |steered: &Steered| (steered.node_ports.clone(), steered.host_ports.clone());
        if before.is_some_and(|before| ports(before) == ports(wanted)) {
            return Ok(());
        }
        let staleness = Staleness {
            before,
            wanted,
            pod_cidrs: &self.pod_cidrs,
            own: own_addresses()?,
            switch: self
                .families
                .iter()
                .map(|family| family.node_port)
                .collect(),
        };
        let forgotten = conntrack::forget(|connection| staleness.is_stale(connection))?;
        if forgotten > 0 {
            tracing::info!(
                forgotten,
                "connection tracking entries of NodePorts and host ports that came or went deleted"
            );
        }
        Ok(())
    }

    fn set_rules(&self, wanted: &Steered) -> Result<(), SteeringError> {
        let ruleset = self.ruleset(wanted)?;
        nft::apply("lead NodePorts and host ports into the switch", &ruleset)?;
        // Behind the rules, one of which keeps others' packets to loopback addresses out.
        let has_host_port = wanted.host_ports.iter().any(|port| port.to.is_ipv4());
        let key = format!("net/ipv4/conf/{}/route_localnet", self.gateway_ifname);
        sysctl::write(&key, if has_host_port { "1" } else { "0" })?;
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

    /// Returns the routes that could not be set or removed.
    fn set_routes(&self, wanted: &Steered) -> Result<Vec<SteeringError>, SteeringError> {
        let wanted = self.routes(wanted);
        let present = self.own_routes()?;
        netlink::in_host(async |host: Session| {
            let Some(link) = host.link(self.gateway_ifname.as_str()).await? else {
                return Err(self.no_gateway());
            };
            let mut failed = Vec::new();
            for route in present.values() {
                if !wanted.contains_key(&route.destination) {
                    let gone = host.delete_route(&link, route.destination, route.gateway);
                    failed.extend(gone.await.err());
                }
            }
            // Next hops first: without one a route through it is refused.
            let (hops, others): (Vec<_>, Vec<_>) =
                wanted.iter().partition(|(_, via)| via.is_none());
            for (destination, via) in hops.into_iter().chain(others) {
                if !present.contains_key(destination) {
                    failed.extend(host.add_route(&link, *destination, *via).await.err());
                }
            }
            Ok(failed.into_iter().map(SteeringError::from).collect())
        })
    }

    fn ruleset(&self, wanted: &Steered) -> Result<String, NftError> {
        let gateway = nft::quoted(&self.gateway_ifname)?;
        let (mut arriving, mut own, mut masqueraded) =
            (String::new(), String::new(), String::new());
        for family in &self.families {
            let node_ports = node_port_rules(family, &wanted.node_ports);
            arriving += &node_ports;
            own += &node_ports;
            let is_ipv4 = family.hairpin.is_ipv4();
            let of_family = |port: &&HostPortForward| port.to.is_ipv4() == is_ipv4;
            for port in wanted.host_ports.iter().filter(of_family) {
                arriving += &host_port_rule(port, false);
                own += &host_port_rule(port, true);
            }
            let l3 = l3_name(is_ipv4);
            masqueraded += &format!("{l3} saddr {} counter masquerade\n", family.hairpin);
        }
        let mut text = removal(&self.table);
        let _never_fails = write!(
            text,
            "table inet {table} {{\n\
             chain guard {{\n\
             type filter hook prerouting priority raw; policy accept;\n\
             iifname {gateway} ip daddr 127.0.0.0/8 counter drop\n}}\n\
             chain prerouting {{\n\
             type nat hook prerouting priority {AFTER_KUBE_PROXY}; policy accept;\n\
             iifname {gateway} return\n{arriving}}}\n\
             chain output {{\n\
             type nat hook output priority {AFTER_KUBE_PROXY}; policy accept;\n{own}}}\n\
             chain forward {{\n\
             type filter hook forward priority filter; policy accept;\n\
             iifname {gateway} oifname {gateway} counter drop\n}}\n\
             chain postrouting {{\n\
             type nat hook postrouting priority srcnat; policy accept;\n\
             oifname {gateway} ip saddr 127.0.0.0/8 counter masquerade\n\
             oifname {gateway} return\n{masqueraded}}}\n}}\n",
            table = self.table,
        );
        Ok(text)
    }
}

/// Tells what the kernel should no longer do with a connection.
struct Staleness<'a> {
    /// What was in place last; `None`: what another process left, whose host ports are not known.
    before: Option<&'a Steered>,
    wanted: &'a Steered,
    /// Networks of the node's pods.
    pod_cidrs: &'a [IpNet],
    /// Addresses of the node.
    own: BTreeSet<IpAddr>,
    /// Where NodePorts are led to.
    switch: Vec<IpAddr>,
}

impl Staleness<'_> {
    /// As in the switch: UDP has no end, its next datagram is the first one of another connection.
    /// What was answered of other protocols is a conversation, and goes on.
    fn is_stale(&self, connection: &TrackedConnection) -> bool {
        let TrackedConnection {
            proto,
            to,
            answered_by,
            is_answered,
        } = *connection;
        if is_answered && proto != ip_proto::UDP {
            return false;
        }
        if self.switch.contains(&answered_by.ip()) {
            return !self.wanted.node_ports.contains(&(proto, to.port()));
        }
        if answered_by == to {
            return self.own.contains(&to.ip()) && self.is_led(proto, to);
        }
        let is_port = |port: &HostPortForward| {
            (port.proto, port.port, port.to) == (proto, to.port(), answered_by)
        };
        let was_led = match self.before {
            Some(before) => before.host_ports.iter().any(is_port),
            // Or by a plugin behind ours, which leads the next datagram to the same place.
            None => {
                let is_pod = |net: &IpNet| net.contains(&answered_by.ip());
                self.own.contains(&to.ip()) && self.pod_cidrs.iter().any(is_pod)
            }
        };
        was_led && !self.wanted.host_ports.iter().any(is_port)
    }

    /// Returns whether the rules lead the first packet of a connection elsewhere.
    fn is_led(&self, proto: u8, to: SocketAddr) -> bool {
        let is_node_port = self.wanted.node_ports.contains(&(proto, to.port()));
        let leads = |port: &HostPortForward| {
            (port.proto, port.port) == (proto, to.port())
                && port.to.is_ipv4() == to.is_ipv4()
                && port.ip.is_none_or(|ip| ip == to.ip())
        };
        (is_node_port && !to.ip().is_loopback()) || self.wanted.host_ports.iter().any(leads)
    }
}

/// Returns the addresses of the node's interfaces.
fn own_addresses() -> Result<BTreeSet<IpAddr>, SteeringError> {
    let list = nix::ifaddrs::getifaddrs().map_err(|errno| SteeringError::Addresses {
        source: errno.into(),
    })?;
    let ip = |address: &nix::sys::socket::SockaddrStorage| {
        let v4 = || address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4().or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    let addresses = list.filter_map(|interface| interface.address);
    Ok(addresses.filter_map(|address| ip(&address)).collect())
}

const fn l3_name(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "ip" } else { "ip6" }
}

/// Sends what is addressed to NodePorts to the switch, port unchanged.
fn node_port_rules(family: &VirtualAddresses, node_ports: &BTreeSet<(u8, u16)>) -> String {
    let (l3, loopback) = match family.hairpin {
        IpAddr::V4(_) => ("ip", "127.0.0.0/8"),
        IpAddr::V6(_) => ("ip6", "::1"),
    };
    let mut rules = String::new();
    for (number, name) in PROTOCOLS {
        let of_protocol = node_ports.iter().filter(|(proto, _)| *proto == number);
        let ports: Vec<String> = of_protocol.map(|(_, port)| port.to_string()).collect();
        if !ports.is_empty() {
            rules += &format!(
                "{l3} daddr != {loopback} fib daddr type local {name} dport {{ {} }} \
                 counter dnat {l3} to {}\n",
                ports.join(", "),
                family.node_port
            );
        }
    }
    rules
}

/// Translates a host port into its pod's address and port. On loopback addresses only the
/// node's own connections can be led on, and of IPv4 only: the kernel routes `::1` nowhere.
fn host_port_rule(port: &HostPortForward, is_own: bool) -> String {
    let l3 = l3_name(port.to.is_ipv4());
    let protocol = PROTOCOLS.iter().find(|(number, _)| *number == port.proto);
    let destination = match (port.ip, port.to.is_ipv4()) {
        (Some(ip), _) => format!("{l3} daddr {ip} "),
        (None, true) if is_own => String::new(),
        (None, true) => "ip daddr != 127.0.0.0/8 ".to_owned(),
        (None, false) => "ip6 daddr != ::1 ".to_owned(),
    };
    protocol.map_or_else(String::new, |(_, name)| {
        format!(
            "{destination}fib daddr type local {name} dport {} counter dnat {l3} to {}\n",
            port.port, port.to
        )
    })
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
            host_ports: BTreeSet::new(),
        }
    }

    fn host_port(ip: Option<&str>, port: u16, to: &str) -> HostPortForward {
        HostPortForward {
            proto: 6,
            ip: ip.map(|ip| ip.parse().unwrap()),
            port,
            to: to.parse().unwrap(),
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
            let steering = ServiceSteering::new(&table, "vsw0".parse().unwrap(), &gateway, &[]);
            let first = steered(
                &["10.96.0.0/16", "fd96::/112"],
                &[(6, 30_080), (17, 30_053)],
            );
            assert!(!steering.is_installed(&first).unwrap());
            assert!(steering.apply(None, &first).is_empty());
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
            assert!(steering.apply(None, &second).is_empty());
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
            assert!(steering.apply(None, &second).is_empty());
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
    fn host_ports_are_translated_and_nothing_comes_back_by_the_gateway() {
        in_new_netns(|| {
            run(
                "ip tuntap add vsw0 mode tap; ip addr add 10.244.0.1/24 dev vsw0
                 ip -6 addr add fd00::1/64 dev vsw0 nodad; ip link set vsw0 up",
            )
            .unwrap();
            let gateway = ["10.244.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
            let ifname = "vsw0".parse().unwrap();
            let steering = ServiceSteering::new(&NftTable::default(), ifname, &gateway, &[]);
            let lets_loopback_through = || run("cat /proc/sys/net/ipv4/conf/vsw0/route_localnet");
            let mut wanted = Steered {
                host_ports: BTreeSet::from([
                    host_port(None, 8080, "10.244.0.2:80"),
                    host_port(None, 8080, "[fd00::2]:80"),
                    host_port(Some("127.0.0.1"), 8081, "10.244.0.3:81"),
                ]),
                ..Steered::default()
            };
            assert!(steering.apply(None, &wanted).is_empty());
            let rules = run("nft list table inet vswitch_services").unwrap();
            let rules = rules.replace("counter packets 0 bytes 0 ", "");
            for (rule, times) in [
                ("tcp dport 8080 dnat ip to 10.244.0.2:80", 2),
                (
                    "ip daddr != 127.0.0.0/8 fib daddr type local tcp dport 8080 dnat ip to",
                    1,
                ),
                ("tcp dport 8080 dnat ip6 to [fd00::2]:80", 2),
                (
                    "ip daddr 127.0.0.1 fib daddr type local tcp dport 8081 dnat ip to 10.244.0.3:81",
                    2,
                ),
                ("iifname \"vsw0\" ip daddr 127.0.0.0/8 drop", 1),
                ("iifname \"vsw0\" oifname \"vsw0\" drop", 1),
            ] {
                assert_eq!(rules.matches(rule).count(), times, "{rule}: {rules}");
            }
            assert_eq!(lets_loopback_through().unwrap().trim(), "1");
            wanted.host_ports.clear();
            assert!(steering.apply(None, &wanted).is_empty());
            assert_eq!(lets_loopback_through().unwrap().trim(), "0");
        });
    }

    #[test]
    fn a_route_that_is_refused_keeps_nothing_else_out() {
        in_new_netns(|| {
            run(
                "ip tuntap add vsw0 mode tap; ip addr add 10.244.0.1/24 dev vsw0
                 ip link set vsw0 up; ip tuntap add other mode tap; ip link set other up
                 ip route add 10.96.0.0/16 dev other",
            )
            .unwrap();
            let gateway = ["10.244.0.1".parse().unwrap()];
            let ifname = "vsw0".parse().unwrap();
            let steering = ServiceSteering::new(&NftTable::default(), ifname, &gateway, &[]);
            // The kernel takes no second route to the same network.
            let wanted = steered(&["10.96.0.0/16", "203.0.113.7/32"], &[(6, 30_080)]);
            let failed = steering.apply(None, &wanted);
            assert_eq!(failed.len(), 1, "{failed:?}");
            assert!(!steering.is_installed(&wanted).unwrap());
            let rules = run("nft list table inet vswitch_services").unwrap();
            assert!(rules.contains("30080"), "{rules}");
            let routes = run("ip route").unwrap();
            assert!(routes.contains("203.0.113.7 via 169.254.86.1"), "{routes}");
            run("ip route del 10.96.0.0/16 dev other").unwrap();
            assert!(steering.apply(None, &wanted).is_empty());
            assert!(steering.is_installed(&wanted).unwrap());
        });
    }

    #[test]
    fn without_its_gateway_it_says_so() {
        in_new_netns(|| {
            let gateway = ["10.244.0.1".parse().unwrap()];
            let ifname = "vsw0".parse().unwrap();
            let steering = ServiceSteering::new(&NftTable::default(), ifname, &gateway, &[]);
            let failed = steering.apply(None, &Steered::default());
            assert_eq!(failed[0].to_string(), "there is no interface vsw0");
        });
    }
}
