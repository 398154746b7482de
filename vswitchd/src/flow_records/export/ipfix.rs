//! Records as flow records of IPFIX (RFC 7011), to a collector over UDP or TCP (sections 10.3 and
//! 10.4).
//!
//! `netflow_parser` writes the messages; this module keeps the transport session that they are of.
//! After each failure there is another one, with templates and numbers of its own. TCP takes what it
//! takes whole; of UDP nobody tells what was lost, but for a port where nobody listens.

use std::io::{self, ErrorKind, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use vswitch_api::v1::FlowRecord;

use super::ipfix_messages::Messages;
use super::sink::{Failed, Outcome, Writer};
use crate::clock::unix_seconds;
use crate::config::{IpfixConfig, IpfixTransport};

/// For how long a collector may take to answer, or to make room; less than after which a sink is said
/// to hang.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Ipfix {
    config: IpfixConfig,
    session: Option<Session>,
    /// Why there is no session.
    problem: Option<String>,
}

/// A transport session.
#[derive(Debug)]
struct Session {
    stream: Stream,
    messages: Messages,
    /// When templates were told again last, seconds since 1970.
    refreshed: u64,
}

#[derive(Debug)]
enum Stream {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Ipfix {
    /// Connects to nobody yet.
    pub(super) const fn new(config: IpfixConfig) -> Self {
        Self {
            config,
            session: None,
            problem: None,
        }
    }

    /// Takes records to the collector, at `now`, seconds since 1970. Without any it asks how that
    /// does, and tells templates again if it is time.
    pub(super) fn write_at(&mut self, records: &[FlowRecord], now: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let is_udp = self.config.transport == IpfixTransport::Udp;
        if records.is_empty() && self.session.is_none() && is_udp && self.problem.is_some() {
            // Nothing to ask: how it is shows with the next records.
            outcome.failed = self.problem.clone().map(|problem| Failed {
                problem,
                again_after: Duration::ZERO,
            });
            return outcome;
        }
        match self.export(records, now, &mut outcome.taken) {
            Ok(()) => self.problem = None,
            Err(error) => {
                self.session = None;
                self.problem = Some(error.to_string());
                outcome.failed = self.problem.clone().map(Failed::with);
            }
        }
        outcome
    }

    /// Counts up what was taken, also if the rest is not.
    fn export(&mut self, records: &[FlowRecord], now: u64, taken: &mut usize) -> io::Result<()> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(Session::open(&self.config, now)?),
        };
        session.stream.check()?;
        session.refresh(&self.config, now)?;
        while *taken < records.len() {
            let rest = records.get(*taken..).unwrap_or_default();
            let (message, of_message) = session.messages.next(rest, now);
            session.stream.send(&message)?;
            // A port of this node at which nobody listens says so by now.
            session.stream.check()?;
            *taken += of_message;
        }
        Ok(())
    }
}

impl Writer for Ipfix {
    fn write(&mut self, records: &[FlowRecord]) -> Outcome {
        self.write_at(records, unix_seconds())
    }
}

impl Session {
    fn open(config: &IpfixConfig, now: u64) -> io::Result<Self> {
        Ok(Self {
            stream: Stream::open(config)?,
            messages: Messages::new(config.enterprise),
            refreshed: now,
        })
    }

    /// Tells all templates again over UDP, if it is time (RFC 7011 section 8.4). Over TCP none is
    /// lost.
    fn refresh(&mut self, config: &IpfixConfig, now: u64) -> io::Result<()> {
        let is_due = now.abs_diff(self.refreshed) >= config.template_refresh.as_secs();
        if is_due && matches!(self.stream, Stream::Udp(_)) {
            for message in self.messages.templates(now) {
                self.stream.send(&message)?;
            }
            self.refreshed = now;
        }
        Ok(())
    }
}

impl Stream {
    /// Connects to the first of the collector's addresses that can be.
    fn open(config: &IpfixConfig) -> io::Result<Self> {
        let mut problem = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in config.address.to_socket_addrs()? {
            match Self::connect(config.transport, address) {
                Ok(stream) => return Ok(stream),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    fn connect(transport: IpfixTransport, to: SocketAddr) -> io::Result<Self> {
        match transport {
            IpfixTransport::Tcp => {
                let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Tcp(stream))
            }
            IpfixTransport::Udp => {
                let any = match to {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket.connect(to)?;
                Ok(Self::Udp(socket))
            }
        }
    }

    /// Fails if the other end has said that it takes nothing: by ICMP, or by closing the stream.
    fn check(&self) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.take_error()?.map_or(Ok(()), Err),
            Self::Tcp(stream) => {
                let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
                match recv(stream.as_raw_fd(), &mut [0], flags) {
                    Ok(0) => Err(io::Error::new(
                        ErrorKind::ConnectionAborted,
                        "the collector has closed the connection",
                    )),
                    // A collector has nothing to say.
                    Ok(_) | Err(Errno::EAGAIN) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            }
        }
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(message).map(drop),
            Self::Tcp(stream) => stream.write_all(message),
        }
    }
}
