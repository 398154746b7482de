//! What a large cluster costs one node: the reconciler, compiler and datapath of the daemon,
//! fed with 1,000 namespaces, 10,000 pods (110 of them local) and 10,000 policies.
//!
//! Prints one JSON line and exits 1 if a limit is missed. Needs no root.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod cluster;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Value, json};
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::conntrack::ConntrackConfig;
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{Datapath, DatapathConfig, Outputs, Timestamp, Verdict};
use vswitchd::config::Deny;
use vswitchd::reconcile::{
    GatewaySpec, PortAttachMode, ReconcileConfig, ReconcileHandle, Reconciler,
};
use vswitchd::simulate::{Packet, Protocol, first_frame};
use vswitchd::state::{ClusterChange, PolicyRecord};

use cluster::{LOCAL_PODS, NAMESPACES, PODS};

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
}

/// Frames that a worker takes from a port at once.
const BATCH: usize = 64;
const GATEWAY: PortNo = PortNo(1);
const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// The parts of the daemon that policies pass through.
struct Node {
    datapath: Arc<Datapath>,
    handle: ReconcileHandle,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start() -> Result<Self> {
        let datapath = Datapath::new(DatapathConfig {
            conntrack: ConntrackConfig::default(),
            flow_cache_entries: 0,
        });
        let gateway = GatewaySpec {
            port_no: GATEWAY,
            name: "vsw0".to_owned(),
            mac: GATEWAY_MAC,
            addresses: vec!["10.0.0.1".parse()?],
            mtu: 1450,
        };
        let (handle, _thread) = Reconciler::start(
            Arc::clone(&datapath),
            ReconcileConfig {
                node_name: cluster::NODE.to_owned(),
                gateway,
                pod_cidrs: vec!["10.0.0.0/24".parse()?],
                deny: Deny::Drop,
            },
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let node = Self {
            datapath,
            handle,
            runtime,
        };
        node.settle()?;
        Ok(node)
    }

    fn settle(&self) -> Result<()> {
        self.runtime.block_on(self.handle.settled())?;
        Ok(())
    }

    /// Tells something; returns the time until it is in force.
    fn timed(&self, tell: impl FnOnce(&ReconcileHandle)) -> Result<Duration> {
        let start = Instant::now();
        tell(&self.handle);
        self.settle()?;
        Ok(start.elapsed())
    }

    /// Brings the cluster with so many policies into force.
    fn load(&self, policies: usize) -> Result<Duration> {
        let mut changes: Vec<ClusterChange> = (0..NAMESPACES).map(cluster::namespace).collect();
        changes.extend((0..PODS).map(|number| ClusterChange::Pod(cluster::pod(number, 0))));
        changes.extend((0..policies).map(|number| ClusterChange::Policy(cluster::policy(number))));
        self.timed(|handle| {
            handle.cluster(changes);
            for local in 0..LOCAL_PODS {
                let attachment = cluster::attachment(local, cluster::local_pod(local));
                handle.attach(attachment, PortAttachMode::default());
            }
            handle.cluster_synced();
        })
    }

    /// A label of a pod in a namespace of this node changes, every tenth time a local pod's.
    fn relabel(&self, changes: usize) -> Result<Times> {
        let one = |index: usize| {
            let number = match index % 10 {
                0 => cluster::local_pod(index / 10 % LOCAL_PODS),
                _ => index * 7 % (PODS / 10),
            };
            let change = ClusterChange::Pod(cluster::pod(number, 1 + index));
            self.timed(|handle| handle.cluster(vec![change]))
        };
        (0..changes).map(one).collect::<Result<_>>().map(Times::new)
    }

    /// A pod comes, every tenth time one of this node.
    fn new_pods(&self, changes: usize) -> Result<Times> {
        let one = |index: usize| {
            let number = PODS + index;
            let change = ClusterChange::Pod(cluster::pod(number, 0));
            let attachment = index
                .is_multiple_of(10)
                .then(|| cluster::attachment(LOCAL_PODS + index / 10, number));
            self.timed(|handle| {
                handle.cluster(vec![change]);
                if let Some(attachment) = attachment {
                    handle.attach(attachment, PortAttachMode::default());
                }
            })
        };
        (0..changes).map(one).collect::<Result<_>>().map(Times::new)
    }

    /// A policy that selects pods of this node comes.
    fn new_policies(&self, changes: usize) -> Result<Times> {
        let one = |index: usize| {
            let policy: PolicyRecord = cluster::new_policy(index);
            self.timed(|handle| handle.cluster(vec![ClusterChange::Policy(policy)]))
        };
        (0..changes).map(one).collect::<Result<_>>().map(Times::new)
    }

    /// First packets of connections between local pods and everybody, in batches as a worker
    /// receives them, each timed alone; returns how many were allowed as well.
    fn connections(&self, round: usize, count: usize) -> (Times, usize) {
        let mut engine = self.datapath.engine();
        let mut out = Outputs::default();
        let mut times = Vec::with_capacity(count);
        let mut allowed = 0;
        let indexes: Vec<usize> = (round * count..(round + 1) * count).collect();
        for batch in indexes.chunks(BATCH) {
            let mut frames: Vec<(PortNo, Frame)> =
                batch.iter().map(|index| self.first_frame(*index)).collect();
            for (port, frame) in &mut frames {
                let start = Instant::now();
                let verdict = engine.process(*port, frame, Timestamp::default(), &mut out);
                times.push(start.elapsed());
                allowed += usize::from(matches!(verdict, Verdict::Forward(_)));
            }
        }
        (Times::new(times), allowed)
    }

    fn first_frame(&self, index: usize) -> (PortNo, Frame) {
        let here = cluster::local_pod(index % LOCAL_PODS);
        // Its neighbour may connect and be connected to; most others may not.
        let is_near = index % 4 < 3;
        let there = if is_near { here + 1 } else { index * 13 % PODS };
        let is_outward = (index / LOCAL_PODS).is_multiple_of(2);
        let (src, dst) = if is_outward {
            (here, there)
        } else {
            (there, here)
        };
        let packet = Packet {
            src: cluster::address(src),
            dst: cluster::address(dst),
            protocol: Protocol::Tcp,
            src_port: u16::try_from(1024 + index % 60_000).unwrap_or(u16::MAX),
            dst_port: 8080,
        };
        let port = self.port_at(src);
        let mac = if port == GATEWAY {
            GATEWAY_MAC
        } else {
            cluster::mac_of(port)
        };
        (port, first_frame(&packet, mac, GATEWAY_MAC))
    }

    fn port_at(&self, pod: usize) -> PortNo {
        let local = (0..LOCAL_PODS).find(|local| cluster::local_pod(*local) == pod);
        local.map_or(GATEWAY, cluster::port_of)
    }

    fn members(&self) -> usize {
        let sets = self.datapath.address_sets();
        sets.iter().map(|(_, members)| members.len()).sum()
    }
}

/// Sorted times.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn quantile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let index = (self.0.len() * percent / 100).min(last);
        self.0.get(index).copied().unwrap_or_default()
    }

    fn json(&self) -> Value {
        json!({ "p50_us": micros(self.quantile(50)), "p99_us": micros(self.quantile(99)) })
    }
}

fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e8).round() / 100.0
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

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let node = Node::start()?;
    let idle = resident_mib()?;
    let full = node.load(10_000)?;
    let memory = resident_mib()? - idle;
    let (rules, members) = (node.datapath.rules().len(), node.members());
    let rounds = (0..args.rounds.max(1)).map(|round| {
        // Each round's connections are new.
        node.datapath.flush_connections(|_| true);
        std::thread::sleep(Duration::from_millis(args.pause));
        node.connections(round, args.connections)
    });
    let mut rounds: Vec<(Times, usize)> = rounds.collect();
    rounds.sort_by_key(|(times, _)| times.quantile(50));
    let medians: Vec<f64> = rounds.iter().map(|(t, _)| micros(t.quantile(50))).collect();
    let (connections, allowed) = rounds.swap_remove(0);
    let kinds = [
        ("label_change", node.relabel(args.changes)?),
        ("new_pod", node.new_pods(args.changes)?),
        ("new_policy", node.new_policies(args.changes)?),
    ];
    node.handle.stop();
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
        connections.quantile(50) <= limit::CONNECTION,
    );
    for (name, times) in &kinds {
        check(name, times.quantile(99) <= limit::CHANGE_P99);
    }
    check("growth", last / first <= limit::GROWTH);
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
        "full_compile_ms": micros(full) / 1000.0,
        "memory_mib": (memory * 10.0).round() / 10.0,
        "rules": rules, "set_members": members,
        "changes": changes,
        "new_connection": connections.json(),
        "new_connection_rounds_p50_us": medians,
        "connections": args.connections, "connections_allowed": allowed,
        "change_p50_us_by_policies": by_policies,
        "missed": missed,
    });
    println!("{report}");
    Ok(if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
