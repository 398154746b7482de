//! Large transfers over TCP, both ways at a time, with every byte compared.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vswitch_tests::{Pod, inside, join};

use crate::{HOST_GW, VXLAN, dual_stack};

const BYTES: usize = 200_000_000;
const PORT: u16 = 5000;
/// No progress for so long is a failure.
const STALLED: Duration = Duration::from_secs(20);

/// Bytes that repeat at no power of two, so that a lost or doubled segment shows.
fn pattern() -> Vec<u8> {
    (0..1_000_003_u32)
        .map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}

fn send(mut stream: TcpStream) -> Result<()> {
    let pattern = pattern();
    let mut left = BYTES;
    while left > 0 {
        let part = &pattern[..left.min(pattern.len())];
        stream.write_all(part)?;
        left -= part.len();
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

fn receive(mut stream: TcpStream) -> Result<()> {
    let pattern = pattern();
    let mut buffer = vec![0; pattern.len()];
    let mut left = BYTES;
    while left > 0 {
        let part = left.min(pattern.len());
        stream.read_exact(&mut buffer[..part]).context("receive")?;
        ensure!(buffer[..part] == pattern[..part], "other bytes were sent");
        left -= part;
    }
    ensure!(stream.read(&mut buffer)? == 0, "more was sent");
    Ok(())
}

fn both_ways(stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(STALLED))?;
    stream.set_write_timeout(Some(STALLED))?;
    let sending = stream.try_clone()?;
    let sender = std::thread::spawn(move || send(sending));
    receive(stream)?;
    join(sender)
}

fn transfer(from: &Pod, to: &Pod, address: IpAddr) -> Result<()> {
    let (listening, is_listening) = mpsc::channel();
    let server = inside(&to.netns, move || {
        let listener = TcpListener::bind(SocketAddr::new(address, PORT))?;
        listening.send(())?;
        both_ways(listener.accept()?.0)
    })?;
    is_listening.recv_timeout(STALLED)?;
    let client = inside(&from.netns, move || {
        both_ways(TcpStream::connect_timeout(
            &SocketAddr::new(address, PORT),
            Duration::from_secs(5),
        )?)
    })?;
    join(client)?;
    join(server)
}

fn transfers(backend: &'static str) {
    let cluster = dual_stack(backend);
    let near = cluster.pod(0, "near").unwrap();
    let far = cluster.pod(1, "far").unwrap();
    for address in &far.addresses {
        transfer(&near, &far, *address).unwrap();
    }
}

#[test]
fn two_hundred_megabytes_go_both_ways_by_vxlan() {
    transfers(VXLAN);
}

#[test]
fn two_hundred_megabytes_go_both_ways_by_host_gw() {
    transfers(HOST_GW);
}
