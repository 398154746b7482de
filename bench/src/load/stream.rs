//! TCP streams, one thread each, so that several streams use several cores.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use serde_json::json;

use crate::control::{self, Control};
use crate::window::{Window, WindowArgs};

/// That of iperf3.
const BUFFER: usize = 128 * 1024;

pub(crate) fn receive(port: u16, streams: usize, window: WindowArgs) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    control::ready()?;
    let received = Arc::new(AtomicU64::new(0));
    for _ in 0..streams {
        let (stream, _) = listener.accept()?;
        let received = Arc::clone(&received);
        std::thread::spawn(move || drain(stream, &received));
    }
    std::thread::sleep(window.warmup());
    let open = Window::open()?;
    let before = received.load(Ordering::Relaxed);
    std::thread::sleep(window.length());
    let bytes = received.load(Ordering::Relaxed) - before;
    let spent = open.close()?;
    control::result(&json!({"bytes": bytes, "seconds": spent.seconds,
        "cpu_seconds": spent.cpu.busy, "steal_seconds": spent.cpu.steal}))
}

fn drain(mut stream: TcpStream, received: &AtomicU64) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        // Relaxed: a sum that is read on its own.
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
}

pub(crate) fn send(to: SocketAddrV4, streams: usize, control: &Control) -> Result<()> {
    let fill = |mut stream: TcpStream| {
        let buffer = vec![0; BUFFER];
        // The receiver ends by closing: an error is the usual end.
        while !control.is_stopped() && stream.write_all(&buffer).is_ok() {}
    };
    let streams = (0..streams)
        .map(|_| TcpStream::connect(to))
        .collect::<Result<Vec<_>, _>>()?;
    std::thread::scope(|scope| {
        for stream in streams {
            scope.spawn(|| fill(stream));
        }
    });
    Ok(())
}
