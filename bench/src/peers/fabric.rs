//! A peer's fabric: pods in namespaces, and whatever connects them.

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;
use vswitch_tests::{Namespace, Pod, run, run_in};

use crate::ovs::OpenVSwitch;
use crate::switch::LoadedNode;
use crate::{kernel, ovs, switch};

/// Prefix length of the pod network.
pub(crate) const PREFIX: u8 = 24;
/// The pod network of the peers; vswitchd gives out addresses of its own.
pub(crate) const NETWORK: &str = "10.90.0.0/24";

/// So many pods may learn their neighbours.
const FEW: usize = 20;

/// A dataplane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Peer {
    /// A veth pair from pod to pod: no switch, no policy.
    Veth,
    /// The kernel's bridge, without any rule.
    Bridge,
    /// Routed veths, proxy ARP, conntrack and iptables, as Calico's standard dataplane.
    Calico,
    /// The bridge with br_netfilter, conntrack and nftables.
    BridgeNft,
    /// Open vSwitch in userspace over AF_PACKET with TSO, ct() rules.
    OvsTso,
    /// The same without TSO.
    Ovs,
    /// Open vSwitch in userspace over AF_XDP (which has no TSO), ct() rules.
    OvsAfxdp,
    /// vswitchd with its policies.
    Vswitchd,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no peer is skipped");
        f.pad(value.get_name())
    }
}

/// A pod that load can be started in.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) netns: &'a Namespace,
    pub(crate) ip: Ipv4Addr,
}

/// Pods of one peer and what connects them, ready to be loaded; removed on drop.
#[derive(Debug)]
pub(crate) enum Fabric {
    /// Connected by the kernel alone.
    Kernel {
        pods: Vec<Namespace>,
        /// Holds the bridge or router, if there is one.
        _node: Option<Namespace>,
    },
    Ovs {
        pods: Vec<Namespace>,
        _plane: OpenVSwitch,
    },
    /// Pods attached by CNI.
    Switch(Box<LoadedNode>),
}

impl Fabric {
    /// Builds a peer with so many pods; `policies` are for vswitchd alone.
    ///
    /// # Errors
    /// Fails if a step does, and if two pods do not reach each other in the end.
    pub(crate) fn build(peer: Peer, pods: usize, policies: usize) -> Result<Self> {
        let fabric = match peer {
            Peer::Vswitchd => Self::Switch(Box::new(switch::build(pods, policies)?)),
            Peer::Veth => {
                let ends = make_pods(peer, pods)?;
                kernel::connect_straight(&ends)?;
                Self::Kernel {
                    pods: ends,
                    _node: None,
                }
            }
            Peer::Bridge | Peer::BridgeNft | Peer::Calico => {
                let (node, ends) = (Namespace::new("node")?, make_pods(peer, pods)?);
                match peer {
                    Peer::Bridge => kernel::bridge(&node, &ends)?,
                    Peer::BridgeNft => kernel::bridge_with_nftables(&node, &ends)?,
                    _ => kernel::route_with_iptables(&node, &ends)?,
                }
                Self::Kernel {
                    pods: ends,
                    _node: Some(node),
                }
            }
            Peer::OvsTso | Peer::Ovs | Peer::OvsAfxdp => {
                let ends = make_pods(peer, pods)?;
                let kind = ovs::Kind::of(peer);
                let plane = OpenVSwitch::start(kind, &ends)?;
                Self::Ovs {
                    pods: ends,
                    _plane: plane,
                }
            }
        };
        fabric.prepare(peer)?;
        Ok(fabric)
    }

    /// Returns the pods, in a fixed order.
    pub(crate) fn ends(&self) -> Vec<End<'_>> {
        match self {
            Self::Kernel { pods, .. } | Self::Ovs { pods, .. } => pods
                .iter()
                .enumerate()
                .map(|(index, netns)| End {
                    netns,
                    ip: address(index),
                })
                .collect(),
            Self::Switch(switch) => switch.pods().iter().map(end_of).collect(),
        }
    }

    /// Gives the pods what load takes, and proves that the first reaches the last.
    fn prepare(&self, peer: Peer) -> Result<()> {
        let ends = self.ends();
        for end in &ends {
            let range = "net.ipv4.ip_local_port_range=1024 65535";
            run_in(end.netns, &["sysctl", "-qw", range])?.success()?;
        }
        if ends.len() > FEW && !matches!(peer, Peer::Calico) {
            know_neighbours(&ends)?;
        }
        let [first, .., last] = ends.as_slice() else {
            bail!("a fabric takes at least two pods");
        };
        crate::load::probe(first, last)
    }
}

/// Gives every pod the MAC addresses of all others for good.
///
/// One kernel plays all pods here, and its neighbour table ends at 1,024 entries that were
/// learnt (`gc_thresh3`), of all namespaces together; permanent ones do not count.
fn know_neighbours(ends: &[End<'_>]) -> Result<()> {
    let macs = ends.iter().map(|end| mac_of(end.netns));
    let macs = macs.collect::<Result<Vec<_>>>()?;
    for end in ends {
        let others = ends
            .iter()
            .zip(&macs)
            .filter(|(other, _)| other.ip != end.ip);
        let mut batch = String::new();
        for (other, mac) in others {
            let ip = other.ip;
            writeln!(
                batch,
                "neigh replace {ip} lladdr {mac} dev eth0 nud permanent"
            )?;
        }
        run(end.netns.command("ip").args(["-batch", "-"]), &batch)?.success()?;
    }
    Ok(())
}

fn mac_of(pod: &Namespace) -> Result<String> {
    let links: Value = serde_json::from_str(&pod.ip(&["-json", "link", "show", "eth0"])?)?;
    let mac = links[0]["address"].as_str().map(str::to_owned);
    mac.with_context(|| format!("eth0 of {} has no MAC address", pod.name()))
}

fn end_of(pod: &Pod) -> End<'_> {
    let ip = match pod.ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => unreachable!("the pod network of the switch is IPv4"),
    };
    End {
        netns: &pod.netns,
        ip,
    }
}

fn make_pods(peer: Peer, count: usize) -> Result<Vec<Namespace>> {
    (0..count)
        .map(|index| Namespace::new(&format!("{peer}-{index}")))
        .collect()
}

/// Address of a pod; `.1` is left to gateways.
pub(crate) fn address(index: usize) -> Ipv4Addr {
    let host = u8::try_from(index + 2).expect("a fabric has at most 250 pods");
    Ipv4Addr::new(10, 90, 0, host)
}
