//! Servers and clients inside pods: threads with sockets of the pod's own stack. What they
//! see is the only verdict; the switch is never asked.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use vswitch_tests::{Namespace, inside, join};

use crate::cases::Protocol;

/// How long an answer that must not come is waited for: a hundred times the round trip.
const SILENCE: Duration = Duration::from_millis(400);
/// How long an answer that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// One try of a connection.
const TRY: Duration = Duration::from_millis(700);

/// Starts echo servers on these ports of an address; they end with the process.
pub(crate) fn serve(namespace: &Namespace, at: IpAddr, ports: &[(u16, Protocol)]) -> Result<()> {
    for (port, protocol) in ports.iter().copied() {
        let address = SocketAddr::from((at, port));
        match protocol {
            Protocol::Tcp => {
                let listener = join(inside(namespace, move || {
                    TcpListener::bind(address).context("listen")
                })?)?;
                std::thread::spawn(move || echo_streams(&listener));
            }
            Protocol::Udp => {
                let socket = join(inside(namespace, move || {
                    UdpSocket::bind(address).context("bind")
                })?)?;
                std::thread::spawn(move || echo_datagrams(&socket));
            }
            // No SCTP in this kernel.
            Protocol::Sctp => {}
        }
    }
    Ok(())
}

fn echo_streams(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_ok() {
                let _ = stream.write_all(&byte);
            }
        });
    }
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut byte = [0];
    while let Ok((_, from)) = socket.recv_from(&mut byte) {
        let _ = socket.send_to(&byte, from);
    }
}

/// A connection to try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// Whether it has to work: then it is tried again for a while.
    pub(crate) is_expected: bool,
}

/// Tries connections from inside a namespace, all at once; returns which worked.
pub(crate) fn attempt(
    namespace: &Namespace,
    attempts: Vec<Attempt>,
) -> Result<JoinHandle<Result<Vec<bool>>>> {
    inside(namespace, move || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = attempts
                .iter()
                .map(|attempt| scope.spawn(|| works(attempt)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
                .collect()
        })
    })
}

#[expect(clippy::disallowed_methods, reason = "real sockets run on real time")]
fn works(attempt: &Attempt) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let wait = if attempt.is_expected { TRY } else { SILENCE };
        let is_answered = match attempt.protocol {
            Protocol::Tcp => stream(attempt, wait)?,
            Protocol::Udp => datagram(attempt, wait)?,
            Protocol::Sctp => anyhow::bail!("no SCTP in this kernel"),
        };
        if is_answered || !attempt.is_expected || Instant::now() > deadline {
            return Ok(is_answered);
        }
    }
}

fn stream(attempt: &Attempt, wait: Duration) -> Result<bool> {
    let to = SocketAddr::from((attempt.to, attempt.port));
    let mut stream = match TcpStream::connect_timeout(&to, wait) {
        Ok(stream) => stream,
        Err(error) => return unanswered(&error),
    };
    stream.set_read_timeout(Some(wait))?;
    stream.write_all(&[1])?;
    let mut byte = [0];
    match stream.read_exact(&mut byte) {
        Ok(()) => Ok(true),
        Err(error) => unanswered(&error),
    }
}

/// Two datagrams, so that a single one that is lost decides nothing.
fn datagram(attempt: &Attempt, wait: Duration) -> Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((attempt.to, attempt.port))?;
    socket.set_read_timeout(Some(wait / 2))?;
    let mut byte = [0];
    for _ in 0..2 {
        let received = socket.send(&[1]).and_then(|_| socket.recv(&mut byte));
        match received {
            Ok(_) => return Ok(true),
            Err(error) => unanswered(&error)?,
        };
    }
    Ok(false)
}

/// Silence is a verdict; anything else is a failure of the test itself.
fn unanswered(error: &std::io::Error) -> Result<bool> {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(false),
        kind => Err(anyhow!("{kind}: {error}")),
    }
}
