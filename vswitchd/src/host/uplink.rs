//! The interface that the node's default route leaves by; it bounds the pods' MTU. Blocks.

use vswitch_api::IfName;

use super::NetlinkError;
use super::netlink::{self, Link, Route, Session};

/// The interface of the default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub ifname: IfName,
    /// Its MTU, bytes.
    pub mtu: u32,
}

/// Returns the interface of the default route with the lowest metric, IPv4 before IPv6;
/// `None` on a node without one. Blocks.
///
/// # Errors
/// [`NetlinkError`].
pub fn uplink() -> Result<Option<Uplink>, NetlinkError> {
    netlink::in_host(async |host: Session| {
        let routes = host.routes().await?;
        let links = host.links().await?;
        Ok(best_default(&routes).and_then(|index| describe(&links, index)))
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

fn describe(links: &[Link], index: u32) -> Option<Uplink> {
    let link = links.iter().find(|link| link.index == index)?;
    Some(Uplink {
        ifname: link.ifname.parse().ok()?,
        mtu: link.mtu,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_new_netns, run};
    use super::*;

    #[test]
    fn uplink_is_where_the_best_default_route_leaves() {
        in_new_netns(|| {
            assert_eq!(uplink().unwrap(), None);
            run(
                "ip tuntap add up0 mode tap; ip link set up0 mtu 1450; ip tuntap add up1 mode tap; ip link set up1 mtu 9000
                 ip link set up0 up; ip link set up1 up
                 ip -6 route add default dev up1 metric 1
                 ip route add 10.9.0.0/16 dev up1",
            )
            .unwrap();
            assert_eq!(
                uplink().unwrap().unwrap().mtu,
                9000,
                "IPv6 where there is no IPv4"
            );
            run("ip route add default dev up1 metric 200
                 ip route add default dev up0 metric 100")
            .unwrap();
            let expected = Uplink {
                ifname: "up0".parse().unwrap(),
                mtu: 1450,
            };
            assert_eq!(uplink().unwrap(), Some(expected));
        });
    }
}
