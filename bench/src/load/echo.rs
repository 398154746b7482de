//! TCP request and response of one byte over one connection.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use vswitch_bench::times::{Times, micros};

use crate::control;
use crate::window::{Window, WindowArgs};

pub(crate) fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    control::ready()?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

pub(crate) fn ask(to: SocketAddrV4, window: WindowArgs) -> Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    exchange(&mut stream, window.warmup())?;
    let open = Window::open()?;
    let times = Times::new(exchange(&mut stream, window.length())?);
    let spent = open.close()?;
    control::result(
        &json!({"transactions": times.count(), "seconds": spent.seconds,
        "p50_us": micros(times.quantile(50)), "p99_us": micros(times.quantile(99)),
        "cpu_seconds": spent.cpu.busy, "steal_seconds": spent.cpu.steal}),
    )
}

fn exchange(stream: &mut TcpStream, length: Duration) -> Result<Vec<Duration>> {
    let start = Instant::now();
    let (mut times, mut byte, mut sent) = (Vec::with_capacity(1 << 18), [0], start);
    while sent - start < length {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        let back = Instant::now();
        times.push(back - sent);
        sent = back;
    }
    Ok(times)
}
