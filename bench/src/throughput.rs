//! TCP throughput pod to pod through the switch, beside a straight veth in the same run.
//!
//! Machines are shared and noisy: what counts is the ratio of two medians whose rounds are
//! interleaved. Needs root and iperf3; uses the release binaries that `make bench` built.

use anyhow::{Result, ensure};
use clap::Parser;
use serde_json::json;
use vswitch_bench::iperf::{Server, median, throughput};
use vswitch_tests::{Daemon, DaemonOptions, Namespace, Pod};

/// Measures TCP pod to pod through vswitchd and over a straight veth.
#[derive(Debug, Parser)]
#[command(name = "vswitch-bench")]
struct Args {
    /// Rounds; the median of each side is reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Parallel TCP streams.
    #[arg(long, default_value_t = 1)]
    streams: u32,
    /// Fail if the switch reaches less than this share of the straight veth.
    #[arg(long)]
    at_least: Option<f64>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.rounds > 0 && args.seconds > 0,
        "rounds and seconds must be at least 1"
    );
    let daemon = Daemon::start(&DaemonOptions::default())?;
    let client = Pod::named("client").attach(&daemon)?;
    let server = Pod::named("server").attach(&daemon)?;
    let _switch_server = Server::start(&server.netns)?;
    let (near, far) = (Namespace::new("near")?, Namespace::new("far")?);
    near.connect("eth0", "192.0.2.1/24", &far, "eth0", "192.0.2.2/24")?;
    let _veth_server = Server::start(&far)?;

    let (mut straight, mut switched) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        straight.push(throughput(
            &near,
            "192.0.2.2".parse()?,
            args.seconds,
            args.streams,
        )?);
        switched.push(throughput(
            &client.netns,
            server.ip(),
            args.seconds,
            args.streams,
        )?);
    }
    report(&args, &straight, &switched)
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn report(args: &Args, straight: &[f64], switched: &[f64]) -> Result<()> {
    let (veth, switch) = (median(straight), median(switched));
    let ratio = switch / veth;
    if args.json {
        let value = json!({"streams": args.streams, "seconds": args.seconds,
            "veth_gbps": straight, "vswitchd_gbps": switched,
            "veth_median_gbps": veth, "vswitchd_median_gbps": switch, "ratio": ratio});
        println!("{value}");
    } else {
        let row = |values: &[f64]| {
            values
                .iter()
                .map(|value| format!("{value:6.2}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        println!(
            "TCP, {} stream(s), Gb/s, {} rounds of {} s",
            args.streams, args.rounds, args.seconds
        );
        println!("  straight veth  {}   median {veth:6.2}", row(straight));
        println!("  vswitchd       {}   median {switch:6.2}", row(switched));
        println!("  ratio {ratio:.2}");
    }
    if let Some(wanted) = args.at_least {
        ensure!(ratio >= wanted, "ratio {ratio:.2} is below {wanted}");
    }
    Ok(())
}
