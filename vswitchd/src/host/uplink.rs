//! The interface towards other nodes; it bounds the pods' MTU, and its addresses are where
//! other nodes send what is for this node's pods. Blocks.

use std::net::IpAddr;

use netlink_packet_route::address::AddressScope;
use vswitch_api::IfName;

use super::NetlinkError;
use super::netlink::{self, Link, Route, Session};

/// The interface towards other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub ifname: IfName,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Its addresses of global scope, in the kernel's order.
    pub addresses: Vec<IpAddr>,
}

/// Returns the interface `wanted`, or that of the default route with the lowest metric, IPv4
/// before IPv6; `None` on a node without it. Blocks.
///
/// # Errors
/// [`NetlinkError`].
pub fn uplink(wanted: Option<&IfName>) -> Result<Option<Uplink>, NetlinkError> {
    netlink::in_host(async |host: Session| {
        let link = match wanted {
            Some(ifname) => host.link(ifname.as_str()).await?,
            None => {
                let index = best_default(&host.routes().await?);
                let mut links = host.links().await?;
                links.retain(|link| Some(link.index) == index);
                links.pop()
            }
        };
        match link {
            Some(link) => describe(&host, link).await,
            None => Ok(None),
        }
    })
}

fn best_default(routes: &[Route]) -> Option<u32> {
    routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .filter_map(|route| {
            Some((
                route.destination.addr().is_ipv6(),
                route.metric,
                route.index?,
            ))
        })
        .min()
        .map(|(_, _, index)| index)
}

async fn describe(host: &Session, link: Link) -> Result<Option<Uplink>, NetlinkError> {
    let addresses = host.addresses(Some(link.index)).await?.into_iter();
    let global = addresses.filter(|(_, scope)| *scope == AddressScope::Universe);
    Ok(link.ifname.parse().ok().map(|ifname| Uplink {
        ifname,
        mtu: link.mtu,
        addresses: global.map(|(address, _)| address.addr()).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_new_netns, run};
    use super::*;

    #[test]
    fn uplink_is_the_named_one_or_where_the_best_default_route_leaves() {
        in_new_netns(|| {
            assert_eq!(uplink(None).unwrap(), None);
            run(
                "ip tuntap add up0 mode tap; ip link set up0 mtu 1450; ip tuntap add up1 mode tap; ip link set up1 mtu 9000
                 ip link set up0 up; ip link set up1 up
                 ip addr add 192.0.2.7/24 dev up0; ip addr add fd00::7/64 dev up0 nodad
                 ip addr add 169.254.7.7/16 scope link dev up0
                 ip -6 route add default dev up1 metric 1
                 ip route add 10.9.0.0/16 dev up1",
            )
            .unwrap();
            assert_eq!(
                uplink(None).unwrap().unwrap().mtu,
                9000,
                "IPv6 where there is no IPv4"
            );
            run("ip route add default dev up1 metric 200
                 ip route add default dev up0 metric 100")
            .unwrap();
            let up0: IfName = "up0".parse().unwrap();
            let expected = Uplink {
                ifname: up0.clone(),
                mtu: 1450,
                addresses: vec!["192.0.2.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            };
            assert_eq!(uplink(None).unwrap(), Some(expected.clone()));
            assert_eq!(uplink(Some(&up0)).unwrap(), Some(expected));
            let up1 = "up1".parse().unwrap();
            assert_eq!(uplink(Some(&up1)).unwrap().unwrap().mtu, 9000);
            assert_eq!(uplink(Some(&"up2".parse().unwrap())).unwrap(), None);
        });
    }
}
