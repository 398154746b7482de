//! rtnetlink, reduced to what the host side needs, with errors that name the object.
//!
//! A [`Session`] lives on a thread of its own with a small runtime: the thread can enter a
//! container's namespace without dragging a runtime worker along, and when it ends nothing
//! of the connection is left. Used by every module of `host/` but the watcher, which keeps
//! its connection.

mod overlay;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use vswitch_api::{IfName, MacAddr};

pub(super) use overlay::{OwnRoute, Vxlan};

use crate::netns::{self, NetnsError, NetnsFile};
use crate::supervise;

/// A netlink request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket, or no thread or runtime to serve it.
    #[error("open rtnetlink socket")]
    Open {
        /// Cause.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("{operation} {object}")]
    Request {
        /// What was asked, an imperative.
        operation: &'static str,
        /// Link, address or route it was about.
        object: String,
        /// Cause.
        source: io::Error,
    },
}

/// A network interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) ifname: String,
    pub(super) index: u32,
    pub(super) kind: Option<InfoKind>,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: u32,
    pub(super) up: bool,
    /// IFLA_LINK: of a veth end, the index of the other end, in the other's namespace.
    pub(super) peer_index: Option<u32>,
}

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) destination: IpNet,
    pub(super) gateway: Option<IpAddr>,
    pub(super) index: Option<u32>,
    pub(super) metric: u32,
}

/// A veth pair to make: the first end here, the second in another namespace.
#[derive(Debug)]
pub(super) struct NewVeth<'a> {
    pub(super) ifname: &'a IfName,
    pub(super) mtu: u32,
    pub(super) peer_ifname: &'a IfName,
    pub(super) peer_mac: MacAddr,
    pub(super) peer_netns: BorrowedFd<'a>,
}

/// A netlink connection on the thread and namespace it was made in.
#[derive(Debug, Clone)]
pub(super) struct Session {
    handle: Handle,
}

/// Runs `body` with a connection in the calling thread's namespace; blocks.
///
/// # Errors
/// [`NetlinkError::Open`], or what `body` returns.
pub(super) fn in_host<T, E, F>(body: F) -> Result<T, E>
where
    F: AsyncFnOnce(Session) -> Result<T, E> + Send,
    T: Send,
    E: From<NetlinkError> + Send,
{
    // A thread of its own, because a runtime cannot be entered from within another one.
    // It inherits the caller's namespace.
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| serve(body));
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `body` with a connection in another namespace, on a thread inside it; blocks.
///
/// # Errors
/// [`NetnsError`], [`NetlinkError::Open`], or what `body` returns.
pub(super) fn in_netns<T, E, F>(netns: &NetnsFile, body: F) -> Result<T, E>
where
    F: AsyncFnOnce(Session) -> Result<T, E> + Send,
    T: Send,
    E: From<NetlinkError> + From<NetnsError> + Send,
{
    netns::in_netns(netns, || serve(body))?
}

/// Serves `body` on the current thread, which must be outside any runtime.
fn serve<T, E, F>(body: F) -> Result<T, E>
where
    F: AsyncFnOnce(Session) -> Result<T, E>,
    E: From<NetlinkError>,
{
    let open = |source| NetlinkError::Open { source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(open)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(open)?;
        // Ends with the runtime, that is before this function returns.
        supervise::request(connection);
        body(Session { handle }).await
    })
}

impl Session {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Returns the link called `ifname`, if there is one.
    pub(super) async fn link(&self, ifname: &str) -> Result<Option<Link>, NetlinkError> {
        let message = self.link_message(ifname).await?;
        Ok(message.as_ref().and_then(read_link))
    }

    async fn link_message(&self, ifname: &str) -> Result<Option<LinkMessage>, NetlinkError> {
        let mut links = self
            .handle
            .link()
            .get()
            .match_name(ifname.to_owned())
            .execute();
        match links.try_next().await {
            Ok(link) => Ok(link),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(request("look up link", ifname, error)),
        }
    }

    /// Returns all links of the namespace.
    pub(super) async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let links = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect::<Vec<_>>()
            .await;
        let links = links.map_err(|error| request("list", "links", error))?;
        Ok(links.iter().filter_map(read_link).collect())
    }

    /// Creates both ends of a veth pair, down.
    pub(super) async fn add_veth(&self, new: &NewVeth<'_>) -> Result<(), NetlinkError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::default()
            .name(new.peer_ifname.as_str())
            .address(new.peer_mac.0.to_vec())
            .mtu(new.mtu)
            .setns_by_fd(new.peer_netns.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(new.ifname.as_str(), "")
            .mtu(new.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let added = self.handle.link().add(pair).execute().await;
        added.map_err(|error| request("create veth pair", new.ifname, error))
    }

    /// Changes a link as `message` says.
    pub(super) async fn set_link(
        &self,
        ifname: &(impl ToString + ?Sized),
        message: LinkMessage,
    ) -> Result<(), NetlinkError> {
        let changed = self.handle.link().set(message).execute().await;
        changed.map_err(|error| request("configure link", ifname, error))
    }

    /// Deletes a link; one that is gone is no error.
    pub(super) async fn delete_link(&self, link: &Link) -> Result<(), NetlinkError> {
        match self.handle.link().del(link.index).execute().await {
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(()),
            deleted => deleted.map_err(|error| request("delete link", &link.ifname, error)),
        }
    }

    /// Returns the addresses of one link (or of all) with the link's index, all scopes.
    pub(super) async fn addresses(
        &self,
        index: Option<u32>,
    ) -> Result<Vec<(IpNet, AddressScope)>, NetlinkError> {
        let mut get = self.handle.address().get();
        if let Some(index) = index {
            get = get.set_link_index_filter(index);
        }
        let addresses = get.execute().try_collect::<Vec<_>>().await;
        let addresses = addresses.map_err(|error| request("list", "addresses", error))?;
        Ok(addresses
            .iter()
            .filter_map(|m| Some((read_address(m)?, m.header.scope)))
            .collect())
    }

    /// Gives a link an address; one that it has already is no error.
    ///
    /// IPv6 without duplicate address detection: the address is known to be unique, and it
    /// would be unusable for the second that detection takes.
    pub(super) async fn add_address(
        &self,
        link: &Link,
        address: IpNet,
    ) -> Result<(), NetlinkError> {
        let mut add = self
            .handle
            .address()
            .add(link.index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        match add.execute().await {
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
            added => added.map_err(|error| {
                request(
                    "add address",
                    &format!("{address} to {}", link.ifname),
                    error,
                )
            }),
        }
    }

    /// Takes an address from a link.
    pub(super) async fn delete_address(
        &self,
        link: &Link,
        address: IpNet,
    ) -> Result<(), NetlinkError> {
        let mut add = self
            .handle
            .address()
            .add(link.index, address.addr(), address.prefix_len());
        let message = std::mem::take(add.message_mut());
        match self.handle.address().del(message).execute().await {
            Err(error) if errno(&error) == Some(libc::EADDRNOTAVAIL) => Ok(()),
            deleted => deleted.map_err(|error| {
                request(
                    "delete address",
                    &format!("{address} of {}", link.ifname),
                    error,
                )
            }),
        }
    }

    /// Returns the unicast routes of the main table, both families.
    pub(super) async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for query in [v4, v6] {
            let found = self
                .handle
                .route()
                .get(query)
                .execute()
                .try_collect::<Vec<_>>()
                .await;
            let found = found.map_err(|error| request("list", "routes", error))?;
            routes.extend(found.iter().filter_map(read_route));
        }
        Ok(routes)
    }

    /// Adds a route out of `link`; `gateway` `None` means that the destination is on the link.
    pub(super) async fn add_route(
        &self,
        link: &Link,
        destination: IpNet,
        gateway: Option<IpAddr>,
    ) -> Result<(), NetlinkError> {
        let object = || match gateway {
            Some(gateway) => format!("{destination} via {gateway} dev {}", link.ifname),
            None => format!("{destination} dev {}", link.ifname),
        };
        let message = new_route(link.index, destination, gateway)
            .ok_or_else(|| differing_families("add route", &object()))?;
        let added = self.handle.route().add(message).execute().await;
        added.map_err(|error| request("add route", &object(), error))
    }

    /// Deletes a route out of `link`; one that is gone already is no failure.
    pub(super) async fn delete_route(
        &self,
        link: &Link,
        destination: IpNet,
        gateway: Option<IpAddr>,
    ) -> Result<(), NetlinkError> {
        let Some(message) = new_route(link.index, destination, gateway) else {
            return Ok(());
        };
        match self.handle.route().del(message).execute().await {
            Err(error) if errno(&error) == Some(libc::ESRCH) => Ok(()),
            deleted => {
                let object = format!("{destination} dev {}", link.ifname);
                deleted.map_err(|error| request("delete route", &object, error))
            }
        }
    }
}

fn differing_families(operation: &'static str, object: &str) -> NetlinkError {
    NetlinkError::Request {
        operation,
        object: object.to_owned(),
        source: io::Error::other("destination and gateway are of different families"),
    }
}

fn new_route(index: u32, destination: IpNet, gateway: Option<IpAddr>) -> Option<RouteMessage> {
    let scope = if gateway.is_some() {
        RouteScope::Universe
    } else {
        RouteScope::Link
    };
    match (destination, gateway) {
        (IpNet::V4(net), gateway @ (None | Some(IpAddr::V4(_)))) => {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(index)
                .scope(scope);
            if let Some(IpAddr::V4(gateway)) = gateway {
                route = route.gateway(gateway);
            }
            Some(route.build())
        }
        (IpNet::V6(net), gateway @ (None | Some(IpAddr::V6(_)))) => {
            let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(index);
            if let Some(IpAddr::V6(gateway)) = gateway {
                route = route.gateway(gateway);
            }
            Some(route.build())
        }
        _ => None,
    }
}

/// Reads a link; `None` if the message is no description of a named one.
pub(super) fn read_link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        ifname: String::new(),
        index: message.header.index,
        kind: None,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        peer_index: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.ifname.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok().map(MacAddr),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => link.peer_index = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (!link.ifname.is_empty()).then_some(link)
}

fn read_address(message: &AddressMessage) -> Option<IpNet> {
    // IFA_LOCAL is the own address; IFA_ADDRESS the peer's on point-to-point links. IPv6
    // without a peer has only IFA_ADDRESS.
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        });
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

fn read_route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        destination: unspecified(header.address_family)?,
        gateway: None,
        index: None,
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.destination =
                    IpNet::new(ip_of(to)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(gateway) => route.gateway = ip_of(gateway),
            RouteAttribute::Oif(index) => route.index = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    Some(route)
}

fn unspecified(family: AddressFamily) -> Option<IpNet> {
    match family {
        AddressFamily::Inet => Some(IpNet::V4(Ipv4Net::default())),
        AddressFamily::Inet6 => Some(IpNet::V6(Ipv6Net::default())),
        _ => None,
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}

fn request(
    operation: &'static str,
    object: &(impl ToString + ?Sized),
    error: rtnetlink::Error,
) -> NetlinkError {
    let source = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    };
    NetlinkError::Request {
        operation,
        object: object.to_string(),
        source,
    }
}
