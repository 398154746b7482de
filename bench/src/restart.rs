//! How long a daemon with many pods takes to end, killed or asked to, and its successor until it
//! is ready: every port forwards, every policy is in force.
//!
//! Prints one line and exits 1 if a limit is missed. Needs root; uses the release binaries.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use nix::sys::signal::Signal;
use vswitch_bench::times::Times;
use vswitch_tests::{Daemon, DaemonOptions, Pod};

/// Measures ends and starts of a daemon with many pods.
#[derive(Debug, Parser)]
#[command(name = "vswitch-restart")]
struct Args {
    /// Pods on the node.
    #[arg(long, default_value_t = 250)]
    pods: usize,
    /// Restarts by each signal; their median is compared with the limits.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

const END: Duration = Duration::from_millis(300);
const READY: Duration = Duration::from_secs(1);
/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn is_ready(daemon: &Daemon) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

fn restart(daemon: &mut Daemon, signal: Signal) -> Result<[Duration; 2]> {
    let begun = Instant::now();
    daemon.stop(signal)?;
    let end = begun.elapsed();
    let begun = Instant::now();
    daemon.launch()?;
    while !is_ready(daemon).unwrap_or(false) {
        ensure!(begun.elapsed() < PATIENCE, "not ready:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok([end, begun.elapsed()])
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "rounds must be at least 1");
    let mut daemon = Daemon::start(&DaemonOptions {
        pod_cidrs: vec!["10.244.0.0/16".to_owned()],
        ..DaemonOptions::default()
    })?;
    let pods = (0..args.pods).map(|number| Pod::named(&format!("p{number}")).attach(&daemon));
    let _pods = pods.collect::<Result<Vec<_>>>()?;

    let mut is_met = true;
    let mut parts = Vec::new();
    for (signal, name) in [(Signal::SIGKILL, "kill -9"), (Signal::SIGTERM, "SIGTERM")] {
        let rounds = (0..args.rounds).map(|_| restart(&mut daemon, signal));
        let rounds = rounds.collect::<Result<Vec<_>>>()?;
        let median = |index: usize| Times::new(rounds.iter().map(|it| it[index]).collect());
        let (end, ready) = (median(0).quantile(50), median(1).quantile(50));
        is_met &= end <= END && ready <= READY;
        parts.push(format!(
            "{name} ends in {} ms, ready after {} ms",
            end.as_millis(),
            ready.as_millis()
        ));
    }
    println!(
        "restart: {} pods, {}; limits {} and {} ms",
        args.pods,
        parts.join("; "),
        END.as_millis(),
        READY.as_millis()
    );
    Ok(if is_met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
