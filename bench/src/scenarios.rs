//! What one packet goes through, prepared so that a single call is one packet.

use std::hint::black_box;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use vswitch_api::PortNo;
use vswitch_datapath::packet::{Frame, parse};
use vswitch_datapath::{Engine, Outputs, Timestamp, Verdict};

use crate::frames::{ACK, HEADERS, SEQ, SYN, SYN_ACK, Segment};
use crate::ruleset::{self, GATEWAY, GATEWAY_MAC, HTTP, Ruleset, SERVICE};

/// Packets that are prepared for a scenario whose packets must differ.
pub const PACKETS: usize = 2_000;

/// One packet after the other.
pub type Run = Box<dyn FnMut()>;

/// Something to be measured.
#[derive(Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What a packet of it goes through.
    pub what: &'static str,
    /// Prepares it; at most [`PACKETS`] calls of what comes back if its packets differ.
    pub prepare: fn() -> Result<Run>,
    /// Whether its packets must differ.
    pub is_bounded: bool,
    /// The function that a packet goes through, as callgrind names it: what prepares the packet
    /// is not counted.
    pub counted: &'static str,
}

const PROCESS: &str = "vswitch_datapath::datapath::engine::Engine::process";

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "parse",
        what: "bytes to a whole key: TCP over IPv4",
        prepare: || Ok(parsing()),
        is_bounded: false,
        counted: "vswitch_datapath::packet::parse::parse",
    },
    Scenario {
        name: "hit_tcp",
        what: "parse to action over the FlowCache, 1,000 policies: TCP data and its ACK",
        prepare: || hit(Peer::Pod),
        is_bounded: false,
        counted: PROCESS,
    },
    Scenario {
        name: "hit_service",
        what: "the same to a ClusterIP",
        prepare: || hit(Peer::Service),
        is_bounded: false,
        counted: PROCESS,
    },
    Scenario {
        name: "translate_10",
        what: "first packet of a connection through all tables, 10 policies",
        prepare: || translate(10),
        is_bounded: true,
        counted: PROCESS,
    },
    Scenario {
        name: "translate_1000",
        what: "the same with 1,000 policies",
        prepare: || translate(1_000),
        is_bounded: true,
        counted: PROCESS,
    },
    Scenario {
        name: "translate_10000",
        what: "the same with 10,000 policies",
        prepare: || translate(10_000),
        is_bounded: true,
        counted: PROCESS,
    },
];

/// Whom the client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Pod,
    Service,
}

/// A pod of this node, and one of its namespace elsewhere that policies let it reach.
const CLIENT: usize = 0;
const SERVER_POD: usize = 3;
const CLIENT_PORT: u16 = 5_000;

/// A segment from the client to its server.
fn to_server(src_port: u16, flags: u8) -> Segment {
    Segment {
        mac_src: ruleset::mac_of(ruleset::port_of(CLIENT)),
        mac_dst: GATEWAY_MAC,
        src: (ruleset::address(ruleset::local_pod(CLIENT)), src_port),
        dst: (ruleset::address(SERVER_POD), HTTP),
        flags,
        seq: 1,
        ack: 0,
        payload: 0,
    }
}

fn parsing() -> Run {
    let frame = to_server(CLIENT_PORT, ACK).frame();
    let port = ruleset::port_of(CLIENT);
    Box::new(move || {
        let parsed = parse(black_box(&frame), port);
        let _parsed = black_box(parsed);
    })
}

/// Sends one frame; returns whether it was forwarded.
fn send(engine: &mut Engine, port: PortNo, frame: &mut Frame, out: &mut Outputs) -> bool {
    let verdict = engine.process(port, frame, Timestamp::default(), out);
    matches!(black_box(verdict), Verdict::Forward(_))
}

/// One side of a connection that is under way, and its next segment.
struct Side {
    port: PortNo,
    frame: Frame,
    original: Vec<u8>,
}

impl Side {
    fn new(port: PortNo, segment: Segment) -> Self {
        let frame = segment.frame();
        let original = frame.bytes().to_vec();
        Self {
            port,
            frame,
            original,
        }
    }

    /// Puts back what the switch rewrote, and numbers the segment; costs next to nothing beside
    /// what is measured.
    fn renew(&mut self, seq: u32, ack: u32, is_translated: bool) {
        let bytes = self.frame.bytes_mut();
        let rewritten = if is_translated { HEADERS } else { 12 };
        bytes[..rewritten].copy_from_slice(&self.original[..rewritten]);
        bytes[SEQ..SEQ + 4].copy_from_slice(&seq.to_be_bytes());
        bytes[SEQ + 4..SEQ + 8].copy_from_slice(&ack.to_be_bytes());
    }
}

/// A connection whose client sends data and whose server acknowledges it, in turn.
fn hit(peer: Peer) -> Result<Run> {
    const PAYLOAD: u16 = 64;
    let mut ruleset = Ruleset::install(1_000, 1_024)?;
    let is_translated = peer == Peer::Service;
    let mut dst: (Ipv4Addr, u16) = (ruleset::address(SERVER_POD), HTTP);
    if is_translated {
        ruleset.serve(SERVER_POD)?;
        dst = (SERVICE, 80);
    }
    let syn = Segment {
        dst,
        ..to_server(CLIENT_PORT, SYN)
    };
    let syn_ack = Segment {
        mac_src: GATEWAY_MAC,
        mac_dst: syn.mac_src,
        src: (ruleset::address(SERVER_POD), HTTP),
        dst: syn.src,
        flags: SYN_ACK,
        seq: 1,
        ack: 2,
        payload: 0,
    };
    let mut engine = ruleset.datapath.engine();
    let mut out = Outputs::default();
    let port = ruleset::port_of(CLIENT);
    let is_forwarded = send(&mut engine, port, &mut syn.frame(), &mut out)
        && send(&mut engine, GATEWAY, &mut syn_ack.frame(), &mut out);
    ensure!(is_forwarded, "the connection does not open");
    let (data, ack) = (
        Segment {
            flags: ACK,
            payload: PAYLOAD,
            ..syn
        },
        Segment {
            flags: ACK,
            ..syn_ack
        },
    );
    let (mut client, mut server) = (Side::new(port, data), Side::new(GATEWAY, ack));
    let (mut seq, mut is_servers_turn) = (2u32, false);
    let mut next = move || {
        let side = if is_servers_turn {
            seq = seq.wrapping_add(PAYLOAD.into());
            server.renew(2, seq, is_translated);
            &mut server
        } else {
            client.renew(seq, 2, is_translated);
            &mut client
        };
        is_servers_turn = !is_servers_turn;
        send(&mut engine, side.port, &mut side.frame, &mut out)
    };
    ensure!(next() && next(), "a later packet is dropped");
    let hits = ruleset.datapath.cache_stats().hits;
    ensure!(next() && next(), "a later packet is dropped");
    ensure!(
        ruleset.datapath.cache_stats().hits == hits + 2,
        "it is no hit"
    );
    Ok(Box::new(move || {
        let _forwarded = next();
    }))
}

fn translate(policies: usize) -> Result<Run> {
    let ruleset = Ruleset::install(policies, 0)?;
    let frame = |nth: usize| {
        let port = u16::try_from(10_000 + nth).unwrap_or(u16::MAX);
        to_server(port, SYN).frame()
    };
    let mut frames: Vec<Frame> = (0..=PACKETS).map(frame).collect();
    let mut engine = ruleset.datapath.engine();
    let mut out = Outputs::default();
    let port = ruleset::port_of(CLIENT);
    let mut first = frames.pop().context("there are frames")?;
    ensure!(
        send(&mut engine, port, &mut first, &mut out),
        "the first packet is dropped"
    );
    Ok(Box::new(move || {
        if let Some(mut frame) = frames.pop() {
            let _forwarded = send(&mut engine, port, &mut frame, &mut out);
            // Freeing what a worker would use again is not the packet's.
            std::mem::forget(frame);
        }
    }))
}
