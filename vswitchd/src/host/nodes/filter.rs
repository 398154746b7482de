//! nftables rules that let a pod's address in only from its own node, with counters.
//!
//! In a table of family inet of their own, before connection tracking. Rules name devices by
//! name, so that they are in force before a device is there. Counters are named and outlive
//! a change of the rules. Blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_api::{IfName, MacAddr};

use super::plan::{NodePlan, Tunnel};
use super::spec::NodesSpec;
use crate::host::NftTable;
use crate::host::nft::{self, NftError};

/// Why a packet from another machine was dropped before it came to the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeDrop {
    /// Into a tunnel, from an address that no node has.
    TunnelFromStranger,
    /// Out of a tunnel, with a source that is not of the node at its other end.
    TunnelSpoofed,
    /// Not out of a tunnel, or not from the node's link-layer address, with a pod's address.
    UplinkSpoofed,
}

/// All reasons.
pub const NODE_DROPS: [NodeDrop; 3] = [
    NodeDrop::TunnelFromStranger,
    NodeDrop::TunnelSpoofed,
    NodeDrop::UplinkSpoofed,
];

impl NodeDrop {
    /// Returns the name in metrics, status and rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TunnelFromStranger => "tunnel_from_stranger",
            Self::TunnelSpoofed => "tunnel_spoofed",
            Self::UplinkSpoofed => "uplink_spoofed",
        }
    }
}

/// A node on a common link: by which interface and link-layer address it is seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeenAt {
    pub(super) ifname: IfName,
    pub(super) mac: MacAddr,
}

/// Returns the name of the table.
pub(super) fn table_name(table: &NftTable) -> String {
    format!("{table}_nodes")
}

/// Returns the transaction that removes the table, which may be gone.
pub(super) fn removal(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

/// Returns the transaction that puts the rules in place of earlier ones and keeps counters.
pub(super) fn ruleset(
    table: &str,
    spec: &NodesSpec,
    plan: &NodePlan,
    seen: &BTreeMap<IpAddr, SeenAt>,
) -> Result<String, NftError> {
    let mut text = format!("add table inet {table}\n");
    for reason in NODE_DROPS {
        line(
            &mut text,
            format!("add counter inet {table} {}", reason.name()),
        );
    }
    for (chain, hook) in [("from_nodes", "prerouting"), ("into_tunnels", "input")] {
        line(
            &mut text,
            format!(
                "add chain inet {table} {chain} {{ type filter hook {hook} priority raw; policy accept; }}\n\
                 flush chain inet {table} {chain}"
            ),
        );
    }
    let mut add = |chain: &str, rule: String| {
        line(&mut text, format!("add rule inet {table} {chain} {rule}"));
    };
    let gateway = nft::quoted(&spec.gateway_ifname)?;
    add(
        "from_nodes",
        format!("iifname {{ \"lo\", {gateway} }} accept"),
    );
    for tunnel in &plan.tunnels {
        let ifname = nft::quoted(&tunnel.ifname)?;
        for sources in sources(tunnel.networks.iter().map(|(cidr, mac)| (*mac, *cidr))) {
            add("from_nodes", format!("iifname {ifname} {sources} accept"));
        }
        let reason = NodeDrop::TunnelSpoofed;
        add(
            "from_nodes",
            format!("iifname {ifname} {}", dropped(reason)),
        );
        add("into_tunnels", strangers(tunnel));
    }
    for (ifname, sources_there) in by_interface(plan, seen) {
        let ifname = nft::quoted(&ifname)?;
        for sources in sources(sources_there.into_iter()) {
            add("from_nodes", format!("iifname {ifname} {sources} accept"));
        }
    }
    let pods = plan.networks.iter().chain(&spec.pod_cidrs).copied();
    for (l3, networks) in by_family(pods) {
        let reason = dropped(NodeDrop::UplinkSpoofed);
        add(
            "from_nodes",
            format!("{l3} saddr {{ {} }} {reason}", networks.join(", ")),
        );
    }
    Ok(text)
}

fn line(text: &mut String, line: String) {
    let _never_fails = writeln!(text, "{line}");
}

fn dropped(reason: NodeDrop) -> String {
    format!("counter name {} drop", reason.name())
}

/// Drops what is for the tunnel and from no node. The socket is shared by all devices of a
/// port: others' networks are told by their VNI, 96 bits behind the start of the UDP header.
fn strangers(tunnel: &Tunnel) -> String {
    let l3 = if tunnel.local.is_ipv6() { "ip6" } else { "ip" };
    let nodes: BTreeSet<String> = tunnel.vteps.values().map(IpAddr::to_string).collect();
    let nodes: Vec<String> = nodes.into_iter().collect();
    format!(
        "udp dport {} @th,96,24 {} {l3} saddr != {{ {} }} {}",
        tunnel.port,
        tunnel.vni,
        nodes.join(", "),
        dropped(NodeDrop::TunnelFromStranger)
    )
}

/// Returns what to match, a family each: MACs with the networks that may be behind them.
fn sources(pairs: impl Iterator<Item = (MacAddr, IpNet)>) -> Vec<String> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (mac, cidr) in pairs {
        let list = if cidr.addr().is_ipv4() {
            &mut v4
        } else {
            &mut v6
        };
        list.push(format!("{mac} . {cidr}"));
    }
    [("ip", v4), ("ip6", v6)]
        .into_iter()
        .filter(|(_, pairs)| !pairs.is_empty())
        .map(|(l3, pairs)| format!("ether saddr . {l3} saddr {{ {} }}", pairs.join(", ")))
        .collect()
}

/// Returns by which interface networks come in, and from which MAC.
fn by_interface(
    plan: &NodePlan,
    seen: &BTreeMap<IpAddr, SeenAt>,
) -> BTreeMap<IfName, BTreeSet<(MacAddr, IpNet)>> {
    let mut interfaces: BTreeMap<IfName, BTreeSet<(MacAddr, IpNet)>> = BTreeMap::new();
    for (cidr, next_hop) in &plan.next_hops {
        if let Some(SeenAt { ifname, mac }) = seen.get(next_hop) {
            let there = interfaces.entry(ifname.clone()).or_default();
            there.insert((*mac, *cidr));
        }
    }
    interfaces
}

fn by_family(networks: impl Iterator<Item = IpNet>) -> Vec<(&'static str, Vec<String>)> {
    let merged = IpNet::aggregate(&networks.collect());
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
        merged.into_iter().partition(|net| net.addr().is_ipv4());
    [("ip", v4), ("ip6", v6)]
        .into_iter()
        .filter(|(_, networks)| !networks.is_empty())
        .map(|(l3, networks)| (l3, networks.iter().map(IpNet::to_string).collect()))
        .collect()
}
