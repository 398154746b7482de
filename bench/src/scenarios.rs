//! What one packet goes through, prepared so that a single call is one packet.

use anyhow::{Context as _, Result, ensure};
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::packet::{Frame, VnetHeader, parse};
use vswitch_datapath::{Engine, Outputs, Timestamp, Verdict};
use vswitchd::simulate::{Packet, Protocol, first_frame};

use crate::cluster;
use crate::node::{GATEWAY, GATEWAY_MAC, Node};

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
    /// Prepares it; at most [`PACKETS`] calls of what comes back.
    pub prepare: fn() -> Result<Run>,
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "parse",
        what: "bytes to a key: TCP over IPv4",
        prepare: || Ok(parsing()),
    },
    Scenario {
        name: "hit_tcp",
        what: "parse to action over the FlowCache, 1,000 policies, a TCP data segment",
        prepare: || hit(Peer::Pod),
    },
    Scenario {
        name: "hit_service",
        what: "the same to a ClusterIP",
        prepare: || hit(Peer::Service),
    },
    Scenario {
        name: "translate_10",
        what: "first packet of a connection through all tables, 10 policies",
        prepare: || translate(10),
    },
    Scenario {
        name: "translate_1000",
        what: "the same with 1,000 policies",
        prepare: || translate(1_000),
    },
    Scenario {
        name: "translate_10000",
        what: "the same with 10,000 policies",
        prepare: || translate(10_000),
    },
];

const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// Whom the client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Pod,
    Service,
}

/// A pod of this node, and one of its namespace elsewhere that policies let it reach.
const CLIENT: usize = 0;
const SERVER_POD: usize = 3;

/// A packet of the client's, as its stack hands it over: nobody has to verify the checksum.
fn from_client(packet: &Packet) -> (PortNo, Frame) {
    let port = cluster::port_of(CLIENT);
    (port, vouched_for(packet, cluster::mac_of(port)))
}

fn vouched_for(packet: &Packet, from: MacAddr) -> Frame {
    let mut frame = first_frame(packet, from, GATEWAY_MAC);
    frame.vnet.flags = VnetHeader::F_DATA_VALID;
    frame
}

fn packet(src_port: u16) -> Packet {
    Packet {
        src: cluster::address(cluster::local_pod(CLIENT)),
        dst: cluster::address(SERVER_POD),
        protocol: Protocol::Tcp,
        src_port,
        dst_port: 8080,
    }
}

fn parsing() -> Run {
    let (port, frame) = from_client(&packet(5_000));
    Box::new(move || {
        let parsed = parse(std::hint::black_box(&frame), port);
        let _parsed = std::hint::black_box(parsed);
    })
}

/// Sends one frame; returns whether it was forwarded.
fn send(engine: &mut Engine, port: PortNo, frame: &mut Frame, out: &mut Outputs) -> bool {
    let verdict = engine.process(port, frame, Timestamp::default(), out);
    matches!(std::hint::black_box(verdict), Verdict::Forward(_))
}

fn hit(peer: Peer) -> Result<Run> {
    let node = Node::with_cache(1_024)?;
    node.load(1_000)?;
    let mut packet = packet(5_000);
    if peer == Peer::Service {
        node.serve(SERVER_POD)?;
        (packet.dst, packet.dst_port) = (cluster::cluster_ip(0), 80);
    }
    let mut engine = node.datapath.engine();
    let mut out = Outputs::default();
    let (port, mut first) = from_client(&packet);
    let is_forwarded = send(&mut engine, port, &mut first, &mut out);
    ensure!(is_forwarded, "the first packet is dropped");
    let back = Packet {
        src: cluster::address(SERVER_POD),
        dst: packet.src,
        src_port: 8080,
        dst_port: packet.src_port,
        protocol: Protocol::Tcp,
    };
    let mut answer = vouched_for(&back, GATEWAY_MAC);
    set_tcp(&mut answer, SYN_ACK, 1, 2);
    let is_forwarded = send(&mut engine, GATEWAY, &mut answer, &mut out);
    ensure!(is_forwarded, "the answer is dropped");
    let (port, mut data) = from_client(&packet);
    set_tcp(&mut data, ACK, 2, 2);
    let original = data.bytes().to_vec();
    let mut next = move || {
        data.bytes_mut().copy_from_slice(&original);
        send(&mut engine, port, &mut data, &mut out)
    };
    ensure!(next(), "a later packet is dropped");
    let hits = node.datapath.cache_stats().hits;
    ensure!(next(), "a later packet is dropped");
    ensure!(node.datapath.cache_stats().hits > hits, "it is no hit");
    node.handle.stop();
    Ok(Box::new(move || {
        let _forwarded = next();
    }))
}

/// Changes flags and numbers of a segment whose checksum is vouched for.
fn set_tcp(frame: &mut Frame, flags: u8, seq: u32, ack: u32) {
    // Ethernet and IPv4 take 34 bytes; RFC 9293 section 3.1.
    let numbers = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
    let bytes = frame.bytes_mut();
    if let Some(place) = bytes.get_mut(38..46) {
        place.copy_from_slice(&numbers);
    }
    if let Some(place) = bytes.get_mut(47) {
        *place = flags;
    }
}

fn translate(policies: usize) -> Result<Run> {
    let node = Node::start()?;
    node.load(policies)?;
    let frame = |nth: usize| {
        let port = u16::try_from(10_000 + nth).unwrap_or(u16::MAX);
        from_client(&packet(port))
    };
    let mut frames: Vec<(PortNo, Frame)> = (0..=PACKETS).map(frame).collect();
    let mut engine = node.datapath.engine();
    let mut out = Outputs::default();
    let (port, mut first) = frames.pop().context("there are frames")?;
    let is_forwarded = send(&mut engine, port, &mut first, &mut out);
    ensure!(is_forwarded, "the first packet is dropped");
    node.handle.stop();
    Ok(Box::new(move || {
        if let Some((port, mut frame)) = frames.pop() {
            let _forwarded = send(&mut engine, port, &mut frame, &mut out);
            // Freeing what a worker would use again is not the packet's.
            std::mem::forget(frame);
        }
    }))
}
