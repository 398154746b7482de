//! What a large cluster costs one node: the reconciler, compilers and datapath of the daemon,
//! fed with 1,000 namespaces, 10,000 pods (110 of them local), 10,000 policies with 200 of the
//! whole cluster beside them, and 5,000 Services of 20 endpoints.
//!
//! Prints one JSON line and exits 1 if a limit is missed. Needs no root.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Value, json};

use vswitch_bench::cluster::{CLUSTER_POLICIES, ENDPOINTS_EACH, LOCAL_PODS, NAMESPACES, PODS};
use vswitch_bench::node::{Connections, Node};
use vswitch_bench::times::{Times, micros};

/// Measures what a large cluster costs one node.
#[derive(Debug, Parser)]
#[command(name = "vswitch-scale")]
struct Args {
    /// Changes of each kind.
    #[arg(long, default_value_t = 400)]
    changes: usize,
    /// New connections of each round.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Rounds of new connections. The machine is shared, and noise only adds: the quietest
    /// round's median is what a connection costs; all of them are printed.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Pause between rounds, ms: what slows a shared machine down lasts for longer than a round.
    #[arg(long, default_value_t = 250)]
    pause: u64,
}

/// Limits: what a node with a full cluster may cost.
mod limit {
    use std::time::Duration;

    pub(super) const FULL: Duration = Duration::from_secs(1);
    pub(super) const CHANGE_P99: Duration = Duration::from_millis(5);
    pub(super) const MEMORY_MIB: f64 = 300.0;
    pub(super) const CONNECTION: Duration = Duration::from_micros(2);
    /// Ten times the policies elsewhere: a change that they do not concern costs the same, but
    /// for what caches and the noise of a shared machine take.
    pub(super) const GROWTH: f64 = 2.0;
    pub(super) const SERVICES: Duration = Duration::from_secs(1);
    /// A new connection to one of ten Services among 5,000, compared with ten alone.
    pub(super) const CHOICE: f64 = 1.2;
}

/// Resident memory of this process, MiB.
fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("VmRSS in /proc/self/status")?
        .trim()
        .parse()?;
    Ok(kib / 1024.0)
}

/// Medians of a change that the policies elsewhere do not concern.
fn growth(changes: usize) -> Result<Vec<(usize, f64)>> {
    let mut medians = Vec::new();
    for policies in [1_000, 3_000, 10_000] {
        let node = Node::start()?;
        node.load(policies)?;
        let relabel = micros(node.relabel(changes)?.quantile(50));
        let policy = micros(node.new_policies(changes)?.quantile(50));
        node.handle.stop();
        medians.push((policies, relabel + policy));
    }
    Ok(medians)
}

/// Services of the comparison, and of the full load.
const FEW_SERVICES: usize = 10;
const SERVICES: usize = 5_000;

/// Rounds of new connections, the quietest first.
fn rounds(args: &Args, node: &Node, one: impl Fn(usize) -> Connections) -> Vec<Connections> {
    let rounds = (0..args.rounds.max(1)).map(|round| {
        // Each round's connections are new.
        node.datapath.flush_connections(|_| true);
        std::thread::sleep(Duration::from_millis(args.pause));
        one(round)
    });
    let mut rounds: Vec<Connections> = rounds.collect();
    rounds.sort_by_key(|connections| connections.all.quantile(50));
    rounds
}

/// What Services take.
struct ServiceFigures {
    load: Duration,
    change: Times,
    /// Median of a new connection to one of ten Services that are all there are.
    few: Duration,
    /// To one of the same ten among 5,000.
    few_of_all: Duration,
    /// To one of 5,000, hardly ever the same: each waits for memory that no cache holds.
    all: Duration,
    /// How much ten among 5,000 cost of what ten alone cost, the median of the rounds: what
    /// slows the machine down slows both down in one round.
    choice: f64,
}

/// Measures few and all Services in turns, so that a quiet moment is quiet for both.
fn services(args: &Args) -> Result<ServiceFigures> {
    let (small, large) = (Node::start()?, Node::start()?);
    small.load(10_000)?;
    small.load_services(FEW_SERVICES)?;
    large.load(10_000)?;
    let load = large.load_services(SERVICES)?;
    let ways = [
        (&small, FEW_SERVICES),
        (&large, FEW_SERVICES),
        (&large, SERVICES),
    ];
    let mut best = ways.map(|_| Duration::MAX);
    let mut ratios = Vec::new();
    for round in 0..args.rounds.max(1) {
        std::thread::sleep(Duration::from_millis(args.pause));
        let medians = ways.map(|(node, services)| {
            node.datapath.flush_connections(|_| true);
            let connections = node.service_connections(round, args.connections, services);
            connections.allowed.quantile(50)
        });
        let [few, few_of_all, _] = medians.map(|median| median.as_secs_f64());
        ratios.push(few_of_all / few);
        for (best, median) in best.iter_mut().zip(medians) {
            *best = (*best).min(median);
        }
    }
    let change = large.change_endpoints(SERVICES, args.changes)?;
    small.handle.stop();
    large.handle.stop();
    ratios.sort_by(f64::total_cmp);
    let [few, few_of_all, all] = best;
    Ok(ServiceFigures {
        load,
        change,
        few,
        few_of_all,
        all,
        choice: ratios.get(ratios.len() / 2).copied().unwrap_or(1.0),
    })
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let node = Node::start()?;
    let idle = resident_mib()?;
    let full = node.load(10_000)?;
    let memory = resident_mib()? - idle;
    let (rules, members) = (node.datapath.rules().len(), node.members());
    let mut measured = rounds(&args, &node, |round| {
        node.connections(round, args.connections)
    });
    let medians: Vec<f64> = measured
        .iter()
        .map(|c| micros(c.all.quantile(50)))
        .collect();
    let connections = measured.swap_remove(0);
    let kinds = [
        ("label_change", node.relabel(args.changes)?),
        ("new_pod", node.new_pods(args.changes)?),
        ("new_policy", node.new_policies(args.changes)?),
    ];
    node.handle.stop();
    let services = services(&args)?;
    let growth = growth(args.changes)?;
    let first = growth.first().map_or(1.0, |(_, median)| *median);
    let last = growth.last().map_or(1.0, |(_, median)| *median);
    let mut missed = Vec::new();
    let mut check = |name: &str, holds: bool| {
        if !holds {
            missed.push(name.to_owned());
        }
    };
    check("full_compile", full <= limit::FULL);
    check("memory", memory <= limit::MEMORY_MIB);
    check(
        "new_connection",
        connections.all.quantile(50) <= limit::CONNECTION,
    );
    for (name, times) in &kinds {
        check(name, times.quantile(99) <= limit::CHANGE_P99);
    }
    check("growth", last / first <= limit::GROWTH);
    check("service_load", services.load <= limit::SERVICES);
    check(
        "endpoint_change",
        services.change.quantile(99) <= limit::CHANGE_P99,
    );
    check("service_choice", services.choice <= limit::CHOICE);
    let changes: serde_json::Map<String, Value> = kinds
        .iter()
        .map(|(name, times)| ((*name).to_owned(), times.json()))
        .collect();
    let by_policies: serde_json::Map<String, Value> = growth
        .iter()
        .map(|(policies, median)| (policies.to_string(), json!(median)))
        .collect();
    let report = json!({
        "namespaces": NAMESPACES, "pods": PODS, "local_pods": LOCAL_PODS, "policies": 10_000,
        "cluster_policies": CLUSTER_POLICIES,
        "full_compile_ms": micros(full) / 1000.0,
        "memory_mib": (memory * 10.0).round() / 10.0,
        "rules": rules, "set_members": members,
        "changes": changes,
        "new_connection": connections.all.json(),
        "new_connection_rounds_p50_us": medians,
        "connections": args.connections, "connections_allowed": connections.allowed.count(),
        "change_p50_us_by_policies": by_policies,
        "services": {
            "services": SERVICES, "endpoints_each": ENDPOINTS_EACH,
            "load_ms": micros(services.load) / 1000.0,
            "endpoint_change": services.change.json(),
            "new_connection_p50_us": {
                "10": micros(services.few), "10_of_5000": micros(services.few_of_all),
                "5000": micros(services.all),
                "ratio": (services.choice * 100.0).round() / 100.0,
            },
        },
        "missed": missed,
    });
    println!("{report}");
    Ok(if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
