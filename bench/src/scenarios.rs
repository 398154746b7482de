//! What one packet goes through, prepared so that a single call is one packet.

use std::hint::black_box;

use anyhow::{Result, ensure};
use vswitch_api::PortNo;
use vswitch_datapath::packet::{Frame, parse};
use vswitch_datapath::{Engine, Outputs, Timestamp, Verdict};

use crate::frames::{ACK, HEADERS, SEQ, SYN, SYN_ACK, Segment};
use crate::ruleset::{self, GATEWAY, GATEWAY_MAC, HTTP, Ruleset, SERVICE};

/// Packets that are prepared for a scenario whose packets must differ.
pub const PACKETS: usize = 2_000;

/// One packet after the other.
pub trait Play {
    /// Sends the next packet; at most [`PACKETS`] before the next [`Play::renew`].
    fn packet(&mut self);

    /// Makes the packets new again.
    fn renew(&mut self) {}
}

/// A scenario under way.
pub type Run = Box<dyn Play>;

/// Packets that need no renewal.
struct Endless<F>(F);

impl<F: FnMut()> Play for Endless<F> {
    fn packet(&mut self) {
        (self.0)();
    }
}

/// Something to be measured.
#[derive(Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What a packet of it goes through.
    pub what: &'static str,
    /// Prepares it.
    pub prepare: fn() -> Result<Run>,
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
        counted: "vswitch_datapath::packet::parse::parse",
    },
    Scenario {
        name: "hit_tcp",
        what: "parse to action over the FlowCache, 1,000 policies: TCP data and its ACK",
        prepare: || hit(false),
        counted: PROCESS,
    },
    Scenario {
        name: "hit_service",
        what: "the same to a ClusterIP",
        prepare: || hit(true),
        counted: PROCESS,
    },
    Scenario {
        name: "translate_10",
        what: "first packet of a connection through all tables, 10 policies",
        prepare: || translate(10),
        counted: PROCESS,
    },
    Scenario {
        name: "translate_1000",
        what: "the same with 1,000 policies",
        prepare: || translate(1_000),
        counted: PROCESS,
    },
    Scenario {
        name: "translate_10000",
        what: "the same with 10,000 policies",
        prepare: || translate(10_000),
        counted: PROCESS,
    },
];

/// A pod of this node.
const CLIENT: usize = 0;
const CLIENT_PORT: u16 = 5_000;
/// Place in its namespace of a pod elsewhere that policies let it reach.
const SERVER: usize = 3;

/// A segment from a pod of this node to its server.
fn to_server(local: usize, src_port: u16, flags: u8) -> Segment {
    let pod = ruleset::local_pod(local);
    Segment {
        mac_src: ruleset::mac_of(ruleset::port_of(local)),
        mac_dst: GATEWAY_MAC,
        src: (ruleset::address(pod), src_port),
        dst: (ruleset::address(pod + SERVER), HTTP),
        flags,
        seq: 1,
        ack: 0,
        payload: 0,
    }
}

/// Returns a segment from a pod of this node to its server.
#[must_use]
pub fn data_segment(local: usize, src_port: u16) -> Segment {
    to_server(local, src_port, ACK)
}

/// Returns the first segment of a connection, and the port that it comes in through.
#[must_use]
pub fn first_segment(local: usize, src_port: u16) -> (PortNo, Frame) {
    let segment = to_server(local, src_port, SYN);
    (ruleset::port_of(local), segment.frame())
}

fn parsing() -> Run {
    let frame = to_server(CLIENT, CLIENT_PORT, ACK).frame();
    let port = ruleset::port_of(CLIENT);
    Box::new(Endless(move || {
        let parsed = parse(black_box(&frame), port);
        let _parsed = black_box(parsed);
    }))
}

/// Sends one frame; returns whether it was forwarded.
pub fn send(engine: &mut Engine, port: PortNo, frame: &mut Frame, out: &mut Outputs) -> bool {
    let verdict = engine.process(port, frame, Timestamp::default(), out);
    matches!(black_box(verdict), Verdict::Forward(_))
}

/// One side of a connection that is under way, and its next segment.
#[derive(Debug)]
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

/// A connection of one of the node's pods to another pod of its namespace, or to the Service
/// before that: the client sends data, the server acknowledges it, in turn.
#[derive(Debug)]
pub struct Conversation {
    client: Side,
    server: Side,
    is_translated: bool,
    seq: u32,
    is_servers_turn: bool,
}

impl Conversation {
    const PAYLOAD: u16 = 64;

    /// Opens it.
    ///
    /// # Errors
    /// Fails if the switch drops a segment.
    pub fn open(
        engine: &mut Engine,
        out: &mut Outputs,
        (local, src_port): (usize, u16),
        is_translated: bool,
    ) -> Result<Self> {
        let server_pod = ruleset::local_pod(local) + SERVER;
        let mut syn = to_server(local, src_port, SYN);
        if is_translated {
            syn.dst = (SERVICE, 80);
        }
        let syn_ack = Segment {
            mac_src: GATEWAY_MAC,
            mac_dst: syn.mac_src,
            src: (ruleset::address(server_pod), HTTP),
            dst: syn.src,
            flags: SYN_ACK,
            seq: 1,
            ack: 2,
            payload: 0,
        };
        let port = ruleset::port_of(local);
        let is_forwarded = send(engine, port, &mut syn.frame(), out)
            && send(engine, GATEWAY, &mut syn_ack.frame(), out);
        ensure!(is_forwarded, "the connection does not open");
        let data = Segment {
            flags: ACK,
            payload: Self::PAYLOAD,
            ..syn
        };
        let ack = Segment {
            flags: ACK,
            ..syn_ack
        };
        let mut conversation = Self {
            client: Side::new(port, data),
            server: Side::new(GATEWAY, ack),
            is_translated,
            seq: 2,
            is_servers_turn: false,
        };
        let goes_on = conversation.go_on(engine, out) && conversation.go_on(engine, out);
        ensure!(goes_on, "a later packet is dropped");
        Ok(conversation)
    }

    /// Sends the next segment; returns whether it was forwarded.
    pub fn go_on(&mut self, engine: &mut Engine, out: &mut Outputs) -> bool {
        let side = if self.is_servers_turn {
            self.seq = self.seq.wrapping_add(Self::PAYLOAD.into());
            self.server.renew(2, self.seq, self.is_translated);
            &mut self.server
        } else {
            self.client.renew(self.seq, 2, self.is_translated);
            &mut self.client
        };
        self.is_servers_turn = !self.is_servers_turn;
        send(engine, side.port, &mut side.frame, out)
    }
}

fn hit(is_translated: bool) -> Result<Run> {
    let mut ruleset = Ruleset::install(1_000, 1_024)?;
    if is_translated {
        ruleset.serve(SERVER)?;
    }
    let mut engine = ruleset.datapath.engine();
    let mut out = Outputs::default();
    let client = (CLIENT, CLIENT_PORT);
    let mut conversation = Conversation::open(&mut engine, &mut out, client, is_translated)?;
    let hits = ruleset.datapath.cache_stats().hits;
    conversation.go_on(&mut engine, &mut out);
    conversation.go_on(&mut engine, &mut out);
    ensure!(
        ruleset.datapath.cache_stats().hits == hits + 2,
        "it is no hit"
    );
    Ok(Box::new(Endless(move || {
        let _forwarded = conversation.go_on(&mut engine, &mut out);
    })))
}

/// First packets of connections of one pod, each from another port.
struct FirstPackets {
    ruleset: Ruleset,
    engine: Engine,
    out: Outputs,
    port: PortNo,
    frames: Vec<Frame>,
    sent: usize,
}

impl Play for FirstPackets {
    fn packet(&mut self) {
        if let Some(frame) = self.frames.get_mut(self.sent) {
            let _forwarded = send(&mut self.engine, self.port, frame, &mut self.out);
        }
        self.sent += 1;
    }

    fn renew(&mut self) {
        let macs = first_segment(CLIENT, 0).1.bytes()[..12].to_vec();
        for frame in &mut self.frames {
            frame.bytes_mut()[..12].copy_from_slice(&macs);
        }
        self.ruleset.datapath.flush_connections(|_| true);
        self.sent = 0;
    }
}

fn translate(policies: usize) -> Result<Run> {
    let ruleset = Ruleset::install(policies, 0)?;
    let frame = |nth: usize| {
        let port = u16::try_from(10_000 + nth).unwrap_or(u16::MAX);
        first_segment(CLIENT, port).1
    };
    let mut first = FirstPackets {
        engine: ruleset.datapath.engine(),
        out: Outputs::default(),
        port: ruleset::port_of(CLIENT),
        frames: (0..PACKETS).map(frame).collect(),
        sent: 0,
        ruleset,
    };
    first.packet();
    let connections = first.ruleset.datapath.conntrack_stats().entries;
    ensure!(connections == 1, "the first packet is dropped");
    first.renew();
    Ok(Box::new(first))
}
