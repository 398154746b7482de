//! VXLAN devices, their forwarding entries and neighbours, and routes that are marked as ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{LinkVxlan, RouteMessageBuilder};
use vswitch_api::{IfName, MacAddr};

use super::{
    Link, NetlinkError, Session, differing_families, errno, ip_of, new_route, read_link, request,
    unspecified,
};

/// Marks routes as the switch's (`proto 86` in iproute2); no number of rtnetlink.h.
const OWN_PROTOCOL: RouteProtocol = RouteProtocol::Other(86);

/// A VXLAN device without learning: it sends only where it has been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) struct Vxlan {
    pub(in crate::host) vni: u32,
    pub(in crate::host) port: u16,
    pub(in crate::host) local: IpAddr,
}

/// A neighbour with a link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) struct Neighbour {
    pub(in crate::host) index: u32,
    pub(in crate::host) ip: IpAddr,
    pub(in crate::host) mac: MacAddr,
}

/// A route of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) struct OwnRoute {
    pub(in crate::host) destination: IpNet,
    pub(in crate::host) gateway: IpAddr,
    /// Its interface.
    pub(in crate::host) index: Option<u32>,
}

impl Session {
    /// Returns a VXLAN device as it is; `None` if the link is of another kind or learns.
    pub(in crate::host) async fn vxlan(
        &self,
        ifname: &IfName,
    ) -> Result<Option<(Link, Option<Vxlan>)>, NetlinkError> {
        let message = self.link_message(ifname.as_str()).await?;
        Ok(message.and_then(|message| Some((read_link(&message)?, read_vxlan(&message)))))
    }

    /// Creates a VXLAN device, up.
    pub(in crate::host) async fn add_vxlan(
        &self,
        ifname: &IfName,
        vxlan: &Vxlan,
        mac: MacAddr,
        mtu: u16,
    ) -> Result<(), NetlinkError> {
        let new = LinkVxlan::new(ifname.as_str(), vxlan.vni)
            .port(vxlan.port)
            .learning(false);
        let new = match vxlan.local {
            // RFC 7348 section 5: over IPv4 the checksum should be zero.
            IpAddr::V4(local) => new.local(local).udp_csum(false),
            IpAddr::V6(local) => new.local6(local),
        };
        let message = new.address(mac.0.to_vec()).mtu(mtu.into()).up().build();
        let added = self.handle.link().add(message).execute().await;
        added.map_err(|error| request("create VXLAN device", ifname, error))
    }

    /// Returns the forwarding entries of a VXLAN device: behind which address a MAC is.
    pub(in crate::host) async fn forwarding_entries(
        &self,
        link: &Link,
    ) -> Result<Vec<(MacAddr, IpAddr)>, NetlinkError> {
        let entries = self.neighbour_messages(AddressFamily::Bridge).await?;
        let own = entries
            .iter()
            .filter(|entry| entry.header.ifindex == link.index);
        Ok(own
            .filter_map(|entry| Some((mac_of(entry)?, destination_of(entry)?)))
            .collect())
    }

    /// Adds or changes a forwarding entry.
    pub(in crate::host) async fn set_forwarding_entry(
        &self,
        link: &Link,
        (mac, address): (MacAddr, IpAddr),
    ) -> Result<(), NetlinkError> {
        let set = self.handle.neighbours().add_bridge(link.index, &mac.0);
        let set = set
            .destination(address)
            .flags(NeighbourFlags::Own)
            .replace();
        let object = format!("{mac} to {address} on {}", link.ifname);
        let set = set.execute().await;
        set.map_err(|error| request("set forwarding entry", &object, error))
    }

    /// Deletes a forwarding entry; one that is gone is no failure.
    pub(in crate::host) async fn delete_forwarding_entry(
        &self,
        link: &Link,
        (mac, address): (MacAddr, IpAddr),
    ) -> Result<(), NetlinkError> {
        let mut set = self.handle.neighbours().add_bridge(link.index, &mac.0);
        set = set.destination(address).flags(NeighbourFlags::Own);
        let message = std::mem::take(set.message_mut());
        let object = format!("{mac} to {address} on {}", link.ifname);
        self.delete_neighbour_message(message, "delete forwarding entry", &object)
            .await
    }

    /// Returns the neighbours whose link-layer address is known, of all links.
    pub(in crate::host) async fn neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut found = self.neighbour_messages(AddressFamily::Inet).await?;
        found.extend(self.neighbour_messages(AddressFamily::Inet6).await?);
        let usable = found.iter().filter(|entry| {
            !matches!(
                entry.header.state,
                NeighbourState::Failed | NeighbourState::Incomplete
            )
        });
        let neighbours = usable.filter_map(|entry| {
            Some(Neighbour {
                index: entry.header.ifindex,
                ip: destination_of(entry)?,
                mac: mac_of(entry)?,
            })
        });
        Ok(neighbours.collect())
    }

    /// Adds or changes a permanent neighbour.
    pub(in crate::host) async fn set_neighbour(
        &self,
        link: &Link,
        (ip, mac): (IpAddr, MacAddr),
    ) -> Result<(), NetlinkError> {
        let set = self.handle.neighbours().add(link.index, ip);
        let set = set.link_layer_address(&mac.0).replace().execute().await;
        let object = format!("{ip} at {mac} on {}", link.ifname);
        set.map_err(|error| request("set neighbour", &object, error))
    }

    /// Deletes a neighbour; one that is gone is no failure.
    pub(in crate::host) async fn delete_neighbour(
        &self,
        link: &Link,
        ip: IpAddr,
    ) -> Result<(), NetlinkError> {
        let mut set = self.handle.neighbours().add(link.index, ip);
        let message = std::mem::take(set.message_mut());
        let object = format!("{ip} on {}", link.ifname);
        self.delete_neighbour_message(message, "delete neighbour", &object)
            .await
    }

    /// Asks for a neighbour's link-layer address; the answer comes later.
    pub(in crate::host) async fn solicit(
        &self,
        index: u32,
        ip: IpAddr,
    ) -> Result<(), NetlinkError> {
        let ask = self.handle.neighbours().add(index, ip);
        let ask = ask.state(NeighbourState::None).flags(NeighbourFlags::Use);
        let asked = ask.replace().execute().await;
        asked.map_err(|error| request("ask for neighbour", &ip, error))
    }

    async fn neighbour_messages(
        &self,
        family: AddressFamily,
    ) -> Result<Vec<NeighbourMessage>, NetlinkError> {
        let get = self.handle.neighbours().get().set_address_family(family);
        let found = get.execute().try_collect().await;
        found.map_err(|error| request("list", "neighbours", error))
    }

    async fn delete_neighbour_message(
        &self,
        message: NeighbourMessage,
        operation: &'static str,
        object: &str,
    ) -> Result<(), NetlinkError> {
        match self.handle.neighbours().del(message).execute().await {
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
            deleted => deleted.map_err(|error| request(operation, object, error)),
        }
    }

    /// Returns the routes of the main table that are ours.
    pub(in crate::host) async fn own_routes(&self) -> Result<Vec<OwnRoute>, NetlinkError> {
        let mut routes = Vec::new();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for query in [v4, v6] {
            let found = self.handle.route().get(query).execute();
            let found: Vec<RouteMessage> = found
                .try_collect()
                .await
                .map_err(|error| request("list", "routes", error))?;
            routes.extend(found.iter().filter_map(read_own_route));
        }
        Ok(routes)
    }

    /// Adds a route of ours: through a tunnel device, whose other ends are all on its link, or
    /// (`None`) by whatever interface the gateway is on.
    pub(in crate::host) async fn add_own_route(
        &self,
        destination: IpNet,
        gateway: IpAddr,
        tunnel: Option<&Link>,
    ) -> Result<(), NetlinkError> {
        let object = format!("{destination} via {gateway}");
        let index = tunnel.map(|link| link.index);
        let message = own_route(destination, gateway, index);
        let mut message = message.ok_or_else(|| differing_families("add route", &object))?;
        if tunnel.is_some() {
            message.header.flags.insert(RouteFlags::Onlink);
        }
        let added = self.handle.route().add(message).execute().await;
        added.map_err(|error| request("add route", &object, error))
    }

    /// Deletes a route of ours; one that is gone is no failure.
    pub(in crate::host) async fn delete_own_route(
        &self,
        route: &OwnRoute,
    ) -> Result<(), NetlinkError> {
        let Some(message) = own_route(route.destination, route.gateway, route.index) else {
            return Ok(());
        };
        match self.handle.route().del(message).execute().await {
            Err(error) if errno(&error) == Some(libc::ESRCH) => Ok(()),
            deleted => {
                let object = format!("{} via {}", route.destination, route.gateway);
                deleted.map_err(|error| request("delete route", &object, error))
            }
        }
    }
}

/// `None` if destination and gateway are of different families.
fn own_route(destination: IpNet, gateway: IpAddr, index: Option<u32>) -> Option<RouteMessage> {
    // Interface 0 means whichever the gateway is on.
    let mut message = new_route(index.unwrap_or(0), destination, Some(gateway))?;
    message.header.protocol = OWN_PROTOCOL;
    Some(message)
}

fn read_own_route(message: &RouteMessage) -> Option<OwnRoute> {
    let header = &message.header;
    let is_own = header.protocol == OWN_PROTOCOL
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast;
    let (mut destination, mut gateway, mut index) =
        (unspecified(header.address_family)?, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                destination = IpNet::new(ip_of(to)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(ip) => gateway = ip_of(ip),
            RouteAttribute::Oif(oif) => index = Some(*oif),
            _ => {}
        }
    }
    is_own.then_some(OwnRoute {
        destination,
        gateway: gateway?,
        index,
    })
}

fn read_vxlan(message: &LinkMessage) -> Option<Vxlan> {
    let infos = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })?;
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    let (mut vni, mut port, mut local, mut learns) = (None, None, None, true);
    for info in data {
        match info {
            InfoVxlan::Id(id) => vni = Some(*id),
            InfoVxlan::Port(number) => port = Some(*number),
            InfoVxlan::Local(ip) => local = Some(IpAddr::V4(*ip)),
            InfoVxlan::Local6(ip) => local = Some(IpAddr::V6(*ip)),
            InfoVxlan::Learning(learning) => learns = *learning,
            _ => {}
        }
    }
    (!learns).then_some(Vxlan {
        vni: vni?,
        port: port?,
        local: local?,
    })
}

fn mac_of(entry: &NeighbourMessage) -> Option<MacAddr> {
    entry
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        })
        .map(MacAddr)
}

fn destination_of(entry: &NeighbourMessage) -> Option<IpAddr> {
    entry
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            // The family of a forwarding entry is that of bridges: only the length tells.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
                v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
                    .ok()
            }
            _ => None,
        })
}
