//! The node's own leg in the pod network: addresses on the TAP, forwarding, RA care.
//!
//! The TAP itself is made by `port/`; here a link of that name is configured. Repeating it
//! with another specification moves the link to the new state. Blocks.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::AddressScope;
use rtnetlink::LinkUnspec;
use vswitch_api::{IfName, MacAddr};

use super::netlink::{self, Link, Session};
use super::{NetlinkError, SysctlError, SysctlLedger, sysctl};

/// The gateway as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayDeviceSpec {
    /// Name of the TAP.
    pub ifname: IfName,
    /// Its MAC, the one that the switch answers ARP and ND for the gateway with.
    pub mac: MacAddr,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// Pod CIDRs of this node; the first address of each becomes the gateway's.
    pub pod_cidrs: Vec<IpNet>,
}

/// A gateway that could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no such link.
    #[error("gateway interface {ifname} does not exist")]
    Missing {
        /// Its name.
        ifname: IfName,
    },
    /// A CIDR without room for a gateway and a pod.
    #[error("pod CIDR {cidr} is too small for a gateway and a pod")]
    TooSmall {
        /// The CIDR.
        cidr: IpNet,
    },
    /// A request to the kernel failed.
    #[error("configure gateway interface")]
    Netlink {
        /// Cause.
        #[from]
        source: NetlinkError,
    },
    /// A sysctl failed.
    #[error("configure forwarding")]
    Sysctl {
        /// Cause.
        #[from]
        source: SysctlError,
    },
}

/// Returns the gateway's address in each pod CIDR (the first behind the network's own),
/// with the CIDR's prefix length.
///
/// # Errors
/// [`GatewayError::TooSmall`].
pub fn gateway_addresses(pod_cidrs: &[IpNet]) -> Result<Vec<IpNet>, GatewayError> {
    pod_cidrs
        .iter()
        .map(|&cidr| gateway_address(cidr))
        .collect()
}

fn gateway_address(cidr: IpNet) -> Result<IpNet, GatewayError> {
    let too_small = GatewayError::TooSmall { cidr };
    // A /30 has two usable addresses: one gateway, one pod.
    if cidr.max_prefix_len() - cidr.prefix_len() < 2 {
        return Err(too_small);
    }
    let first = match cidr.network() {
        IpAddr::V4(network) => IpAddr::V4((network.to_bits() + 1).into()),
        IpAddr::V6(network) => IpAddr::V6((network.to_bits() + 1).into()),
    };
    IpNet::new(first, cidr.prefix_len()).map_err(|_| too_small)
}

/// Configures the gateway link and the forwarding of the node; blocks.
///
/// # Errors
/// [`GatewayError`].
pub fn configure_gateway(
    spec: &GatewayDeviceSpec,
    ledger: &mut SysctlLedger,
) -> Result<(), GatewayError> {
    let addresses = gateway_addresses(&spec.pod_cidrs)?;
    let has_v6 = addresses.iter().any(|address| address.addr().is_ipv6());
    let has_v4 = addresses.iter().any(|address| address.addr().is_ipv4());
    netlink::in_host(async |host: Session| {
        let link = host.link(spec.ifname.as_str()).await?;
        let link = link.ok_or_else(|| GatewayError::Missing {
            ifname: spec.ifname.clone(),
        })?;
        set_interface_sysctls(&spec.ifname, has_v6)?;
        configure_link(&host, &link, spec).await?;
        configure_addresses(&host, &link, &addresses).await?;
        Ok::<_, GatewayError>(())
    })?;
    if has_v4 {
        ledger.set("net/ipv4/ip_forward", "1")?;
    }
    if has_v6 {
        enable_ipv6_forwarding(ledger)?;
    }
    Ok(())
}

async fn configure_link(
    host: &Session,
    link: &Link,
    spec: &GatewayDeviceSpec,
) -> Result<(), NetlinkError> {
    let message = LinkUnspec::new_with_index(link.index)
        .address(spec.mac.0.to_vec())
        .mtu(spec.mtu.into())
        .up()
        .build();
    host.set_link(&spec.ifname, message).await
}

async fn configure_addresses(
    host: &Session,
    link: &Link,
    addresses: &[IpNet],
) -> Result<(), NetlinkError> {
    for &address in addresses {
        host.add_address(link, address).await?;
    }
    for (stale, scope) in host.addresses(Some(link.index)).await? {
        if scope == AddressScope::Universe && !addresses.contains(&stale) {
            host.delete_address(link, stale).await?;
        }
    }
    Ok(())
}

/// These end with the interface and need no ledger.
fn set_interface_sysctls(ifname: &IfName, has_v6: bool) -> Result<(), SysctlError> {
    // Loose: the kernel takes the greater of `all` and the interface's own value, and strict
    // checking would drop pods' packets whose way back is policy-routed. The switch itself
    // has checked the source (SpoofGuard).
    sysctl::write(&format!("net/ipv4/conf/{ifname}/rp_filter"), "2")?;
    let v6 = |name: &str| format!("net/ipv6/conf/{ifname}/{name}");
    if !has_v6 {
        return sysctl::write_if_present(&v6("disable_ipv6"), "1");
    }
    sysctl::write(&v6("disable_ipv6"), "0")?;
    // Nothing that a pod says may configure the node.
    for name in ["accept_ra", "autoconf", "accept_dad", "accept_redirects"] {
        sysctl::write(&v6(name), "0")?;
    }
    Ok(())
}

/// Switching IPv6 forwarding on makes the kernel forget the default routes that it learned
/// by router advertisements and ignore further ones, except on interfaces with accept_ra 2
/// (kernel doc ip-sysctl, `accept_ra`): a node that lives by RA would lose its uplink.
fn enable_ipv6_forwarding(ledger: &mut SysctlLedger) -> Result<(), SysctlError> {
    let links = std::fs::read_dir(sysctl::path_of("net/ipv6/conf")).map_err(|source| {
        SysctlError::Read {
            key: "net/ipv6/conf".to_owned(),
            source,
        }
    })?;
    for name in links
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
    {
        let key = format!("net/ipv6/conf/{name}/accept_ra");
        let listens = name != "all" && sysctl::read(&key).is_ok_and(|value| value == "1");
        if listens && !name.starts_with(super::HOST_VETH_PREFIX) {
            ledger.set(&key, "2")?;
        }
    }
    ledger.set("net/ipv6/conf/all/forwarding", "1")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_new_netns, run};
    use super::*;

    fn spec(pod_cidrs: &[&str]) -> GatewayDeviceSpec {
        GatewayDeviceSpec {
            ifname: "vsw0".parse().unwrap(),
            mac: "02:76:73:77:00:01".parse().unwrap(),
            mtu: 1400,
            pod_cidrs: pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn gateway_is_the_first_address_behind_the_network() {
        let cidrs = [
            "10.244.3.0/24".parse().unwrap(),
            "fd00:1::/64".parse().unwrap(),
        ];
        let addresses = gateway_addresses(&cidrs).unwrap();
        assert_eq!(addresses[0].to_string(), "10.244.3.1/24");
        assert_eq!(addresses[1].to_string(), "fd00:1::1/64");
        assert!(gateway_addresses(&["255.255.255.255/32".parse().unwrap()]).is_err());
        assert!(gateway_addresses(&["10.0.0.0/31".parse().unwrap()]).is_err());
    }

    #[test]
    fn gateway_gets_mac_mtu_and_addresses_and_the_node_forwards() {
        in_new_netns(|| {
            run("ip tuntap add vsw0 mode tap").unwrap();
            let dir = tempfile::tempdir().unwrap();
            let mut ledger = SysctlLedger::open(&dir.path().join("s.json")).unwrap();
            configure_gateway(&spec(&["10.244.3.0/24", "fd00:1::/64"]), &mut ledger).unwrap();
            let link = run("ip -d addr show vsw0").unwrap();
            let expected = [
                "mtu 1400",
                "02:76:73:77:00:01",
                "10.244.3.1/24",
                "fd00:1::1/64",
                ",UP",
            ];
            for part in expected {
                assert!(link.contains(part), "{part} in {link}");
            }
            assert!(!link.contains("tentative"), "{link}");
            assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), "1");
            assert_eq!(sysctl::read("net/ipv6/conf/all/forwarding").unwrap(), "1");
            assert_eq!(sysctl::read("net/ipv6/conf/vsw0/accept_ra").unwrap(), "0");
        });
    }

    #[test]
    fn gateway_follows_a_changed_pod_cidr() {
        in_new_netns(|| {
            run("ip tuntap add vsw0 mode tap").unwrap();
            let dir = tempfile::tempdir().unwrap();
            let mut ledger = SysctlLedger::open(&dir.path().join("s.json")).unwrap();
            configure_gateway(&spec(&["10.244.3.0/24"]), &mut ledger).unwrap();
            configure_gateway(&spec(&["10.244.4.0/24"]), &mut ledger).unwrap();
            let link = run("ip addr show vsw0").unwrap();
            assert!(
                link.contains("10.244.4.1/24") && !link.contains("10.244.3.1"),
                "{link}"
            );
        });
    }

    #[test]
    fn interfaces_that_live_by_router_advertisements_keep_doing_so() {
        in_new_netns(|| {
            run("ip tuntap add vsw0 mode tap; ip tuntap add up0 mode tap").unwrap();
            sysctl::write("net/ipv6/conf/up0/accept_ra", "1").unwrap();
            let dir = tempfile::tempdir().unwrap();
            let mut ledger = SysctlLedger::open(&dir.path().join("s.json")).unwrap();
            configure_gateway(&spec(&["fd00:1::/64"]), &mut ledger).unwrap();
            assert_eq!(sysctl::read("net/ipv6/conf/up0/accept_ra").unwrap(), "2");
            assert_eq!(
                sysctl::read("net/ipv4/ip_forward").unwrap(),
                "0",
                "no IPv4 pods"
            );
            assert!(ledger.restore().is_empty());
            assert_eq!(sysctl::read("net/ipv6/conf/up0/accept_ra").unwrap(), "1");
            assert_eq!(sysctl::read("net/ipv6/conf/all/forwarding").unwrap(), "0");
        });
    }

    #[test]
    fn missing_gateway_link_is_named() {
        in_new_netns(|| {
            let dir = tempfile::tempdir().unwrap();
            let mut ledger = SysctlLedger::open(&dir.path().join("s.json")).unwrap();
            let error = configure_gateway(&spec(&["10.244.3.0/24"]), &mut ledger).unwrap_err();
            assert_eq!(error.to_string(), "gateway interface vsw0 does not exist");
        });
    }
}
