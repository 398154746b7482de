//! What flow records cost: new connections of a node that records all of them beside one that
//! records none, and of a pod beside another one whose packets a policy denies by the hundred
//! thousand.
//!
//! Rounds of both sides are interleaved, and the median of their ratios counts: machines are shared
//! and noisy. Prints a line for each figure and exits 1 if one is below its limit. Needs root; uses the
//! release binaries.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use vswitch_bench::iperf::median;
use vswitch_bench::load_process::{beside, ipv4, new_connections};
use vswitch_tests::{Daemon, DaemonOptions, Pod};

/// Measures what flow records cost.
#[derive(Debug, Parser)]
#[command(name = "vswitch-records")]
struct Args {
    /// Rounds of each figure.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds of each measurement.
    #[arg(long, default_value_t = 1_000)]
    window_ms: u64,
}

/// New connections with all of them recorded, of those with none.
const RECORDED_LIMIT: f64 = 0.97;

/// New connections beside a pod that is denied, of those beside one that burns as much.
const DENIED_LIMIT: f64 = 0.95;

/// Nobody may come to the victim.
const POLICY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec:
  podSelector: {matchLabels: {app: victim}}
  policyTypes: [Ingress]
";

/// A switch with two pods that talk, and two of which one is denied by the other's policy.
struct Node {
    client: Pod,
    server: Pod,
    flooder: Pod,
    victim: Pod,
    daemon: Daemon,
}

impl Node {
    fn start(connections: &str) -> Result<Self> {
        let daemon = Daemon::start(&DaemonOptions {
            extra: format!("[flows]\nconnections = \"{connections}\"\nevents = false\n"),
            ..DaemonOptions::default()
        })?;
        let attach = |name| Pod::named(name).attach(&daemon);
        let [flooder, victim] = [attach("flooder")?, attach("victim")?];
        daemon.vsctl(&["label", "pod", "victim", "app=victim"])?;
        daemon.apply(POLICY)?;
        Ok(Self {
            client: attach("client")?,
            server: attach("server")?,
            flooder,
            victim,
            daemon,
        })
    }

    fn connections(&self, window_ms: u64) -> Result<f64> {
        let server = (&self.server.netns, ipv4(self.server.ip())?);
        new_connections(&self.client.netns, server, window_ms)
    }

    /// Returns new connections while the other pod does something, and packets a second that it sent.
    fn beside(&self, load: &[&str], window_ms: u64) -> Result<(f64, f64)> {
        beside(&self.flooder.netns, load, || self.connections(window_ms))
    }

    /// Returns how many packets records say were denied.
    fn denied(&self) -> Result<u64> {
        let answer = self.daemon.vsctl_json(&["flows", "--denied"])?;
        ensure!(answer["lost"] == 0, "records were lost: {}", answer["lost"]);
        let records = answer["records"].as_array().context("no records")?;
        Ok(records.iter().filter_map(|of| of["packets"].as_u64()).sum())
    }
}

/// Returns the median of the first of each pair, of the second, and of their ratios.
fn medians(pairs: &[(f64, f64)]) -> [f64; 3] {
    let of = |value: fn(&(f64, f64)) -> f64| median(&pairs.iter().map(value).collect::<Vec<_>>());
    [
        of(|pair| pair.0),
        of(|pair| pair.1),
        of(|pair| pair.0 / pair.1),
    ]
}

fn recorded(args: &Args) -> Result<bool> {
    let (all, off) = (Node::start("all")?, Node::start("off")?);
    let mut pairs = Vec::new();
    for round in 0..args.rounds {
        // Who comes second finds a warmer machine.
        let (first, second) = if round % 2 == 0 {
            (&all, &off)
        } else {
            (&off, &all)
        };
        let (a, b) = (
            first.connections(args.window_ms)?,
            second.connections(args.window_ms)?,
        );
        pairs.push(if round % 2 == 0 { (a, b) } else { (b, a) });
    }
    let [all, off, ratio] = medians(&pairs);
    println!(
        "records of allowed connections: {all:.0} new connections a second with all recorded, {off:.0} \
         with none: {ratio:.3}, limit {RECORDED_LIMIT}"
    );
    Ok(ratio >= RECORDED_LIMIT)
}

fn denied(args: &Args) -> Result<bool> {
    let node = Node::start("off")?;
    let victim = ipv4(node.victim.ip())?.to_string();
    let flood = ["flood", "--to", &victim, "--kind", "udp"];
    let (mut pairs, mut offered) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let (control, _) = node.beside(&["burn"], args.window_ms)?;
        let (flooded, packets) = node.beside(&flood, args.window_ms)?;
        pairs.push((flooded, control));
        offered.push(packets);
    }
    let [flooded, control, ratio] = medians(&pairs);
    println!(
        "records of denials: {flooded:.0} new connections a second beside a pod that sends {:.0} denied \
         packets a second, {control:.0} beside one that keeps its core as busy without: {ratio:.3}, limit \
         {DENIED_LIMIT}; {} packets in the records, none lost",
        median(&offered),
        node.denied()?,
    );
    Ok(ratio >= DENIED_LIMIT)
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "rounds must be at least 1");
    let is_met = [recorded(&args)?, denied(&args)?];
    Ok(if is_met.contains(&false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
