//! `vsctl simulate`: what policies would do, without a daemon and without root.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use vswitchd::simulate::{Answer, Cluster, Probe, Simulator, World};

use crate::expect;
use crate::files::{numbered_lines, read_manifests, read_text};
use crate::grid;
use crate::output::{Format, columns, print, write_out};
use crate::verdict::Verdict;

/// `simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// Manifests: Namespaces, Pods (with status.podIP), NetworkPolicies, Lists of them; `-` is
    /// standard input; may be repeated. Other kinds are passed over, missing namespaces made.
    #[arg(
        short,
        long = "filename",
        required_unless_present = "worlds",
        conflicts_with = "worlds"
    )]
    filename: Vec<PathBuf>,
    /// Connections to judge, a JSON object a line: {"from": {"namespace": "x", "name": "a"} or
    /// {"ip": "…"}, "to": …, "port": 80, "protocol": "TCP"}. Without it every pod is judged
    /// against every declared port of every other.
    #[arg(long, conflicts_with = "worlds")]
    probes: Option<PathBuf>,
    /// Many clusters with their probes, one a line: {"namespaces": […], "pods": […],
    /// "policies": […], "probes": […]}; the answers of each are one line, an array.
    #[arg(long)]
    worlds: Option<PathBuf>,
    /// Answers as they ought to be (a JSON value a line, as -o jsonl prints them; fields may be
    /// left out): prints what differs and exits 1.
    #[arg(long)]
    expect: Option<PathBuf>,
}

/// Judges, prints, compares.
pub(crate) fn simulate(args: &SimulateArgs, format: Format) -> Result<ExitCode> {
    let lines = match (&args.worlds, &args.probes) {
        (Some(worlds), _) => judge_worlds(worlds, args.expect.is_some())?,
        (None, Some(probes)) => judge_probes(args, probes, format)?,
        (None, None) => judge_all(args, format)?,
    };
    match &args.expect {
        Some(file) => expect::compare(file, &lines),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn cluster(args: &SimulateArgs) -> Result<Cluster> {
    let mut cluster = Cluster::default();
    for file in &args.filename {
        for manifest in read_manifests(file)? {
            cluster
                .add(&manifest)
                .with_context(|| file.display().to_string())?;
        }
    }
    cluster.complete();
    Ok(cluster)
}

/// Each answer is printed alone in JSON: it stands in the line of its probe.
fn judge_probes(args: &SimulateArgs, probes: &Path, format: Format) -> Result<Vec<Value>> {
    let mut simulator = Simulator::new(cluster(args)?);
    let mut verdicts = Vec::new();
    for (number, line) in numbered_lines(&read_text(probes)?) {
        let place = || format!("{}:{number}", probes.display());
        let probe: Probe = serde_json::from_str(line).with_context(place)?;
        let answer = simulator.judge(&probe).with_context(place)?;
        verdicts.push(Verdict { probe, answer });
    }
    let answers: Vec<&Answer> = verdicts.iter().map(|verdict| &verdict.answer).collect();
    show(args, format, &answers, || list(&verdicts))
}

fn judge_all(args: &SimulateArgs, format: Format) -> Result<Vec<Value>> {
    let mut simulator = Simulator::new(cluster(args)?);
    let verdicts = matrix(&mut simulator, |_| true);
    show(args, format, &verdicts, || grid::of_verdicts(&verdicts))
}

/// Judges everybody against the receivers that `is_receiver` names.
pub(crate) fn matrix(
    simulator: &mut Simulator,
    is_receiver: impl Fn(&str) -> bool,
) -> Vec<Verdict> {
    let matrix = simulator
        .matrix(|pod| is_receiver(&pod.namespace))
        .into_iter();
    matrix
        .map(|(probe, answer)| Verdict { probe, answer })
        .collect()
}

/// Prints the answers of each world in a line, whatever the format; or returns them to be
/// compared.
fn judge_worlds(worlds: &Path, is_compared: bool) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for (number, line) in numbered_lines(&read_text(worlds)?) {
        let place = || format!("{}:{number}", worlds.display());
        let answers = World::parse(line)
            .and_then(|world| world.answers())
            .with_context(place)?;
        if is_compared {
            lines.push(serde_json::to_value(&answers)?);
            continue;
        }
        write_out(&(serde_json::to_string(&answers)? + "\n"))?;
    }
    Ok(lines)
}

/// Prints the answers, or returns them to be compared.
fn show<T: Serialize>(
    args: &SimulateArgs,
    format: Format,
    answers: &[T],
    table: impl FnOnce() -> String,
) -> Result<Vec<Value>> {
    if args.expect.is_some() {
        let values = answers.iter().map(serde_json::to_value);
        return Ok(values.collect::<Result<_, _>>()?);
    }
    print(format, &answers, table)?;
    Ok(Vec::new())
}

fn list(verdicts: &[Verdict]) -> String {
    let rows = verdicts.iter().map(|Verdict { probe, answer }| {
        [
            probe.to_string(),
            if answer.allowed { "allowed" } else { "denied" }.to_owned(),
            answer.reason.clone(),
        ]
    });
    columns(&["CONNECTION", "VERDICT", "REASON"], rows)
}
