//! New TCP connections: connect, one byte each way, close.
//!
//! The server closes first, as web servers do, so that the client's ports are free at once. Each
//! thread has a port of the server to itself: with all ephemeral ports, no pair of ports comes
//! again within a run.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::json;
use vswitch_bench::times::{Times, micros};

use crate::control;
use crate::window::{Window, WindowArgs};

/// A connection that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) fn answer(port: u16, threads: u16) -> Result<()> {
    let listeners = (port..port + threads)
        .map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .collect::<Result<Vec<_>, _>>()?;
    control::ready()?;
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| {
                for stream in listener.incoming().map_while(Result::ok) {
                    // A client that went away is the client's to report.
                    let _ = answer_one(stream);
                }
            });
        }
    });
    Ok(())
}

fn answer_one(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(stream.write_all(&byte)?)
}

pub(crate) fn connect(to: SocketAddrV4, threads: u16, window: WindowArgs) -> Result<()> {
    spread(to, threads, window.warmup())?;
    let open = Window::open()?;
    let tries = spread(to, threads, window.length())?;
    let spent = open.close()?;
    let times = Times::new(tries.times);
    control::result(
        &json!({"connections": times.count(), "failures": tries.failures,
        "p50_us": micros(times.quantile(50)), "p99_us": micros(times.quantile(99)),
        "seconds": spent.seconds, "own_seconds": spent.own,
        "cpu_seconds": spent.cpu.busy, "steal_seconds": spent.cpu.steal}),
    )
}

/// What became of connections.
#[derive(Debug, Default)]
struct Tries {
    times: Vec<Duration>,
    failures: u64,
}

fn spread(to: SocketAddrV4, threads: u16, length: Duration) -> Result<Tries> {
    let all = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|thread| SocketAddrV4::new(*to.ip(), to.port() + thread))
            .map(|to| scope.spawn(move || repeat(to, length)))
            .collect();
        let joined = started.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.collect::<Result<Vec<_>, _>>()
    });
    let all = all.map_err(|_| anyhow!("a thread panicked"))?;
    let mut sum = Tries::default();
    for tries in all {
        sum.times.extend(tries.times);
        sum.failures += tries.failures;
    }
    Ok(sum)
}

fn repeat(to: SocketAddrV4, length: Duration) -> Tries {
    let start = Instant::now();
    let (mut tries, mut begun) = (Tries::default(), start);
    while begun - start < length {
        let outcome = connect_one(to);
        let done = Instant::now();
        match outcome {
            Ok(()) => tries.times.push(done - begun),
            Err(_) => tries.failures += 1,
        }
        begun = done;
    }
    tries
}

fn connect_one(to: SocketAddrV4) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[1])?;
    let mut answer = [0; 2];
    let length = stream.read(&mut answer)?;
    anyhow::ensure!(length == 1, "answered by {length} bytes");
    // The end of the stream: the server's FIN has come.
    let rest = stream.read(&mut answer).context("read the end")?;
    anyhow::ensure!(rest == 0, "answered by more than one byte");
    Ok(())
}
