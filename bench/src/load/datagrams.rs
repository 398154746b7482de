//! Small UDP datagrams, many a system call.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};
use serde_json::json;

use crate::control::{self, Control};
use crate::window::{Window, WindowArgs};

/// Datagrams a system call.
const BATCH: usize = 64;
/// Room for a receiver that another process keeps off its core for a few milliseconds.
const RECEIVE_BUFFER: usize = 8 << 20;
/// A receiver looks at the clock at least so often.
const TICK: Duration = Duration::from_millis(50);
/// The first datagram must have come by then.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn receive(port: u16, window: WindowArgs) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("enlarge the buffer")?;
    socket.set_read_timeout(Some(TICK))?;
    control::ready()?;
    let mut receiver = Receiver::new(socket.as_raw_fd());
    let start = Instant::now();
    while receiver.take_batch()? == 0 {
        anyhow::ensure!(start.elapsed() < PATIENCE, "no datagram came");
    }
    receiver.count_for(window.warmup())?;
    let open = Window::open()?;
    let packets = receiver.count_for(window.length())?;
    let spent = open.close()?;
    control::result(&json!({"packets": packets, "seconds": spent.seconds,
        "cpu_seconds": spent.cpu.busy, "steal_seconds": spent.cpu.steal}))
}

struct Receiver {
    fd: RawFd,
    headers: MultiHeaders<SockaddrIn>,
    buffers: Vec<[u8; 64]>,
}

impl Receiver {
    fn new(fd: RawFd) -> Self {
        Self {
            fd,
            headers: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![[0; 64]; BATCH],
        }
    }

    fn take_batch(&mut self) -> Result<usize> {
        let mut slices: Vec<_> = self
            .buffers
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        // MSG_WAITFORONE: a batch is what is there.
        let flags = MsgFlags::MSG_WAITFORONE;
        match recvmmsg(self.fd, &mut self.headers, slices.iter_mut(), flags, None) {
            Ok(received) => Ok(received.count()),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => bail!("receive: {errno}"),
        }
    }

    fn count_for(&mut self, length: Duration) -> Result<usize> {
        let (start, mut packets) = (Instant::now(), 0);
        while start.elapsed() < length {
            packets += self.take_batch()?;
        }
        Ok(packets)
    }
}

pub(crate) fn send(to: SocketAddrV4, size: usize, control: &Control) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let payload = vec![0; size];
    let slices = vec![[IoSlice::new(&payload)]; BATCH];
    let nobody: [Option<SockaddrIn>; BATCH] = [None; BATCH];
    let (start, mut sent) = (Instant::now(), 0);
    while !control.is_stopped() {
        let flags = MsgFlags::empty();
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, nobody, [], flags) {
            Ok(results) => sent += results.count(),
            // What the path had no room for was offered and lost; a refusal is an ICMP error
            // about a receiver that has left.
            Err(Errno::ENOBUFS | Errno::ECONNREFUSED) => {}
            Err(errno) => bail!("send: {errno}"),
        }
    }
    control::result(&json!({"packets": sent, "seconds": start.elapsed().as_secs_f64()}))
}
