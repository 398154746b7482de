//! veth pairs: one end in the host with nothing on it, the other made inside the container.
//!
//! The container's end is created with its final name in its namespace, so no name of a
//! container ever has to be free in the host. The host's end has no address, no ARP, no
//! IPv6 and a [`Shield`] before it goes up. Called by the CNI server for ADD and DEL and by
//! the reconciler for orphans. All functions block.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::link::InfoKind;
use rtnetlink::LinkUnspec;
use vswitch_api::{IfName, MacAddr};

use super::netlink::{self, Link, NewVeth, Session};
use super::{NetlinkError, NftError, Shield, SysctlError, names, sysctl};
use crate::errors;
use crate::netns::{NetnsError, NetnsFile};
use crate::port::{UNDESCRIBED_FEATURES, disable_features};

/// A veth pair as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethSpec {
    /// The host's end.
    pub host_ifname: IfName,
    /// Path of the container's network namespace.
    pub netns: PathBuf,
    /// The container's end.
    pub ifname: IfName,
    /// MAC of the container's end.
    pub mac: MacAddr,
    /// MTU of both ends, bytes.
    pub mtu: u16,
    /// Addresses of the container's end with the prefix length of their subnet.
    pub addresses: Vec<IpNet>,
    /// Where the default route of each family goes; one that is in no subnet of
    /// `addresses` gets a route on the link first.
    pub gateways: Vec<IpAddr>,
    /// More routes; without a next hop they go to the gateway of their family, or lie on
    /// the link where there is none.
    pub routes: Vec<(IpNet, Option<IpAddr>)>,
}

/// A route of the container as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedRoute {
    pub(super) destination: IpNet,
    pub(super) gateway: Option<IpAddr>,
}

/// The host's end of a veth pair, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostVeth {
    /// Its name.
    pub ifname: IfName,
    /// Its index.
    pub ifindex: u32,
    /// Whether it is up.
    pub up: bool,
}

/// A veth pair that could not be made, removed or looked at; nothing of it is left behind
/// by a failed creation.
#[derive(Debug, thiserror::Error)]
pub enum VethError {
    /// The namespace cannot be opened or entered.
    #[error("use network namespace of the container")]
    Netns {
        /// Cause.
        #[from]
        source: NetnsError,
    },
    /// The namespace is the daemon's own.
    #[error("{} is the network namespace of the host, not of a container", netns.display())]
    OwnNetns {
        /// Its path.
        netns: PathBuf,
    },
    /// The container has an interface of that name.
    #[error("interface {ifname} exists already in {}", netns.display())]
    ContainerIfnameExists {
        /// Name.
        ifname: IfName,
        /// Path of the namespace.
        netns: PathBuf,
    },
    /// The host has an interface of that name.
    #[error("interface {ifname} exists already in the host")]
    HostIfnameExists {
        /// Name.
        ifname: IfName,
    },
    /// A gateway or next hop that no address of its family can use.
    #[error("gateway {gateway} has no address of its family on {ifname}")]
    Unreachable {
        /// The gateway.
        gateway: IpAddr,
        /// The interface.
        ifname: IfName,
    },
    /// Something in the way is not ours to delete.
    #[error("{ifname} is not a veth")]
    NotVeth {
        /// Name.
        ifname: IfName,
    },
    /// A request to the host's network failed.
    #[error("configure the host's end")]
    Host {
        /// Cause.
        #[from]
        source: NetlinkError,
    },
    /// A request to the container's network failed.
    #[error("configure {ifname} in {}", netns.display())]
    Container {
        /// Name.
        ifname: IfName,
        /// Path of the namespace.
        netns: PathBuf,
        /// Cause.
        source: NetlinkError,
    },
    /// A setting of an interface failed.
    #[error("configure veth pair")]
    Sysctl {
        /// Cause.
        #[from]
        source: SysctlError,
    },
    /// The shield failed.
    #[error("shield the host's end")]
    Shield {
        /// Cause.
        #[from]
        source: NftError,
    },
}

impl VethSpec {
    /// Returns the routes of the container in the order of their making.
    pub(super) fn planned_routes(&self) -> Vec<PlannedRoute> {
        let gateway_of = |family: IpNet| {
            let same = |ip: &&IpAddr| ip.is_ipv4() == family.addr().is_ipv4();
            self.gateways.iter().find(same).copied()
        };
        let mut routes: Vec<PlannedRoute> = Vec::new();
        let mut plan = |destination: IpNet, gateway: Option<IpAddr>| {
            if !routes.iter().any(|route| route.destination == destination) {
                routes.push(PlannedRoute {
                    destination,
                    gateway,
                });
            }
        };
        for &gateway in self.next_hops() {
            if !self
                .addresses
                .iter()
                .any(|subnet| subnet.contains(&gateway))
            {
                plan(IpNet::from(gateway), None);
            }
        }
        for &(destination, gateway) in &self.routes {
            plan(
                destination.trunc(),
                gateway.or_else(|| gateway_of(destination)),
            );
        }
        for &gateway in &self.gateways {
            plan(default_destination(gateway), Some(gateway));
        }
        routes
    }

    fn next_hops(&self) -> impl Iterator<Item = &IpAddr> {
        self.gateways.iter().chain(
            self.routes
                .iter()
                .filter_map(|(_, gateway)| gateway.as_ref()),
        )
    }

    fn validate(&self) -> Result<(), VethError> {
        let usable = |gateway: &IpAddr| {
            self.addresses
                .iter()
                .any(|own| own.addr().is_ipv4() == gateway.is_ipv4())
        };
        match self.next_hops().find(|gateway| !usable(gateway)) {
            Some(&gateway) => Err(VethError::Unreachable {
                gateway,
                ifname: self.ifname.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Opens the container's namespace and refuses the host's own.
    pub(super) fn open_netns(&self) -> Result<NetnsFile, VethError> {
        let netns = NetnsFile::open(&self.netns)?;
        if netns.is_same(&NetnsFile::current()?) {
            return Err(VethError::OwnNetns {
                netns: self.netns.clone(),
            });
        }
        Ok(netns)
    }

    /// Gives an error of the container's side its object.
    pub(super) fn in_container(&self, source: NetlinkError) -> VethError {
        VethError::Container {
            ifname: self.ifname.clone(),
            netns: self.netns.clone(),
            source,
        }
    }
}

fn default_destination(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Makes a veth pair and configures both ends; on failure it is removed again. Blocks.
///
/// # Errors
/// [`VethError`].
pub fn create_veth(spec: &VethSpec, shield: &Shield) -> Result<(), VethError> {
    spec.validate()?;
    let netns = spec.open_netns()?;
    netlink::in_netns(&netns, async |container: Session| {
        match container
            .link(spec.ifname.as_str())
            .await
            .map_err(|e| spec.in_container(e))?
        {
            Some(_) => Err(VethError::ContainerIfnameExists {
                ifname: spec.ifname.clone(),
                netns: spec.netns.clone(),
            }),
            None => Ok(()),
        }
    })?;
    let host_end = netlink::in_host(async |host: Session| add_pair(&host, spec, &netns).await)?;
    disable_undescribed_features(spec, &netns);
    let configured = configure_both_ends(&host_end, spec, &netns, shield);
    if configured.is_err()
        && let Err(error) = delete_veth(&spec.host_ifname, shield)
    {
        tracing::warn!(
            ifname = %spec.host_ifname,
            error = errors::chain(&error),
            "removing the interfaces of a failed attachment failed"
        );
    }
    configured
}

async fn add_pair(host: &Session, spec: &VethSpec, netns: &NetnsFile) -> Result<Link, VethError> {
    if host.link(spec.host_ifname.as_str()).await?.is_some() {
        return Err(VethError::HostIfnameExists {
            ifname: spec.host_ifname.clone(),
        });
    }
    let pair = NewVeth {
        ifname: &spec.host_ifname,
        mtu: spec.mtu.into(),
        peer_ifname: &spec.ifname,
        peer_mac: spec.mac,
        peer_netns: netns.as_fd(),
    };
    host.add_veth(&pair).await?;
    match host.link(spec.host_ifname.as_str()).await? {
        Some(link) => Ok(link),
        None => Err(vanished(&spec.host_ifname).into()),
    }
}

fn vanished(ifname: &IfName) -> NetlinkError {
    let source = io::Error::from_raw_os_error(libc::ENODEV);
    NetlinkError::Request {
        operation: "find link just made",
        object: ifname.to_string(),
        source,
    }
}

/// Comes before the container's end is up. Most pods use neither tunnels nor SCTP: those that do
/// not lose nothing by a failure, so it fails no attachment.
fn disable_undescribed_features(spec: &VethSpec, netns: &NetnsFile) {
    if let Err(error) = disable_features(&spec.ifname, Some(netns), &UNDESCRIBED_FEATURES) {
        tracing::warn!(
            ifname = %spec.ifname,
            netns = %spec.netns.display(),
            error = errors::chain(&error),
            "disabling checksum offloads failed; tunnels and SCTP inside the container may be slow or fail"
        );
    }
}

/// At the same time, since the shield waits for another process. Until the host's end is up, last of
/// all, the container's has no carrier, and nothing leaves it.
fn configure_both_ends(
    host_end: &Link,
    spec: &VethSpec,
    netns: &NetnsFile,
    shield: &Shield,
) -> Result<(), VethError> {
    std::thread::scope(|scope| {
        let container = scope.spawn(|| configure_container_end(spec, netns));
        let host = configure_host_end(host_end, spec, shield);
        let container = container
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        host.and(container)
    })
}

/// The order matters: up comes last, when nothing of the host can answer on it any more.
fn configure_host_end(link: &Link, spec: &VethSpec, shield: &Shield) -> Result<(), VethError> {
    let ifname = &spec.host_ifname;
    sysctl::write_if_present(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "1")?;
    sysctl::write(&format!("net/ipv4/conf/{ifname}/rp_filter"), "0")?;
    shield.add(ifname)?;
    let up = LinkUnspec::new_with_index(link.index)
        .arp(false)
        .up()
        .build();
    Ok(netlink::in_host(async |host: Session| {
        host.set_link(ifname, up).await
    })?)
}

fn configure_container_end(spec: &VethSpec, netns: &NetnsFile) -> Result<(), VethError> {
    netlink::in_netns(netns, async |container: Session| {
        set_container_sysctls(spec)?;
        let configured = configure_addresses_and_routes(&container, spec).await;
        configured.map_err(|error| spec.in_container(error))
    })
}

/// Written by the thread inside the namespace: /proc/sys/net shows the writer's namespace.
fn set_container_sysctls(spec: &VethSpec) -> Result<(), SysctlError> {
    let ifname = &spec.ifname;
    if spec
        .addresses
        .iter()
        .any(|address| address.addr().is_ipv6())
    {
        // Some runtimes disable IPv6 in every namespace they make.
        sysctl::write(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0")?;
    }
    // The link-local address, like the others, is known to be unique; and routes come from
    // the switch alone.
    sysctl::write_if_present(&format!("net/ipv6/conf/{ifname}/accept_dad"), "0")?;
    sysctl::write_if_present(&format!("net/ipv6/conf/{ifname}/accept_ra"), "0")
}

async fn configure_addresses_and_routes(
    container: &Session,
    spec: &VethSpec,
) -> Result<(), NetlinkError> {
    if let Some(lo) = container.link("lo").await? {
        container
            .set_link("lo", LinkUnspec::new_with_index(lo.index).up().build())
            .await?;
    }
    let ifname = spec.ifname.as_str();
    let link = container
        .link(ifname)
        .await?
        .ok_or_else(|| vanished(&spec.ifname))?;
    container
        .set_link(ifname, LinkUnspec::new_with_index(link.index).up().build())
        .await?;
    for &address in &spec.addresses {
        container.add_address(&link, address).await?;
    }
    for route in spec.planned_routes() {
        container
            .add_route(&link, route.destination, route.gateway)
            .await?;
    }
    Ok(())
}

/// Removes a veth pair by its host's end, and its shield; what is gone already is no error.
/// Blocks.
///
/// # Errors
/// [`VethError`]; the shield stays as long as the link does.
pub fn delete_veth(host_ifname: &IfName, shield: &Shield) -> Result<(), VethError> {
    netlink::in_host(
        async |host: Session| match host.link(host_ifname.as_str()).await? {
            None => Ok(()),
            Some(link) if link.kind == Some(InfoKind::Veth) => {
                host.delete_link(&link).await.map_err(VethError::from)
            }
            Some(_) => Err(VethError::NotVeth {
                ifname: host_ifname.clone(),
            }),
        },
    )?;
    Ok(shield.remove(host_ifname)?)
}

/// Returns the host ends of all veth pairs that [`super::host_ifname`] has named. Blocks.
///
/// # Errors
/// [`NetlinkError`].
pub fn list_host_veths(prefix: &str) -> Result<Vec<HostVeth>, NetlinkError> {
    let links = netlink::in_host(async |host: Session| host.links().await)?;
    let ours = |link: &Link| {
        link.kind == Some(InfoKind::Veth) && names::is_host_ifname(&link.ifname, prefix)
    };
    let describe = |link: Link| {
        let ifname = link.ifname.parse().ok()?;
        Some(HostVeth {
            ifname,
            ifindex: link.index,
            up: link.up,
        })
    };
    Ok(links
        .into_iter()
        .filter(ours)
        .filter_map(describe)
        .collect())
}

/// Says whether a link is a TAP (or TUN) device; `None` if there is none of this name. Blocks.
///
/// # Errors
/// [`NetlinkError`].
pub fn is_tap(ifname: &IfName) -> Result<Option<bool>, NetlinkError> {
    let found = netlink::in_host(async |host: Session| host.link(ifname.as_str()).await)?;
    Ok(found.map(|link| link.kind == Some(InfoKind::Tun)))
}

#[cfg(test)]
#[path = "veth_tests.rs"]
mod tests;
