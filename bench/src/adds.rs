//! How long CNI ADD takes on a node with many pods while the long answers of its API are read one
//! after the other: `/metrics`, and all Pod objects of a large cluster.
//!
//! Prints one line and exits 1 if the limit is missed. Needs root; uses the release binaries.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::json;
use vswitch_api::client::Client;
use vswitch_bench::times::Times;
use vswitch_tests::{Daemon, DaemonOptions, Pod};

/// Measures ADD beside readers of long answers.
#[derive(Debug, Parser)]
#[command(name = "vswitch-adds")]
struct Args {
    /// Pods on the node.
    #[arg(long, default_value_t = 250)]
    pods: usize,
    /// Pod objects, the node's own among them.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// ADDs that are measured, each undone by a DEL that is not.
    #[arg(long, default_value_t = 50)]
    adds: usize,
}

/// What the median ADD may take, from the start of the plugin's process to its end.
const LIMIT: Duration = Duration::from_millis(50);

/// Those that write the objects: a commit waits for the disk.
const WRITERS: usize = 8;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// What is read all the time: by Prometheus, and by `kubectl get pods --all-namespaces -o json`.
const READ: [&str; 2] = ["/metrics", "/api/v1/pods"];

fn write_objects(socket: &Path, count: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let write = || -> Result<()> {
        let client = Client::new(socket).with_timeout(Duration::from_secs(60));
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= count {
                return Ok(());
            }
            let ip = format!(
                "10.{}.{}.{}",
                128 + number / 65_536,
                number / 256 % 256,
                number % 256
            );
            let pod = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("other-{number}"), "labels": {"app": "other"}},
                "spec": {"nodeName": "node-b", "containers": [{"name": "c", "image": "c"}]},
                "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
            let headers = [("Content-Type", "application/json")];
            let body = pod.to_string();
            let answer = client.request("POST", PODS, &headers, body.as_bytes())?;
            ensure!(answer.status == 201, "Pod {number}: {}", answer.status);
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        for writer in writers {
            writer.join().expect("a writer does not panic")?;
        }
        Ok(())
    })
}

fn add(daemon: &Daemon, number: usize) -> Result<Duration> {
    let mut pod = Pod::named(&format!("late-{number}")).prepare(daemon)?;
    let begun = Instant::now();
    pod.add()?;
    Ok(begun.elapsed())
}

fn adds(daemon: &Daemon, count: usize) -> Result<Times> {
    let adds = (0..count).map(|number| add(daemon, number));
    Ok(Times::new(adds.collect::<Result<_>>()?))
}

/// Reads a path until `is_over`; returns how often.
fn read(socket: &Path, path: &str, is_over: &AtomicBool) -> Result<usize> {
    let client = Client::new(socket)
        .with_timeout(Duration::from_secs(60))
        .with_body_limit(1 << 30);
    let mut times = 0;
    while !is_over.load(Relaxed) {
        let answer = client.request("GET", path, &[], b"")?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        times += 1;
    }
    Ok(times)
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    ensure!(args.adds > 0, "adds must be at least 1");
    let daemon = Daemon::start(&DaemonOptions {
        pod_cidrs: vec!["10.244.0.0/16".to_owned()],
        ..DaemonOptions::default()
    })?;
    let pods = (0..args.pods).map(|number| Pod::named(&format!("p{number}")).attach(&daemon));
    let _pods = pods.collect::<Result<Vec<_>>>()?;
    write_objects(&daemon.socket(), args.objects.saturating_sub(args.pods))?;

    let quiet = adds(&daemon, args.adds)?;
    let is_over = AtomicBool::new(false);
    let (beside, read) = std::thread::scope(|scope| -> Result<_> {
        let reader = |path| {
            let (socket, is_over) = (daemon.socket(), &is_over);
            scope.spawn(move || read(&socket, path, is_over))
        };
        let readers = READ.map(reader);
        let beside = adds(&daemon, args.adds);
        is_over.store(true, Relaxed);
        let mut times = Vec::new();
        for (path, reader) in READ.into_iter().zip(readers) {
            let read = reader.join().expect("a reader does not panic");
            times.push(read.with_context(|| path)?);
        }
        Ok((beside?, times))
    })?;
    let told = |times: &Times| {
        let [median, longest] = [50, 100].map(|percent| times.quantile(percent).as_millis());
        format!("median {median} ms, longest {longest} ms")
    };
    println!(
        "adds: {} pods on the node, {} Pod objects, {} ADDs; alone: {}; while /metrics is read {} \
         times and all Pods {} times: {}; limit of the median {} ms",
        args.pods,
        args.objects,
        args.adds,
        told(&quiet),
        read[0],
        read[1],
        told(&beside),
        LIMIT.as_millis()
    );
    Ok(if beside.quantile(50) <= LIMIT {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
