//! What one pod's flood of new flows leaves the others, beside its control: a pod that burns the
//! same core without a packet.
//!
//! Rounds of flood and control are interleaved, and medians compared: machines are shared and
//! noisy. Prints a table and one line of JSON; exits 1 if others keep less than the bar. Needs
//! root; uses the release binaries that `make flood` built.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use vswitch_bench::iperf::median;
use vswitch_bench::load_process::{Load, WARMUP_MS, at, beside, ipv4, new_connections, rate};
use vswitch_tests::{Daemon, DaemonOptions, Pod};

/// Measures what a pod's flood leaves the others.
#[derive(Debug, Parser)]
#[command(name = "vswitch-flood")]
struct Args {
    /// Rounds of each measurement; medians are compared.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds of each measurement.
    #[arg(long, default_value_t = 1_000)]
    window_ms: u64,
    /// Workers of the switch.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    workers: Vec<usize>,
    /// Entries of the connection table.
    #[arg(long, value_delimiter = ',', default_values_t = [262_144, 20_000])]
    tables: Vec<usize>,
    /// What the flood is: syn, udp, icmp, fragment.
    #[arg(long, value_delimiter = ',', default_values_t = ["syn".to_owned(), "udp".to_owned()])]
    floods: Vec<String>,
    /// What is measured.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "questions,connections,stream"
    )]
    figures: Vec<Figure>,
    /// The share of the control that others must keep.
    #[arg(long, default_value_t = 0.9)]
    at_least: f64,
}

/// What the others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// UDP questions and answers a second, each of a new flow.
    Questions,
    /// New TCP connections a second.
    Connections,
    /// One TCP stream, Gb/s.
    Stream,
}

const THREADS: &str = "4";
const PORT: u16 = 7_000;

/// A switch with four pods.
struct Node {
    client: Pod,
    server: Pod,
    flooder: Pod,
    victim: Pod,
    _daemon: Daemon,
}

/// One line of the table.
#[derive(Debug)]
struct Line {
    workers: usize,
    table: usize,
    flood: String,
    figure: Figure,
    /// Medians.
    flooded: f64,
    control: f64,
    /// Packets that the flooder sent, a second.
    offered: f64,
}

impl Line {
    fn kept(&self) -> f64 {
        self.flooded / self.control
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "rounds must be at least 1");
    let mut lines = Vec::new();
    println!("workers   table  flood     figure         control     flooded   kept  offered/s");
    for workers in &args.workers {
        for table in &args.tables {
            let node = Node::start(*workers, *table)?;
            for flood in &args.floods {
                for figure in &args.figures {
                    let line = node.measure(&args, (*workers, *table), flood, *figure)?;
                    print(&line);
                    lines.push(line);
                }
            }
        }
    }
    let worst = lines.iter().map(Line::kept).fold(f64::INFINITY, f64::min);
    let is_met = worst >= args.at_least;
    let report = json!({"flood": {"at_least": args.at_least, "worst": worst, "met": is_met,
        "rounds": args.rounds, "lines": lines.iter().map(to_json).collect::<Vec<_>>()}});
    println!("{report}");
    Ok(if is_met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(line: &Line) {
    println!(
        "{:>7} {:>7}  {:<8}  {:<11} {:>10.1}  {:>10.1}  {:>4.0}%  {:>9.0}",
        line.workers,
        line.table,
        line.flood,
        name(line.figure),
        line.control,
        line.flooded,
        line.kept() * 100.0,
        line.offered,
    );
}

fn name(figure: Figure) -> String {
    let value = figure.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn to_json(line: &Line) -> Value {
    json!({"workers": line.workers, "table": line.table, "flood": line.flood,
        "figure": name(line.figure), "control": line.control, "flooded": line.flooded,
        "kept": line.kept(), "offered": line.offered})
}

impl Node {
    fn start(workers: usize, table: usize) -> Result<Self> {
        let extra =
            format!("[datapath]\nworkers = {workers}\n[conntrack]\nmax_entries = {table}\n");
        let daemon = Daemon::start(&DaemonOptions {
            extra,
            ..DaemonOptions::default()
        })?;
        let attach = |name| Pod::named(name).attach(&daemon);
        Ok(Self {
            // Ports are spread over the workers in this order: flooder and client share one.
            flooder: attach("flooder")?,
            victim: attach("victim")?,
            client: attach("client")?,
            server: attach("server")?,
            _daemon: daemon,
        })
    }

    /// Measures in rounds of control and flood.
    fn measure(
        &self,
        args: &Args,
        (workers, table): (usize, usize),
        flood: &str,
        figure: Figure,
    ) -> Result<Line> {
        let victim = ipv4(self.victim.ip())?.to_string();
        let (mut control, mut flooded, mut offered) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            control.push(self.beside(&["burn"], figure, args.window_ms)?.0);
            let flood = ["flood", "--to", &victim, "--kind", flood];
            let (kept, packets) = self.beside(&flood, figure, args.window_ms)?;
            flooded.push(kept);
            offered.push(packets);
        }
        Ok(Line {
            workers,
            table,
            flood: flood.to_owned(),
            figure,
            control: median(&control),
            flooded: median(&flooded),
            offered: median(&offered),
        })
    }

    /// Measures while the flooder does something; returns the figure, and packets a second that
    /// the flooder sent.
    fn beside(&self, load: &[&str], figure: Figure, window_ms: u64) -> Result<(f64, f64)> {
        beside(&self.flooder.netns, load, || self.figure(figure, window_ms))
    }

    fn figure(&self, figure: Figure, window_ms: u64) -> Result<f64> {
        let (port, target) = (PORT.to_string(), at(ipv4(self.server.ip())?, PORT));
        let window = window_ms.to_string();
        let window = ["--warmup-ms", WARMUP_MS, "--window-ms", &window];
        let serve = |arguments: &[&str]| Load::serve(&self.server.netns, arguments);
        let ask = |arguments: &[&str]| -> Result<Value> {
            let to = ["--to", &target, "--threads", THREADS];
            Load::start(&self.client.netns, &[arguments, &to, &window].concat())?.result()
        };
        match figure {
            Figure::Questions => {
                let _server = serve(&["answer-questions", "--port", &port])?;
                rate(&ask(&["ask-questions"])?, "questions")
            }
            Figure::Connections => {
                let server = (&self.server.netns, ipv4(self.server.ip())?);
                new_connections(&self.client.netns, server, window_ms)
            }
            Figure::Stream => {
                let receive = ["stream-receive", "--port", &port, "--streams", "1"];
                let mut receiver = serve(&[&receive[..], &window].concat())?;
                let send = ["stream-send", "--to", &target, "--streams", "1"];
                let _sender = Load::start(&self.client.netns, &send)?;
                Ok(rate(&receiver.result()?, "bytes")? * 8.0 / 1e9)
            }
        }
    }
}
