//! UDP request and response, each question a flow of its own.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::json;
use vswitch_bench::times::{Times, micros};

use crate::control;
use crate::window::{Window, WindowArgs};

/// A question that is answered later has failed: half of what a resolver waits (glibc: 5 s).
const PATIENCE: Duration = Duration::from_millis(2_500);

pub(crate) fn answer(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    control::ready()?;
    let mut buffer = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        // A client that went away is the client's to report.
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
    }
}

pub(crate) fn ask(to: SocketAddrV4, threads: u16, window: WindowArgs) -> Result<()> {
    spread(to, threads, window.warmup())?;
    let open = Window::open()?;
    let (times, failures) = spread(to, threads, window.length())?;
    let spent = open.close()?;
    let times = Times::new(times);
    let median = if times.count() == 0 {
        micros(PATIENCE)
    } else {
        micros(times.quantile(50))
    };
    control::result(&json!({"questions": times.count(), "failures": failures,
        "p50_us": median, "seconds": spent.seconds}))
}

fn spread(to: SocketAddrV4, threads: u16, length: Duration) -> Result<(Vec<Duration>, u64)> {
    let all = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|_| scope.spawn(move || repeat(to, length)))
            .collect();
        let joined = started.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.collect::<Result<Result<Vec<_>>, _>>()
    });
    let all = all.map_err(|_| anyhow!("a thread panicked"))??;
    let failures = all.iter().map(|(_, failures)| failures).sum();
    Ok((
        all.into_iter().flat_map(|(times, _)| times).collect(),
        failures,
    ))
}

fn repeat(to: SocketAddrV4, length: Duration) -> Result<(Vec<Duration>, u64)> {
    let (start, mut times, mut failures) = (Instant::now(), Vec::new(), 0);
    while start.elapsed() < length {
        let begun = Instant::now();
        if ask_one(to)? {
            times.push(begun.elapsed());
        } else {
            failures += 1;
        }
    }
    Ok((times, failures))
}

/// Returns whether the answer came in time.
fn ask_one(to: SocketAddrV4) -> Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    Ok(socket.send(b"question").is_ok() && socket.recv(&mut [0; 64]).is_ok())
}
