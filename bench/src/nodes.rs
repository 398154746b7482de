//! TCP throughput between pods of two nodes over vxlan, beside a kernel bridge with a kernel
//! VXLAN device on each of two other nodes in the same run.
//!
//! Machines are shared and noisy: what counts is the ratio of two medians whose rounds are
//! interleaved. Needs root and iperf3; uses the release binaries that `make bench-nodes` built.

use anyhow::{Result, ensure};
use clap::Parser;
use serde_json::json;
use vswitch_bench::iperf::{Server, median, throughput};
use vswitch_tests::{Cluster, ClusterOptions, Namespace};

/// Measures TCP between pods of two nodes, through vswitchd and through bridges of the kernel.
#[derive(Debug, Parser)]
#[command(name = "vswitch-bench-nodes")]
struct Args {
    /// Rounds; the median of each side is reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Parallel TCP streams.
    #[arg(long, default_value_t = 1)]
    streams: u32,
    /// Fail if the switch reaches less than this share of the kernel's bridges.
    #[arg(long)]
    at_least: Option<f64>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// A node as a plain bridge plugin would make it: pod, veth, bridge, VXLAN device.
struct KernelNode {
    pod: Namespace,
    _node: Namespace,
}

impl KernelNode {
    /// `place` counts from 0; the two nodes are `place` 20 and 21 of the underlay.
    fn new(cluster: &Cluster, place: usize) -> Result<Self> {
        let (node, pod) = (Namespace::new("kernel")?, Namespace::new("kpod")?);
        cluster.plug(&node, place)?;
        let (local, remote) = (place + 1, 42 - place);
        let commands = [
            "link add br0 type bridge".to_owned(),
            format!(
                "link add vx0 mtu 1450 type vxlan id 7 dstport 4789 local 192.0.2.{local} remote 192.0.2.{remote}"
            ),
            format!(
                "link add pod mtu 1450 type veth peer name eth0 mtu 1450 netns {}",
                pod.name()
            ),
            "link set vx0 master br0 up".to_owned(),
            "link set pod master br0 up".to_owned(),
            "link set br0 up".to_owned(),
        ];
        for command in &commands {
            node.ip(&command.split_whitespace().collect::<Vec<_>>())?;
        }
        pod.ip(&[
            "address",
            "add",
            &format!("10.99.0.{local}/24"),
            "dev",
            "eth0",
        ])?;
        pod.ip(&["link", "set", "eth0", "up"])?;
        Ok(Self { pod, _node: node })
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.rounds > 0 && args.seconds > 0,
        "rounds and seconds must be at least 1"
    );
    let cluster = Cluster::start(&ClusterOptions {
        nodes: 2,
        backend: "vxlan",
        dual_stack: false,
    })?;
    let client = cluster.pod(0, "client")?;
    let server = cluster.pod(1, "server")?;
    let _switch_server = Server::start(&server.netns)?;
    let (near, far) = (
        KernelNode::new(&cluster, 20)?,
        KernelNode::new(&cluster, 21)?,
    );
    let _kernel_server = Server::start(&far.pod)?;

    let (mut kernel, mut switched) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        kernel.push(throughput(
            &near.pod,
            "10.99.0.22".parse()?,
            args.seconds,
            args.streams,
        )?);
        switched.push(throughput(
            &client.netns,
            server.ip(),
            args.seconds,
            args.streams,
        )?);
    }
    report(&args, &kernel, &switched)
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn report(args: &Args, kernel: &[f64], switched: &[f64]) -> Result<()> {
    let (bridge, switch) = (median(kernel), median(switched));
    let ratio = switch / bridge;
    if args.json {
        let value = json!({"streams": args.streams, "seconds": args.seconds,
            "kernel_gbps": kernel, "vswitchd_gbps": switched,
            "kernel_median_gbps": bridge, "vswitchd_median_gbps": switch, "ratio": ratio});
        println!("{value}");
    } else {
        let row = |values: &[f64]| {
            let values = values.iter().map(|value| format!("{value:6.2}"));
            values.collect::<Vec<_>>().join(" ")
        };
        println!(
            "TCP between nodes over vxlan, {} stream(s), Gb/s, {} rounds of {} s",
            args.streams, args.rounds, args.seconds
        );
        println!(
            "  kernel bridge + vxlan  {}   median {bridge:6.2}",
            row(kernel)
        );
        println!(
            "  vswitchd               {}   median {switch:6.2}",
            row(switched)
        );
        println!("  ratio {ratio:.2}");
    }
    if let Some(wanted) = args.at_least {
        ensure!(ratio >= wanted, "ratio {ratio:.2} is below {wanted}");
    }
    Ok(())
}
