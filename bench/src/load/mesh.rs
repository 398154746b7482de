//! One of many pods that all send to all: a connection to each peer in turn.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::control::{self, Control};

const BUFFER: usize = 64 * 1024;
/// A transfer to one peer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Whoever is not through by then gives up.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn run(port: u16, peers: &[Ipv4Addr], bytes: u64, control: &Control) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || take_in(stream));
        }
    });
    control::ready()?;
    control.wait_for_go();
    let start = Instant::now();
    let (mut sent, mut failures) = (0, 0);
    for &peer in peers {
        let in_time = start.elapsed() < DEADLINE;
        if in_time && transfer(peer, port, bytes).is_ok() {
            sent += bytes;
        } else {
            failures += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    control::result(&json!({"bytes": sent, "seconds": seconds, "failures": failures}))?;
    // Others may still be sending to this one.
    while !control.is_stopped() {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Sends and waits for the peer's word that all has come.
fn transfer(peer: Ipv4Addr, port: u16, bytes: u64) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&(peer, port).into(), PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let buffer = [0; BUFFER];
    let mut left = usize::try_from(bytes)?;
    while left > 0 {
        left -= stream.write(&buffer[..left.min(BUFFER)])?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    let total = u64::from_be_bytes(total);
    anyhow::ensure!(total == bytes, "{total} of {bytes} bytes came");
    Ok(())
}

fn take_in(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut buffer, mut total) = (vec![0; BUFFER], 0_u64);
    while let length @ 1.. = stream.read(&mut buffer)? {
        total += length as u64;
    }
    Ok(stream.write_all(&total.to_be_bytes())?)
}
