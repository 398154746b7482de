//! A pod that does not behave: packets of ever new flows, as fast as one core makes them.
//!
//! [`burn`] is its control: the same core, and not a packet.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg,
    socket,
};
use serde_json::json;

use crate::control::{self, Control};

/// What the packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// TCP SYNs from and to random ports.
    Syn,
    /// UDP datagrams from and to random ports.
    Udp,
    /// ICMP echo requests with random identifiers.
    Icmp,
    /// Later fragments of datagrams that never began.
    Fragment,
}

/// Packets a system call.
const BATCH: usize = 64;
const IPV4_HEADER: usize = 20;
/// Of every kind.
const PACKET: usize = IPV4_HEADER + 20;

pub(crate) fn send(to: Ipv4Addr, kind: Kind, control: &Control) -> Result<()> {
    let from = own_address(to)?;
    let (raw, ipv4) = (SockType::Raw, AddressFamily::Inet);
    let socket = socket(ipv4, raw, SockFlag::empty(), SockProtocol::Raw).context("raw socket")?;
    let target = SockaddrIn::from(SocketAddrV4::new(to, 0));
    let addresses = [Some(target); BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut random = Random(u64::from(std::process::id()) << 32 | 0x9e37_79b9);
    let (start, mut sent) = (Instant::now(), 0);
    while !control.is_stopped() {
        let packets: [_; BATCH] = std::array::from_fn(|_| packet(kind, from, to, random.next()));
        let slices = packets.each_ref().map(|packet| [IoSlice::new(packet)]);
        let flags = MsgFlags::empty();
        match sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &slices,
            addresses,
            [],
            flags,
        ) {
            Ok(results) => sent += results.count(),
            // What the path had no room for was offered and lost.
            Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
            Err(errno) => bail!("send: {errno}"),
        }
    }
    control::result(&json!({"packets": sent, "seconds": start.elapsed().as_secs_f64()}))
}

/// Keeps a core busy.
pub(crate) fn burn(control: &Control) -> Result<()> {
    let (start, mut random) = (Instant::now(), Random(1));
    while !control.is_stopped() {
        for _ in 0..10_000 {
            std::hint::black_box(random.next());
        }
    }
    control::result(&json!({"packets": 0, "seconds": start.elapsed().as_secs_f64()}))
}

fn own_address(to: Ipv4Addr) -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, 9))?;
    match socket.local_addr()?.ip() {
        std::net::IpAddr::V4(ip) => Ok(ip),
        ip => bail!("{ip} is no IPv4 address"),
    }
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Returns a packet of one of 2³² flows. The kernel fills in length and checksum of the IPv4
/// header, and the identification of what is no fragment.
fn packet(kind: Kind, from: Ipv4Addr, to: Ipv4Addr, random: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    let (ip, l4) = packet.split_at_mut(IPV4_HEADER);
    let [a, b, c, d, e, f, ..] = random.to_le_bytes();
    let protocol = match kind {
        Kind::Syn => 6,
        Kind::Udp | Kind::Fragment => 17,
        Kind::Icmp => 1,
    };
    ip[0] = 0x45;
    (ip[8], ip[9]) = (64, protocol);
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    match kind {
        Kind::Syn => {
            // Above the ports that are served.
            l4[..8].copy_from_slice(&[a | 0x20, b, c | 0x20, d, e, f, a, b]);
            (l4[12], l4[13], l4[14]) = (5 << 4, 0x02, 0xff);
            let sum = pseudo_sum(from, to, protocol, l4);
            l4[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        // Without a checksum.
        Kind::Udp => l4[..6].copy_from_slice(&[a | 0x20, b, c | 0x20, d, 0, 20]),
        Kind::Icmp => {
            l4[0] = 8;
            l4[4..8].copy_from_slice(&[a, b, c, d]);
            let sum = checksum(0, l4);
            l4[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        Kind::Fragment => {
            (ip[4], ip[5], ip[7]) = (a | 1, b, 185);
            l4[..4].copy_from_slice(&[a, b, c, d]);
        }
    }
    packet
}

fn pseudo_sum(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, l4: &[u8]) -> u16 {
    let words = |ip: Ipv4Addr| {
        let [a, b, c, d] = ip.octets();
        u32::from(u16::from_be_bytes([a, b])) + u32::from(u16::from_be_bytes([c, d]))
    };
    let length = u32::try_from(l4.len()).unwrap_or_default();
    checksum(words(from) + words(to) + u32::from(protocol) + length, l4)
}

/// RFC 1071.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum = words.fold(start, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
    });
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}
