//! Plays Kubernetes' own NetworkPolicy e2e cases, and the conformance cases of
//! ClusterNetworkPolicy (in process once more in the form of the kinds before it), twice: in process, with real frames through compiler and datapath; and through a running daemon, in real network namespaces, with real
//! sockets, directly and through Services. Prints each case and a closing line; exits 1 if a
//! verdict differs.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]

mod cases;
mod in_process;
mod namespaces;
mod older;
mod sockets;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;

use cases::{Case, Expected};
use namespaces::Tallies;

/// Verdicts of one way of playing.
#[derive(Debug, Default)]
struct Tally {
    right: usize,
    judged: usize,
    /// Cases with a wrong verdict.
    failed: BTreeSet<String>,
    /// Right and judged before the case that is played.
    before: (usize, usize),
}

impl Tally {
    /// A case begins.
    fn begin(&mut self) {
        self.before = (self.right, self.judged);
    }

    /// Returns right and judged verdicts of the case, as text.
    fn of_case(&self) -> String {
        let (right, judged) = self.before;
        format!("{}/{}", self.right - right, self.judged - judged)
    }

    /// Counts a verdict; a wrong one is printed.
    fn count(
        &mut self,
        case: &Case,
        step: usize,
        expected: &Expected,
        found: &str,
        is_right: bool,
    ) {
        self.judged += 1;
        if is_right {
            self.right += 1;
            return;
        }
        self.failed.insert(case.id.clone());
        println!(
            "{} step {step}: {} -> {}:{}/{:?}: expected allowed={} (egress={}, ingress={}), found {found}",
            case.id,
            expected.from,
            expected.to,
            expected.port,
            expected.protocol,
            expected.allowed,
            expected.egress,
            expected.ingress,
        );
    }
}

fn main() -> Result<ExitCode> {
    let cases = cases::load()?;
    let in_process = in_process::play(&cases)?;
    let of_cluster = cases::load_cluster()?;
    let cluster_in_process = in_process::play(&of_cluster)?;
    let of_admins = cases::in_older_form(&of_cluster);
    let admins_in_process = in_process::play(&of_admins)?;
    let Tallies { pods, services } = namespaces::play(&cases)?;
    let cluster_namespaces = namespaces::play_to_pods(&of_cluster)?;
    let failed: BTreeSet<_> = [&in_process, &pods, &services]
        .into_iter()
        .flat_map(|tally| &tally.failed)
        .collect();
    println!(
        "conformance: in-process {}/{} verdicts, namespaces {}/{} verdicts, \
         services {}/{} verdicts, {}/{} cases",
        in_process.right,
        in_process.judged,
        pods.right,
        pods.judged,
        services.right,
        services.judged,
        cases.len() - failed.len(),
        cases.len(),
    );
    println!(
        "cluster policies: in-process {}/{}, namespaces {}/{}",
        cluster_in_process.right,
        cluster_in_process.judged,
        cluster_namespaces.right,
        cluster_namespaces.judged,
    );
    println!(
        "policies of administrators: in-process {}/{}, {}/{} cases in the form of v1alpha1",
        admins_in_process.right,
        admins_in_process.judged,
        of_admins.len(),
        of_cluster.len(),
    );
    let cluster_failed = [&cluster_in_process, &admins_in_process, &cluster_namespaces]
        .iter()
        .any(|tally| !tally.failed.is_empty());
    Ok(if failed.is_empty() && !cluster_failed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
