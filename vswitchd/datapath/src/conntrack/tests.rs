//! Whole exchanges, as frames, through lookup, commit and track.

mod fragment;
mod icmp;
mod noted;
mod sctp;
mod shares;
mod table;
mod tcp;
mod tcp_close;
mod tcp_reuse;
mod tcp_window;
mod udp;

use std::sync::Arc;
use std::time::Duration;

use vswitch_api::PortNo;

use super::{CommitOptions, ConnTable, Connection, ConntrackConfig, CtLookup};
use crate::drop_reason::DropReason;
use crate::flow::{CtState, ip_proto};
use crate::packet::checksum::checksum;
use crate::packet::{Frame, ParsedPacket, VnetHeader, parse, tcp_flags};
use crate::time::Timestamp;

const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 80);
const ROUTER: ([u8; 4], u16) = ([10, 9, 9, 9], 0);
const CLIENT_PORT: PortNo = PortNo(1);
const SERVER_PORT: PortNo = PortNo(2);

type End = ([u8; 4], u16);

/// A table, a clock and the smallest pipeline there can be: everything is allowed.
struct Lab {
    table: ConnTable,
    now: Timestamp,
    midstream_pickup: bool,
    swapped: bool,
    /// The port that new connections come in through.
    in_port: PortNo,
}

impl Lab {
    fn new() -> Self {
        Self::with(ConntrackConfig::default())
    }

    fn with(config: ConntrackConfig) -> Self {
        let now = Timestamp::from_nanos(1_000_000_000);
        Self {
            table: ConnTable::new(config),
            now,
            midstream_pickup: false,
            swapped: false,
            in_port: CLIENT_PORT,
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn wait_secs(&mut self, secs: u64) {
        self.wait(Duration::from_secs(secs));
    }

    fn options(&self) -> CommitOptions {
        CommitOptions {
            midstream_pickup: self.midstream_pickup,
            swapped: self.swapped,
            in_port: self.in_port,
            out_port: SERVER_PORT,
        }
    }

    fn lookup(&self, frame: &Frame) -> CtLookup {
        self.table.lookup(&parsed(frame), frame, self.now).unwrap()
    }

    fn state(&self, frame: &Frame) -> CtState {
        self.lookup(frame).state
    }

    /// Forwards a frame as the pipeline does.
    fn send(&self, frame: &Frame) -> Result<Arc<Connection>, DropReason> {
        let pkt = parsed(frame);
        let found = self.table.lookup(&pkt, frame, self.now)?;
        let conn = match found.conn {
            _ if found.state.contains(CtState::INV) => return Err(DropReason::CtInvalid),
            None => self
                .table
                .commit(&pkt, &found.key, self.now, self.options())?,
            Some(conn) => {
                conn.track(&pkt, found.direction, self.now, self.table.config())?;
                conn
            }
        };
        self.table.allow_fragments(&pkt, self.now);
        Ok(conn)
    }

    /// Forwards a frame that has to be accepted; returns the state it leads to.
    fn accept(&self, frame: &Frame) -> &'static str {
        self.send(frame).expect("a frame that fits").state_name()
    }

    fn refuse(&self, frame: &Frame) {
        assert_eq!(self.send(frame).unwrap_err(), DropReason::CtInvalid);
    }

    fn only_connection(&self) -> super::ConnectionInfo {
        let all = self.table.snapshot(self.now);
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().unwrap()
    }

    fn remaining_secs(&self) -> u64 {
        self.only_connection().remaining.as_secs()
    }
}

fn parsed(frame: &Frame) -> ParsedPacket {
    parse(frame, CLIENT_PORT).expect("a well-formed frame")
}

/// Returns an IPv4 frame whose checksum the vnet header vouches for. `fragment` is the flags
/// and offset field.
fn ipv4(src: [u8; 4], dst: [u8; 4], proto: u8, id: u16, fragment: u16, payload: &[u8]) -> Frame {
    let mut ip = vec![0x45, 0];
    ip.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    ip.extend(id.to_be_bytes());
    ip.extend(fragment.to_be_bytes());
    ip.extend([64, proto, 0, 0]);
    ip.extend(src);
    ip.extend(dst);
    let [high, low] = checksum(&ip).to_be_bytes();
    ip.splice(10..12, [high, low]);
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    bytes.extend(ip);
    bytes.extend(payload);
    let mut frame = Frame::from_bytes(&bytes);
    frame.vnet.flags = VnetHeader::F_DATA_VALID;
    frame
}

fn udp_payload(from: End, to: End, len: usize) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(from.1.to_be_bytes());
    udp.extend(to.1.to_be_bytes());
    udp.extend(u16::try_from(8 + len).unwrap().to_be_bytes());
    udp.extend([0, 0]);
    udp.resize(8 + len, 0x55);
    udp
}

fn udp(from: End, to: End) -> Frame {
    ipv4(
        from.0,
        to.0,
        ip_proto::UDP,
        1,
        0,
        &udp_payload(from, to, 10),
    )
}

/// A TCP segment under construction.
#[derive(Debug, Clone, Copy)]
struct Tcp {
    from: End,
    to: End,
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    scale: Option<u8>,
    len: usize,
}

impl Tcp {
    fn new(from: End, to: End, flags: u8) -> Self {
        Self {
            from,
            to,
            flags,
            seq: 0,
            ack: 0,
            window: 10_000,
            scale: None,
            len: 0,
        }
    }

    fn seq(self, seq: u32) -> Self {
        Self { seq, ..self }
    }

    fn ack(self, ack: u32) -> Self {
        Self { ack, ..self }
    }

    fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    fn scale(self, scale: u8) -> Self {
        Self {
            scale: Some(scale),
            ..self
        }
    }

    fn data(self, len: usize) -> Self {
        Self { len, ..self }
    }

    fn build(self) -> Frame {
        let mut tcp = Vec::new();
        tcp.extend(self.from.1.to_be_bytes());
        tcp.extend(self.to.1.to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        let words = if self.scale.is_some() { 6 } else { 5 };
        tcp.extend([words << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0, 0, 0]);
        if let Some(scale) = self.scale {
            tcp.extend([3, 3, scale, 1]);
        }
        tcp.resize(tcp.len() + self.len, 0x55);
        ipv4(self.from.0, self.to.0, ip_proto::TCP, 1, 0, &tcp)
    }
}

/// A segment from the client, whose first number is 1000 (so that its data starts at 1001).
fn c(flags: u8) -> Tcp {
    Tcp::new(CLIENT, SERVER, flags)
}

/// A segment from the server, whose first number is 5000.
fn s(flags: u8) -> Tcp {
    Tcp::new(SERVER, CLIENT, flags)
}

/// Opens a connection from this end to the server completely.
fn open_by(lab: &Lab, client: End) -> Arc<Connection> {
    let to = |flags| Tcp::new(client, SERVER, flags);
    let from = |flags| Tcp::new(SERVER, client, flags);
    lab.accept(&to(SYN).seq(1000).build());
    lab.accept(&from(SYN | ACK).seq(5000).ack(1001).build());
    lab.send(&to(ACK).seq(1001).ack(5001).build()).unwrap()
}

/// Opens a connection, and closes it from both ends.
fn open_and_close(lab: &Lab, client: End) -> Arc<Connection> {
    let conn = open_by(lab, client);
    let to = |flags| Tcp::new(client, SERVER, flags);
    let from = |flags| Tcp::new(SERVER, client, flags);
    lab.accept(&to(FIN | ACK).seq(1001).ack(5001).build());
    lab.accept(&from(FIN | ACK).seq(5001).ack(1002).build());
    let last = to(ACK).seq(1002).ack(5002).build();
    assert_eq!(lab.accept(&last), "TIME_WAIT");
    conn
}

const SYN: u8 = tcp_flags::SYN;
const ACK: u8 = tcp_flags::ACK;
const FIN: u8 = tcp_flags::FIN;
const RST: u8 = tcp_flags::RST;

/// Does the handshake without window scaling.
fn open(lab: &Lab) -> Arc<Connection> {
    lab.accept(&c(SYN).seq(1000).build());
    lab.accept(&s(SYN | ACK).seq(5000).ack(1001).build());
    lab.send(&c(ACK).seq(1001).ack(5001).build()).unwrap()
}
