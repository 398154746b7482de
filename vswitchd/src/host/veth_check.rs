//! Whether a veth pair is still as it was made: CNI CHECK.
//!
//! Chained plugins may have added addresses, routes or an MTU of their own: only what is
//! missing is a mismatch, not what is there besides. Blocks.

use ipnet::IpNet;
use netlink_packet_route::link::InfoKind;
use vswitch_api::{IfName, MacAddr};

use super::netlink::{self, Link, Route, Session};
use super::veth::{PlannedRoute, VethError, VethSpec};

/// The first difference between a veth pair and its specification.
#[derive(Debug, thiserror::Error)]
pub enum VethMismatch {
    /// The host's end is gone.
    #[error("interface {ifname} is missing in the host")]
    HostEndMissing {
        /// Name.
        ifname: IfName,
    },
    /// The host's end is down.
    #[error("interface {ifname} is down in the host")]
    HostEndDown {
        /// Name.
        ifname: IfName,
    },
    /// The container's end is gone.
    #[error("interface {ifname} is missing in the container")]
    ContainerEndMissing {
        /// Name.
        ifname: IfName,
    },
    /// Both interfaces exist, but are not ends of one pair.
    #[error("{ifname} in the container and {host_ifname} in the host are not one veth pair")]
    NotPeers {
        /// The container's end.
        ifname: IfName,
        /// The host's end.
        host_ifname: IfName,
    },
    /// The MAC was changed.
    #[error("MAC of {ifname} is {found}, not {expected}")]
    Mac {
        /// The container's end.
        ifname: IfName,
        /// As made.
        expected: MacAddr,
        /// As found.
        found: MacAddr,
    },
    /// An address is gone.
    #[error("address {address} is missing on {ifname}")]
    AddressMissing {
        /// The container's end.
        ifname: IfName,
        /// The address.
        address: IpNet,
    },
    /// A route is gone or goes elsewhere.
    #[error("route to {destination} is missing on {ifname}")]
    RouteMissing {
        /// The container's end.
        ifname: IfName,
        /// Where it should go.
        destination: IpNet,
    },
    /// It cannot be told.
    #[error("look at the veth pair")]
    Look {
        /// Cause.
        #[source]
        source: Box<VethError>,
    },
}

impl From<VethError> for VethMismatch {
    fn from(source: VethError) -> Self {
        Self::Look {
            source: Box::new(source),
        }
    }
}

/// What is found inside the container.
struct ContainerEnd {
    link: Option<Link>,
    addresses: Vec<IpNet>,
    routes: Vec<Route>,
}

/// Compares a veth pair with its specification; blocks.
///
/// # Errors
/// [`VethMismatch`], the first that is found.
pub fn check_veth(spec: &VethSpec) -> Result<(), VethMismatch> {
    let host_ifname = &spec.host_ifname;
    let host_end = netlink::in_host(async |host: Session| {
        Ok::<_, VethError>(host.link(host_ifname.as_str()).await?)
    })?;
    let host_end = host_end.ok_or_else(|| VethMismatch::HostEndMissing {
        ifname: host_ifname.clone(),
    })?;
    if !host_end.up {
        return Err(VethMismatch::HostEndDown {
            ifname: host_ifname.clone(),
        });
    }
    let found = look_inside(spec)?;
    let ifname = || spec.ifname.clone();
    let Some(link) = &found.link else {
        return Err(VethMismatch::ContainerEndMissing { ifname: ifname() });
    };
    check_link(spec, &host_end, link)?;
    if let Some(&address) = spec.addresses.iter().find(|a| !found.addresses.contains(a)) {
        return Err(VethMismatch::AddressMissing {
            ifname: ifname(),
            address,
        });
    }
    let missing = |planned: &&PlannedRoute| {
        !found.routes.iter().any(|route| {
            route.index == Some(link.index)
                && route.destination == planned.destination
                && route.gateway == planned.gateway
        })
    };
    match spec.planned_routes().iter().find(missing) {
        Some(&PlannedRoute { destination, .. }) => Err(VethMismatch::RouteMissing {
            ifname: ifname(),
            destination,
        }),
        None => Ok(()),
    }
}

fn check_link(spec: &VethSpec, host_end: &Link, link: &Link) -> Result<(), VethMismatch> {
    let are_peers = host_end.kind == Some(InfoKind::Veth)
        && link.kind == Some(InfoKind::Veth)
        && host_end.peer_index == Some(link.index)
        && link.peer_index == Some(host_end.index);
    if !are_peers {
        let (ifname, host_ifname) = (spec.ifname.clone(), spec.host_ifname.clone());
        return Err(VethMismatch::NotPeers {
            ifname,
            host_ifname,
        });
    }
    let found = link.mac.unwrap_or_default();
    if found != spec.mac {
        let (ifname, expected) = (spec.ifname.clone(), spec.mac);
        return Err(VethMismatch::Mac {
            ifname,
            expected,
            found,
        });
    }
    Ok(())
}

fn look_inside(spec: &VethSpec) -> Result<ContainerEnd, VethError> {
    let netns = spec.open_netns()?;
    netlink::in_netns(&netns, async |container: Session| {
        let look = async || {
            let link = container.link(spec.ifname.as_str()).await?;
            let addresses = match &link {
                Some(link) => container.addresses(Some(link.index)).await?,
                None => Vec::new(),
            };
            let addresses = addresses.into_iter().map(|(address, _)| address).collect();
            Ok(ContainerEnd {
                link,
                addresses,
                routes: container.routes().await?,
            })
        };
        look().await.map_err(|error| spec.in_container(error))
    })
}
