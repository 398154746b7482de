//! How engines scale that share one datapath: the same work on one, two and four threads.
//!
//! Each thread drives an engine of its own and has connections of its own; rules, ports and the
//! connection table are everybody's. Prints a table; exits 1 if two threads do too little more
//! than one, or four less than two (with two processors there is nothing to gain). Rounds are
//! interleaved and the best of each counts: machines are shared, and noise only adds.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use vswitch_api::PortNo;
use vswitch_bench::ruleset::Ruleset;
use vswitch_bench::scenarios::{Conversation, first_segment, send};
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{Datapath, Outputs};

/// What two threads have to do, of what one does. Packets of connections share nothing that is
/// written; a new one goes into a shard whose lines the other processor had last.
const TWO_HIT: f64 = 1.6;
const TWO_NEW: f64 = 1.3;
/// What four threads have to do, of what two do: no more processors, so no loss but switching.
const FOUR: f64 = 0.85;
const POLICIES: usize = 1_000;
/// Connections of each thread.
const CONVERSATIONS: u16 = 64;
/// Packets of each conversation, in a round.
const TURNS: usize = 20_000;
/// New connections of each thread, in a round.
const FRESH: u16 = 50_000;

/// Measures how engines scale over threads.
#[derive(Debug, Parser)]
#[command(name = "vswitch-engines")]
struct Args {
    /// Rounds; the best of each counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

/// What a thread did.
struct Done {
    packets: usize,
    began: Instant,
    ended: Instant,
}

/// What a thread does, once all of them are ready.
type Work = fn(usize, &Arc<Datapath>, &Barrier) -> Result<Done>;

fn hits(thread: usize, datapath: &Arc<Datapath>, start: &Barrier) -> Result<Done> {
    let mut engine = datapath.engine();
    let mut out = Outputs::default();
    let mut open = |port| Conversation::open(&mut engine, &mut out, (thread, port), false);
    let mut conversations: Vec<_> = (0..CONVERSATIONS)
        .map(|n| open(5_000 + n))
        .collect::<Result<_>>()?;
    start.wait();
    let began = Instant::now();
    for _ in 0..TURNS {
        for conversation in &mut conversations {
            let is_forwarded = conversation.go_on(&mut engine, &mut out);
            ensure!(is_forwarded, "a packet of a connection is dropped");
        }
    }
    Ok(Done {
        packets: TURNS * usize::from(CONVERSATIONS),
        began,
        ended: Instant::now(),
    })
}

/// Makes all connections twice: the first time the process gets its memory from the kernel, one
/// thread at a time, which a daemon has behind it.
fn new_connections(thread: usize, datapath: &Arc<Datapath>, start: &Barrier) -> Result<Done> {
    let mut engine = datapath.engine();
    let mut out = Outputs::default();
    let segment = |n| first_segment(thread, 10_000 + n);
    let mut make = |frames: &mut [(PortNo, Frame)]| -> Result<()> {
        for (port, frame) in frames {
            let is_forwarded = send(&mut engine, *port, frame, &mut out);
            ensure!(is_forwarded, "a first packet is dropped");
        }
        Ok(())
    };
    make(&mut (0..FRESH).map(segment).collect::<Vec<_>>())?;
    let mut frames: Vec<_> = (0..FRESH).map(segment).collect();
    if start.wait().is_leader() {
        datapath.flush_connections(|_| true);
    }
    start.wait();
    let began = Instant::now();
    make(&mut frames)?;
    Ok(Done {
        packets: usize::from(FRESH),
        began,
        ended: Instant::now(),
    })
}

/// Returns the millions of packets a second that so many threads process together.
fn rate(threads: usize, work: Work) -> Result<f64> {
    let ruleset = Ruleset::install(POLICIES, 4_096)?;
    let start = Barrier::new(threads);
    let done = std::thread::scope(|scope| -> Result<Vec<Done>> {
        let spawn = |thread| {
            let (datapath, start) = (&ruleset.datapath, &start);
            scope.spawn(move || work(thread, datapath, start))
        };
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, Result<Done>>| {
            handle.join().ok().context("a thread panicked")?
        };
        handles.into_iter().map(join).collect()
    })?;
    let began = done.iter().map(|done| done.began).min();
    let ended = done.iter().map(|done| done.ended).max();
    let took = ended.zip(began).context("there are threads")?;
    let packets: usize = done.iter().map(|done| done.packets).sum();
    let packets = f64::from(u32::try_from(packets)?);
    Ok(packets / took.0.duration_since(took.1).as_secs_f64() / 1e6)
}

/// Measures one kind of work; returns whether it scales.
fn measure(name: &str, work: Work, least: f64, rounds: usize) -> Result<bool> {
    const THREADS: [usize; 3] = [1, 2, 4];
    let mut best = [0.0f64; THREADS.len()];
    for _ in 0..rounds {
        for (best, threads) in best.iter_mut().zip(THREADS) {
            *best = best.max(rate(threads, work)?);
        }
    }
    let [one, two, four] = best;
    println!(
        "{name:<16} {one:>8.2} {two:>8.2} {four:>8.2}   2/1 {:.2}   4/2 {:.2}",
        two / one,
        four / two
    );
    Ok(two >= least * one && four >= FOUR * two)
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "rounds must be at least 1");
    println!(
        "millions of packets a second on 1, 2 and 4 threads, best of {} rounds",
        args.rounds
    );
    let hits = measure("FlowCache hit", hits, TWO_HIT, args.rounds)?;
    let new = measure("new connection", new_connections, TWO_NEW, args.rounds)?;
    Ok(if hits && new {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
