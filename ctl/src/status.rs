//! `vsctl status`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use vswitch_api::v1::Status;

use crate::output::{Format, print};
use crate::server::Server;

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Exit with 2 if the daemon is not ready: ports do not forward, or rules are not in force.
    #[arg(long)]
    ready: bool,
}

/// Shows the daemon's state; a daemon that is not ready is shown, not an error.
pub(crate) fn status(server: &Server, args: &StatusArgs, format: Format) -> Result<ExitCode> {
    let status: Status = server.get("/v1/status")?;
    print(format, &status, || text(&status))?;
    let is_refused = args.ready && !status.ready;
    Ok(ExitCode::from(if is_refused { 2 } else { 0 }))
}

fn fast_path(status: &Status) -> String {
    status.fast_path_flows.map_or_else(
        || "off: every packet goes through the workers".to_owned(),
        |flows| format!("{flows} flows in the kernel"),
    )
}

fn text(status: &Status) -> String {
    let mut out = String::new();
    let cidrs: Vec<String> = status.pod_cidrs.iter().map(ToString::to_string).collect();
    let rows = [
        ("vswitchd", format!("{} ({})", status.version, status.mode)),
        ("node", status.node.clone()),
        ("ready", if status.ready { "yes" } else { "no" }.to_owned()),
        ("uptime", format!("{} s", status.uptime_seconds)),
        ("pod networks", cidrs.join(" ")),
        ("gateway", status.gateway.to_string()),
        ("workers", status.workers.to_string()),
        ("fast path", fast_path(status)),
        ("ports", status.ports.to_string()),
        (
            "rules",
            format!(
                "{} in epoch {}, {} address sets",
                status.rules, status.epoch, status.address_sets
            ),
        ),
        (
            "connections",
            format!(
                "{} of {}",
                status.connections.entries, status.connections.limit
            ),
        ),
        (
            "objects",
            format!(
                "{} namespaces, {} pods, {} network policies, {} services",
                status.objects.namespaces,
                status.objects.pods,
                status.objects.network_policies,
                status.objects.services
            ),
        ),
        ("services", services(status)),
        (
            "other nodes",
            format!(
                "{} pod networks by {}",
                status.remote_networks, status.backend
            ),
        ),
        ("cluster", cluster(status)),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<13} {value}");
    }
    let _ = writeln!(out, "{:<13} {}", "drops", drops(status));
    for problem in &status.problems {
        let _ = writeln!(out, "{:<13} {problem}", "PROBLEM");
    }
    out
}

/// Says where the objects come from, and how recent they are.
fn cluster(status: &Status) -> String {
    let Some(cluster) = &status.cluster else {
        return "none: this switch serves its own objects".to_owned();
    };
    let mut text = format!("{} ({}", cluster.api_server, cluster.state);
    if let Some(seconds) = cluster.stale_seconds {
        let _ = write!(text, " for {seconds} s");
    }
    for error in &cluster.errors {
        let _ = write!(text, "; {error}");
    }
    text + ")"
}

/// Says who serves what.
fn services(status: &Status) -> String {
    match &status.kube_proxy {
        Some(mode) => {
            format!("the switch serves pods; kube-proxy ({mode}) serves the node and NodePorts")
        }
        None => "the switch serves pods, the node and NodePorts".to_owned(),
    }
}

fn drops(status: &Status) -> String {
    if status.drops.is_empty() {
        return "none".to_owned();
    }
    let parts: Vec<String> = status
        .drops
        .iter()
        .map(|(reason, count)| format!("{reason}={count}"))
        .collect();
    parts.join(" ")
}
