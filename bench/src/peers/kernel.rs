//! The kernel's own dataplanes.

use anyhow::{Result, bail};
use vswitch_tests::{Namespace, run, run_in};

use crate::fabric::{NETWORK, PREFIX, address};

/// Two pods and the two ends of one veth.
pub(crate) fn connect_straight(pods: &[Namespace]) -> Result<()> {
    let [near, far] = pods else {
        bail!("a straight veth has two ends, not {}", pods.len());
    };
    let of = |index| format!("{}/{PREFIX}", address(index));
    near.connect("eth0", &of(0), far, "eth0", &of(1))
}

/// Puts a veth between each pod and the node; returns the names of the node's ends.
pub(crate) fn attach(node: &Namespace, pods: &[Namespace], prefix: u8) -> Result<Vec<String>> {
    let mut host_ends = Vec::new();
    for (index, pod) in pods.iter().enumerate() {
        let host_end = format!("port{index}");
        let veth = [
            "link", "add", &host_end, "type", "veth", "peer", "name", "eth0",
        ];
        node.ip(&[&veth[..], &["netns", pod.name()]].concat())?;
        node.ip(&["link", "set", &host_end, "up"])?;
        let address = format!("{}/{prefix}", address(index));
        pod.ip(&["address", "add", &address, "dev", "eth0"])?;
        pod.ip(&["link", "set", "eth0", "up"])?;
        host_ends.push(host_end);
    }
    Ok(host_ends)
}

fn sysctl(node: &Namespace, setting: &str) -> Result<()> {
    run_in(node, &["sysctl", "-qw", setting])?.success()?;
    Ok(())
}

fn add_bridge(node: &Namespace, pods: &[Namespace], call_iptables: u8) -> Result<()> {
    node.ip(&["link", "add", "br0", "type", "bridge"])?;
    node.ip(&["link", "set", "br0", "up"])?;
    for host_end in attach(node, pods, PREFIX)? {
        node.ip(&["link", "set", &host_end, "master", "br0"])?;
    }
    sysctl(
        node,
        &format!("net.bridge.bridge-nf-call-iptables={call_iptables}"),
    )
}

/// A bridge and nothing else: a kernel with br_netfilter would pass frames through its hooks.
pub(crate) fn bridge(node: &Namespace, pods: &[Namespace]) -> Result<()> {
    add_bridge(node, pods, 0)
}

/// A bridge whose frames br_netfilter leads through conntrack and the forward hook: that works
/// on kernels without conntrack for the bridge family as well.
pub(crate) fn bridge_with_nftables(node: &Namespace, pods: &[Namespace]) -> Result<()> {
    add_bridge(node, pods, 1)?;
    let ruleset = format!(
        "table ip filter {{
           chain forward {{
             type filter hook forward priority 0; policy drop;
             ct state invalid drop
             ct state established,related accept
             ip saddr {NETWORK} ip daddr {NETWORK} accept
           }}
         }}"
    );
    run(node.command("nft").args(["-f", "-"]), &ruleset)?.success()?;
    forget_soon(node)
}

/// As Calico wires a pod: an address of its own, the way to everywhere through 169.254.1.1,
/// for which the node's end answers by proxy ARP; a host route to each pod; policy drop.
pub(crate) fn route_with_iptables(node: &Namespace, pods: &[Namespace]) -> Result<()> {
    sysctl(node, "net.ipv4.ip_forward=1")?;
    // A node has a default route: proxy ARP answers only for what is routed elsewhere.
    node.ip(&[
        "link", "add", "uplink", "type", "veth", "peer", "name", "world",
    ])?;
    node.ip(&["link", "set", "world", "up"])?;
    node.ip(&["link", "set", "uplink", "up"])?;
    node.ip(&["route", "add", "default", "dev", "uplink"])?;
    let host_ends = attach(node, pods, 32)?;
    for (index, (pod, host_end)) in pods.iter().zip(&host_ends).enumerate() {
        sysctl(node, &format!("net.ipv4.conf.{host_end}.proxy_arp=1"))?;
        sysctl(node, &format!("net.ipv4.neigh.{host_end}.proxy_delay=0"))?;
        let to_pod = address(index).to_string();
        node.ip(&["route", "add", &to_pod, "dev", host_end, "scope", "link"])?;
        pod.ip(&[
            "route",
            "add",
            "169.254.1.1",
            "dev",
            "eth0",
            "scope",
            "link",
        ])?;
        pod.ip(&[
            "route",
            "add",
            "default",
            "via",
            "169.254.1.1",
            "dev",
            "eth0",
        ])?;
    }
    let state = |states, target| {
        [
            "-A",
            "FORWARD",
            "-m",
            "conntrack",
            "--ctstate",
            states,
            "-j",
            target,
        ]
    };
    let rules: [&[&str]; 4] = [
        &["-P", "FORWARD", "DROP"],
        &state("INVALID", "DROP"),
        &state("RELATED,ESTABLISHED", "ACCEPT"),
        &[
            "-A", "FORWARD", "-i", "port+", "-s", NETWORK, "-d", NETWORK, "-j", "ACCEPT",
        ],
    ];
    for rule in rules {
        run_in(node, &[&["iptables", "-w"], rule].concat())?.success()?;
    }
    forget_soon(node)
}

/// Closed connections of all rounds would fill the kernel's table, which then refuses others.
fn forget_soon(node: &Namespace) -> Result<()> {
    sysctl(node, "net.netfilter.nf_conntrack_tcp_timeout_time_wait=5")
}
