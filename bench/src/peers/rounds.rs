//! Interleaved rounds over all fabrics.

use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use vswitch_bench::cpu::CpuTime;

use crate::fabric::{Fabric, Peer};
use crate::report::say;
use crate::samples::Samples;
use crate::work::{self, GeneratorLimit, Work};

/// Peers that fifty pods are worth attaching to.
const CROWDED: [Peer; 4] = [Peer::Bridge, Peer::Calico, Peer::OvsTso, Peer::Vswitchd];
const CROWD: usize = 50;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) peers: Vec<Peer>,
    pub(crate) works: Vec<Work>,
    pub(crate) rounds: usize,
    pub(crate) window_ms: u64,
    /// Rounds of all-to-all.
    pub(crate) crowd_rounds: usize,
    pub(crate) policies: usize,
}

impl Plan {
    pub(crate) fn full() -> Self {
        Self {
            peers: Peer::value_variants().to_vec(),
            works: Work::value_variants().to_vec(),
            rounds: 5,
            window_ms: 1_000,
            crowd_rounds: 3,
            policies: 0,
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            rounds: 2,
            window_ms: 200,
            crowd_rounds: 1,
            ..Self::full()
        }
    }
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) samples: Samples,
    /// `None` if new connections were not asked for.
    pub(crate) generator: Option<GeneratorLimit>,
    /// Share of the machine's processor time that the hypervisor took.
    pub(crate) steal_share: f64,
    pub(crate) seconds: f64,
}

/// Builds the fabrics and measures.
///
/// # Errors
/// Fails with the peer and the work that did.
pub(crate) fn run(plan: &Plan) -> Result<Results> {
    let (start, cpu) = (Instant::now(), CpuTime::of_machine()?);
    let mut samples = Samples::default();
    let generator = if plan.works.contains(&Work::Connect) {
        Some(work::generator_limit(plan.window_ms).context("measure the load generator")?)
    } else {
        None
    };
    pairs(plan, &mut samples)?;
    if plan.works.contains(&Work::AllToAll) {
        crowds(plan, &mut samples)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cores = u32::try_from(std::thread::available_parallelism()?.get())?;
    let steal = (CpuTime::of_machine()? - cpu).steal;
    Ok(Results {
        samples,
        generator,
        steal_share: steal / (seconds * f64::from(cores)),
        seconds,
    })
}

fn build(peers: &[Peer], pods: usize, policies: usize) -> Result<Vec<(Peer, Fabric)>> {
    peers
        .iter()
        .map(|&peer| {
            let fabric = Fabric::build(peer, pods, policies);
            Ok((peer, fabric.with_context(|| format!("build {peer}"))?))
        })
        .collect()
}

fn pairs(plan: &Plan, samples: &mut Samples) -> Result<()> {
    let works: Vec<Work> = plan
        .works
        .iter()
        .copied()
        .filter(|&work| work != Work::AllToAll)
        .collect();
    if works.is_empty() {
        return Ok(());
    }
    let fabrics = build(&plan.peers, 2, plan.policies)?;
    for round in 1..=plan.rounds {
        say(&format!("round {round} of {}", plan.rounds));
        for &work in &works {
            for (peer, fabric) in &fabrics {
                let ends = fabric.ends();
                let figures = work::between(work, &ends[0], &ends[1], plan.window_ms)
                    .with_context(|| format!("{work:?} over {peer}"))?;
                for (metric, value) in figures {
                    samples.add(*peer, metric, value);
                }
            }
        }
    }
    Ok(())
}

fn crowds(plan: &Plan, samples: &mut Samples) -> Result<()> {
    let peers: Vec<Peer> = CROWDED
        .into_iter()
        .filter(|peer| plan.peers.contains(peer))
        .collect();
    say(&format!(
        "attaching {CROWD} pods to each of {} peers",
        peers.len()
    ));
    let fabrics = build(&peers, CROWD, plan.policies)?;
    for round in 1..=plan.crowd_rounds {
        say(&format!(
            "all-to-all, round {round} of {}",
            plan.crowd_rounds
        ));
        for (peer, fabric) in &fabrics {
            let figures = work::all_to_all(&fabric.ends())
                .with_context(|| format!("all-to-all over {peer}"))?;
            for (metric, value) in figures {
                samples.add(*peer, metric, value);
            }
        }
    }
    Ok(())
}
