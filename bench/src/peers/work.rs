//! The kinds of work, each measured once over one fabric.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::Value;
use vswitch_bench::load_process::{Load, at};
use vswitch_tests::Namespace;

use crate::fabric::End;
use crate::samples::Metric;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Work {
    /// One TCP stream.
    Stream,
    /// Four TCP streams.
    Streams,
    /// One byte there and back, over one connection.
    RequestResponse,
    /// Connect, one byte, close.
    Connect,
    /// Small UDP datagrams.
    Datagrams,
    /// Every pod of many sends to every other.
    AllToAll,
}

/// Long enough for congestion windows, neighbours and caches.
const WARMUP_MS: &str = "200";
/// With the headers, a frame of 64 bytes on a wire.
const DATAGRAM_BYTES: &str = "18";
const PORT: u16 = 7_000;
const CONNECT_THREADS: &str = "8";
/// Bytes of each transfer of the mesh.
const TRANSFER_BYTES: &str = "262144";

/// Figures of one measurement.
pub(crate) type Figures = Vec<(Metric, f64)>;

/// A result of `vswitch-load`.
struct Outcome(Value);

impl Outcome {
    fn number(&self, key: &str) -> Result<f64> {
        let number = self.0[key].as_f64();
        number.with_context(|| format!("no {key} in {}", self.0))
    }

    fn rate(&self, key: &str) -> Result<f64> {
        Ok(self.number(key)? / self.number("seconds")?)
    }
}

/// Measures one kind of work between two pods.
///
/// # Errors
/// Fails if either side does; [`Work::AllToAll`] is [`all_to_all`]'s.
pub(crate) fn between(work: Work, from: &End<'_>, to: &End<'_>, window_ms: u64) -> Result<Figures> {
    match work {
        Work::Stream => streams(from, to, window_ms, "1"),
        Work::Streams => streams(from, to, window_ms, "4"),
        Work::RequestResponse => request_response(from, to, window_ms),
        Work::Connect => new_connections(from, to, window_ms),
        Work::Datagrams => datagrams(from, to, window_ms),
        Work::AllToAll => anyhow::bail!("all-to-all takes more than two pods"),
    }
}

fn streams(from: &End<'_>, to: &End<'_>, window_ms: u64, streams: &str) -> Result<Figures> {
    let (port, window) = (PORT.to_string(), window_ms.to_string());
    let window = ["--warmup-ms", WARMUP_MS, "--window-ms", &window];
    let receive = ["stream-receive", "--port", &port, "--streams", streams];
    let mut receiver = Load::serve(to.netns, &[&receive[..], &window].concat())?;
    let target = at(to.ip, PORT);
    let _sender = Load::start(
        from.netns,
        &["stream-send", "--to", &target, "--streams", streams],
    )?;
    let outcome = Outcome(receiver.result()?);
    let rate = outcome.rate("bytes")? * 8.0 / 1e9;
    let cpu = outcome.number("cpu_seconds")? / (outcome.number("bytes")? / 1e9);
    Ok(match streams {
        "1" => vec![(Metric::OneStream, rate), (Metric::OneStreamCpu, cpu)],
        _ => vec![(Metric::FourStreams, rate), (Metric::FourStreamsCpu, cpu)],
    })
}

fn request_response(from: &End<'_>, to: &End<'_>, window_ms: u64) -> Result<Figures> {
    let (port, window) = (PORT.to_string(), window_ms.to_string());
    let echo = ["echo", "--port", &port];
    let _echo = Load::start_pinned(to.netns, &echo)?.until_ready()?;
    let target = at(to.ip, PORT);
    let ask = [
        "request-response",
        "--to",
        &target,
        "--warmup-ms",
        WARMUP_MS,
        "--window-ms",
        &window,
    ];
    let outcome = Outcome(Load::start_pinned(from.netns, &ask)?.result()?);
    Ok(vec![
        (Metric::Transactions, outcome.rate("transactions")?),
        (Metric::RoundTripMedian, outcome.number("p50_us")?),
        (Metric::RoundTripTail, outcome.number("p99_us")?),
    ])
}

fn new_connections(from: &End<'_>, to: &End<'_>, window_ms: u64) -> Result<Figures> {
    let outcome = connect(from.netns, to.netns, &at(to.ip, PORT), window_ms)?;
    Ok(vec![
        (Metric::NewConnections, outcome.rate("connections")?),
        (Metric::NewConnectionFailures, outcome.number("failures")?),
    ])
}

fn connect(from: &Namespace, to: &Namespace, target: &str, window_ms: u64) -> Result<Outcome> {
    let (port, window) = (PORT.to_string(), window_ms.to_string());
    let _answer = Load::serve(
        to,
        &["answer", "--port", &port, "--threads", CONNECT_THREADS],
    )?;
    let connect = ["connect", "--to", target, "--threads", CONNECT_THREADS];
    let window = ["--warmup-ms", WARMUP_MS, "--window-ms", &window];
    let mut client = Load::start(from, &[&connect[..], &window].concat())?;
    Ok(Outcome(client.result()?))
}

/// What the generator of new connections can do without any network between its sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GeneratorLimit {
    pub(crate) connections_per_s: f64,
    /// Share of one core that the client spends in its own code.
    pub(crate) own_share: f64,
}

/// Measures new connections over loopback.
///
/// # Errors
/// Fails if either side does.
pub(crate) fn generator_limit(window_ms: u64) -> Result<GeneratorLimit> {
    let netns = Namespace::new("loopback")?;
    let outcome = connect(&netns, &netns, &format!("127.0.0.1:{PORT}"), window_ms)?;
    Ok(GeneratorLimit {
        connections_per_s: outcome.rate("connections")?,
        own_share: outcome.rate("own_seconds")?,
    })
}

fn datagrams(from: &End<'_>, to: &End<'_>, window_ms: u64) -> Result<Figures> {
    let (port, window) = (PORT.to_string(), window_ms.to_string());
    let window = ["--warmup-ms", WARMUP_MS, "--window-ms", &window];
    let receive = [&["datagram-receive", "--port", &port][..], &window].concat();
    let mut receiver = Load::serve(to.netns, &receive)?;
    let target = at(to.ip, PORT);
    let send = ["datagram-send", "--to", &target, "--size", DATAGRAM_BYTES];
    let mut sender = Load::start(from.netns, &send)?;
    let received = Outcome(receiver.result()?);
    let offered = Outcome(sender.stop()?);
    let cpu = received.number("cpu_seconds")? / (received.number("packets")? / 1e6);
    Ok(vec![
        (Metric::Datagrams, received.rate("packets")?),
        (Metric::DatagramsOffered, offered.rate("packets")?),
        (Metric::DatagramsCpu, cpu),
    ])
}

/// Lets every pod send to every other, one after the other, beginning with its neighbour.
///
/// # Errors
/// Fails if a pod ends without a result.
pub(crate) fn all_to_all(ends: &[End<'_>]) -> Result<Figures> {
    let port = PORT.to_string();
    let mut loads = Vec::new();
    for (index, end) in ends.iter().enumerate() {
        let (before, rest) = ends.split_at(index);
        let others = rest[1..].iter().chain(before);
        let peers: Vec<String> = others.map(|end| end.ip.to_string()).collect();
        let (peers, mesh) = (peers.join(","), ["mesh", "--port", &port]);
        let arguments = [&mesh[..], &["--peers", &peers, "--bytes", TRANSFER_BYTES]].concat();
        loads.push(Load::serve(end.netns, &arguments)?);
    }
    for load in &mut loads {
        load.go()?;
    }
    let (mut bytes, mut failures, mut rates, mut longest) = (0.0, 0.0, Vec::new(), 0.0_f64);
    for load in &mut loads {
        let outcome = Outcome(load.result()?);
        bytes += outcome.number("bytes")?;
        failures += outcome.number("failures")?;
        longest = longest.max(outcome.number("seconds")?);
        rates.push(outcome.rate("bytes")?);
    }
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let fastest = rates.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        (Metric::Mesh, bytes * 8.0 / 1e9 / longest),
        (Metric::MeshTime, longest),
        (Metric::MeshFairness, slowest / fastest),
        (Metric::MeshFailures, failures),
    ])
}
