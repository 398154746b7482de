//! Addresses and annotations of Node objects, as flannel's kube-subnet-manager writes and reads
//! them. Pure. Other nodes are not trusted: an annotation that does not parse counts as absent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};
use vswitch_api::{IfName, MacAddr};

use super::spec::{NodesSpec, tunnel_ifnames};
use crate::config::Backend;
use crate::host::container_mac;
use crate::state::{NETWORK_ANNOTATION, NodeRecord};

const BACKEND_TYPE: &str = "backend-type";
const SUBNET_MANAGER: &str = "kube-subnet-manager";
/// Address of the node, and data of the backend, for IPv4 and for IPv6.
const PUBLIC_IP: [&str; 2] = ["public-ip", "public-ipv6"];
const BACKEND_DATA: [&str; 2] = ["backend-data", "backend-v6-data"];

/// Addresses under which a node is reached by other nodes, at most one a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Underlay {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Underlay {
    /// Takes the first usable address of each family.
    #[must_use]
    pub fn first_of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut underlay = Self::default();
        for address in addresses.into_iter().filter(|ip| is_usable(*ip)) {
            match address {
                IpAddr::V4(ip) => underlay.v4 = underlay.v4.or(Some(ip)),
                IpAddr::V6(ip) => underlay.v6 = underlay.v6.or(Some(ip)),
            }
        }
        underlay
    }

    /// Fills up what is missing from another one.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            v4: self.v4.or(other.v4),
            v6: self.v6.or(other.v6),
        }
    }

    pub(super) fn of(self, is_v6: bool) -> Option<IpAddr> {
        if is_v6 {
            self.v6.map(IpAddr::V6)
        } else {
            self.v4.map(IpAddr::V4)
        }
    }

    pub(super) fn addresses(self) -> impl Iterator<Item = IpAddr> {
        [self.of(false), self.of(true)].into_iter().flatten()
    }
}

/// Returns whether packets can be sent to an address as that of another machine.
fn is_usable(ip: IpAddr) -> bool {
    let is_special = match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(is_special || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

/// End of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vtep {
    pub(super) mac: MacAddr,
    /// `None`: not said; flannel of old did not.
    pub(super) vni: Option<u32>,
    pub(super) address: IpAddr,
}

/// Returns the backend that a node says it has.
pub(super) fn backend_of(node: &NodeRecord) -> Option<&str> {
    annotation(node, BACKEND_TYPE)
}

/// Returns where a node is reached: as its annotations say, else its InternalIPs.
pub(super) fn underlay_of(node: &NodeRecord) -> Underlay {
    let told = PUBLIC_IP.iter().filter_map(|key| annotation(node, key));
    let told = Underlay::first_of(told.filter_map(|text| text.parse().ok()));
    told.or(Underlay::first_of(node.internal_ips.iter().copied()))
}

/// Returns the end of a node's tunnel over IPv4 or IPv6.
pub(super) fn vtep_of(node: &NodeRecord, is_v6: bool) -> Option<Vtep> {
    let data = annotation(node, BACKEND_DATA[usize::from(is_v6)])?;
    let data: Value = serde_json::from_str(data).ok()?;
    let mac: MacAddr = data["VtepMAC"].as_str()?.parse().ok()?;
    // IEEE 802: bit 0 of the first octet is that of groups.
    let is_unicast = mac.0[0] & 1 == 0 && mac.0 != [0; 6];
    is_unicast.then_some(Vtep {
        mac,
        vni: data["VNI"].as_u64().and_then(|vni| u32::try_from(vni).ok()),
        address: underlay_of(node).of(is_v6)?,
    })
}

fn annotation<'a>(node: &'a NodeRecord, key: &str) -> Option<&'a str> {
    let key = format!("{NETWORK_ANNOTATION}{key}");
    node.annotations.get(&key).map(String::as_str)
}

/// What this node's own Node object should say, for whoever can write it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePublication {
    /// metadata.annotations; `None` is to be removed.
    pub annotations: BTreeMap<String, Option<String>>,
    /// spec.podCIDRs, where this node gives them to itself.
    pub pod_cidrs: Vec<IpNet>,
    /// status.addresses of type InternalIP, where nobody else writes them.
    pub internal_ips: Vec<IpAddr>,
}

/// Returns what this node tells others.
#[must_use]
pub fn node_publication(spec: &NodesSpec, own: Underlay) -> NodePublication {
    let mut annotations = BTreeMap::new();
    let mut annotate = |key: &str, value: Option<String>| {
        annotations.insert(format!("{NETWORK_ANNOTATION}{key}"), value);
    };
    // Without a backend they are somebody else's, who sees to the way to other nodes.
    if spec.backend != Backend::None {
        annotate(BACKEND_TYPE, Some(spec.backend.name().to_owned()));
        annotate(SUBNET_MANAGER, Some("true".to_owned()));
        for (is_v6, ifname) in tunnel_ifnames(&spec.vxlan.ifname) {
            let address = own.of(is_v6);
            let data = address.map(|_| backend_data(spec, &ifname).to_string());
            annotate(
                PUBLIC_IP[usize::from(is_v6)],
                address.map(|ip| ip.to_string()),
            );
            annotate(BACKEND_DATA[usize::from(is_v6)], data);
        }
    }
    NodePublication {
        annotations,
        pod_cidrs: spec.pod_cidrs.clone(),
        internal_ips: own.addresses().collect(),
    }
}

fn backend_data(spec: &NodesSpec, ifname: &IfName) -> Value {
    match spec.backend {
        Backend::Vxlan => {
            let mac = container_mac(&spec.node_name, ifname);
            json!({"VNI": spec.vxlan.vni, "VtepMAC": mac.to_string()})
        }
        Backend::HostGw | Backend::None => Value::Null,
    }
}
