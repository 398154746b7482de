//! `make bench-peers`: the same work over vswitchd and over the dataplanes it is compared with.
//!
//! Every peer is a fabric of namespaces of its own; all stand at the same time, and each round
//! visits every peer with every kind of work, so that what disturbs a shared machine disturbs
//! all of them. Medians over the rounds are compared, never absolute figures.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod chart;
mod fabric;
mod gate;
mod interrupt;
mod kernel;
mod load;
mod machine;
mod ovs;
mod report;
mod rounds;
mod samples;
mod switch;
mod work;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::fabric::Peer;
use crate::machine::Machine;
use crate::rounds::Plan;
use crate::work::Work;

/// Measures vswitchd beside other dataplanes, in one run.
#[derive(Debug, Parser)]
#[command(name = "vswitch-peers")]
struct Args {
    /// Fewer and shorter rounds: under 90 seconds.
    #[arg(long)]
    quick: bool,
    /// Exit with 1 if a required ratio is missed.
    #[arg(long)]
    gate: bool,
    /// Only these peers, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Peer>,
    /// Only these kinds of work, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum)]
    work: Vec<Work>,
    /// Rounds; overrides what --quick says.
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds of each measured window; overrides what --quick says.
    #[arg(long)]
    window_ms: Option<u64>,
    /// NetworkPolicies that vswitchd has loaded.
    #[arg(long, default_value_t = 1_000)]
    policies: usize,
    /// Directory of peers.json and peers.svg.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

impl Args {
    fn plan(&self) -> Plan {
        let mut plan = if self.quick {
            Plan::quick()
        } else {
            Plan::full()
        };
        if !self.only.is_empty() {
            plan.peers.clone_from(&self.only);
        }
        if !self.work.is_empty() {
            plan.works.clone_from(&self.work);
        }
        plan.rounds = self.rounds.unwrap_or(plan.rounds);
        plan.window_ms = self.window_ms.unwrap_or(plan.window_ms);
        plan.policies = self.policies;
        plan
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let plan = args.plan();
    ensure!(plan.rounds > 0, "--rounds must be at least 1");
    ensure!(
        (100..=10_000).contains(&plan.window_ms),
        "--window-ms must be 100 to 10000"
    );
    interrupt::clean_up_when_interrupted()?;
    let machine = Machine::describe()?;
    report::say(&machine.to_string());
    let results = rounds::run(&plan)?;
    let bars = gate::judge(&results.samples);
    report::print(&results, &bars);
    std::fs::create_dir_all(&args.out).with_context(|| format!("make {}", args.out.display()))?;
    let json = report::json(&machine, &plan, &results, &bars);
    write(&args.out.join("peers.json"), &format!("{json:#}\n"))?;
    let svg = chart::draw(&results.samples, &machine.to_string());
    write(&args.out.join("peers.svg"), &svg)?;
    if args.gate {
        gate::ensure_passed(&bars)?;
    }
    Ok(())
}

fn write(path: &std::path::Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    report::say(&format!("wrote {}", path.display()));
    Ok(())
}
