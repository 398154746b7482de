//! Instructions that single packets take, counted by callgrind: a figure that does not depend
//! on what else the machine does.
//!
//! Compares with the accepted counts of `bench/instructions.json` and exits 1 if one is
//! exceeded by more than 5 %. The counts are those of one compiler and one C library; others may
//! differ: then `--accept` the ones of a commit that is known to be good.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use vswitch_bench::scenarios::{Run, SCENARIOS, Scenario};

/// What an accepted count may be exceeded by.
const TOLERANCE: f64 = 1.05;
/// Packets that are counted: few, since callgrind takes fifty times as long.
const PACKETS: u32 = 1_000;

/// Counts the instructions of single packets.
#[derive(Debug, Parser)]
#[command(name = "vswitch-instructions")]
struct Args {
    /// Accepts what is counted now.
    #[arg(long)]
    accept: bool,
    /// Runs one scenario, to be counted from outside.
    #[arg(long, hide = true)]
    scenario: Option<String>,
}

/// Callgrind is told the name of this function: it forgets what was counted before.
#[inline(never)]
fn counted_packets(run: &mut Run) {
    for _ in 0..PACKETS {
        run.packet();
    }
}

fn play(name: &str) -> Result<()> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.with_context(|| format!("there is no scenario {name:?}"))?;
    let mut run = (scenario.prepare)()?;
    counted_packets(&mut run);
    Ok(())
}

/// Returns the instructions of one packet.
fn count(scenario: &Scenario) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--zero-before=*counted_packets*"])
        .arg(format!("--toggle-collect={}", scenario.counted))
        .arg(std::env::current_exe()?)
        .args(["--scenario", scenario.name])
        .output()
        .context("run valgrind (Debian package valgrind)")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {told}", scenario.name);
    let collected = told
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, total) = collected.with_context(|| format!("callgrind counted nothing: {told}"))?;
    let total: u64 = total.trim().parse().context("what callgrind counted")?;
    ensure!(
        total > 0,
        "{}: callgrind found nothing to count",
        scenario.name
    );
    Ok(total / u64::from(PACKETS))
}

fn accepted_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

fn accepted() -> Result<BTreeMap<String, u64>> {
    let path = accepted_path();
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(name) = &args.scenario {
        play(name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut counts = BTreeMap::new();
    for scenario in SCENARIOS {
        counts.insert(scenario.name.to_owned(), count(scenario)?);
    }
    if args.accept {
        std::fs::write(
            accepted_path(),
            serde_json::to_string_pretty(&counts)? + "\n",
        )?;
    }
    let accepted = accepted()?;
    let mut is_exceeded = false;
    println!(
        "{:<16} {:>12} {:>9} {:>7}",
        "scenario", "instructions", "accepted", ""
    );
    for scenario in SCENARIOS {
        let count = counts.get(scenario.name).copied().unwrap_or_default();
        let limit = accepted.get(scenario.name).copied();
        let limit = limit.with_context(|| format!("{} was never accepted", scenario.name))?;
        let share = ratio(count, limit);
        is_exceeded |= share > TOLERANCE;
        println!(
            "{:<16} {count:>12} {limit:>9} {share:>7.3}  {}",
            scenario.name, scenario.what
        );
    }
    Ok(if is_exceeded {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Counts are far below what a float holds exactly.
#[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
fn ratio(count: u64, limit: u64) -> f64 {
    count as f64 / limit as f64
}
