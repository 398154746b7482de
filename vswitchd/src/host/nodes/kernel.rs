//! Brings the kernel in line with a plan: rules first, then tunnels, their entries, routes.
//!
//! Compares with what the kernel has and touches only what is the switch's: its devices by
//! name and kind, entries on them, routes with its protocol number, its table. What fails is
//! told, and does not keep the rest from being done; repeating goes on where it ended. Blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::InfoKind;
use rtnetlink::LinkUnspec;
use vswitch_api::{IfName, MacAddr};

use super::filter::{self, NODE_DROPS, NodeDrop, SeenAt};
use super::plan::{NodePlan, Tunnel};
use super::spec::{NodesSpec, tunnel_ifnames};
use crate::config::Backend;
use crate::host::netlink::{self, Link, NetlinkError, OwnRoute, Session, Vxlan};
use crate::host::nft::{self, NftError};
use crate::host::{NftTable, SysctlError, sysctl};

/// Something of the way to other nodes that could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum NodeNetworkError {
    /// A request to the kernel.
    #[error("network between nodes")]
    Netlink {
        /// Cause.
        #[from]
        source: NetlinkError,
    },
    /// Rules.
    #[error("rules for what comes from other nodes")]
    Nft {
        /// Cause.
        #[from]
        source: NftError,
    },
    /// A sysctl of a tunnel device.
    #[error("configure tunnel device")]
    Sysctl {
        /// Cause.
        #[from]
        source: SysctlError,
    },
    /// A link has the name of a tunnel, but is of another kind.
    #[error("{ifname} is no VXLAN device; left alone")]
    NotVxlan {
        /// Its name.
        ifname: IfName,
    },
}

/// The way to other nodes of one daemon.
#[derive(Debug)]
pub struct NodeNetwork {
    spec: NodesSpec,
    table: String,
    /// Where nodes on a common link were seen last: an entry that the kernel forgets does not
    /// shut a node out.
    seen: BTreeMap<IpAddr, SeenAt>,
    /// The rules that are installed; empty for none, `None` before the first look.
    ruleset: Option<String>,
}

/// How the way to other nodes is, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeNetworkStatus {
    /// Name of the backend.
    pub backend: &'static str,
    /// Pods' networks of other nodes that are reached.
    pub networks: usize,
    /// What keeps others from being reached.
    pub problems: Vec<String>,
    /// Packets dropped.
    pub drops: Vec<(NodeDrop, u64)>,
}

impl NodeNetwork {
    /// Returns the network that keeps its rules in a table named after `table`; nothing is
    /// done yet.
    #[must_use]
    pub fn new(spec: NodesSpec, table: &NftTable) -> Self {
        Self {
            spec,
            table: filter::table_name(table),
            seen: BTreeMap::new(),
            ruleset: None,
        }
    }

    /// Brings everything in line with the plan; returns what could not be.
    pub fn apply(&mut self, plan: &NodePlan) -> Vec<NodeNetworkError> {
        let mut problems = Vec::new();
        if let Err(error) = self.see_next_hops(plan) {
            problems.push(error.into());
        }
        // Before the routes: what they bring answers from is checked from the first packet on.
        if let Err(error) = self.set_rules(plan) {
            problems.push(error.into());
        }
        let spec = &self.spec;
        let applied = netlink::in_host(async |host: Session| {
            let mut done = Applied::default();
            done.tunnels(&host, spec, plan).await;
            done.routes(&host, plan).await?;
            Ok::<_, NodeNetworkError>(done.problems)
        });
        match applied {
            Ok(more) => problems.extend(more),
            Err(error) => problems.push(error),
        }
        problems
    }

    /// Returns whether the rules are in force: a `flush ruleset` of somebody else takes them.
    ///
    /// # Errors
    /// [`NftError`].
    fn has_rules(&self) -> Result<bool, NftError> {
        let chains = nft::chains(&format!("inet {}", self.table))?.unwrap_or_default();
        Ok(chains.iter().filter(|chain| chain.hook.is_some()).count() == 2)
    }

    fn set_rules(&mut self, plan: &NodePlan) -> Result<(), NftError> {
        // Where somebody else sees to the way, it is not known which source comes from where.
        let is_wanted = !plan.networks.is_empty() && self.spec.backend != Backend::None;
        let ruleset = if is_wanted {
            filter::ruleset(&self.table, &self.spec, plan, &self.seen)?
        } else {
            String::new()
        };
        let is_same = self.ruleset.as_ref() == Some(&ruleset);
        if is_same && (!is_wanted || self.has_rules()?) {
            return Ok(());
        }
        // Rules of an earlier run, perhaps of another version, go with their counters.
        let is_first = self.ruleset.as_ref().is_none_or(String::is_empty);
        let removal = if is_first || !is_wanted {
            filter::removal(&self.table)
        } else {
            String::new()
        };
        nft::apply("install rules for other nodes", &(removal + &ruleset))?;
        self.ruleset = Some(ruleset);
        Ok(())
    }

    /// Looks where nodes on a common link are, and asks for those that are not known.
    fn see_next_hops(&mut self, plan: &NodePlan) -> Result<(), NetlinkError> {
        let next_hops: BTreeSet<IpAddr> = plan.next_hops.values().copied().collect();
        self.seen.retain(|ip, _| next_hops.contains(ip));
        if next_hops.is_empty() {
            return Ok(());
        }
        let seen = &mut self.seen;
        netlink::in_host(async |host: Session| {
            let links = host.links().await?;
            for neighbour in host.neighbours().await? {
                let link = links.iter().find(|link| link.index == neighbour.index);
                let ifname = link.and_then(|link| link.ifname.parse().ok());
                if let Some(ifname) = ifname.filter(|_| next_hops.contains(&neighbour.ip)) {
                    let mac = neighbour.mac;
                    seen.insert(neighbour.ip, SeenAt { ifname, mac });
                }
            }
            let routes = host.own_routes().await?;
            for ip in next_hops.iter().filter(|ip| !seen.contains_key(ip)) {
                let route = routes.iter().find(|route| route.gateway == *ip);
                if let Some(index) = route.and_then(|route| route.index) {
                    host.solicit(index, *ip).await?;
                }
            }
            Ok(())
        })
    }

    /// Returns whether all nodes on a common link have been seen.
    #[must_use]
    pub fn sees_all(&self, plan: &NodePlan) -> bool {
        plan.next_hops.values().all(|ip| self.seen.contains_key(ip))
    }

    /// Returns what was dropped, by reason, since the rules were first installed.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn drops(&self) -> Result<Vec<(NodeDrop, u64)>, NftError> {
        if self.ruleset.as_ref().is_none_or(String::is_empty) {
            return Ok(Vec::new());
        }
        let counters = nft::counters(&format!("inet {}", self.table))?;
        let count = |reason: &NodeDrop| {
            let counter = counters.iter().find(|(name, _)| name == reason.name());
            counter.map(|(_, packets)| (*reason, *packets))
        };
        Ok(NODE_DROPS.iter().filter_map(count).collect())
    }

    /// Removes everything of a daemon with these names, also of one that is gone; returns what
    /// could not be.
    #[must_use = "problems need to be told"]
    pub fn remove(tunnel: &IfName, table: &NftTable) -> Vec<NodeNetworkError> {
        let removed = netlink::in_host(async |host: Session| {
            let mut done = Applied::default();
            let ours = tunnel_ifnames(tunnel).map(|(_, ifname)| ifname);
            done.delete_tunnels(&host, &ours).await;
            done.routes(&host, &NodePlan::default()).await?;
            Ok::<_, NodeNetworkError>(done.problems)
        });
        let mut problems = removed.unwrap_or_else(|error| vec![error]);
        let rules = filter::removal(&filter::table_name(table));
        let removed = nft::apply("remove rules for other nodes", &rules);
        problems.extend(removed.err().map(NodeNetworkError::from));
        problems
    }
}

/// One round of changes, with what failed in it.
#[derive(Debug, Default)]
struct Applied {
    /// Tunnel devices that are in place.
    links: BTreeMap<IfName, Link>,
    problems: Vec<NodeNetworkError>,
}

impl Applied {
    fn note(&mut self, outcome: Result<(), NetlinkError>) {
        self.problems
            .extend(outcome.err().map(NodeNetworkError::from));
    }

    async fn tunnels(&mut self, host: &Session, spec: &NodesSpec, plan: &NodePlan) {
        let unused: Vec<IfName> = tunnel_ifnames(&spec.vxlan.ifname)
            .map(|(_, ifname)| ifname)
            .into_iter()
            .filter(|ifname| plan.tunnels.iter().all(|tunnel| tunnel.ifname != *ifname))
            .collect();
        self.delete_tunnels(host, &unused).await;
        for tunnel in &plan.tunnels {
            match set_device(host, tunnel).await {
                Ok(link) => {
                    self.addresses(host, &link, tunnel).await;
                    self.entries(host, &link, tunnel).await;
                    self.links.insert(tunnel.ifname.clone(), link);
                }
                Err(problem) => self.problems.push(problem),
            }
        }
    }

    async fn delete_tunnels(&mut self, host: &Session, ifnames: &[IfName]) {
        for ifname in ifnames {
            match host.link(ifname.as_str()).await {
                Ok(Some(link)) if link.kind == Some(InfoKind::Vxlan) => {
                    let deleted = host.delete_link(&link).await;
                    self.note(deleted);
                }
                // A device of that name which the switch does not need is none of its business.
                Ok(_) => {}
                Err(error) => self.note(Err(error)),
            }
        }
    }

    async fn addresses(&mut self, host: &Session, link: &Link, tunnel: &Tunnel) {
        for address in &tunnel.addresses {
            let added = host.add_address(link, *address).await;
            self.note(added);
        }
        let present = host.addresses(Some(link.index)).await;
        let present = present.unwrap_or_else(|error| {
            self.note(Err(error));
            Vec::new()
        });
        for (stale, scope) in present {
            if scope == AddressScope::Universe && !tunnel.addresses.contains(&stale) {
                let deleted = host.delete_address(link, stale).await;
                self.note(deleted);
            }
        }
    }

    /// Forwarding entries and neighbours of one device.
    async fn entries(&mut self, host: &Session, link: &Link, tunnel: &Tunnel) {
        let outcome = set_forwarding_entries(host, link, tunnel).await;
        self.note(outcome);
        let outcome = set_neighbours(host, link, tunnel).await;
        self.note(outcome);
    }

    /// Routes of ours: those of the plan, and no others.
    async fn routes(&mut self, host: &Session, plan: &NodePlan) -> Result<(), NetlinkError> {
        let mut wanted: BTreeMap<IpNet, (IpAddr, Option<&Link>)> = BTreeMap::new();
        for tunnel in &plan.tunnels {
            // A device that failed was told of; its routes would lead elsewhere.
            if let Some(link) = self.links.get(&tunnel.ifname) {
                let through = |cidr: &IpNet| (*cidr, (cidr.network(), Some(link)));
                wanted.extend(tunnel.networks.keys().map(through));
            }
        }
        let next_hops = plan.next_hops.iter();
        wanted.extend(next_hops.map(|(cidr, next_hop)| (*cidr, (*next_hop, None))));
        let mut problems = Vec::new();
        let foreign = foreign_devices(host, &self.links).await?;
        let mut present = BTreeSet::new();
        for route in host.own_routes().await? {
            if route.index.is_some_and(|index| foreign.contains(&index)) {
                continue;
            }
            if is_wanted(&route, &wanted) {
                present.insert(route.destination);
            } else {
                problems.extend(host.delete_own_route(&route).await.err());
            }
        }
        for (destination, (gateway, link)) in &wanted {
            if !present.contains(destination) {
                let added = host.add_own_route(*destination, *gateway, *link).await;
                problems.extend(added.err());
            }
        }
        self.problems.extend(problems.into_iter().map(Into::into));
        Ok(())
    }
}

fn is_wanted(route: &OwnRoute, wanted: &BTreeMap<IpNet, (IpAddr, Option<&Link>)>) -> bool {
    wanted
        .get(&route.destination)
        .is_some_and(|(gateway, link)| {
            *gateway == route.gateway && link.is_none_or(|link| route.index == Some(link.index))
        })
}

/// Returns the VXLAN devices that are not this daemon's: routes through them are those of
/// another daemon in the same namespace.
async fn foreign_devices(
    host: &Session,
    own: &BTreeMap<IfName, Link>,
) -> Result<BTreeSet<u32>, NetlinkError> {
    let links = host.links().await?.into_iter();
    let vxlan = links.filter(|link| link.kind == Some(InfoKind::Vxlan));
    let foreign = vxlan.filter(|link| own.values().all(|own| own.index != link.index));
    Ok(foreign.map(|link| link.index).collect())
}

/// Makes the device, or changes one of an earlier run; what cannot be changed is made anew.
async fn set_device(host: &Session, tunnel: &Tunnel) -> Result<Link, NodeNetworkError> {
    let wanted = Vxlan {
        vni: tunnel.vni,
        port: tunnel.port,
        local: tunnel.local,
    };
    match host.vxlan(&tunnel.ifname).await? {
        Some((link, _)) if link.kind != Some(InfoKind::Vxlan) => {
            return Err(NodeNetworkError::NotVxlan {
                ifname: tunnel.ifname.clone(),
            });
        }
        Some((link, Some(present))) if present == wanted => {
            if link.mac != Some(tunnel.mac) || link.mtu != u32::from(tunnel.mtu) || !link.up {
                let message = LinkUnspec::new_with_index(link.index)
                    .address(tunnel.mac.0.to_vec())
                    .mtu(tunnel.mtu.into())
                    .up()
                    .build();
                host.set_link(&tunnel.ifname, message).await?;
            }
            return Ok(link);
        }
        Some((link, _)) => host.delete_link(&link).await?,
        None => {}
    }
    host.add_vxlan(&tunnel.ifname, &wanted, tunnel.mac, tunnel.mtu)
        .await?;
    set_sysctls(&tunnel.ifname)?;
    let made = host.link(tunnel.ifname.as_str()).await?;
    made.ok_or_else(|| NodeNetworkError::NotVxlan {
        ifname: tunnel.ifname.clone(),
    })
}

/// These end with the device and need no ledger. Nothing that another node says may configure
/// this one; the source is checked by rules, more strictly than by the way back.
fn set_sysctls(ifname: &IfName) -> Result<(), SysctlError> {
    sysctl::write(&format!("net/ipv4/conf/{ifname}/rp_filter"), "2")?;
    for name in ["accept_ra", "autoconf", "accept_dad", "accept_redirects"] {
        sysctl::write_if_present(&format!("net/ipv6/conf/{ifname}/{name}"), "0")?;
    }
    Ok(())
}

async fn set_forwarding_entries(
    host: &Session,
    link: &Link,
    tunnel: &Tunnel,
) -> Result<(), NetlinkError> {
    let present = host.forwarding_entries(link).await?;
    for entry in &present {
        if tunnel.vteps.get(&entry.0) != Some(&entry.1) {
            host.delete_forwarding_entry(link, *entry).await?;
        }
    }
    for (mac, address) in &tunnel.vteps {
        if !present.contains(&(*mac, *address)) {
            host.set_forwarding_entry(link, (*mac, *address)).await?;
        }
    }
    Ok(())
}

async fn set_neighbours(host: &Session, link: &Link, tunnel: &Tunnel) -> Result<(), NetlinkError> {
    let wanted: BTreeMap<IpAddr, MacAddr> = tunnel
        .networks
        .iter()
        .map(|(cidr, mac)| (cidr.network(), *mac))
        .collect();
    let mut present = BTreeMap::new();
    for neighbour in host.neighbours().await? {
        // The kernel's own: groups, on every device that has IPv6.
        if neighbour.index != link.index || neighbour.ip.is_multicast() {
            continue;
        }
        present.insert(neighbour.ip, neighbour.mac);
        if !wanted.contains_key(&neighbour.ip) {
            host.delete_neighbour(link, neighbour.ip).await?;
        }
    }
    for (ip, mac) in wanted {
        if present.get(&ip) != Some(&mac) {
            host.set_neighbour(link, (ip, mac)).await?;
        }
    }
    Ok(())
}
