//! The BPF programs on real frames (`BPF_PROG_TEST_RUN`), beside the engine's connection tracking.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use proptest::prelude::*;
use vswitch_api::PortNo;
use vswitch_datapath::conntrack::{
    CommitOptions, ConnTable, Connection, ConnectionInfo, ConntrackConfig, Direction,
};
use vswitch_datapath::flow::FlowKey;
use vswitch_datapath::packet::checksum::{checksum, pseudo_header};
use vswitch_datapath::packet::{Frame, ParsedPacket, parse, verify_l4_checksum};
use vswitch_datapath::{DropReason, Timestamp};

use super::kernel::{self, Loaded};
use super::memory::{ConnMemory, Place};
use super::wire::{self, Device};
use crate::clock::MonotonicClock;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The device that test runs come from.
const LOOPBACK: u32 = 1;
const MTU: u16 = 1_500;
const TCP: u8 = 6;
const UDP: u8 = 17;
const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 1), 40_000);
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 2), 80);
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1];
const LEAVE_WITH: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 9];
/// Window scale that both ends offer.
const SCALE: [u8; 4] = [3, 3, 7, 1];

use Direction::{Original, Reply};

/// A segment as its sender makes it.
#[derive(Debug, Clone)]
struct Segment {
    direction: Direction,
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    payload: usize,
    options: Vec<u8>,
}

const fn segment(direction: Direction, flags: u8, seq: u32, ack: u32) -> Segment {
    Segment {
        direction,
        flags,
        seq,
        ack,
        window: 500,
        payload: 0,
        options: Vec::new(),
    }
}

impl Segment {
    fn with(mut self, payload: usize) -> Self {
        self.payload = payload;
        self
    }

    fn offering(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    fn frame(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut tcp = vec![0; header + self.payload];
        let (from, to) = ends(self.direction);
        tcp[0..2].copy_from_slice(&from.1.to_be_bytes());
        tcp[2..4].copy_from_slice(&to.1.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        tcp[12] = u8::try_from(header / 4).unwrap() << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        tcp[20..header].copy_from_slice(&self.options);
        ipv4(self.direction, TCP, &tcp)
    }
}

const fn ends(direction: Direction) -> ((Ipv4Addr, u16), (Ipv4Addr, u16)) {
    match direction {
        Original => (CLIENT, SERVER),
        Reply => (SERVER, CLIENT),
    }
}

fn ipv4(direction: Direction, proto: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(direction);
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut frame = MACS.to_vec();
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, proto, 0, 0]);
    frame.extend(from.0.octets());
    frame.extend(to.0.octets());
    let sum: u32 = frame[14..34]
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(payload);
    frame
}

fn datagram(direction: Direction, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(direction);
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = [from.1, to.1, length, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    ipv4(direction, UDP, &udp)
}

fn parsed(frame: &[u8]) -> ParsedPacket {
    parse(&Frame::from_bytes(frame), PortNo(1)).unwrap()
}

const OPTIONS: CommitOptions = CommitOptions {
    midstream_pickup: false,
    swapped: false,
    in_port: PortNo(1),
    out_port: PortNo(2),
};

/// The programs with room for one connection after the other.
struct Kernel {
    loaded: Loaded,
    memory: Arc<ConnMemory>,
    next: u32,
}

impl Kernel {
    fn new() -> Self {
        let loaded = kernel::load(64, MonotonicClock::start()).unwrap();
        loaded.generation.advance();
        let memory = Arc::clone(&loaded.conns);
        Self {
            loaded,
            memory,
            next: 0,
        }
    }

    /// Hands a connection over, both directions; returns whether it could be.
    fn take_over(&mut self, conn: &Connection) -> bool {
        let slot = self.next % 64;
        let mut id = 0;
        let entered = conn.enter_kernel(|tcp| {
            id = self.memory.begin(slot, tcp);
            Box::new(Place::new(Arc::clone(&self.memory), slot))
        });
        if !entered {
            return false;
        }
        self.next += 1;
        if let (Some(original), Some(reply)) = (conn.leaves_as(Original), conn.leaves_as(Reply)) {
            let translation = wire::translation(&[original, reply]);
            self.loaded.translations.set(slot, &translation).unwrap();
        }
        let device = Device {
            if_index: LOOPBACK,
            is_gateway: false,
        };
        let generation = self.loaded.generation.get();
        for (side, tuple) in [conn.original(), conn.reply()].iter().enumerate() {
            let comes_as = (tuple, conn.is_translated());
            let way = wire::way(comes_as, &LEAVE_WITH, MTU, device);
            self.memory.set_way(slot, side, way, generation);
            let key = wire::key(tuple, &MACS, LOOPBACK);
            let flow = wire::flow(slot, side, id);
            self.loaded.flows.insert(&key, &flow).unwrap();
        }
        true
    }

    /// Returns whether the kernel forwards a frame, and what it forwards.
    fn run(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        self.run_as(frame, &[])
    }

    /// The same with a context (`struct __sk_buff`).
    fn run_as(&mut self, frame: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        const TC_ACT_REDIRECT: u32 = 7;
        let mut out = vec![0; frame.len() + 256];
        let ran = self
            .loaded
            .programs
            .classifier("from_gateway")
            .unwrap()
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: (!context.is_empty()).then_some(context),
                ..TestRunOptions::default()
            })
            .unwrap();
        out.truncate(ran.data_size_out as usize);
        assert!(ran.return_value == TC_ACT_REDIRECT || ran.return_value == u32::MAX);
        (ran.return_value == TC_ACT_REDIRECT).then_some(out)
    }

    fn takes(&mut self, segment: &Segment) -> bool {
        self.run(&segment.frame()).is_some()
    }
}

/// A connection table with a clock.
struct Tracked {
    table: ConnTable,
    now: Timestamp,
}

impl Tracked {
    fn new() -> Self {
        Self {
            table: ConnTable::new(ConntrackConfig::default()),
            now: Timestamp::from_nanos(1),
        }
    }

    fn commit(&self, frame: &[u8]) -> Result<Arc<Connection>, DropReason> {
        let parsed = parsed(frame);
        self.table.commit(&parsed, &parsed.key, self.now, OPTIONS)
    }

    fn track(&self, conn: &Connection, segment: &Segment) -> Result<(), DropReason> {
        let parsed = parsed(&segment.frame());
        conn.track(&parsed, segment.direction, self.now, self.table.config())
    }
}

/// A connection whose SYN the engine admitted and that the kernel has.
struct Fixture {
    kernel: Kernel,
    tracked: Tracked,
    conn: Arc<Connection>,
}

const C: u32 = 1_000;
const S: u32 = u32::MAX - 500;

fn syn() -> Segment {
    segment(Original, SYN, C, 0).offering(&SCALE)
}

fn syn_ack() -> Segment {
    segment(Reply, SYN | ACK, S, C + 1).offering(&SCALE)
}

impl Fixture {
    fn new() -> Self {
        let mut kernel = Kernel::new();
        let tracked = Tracked::new();
        let conn = tracked.commit(&syn().frame()).unwrap();
        assert!(kernel.take_over(&conn));
        Self {
            kernel,
            tracked,
            conn,
        }
    }

    fn open() -> Self {
        let mut fixture = Self::new();
        fixture.forwards(&syn_ack(), "SYN_RECV");
        fixture.forwards(&fixture.client(ACK), "ESTABLISHED");
        fixture
    }

    /// The client's next segment before it has sent anything.
    fn client(&self, flags: u8) -> Segment {
        segment(Original, flags, C + 1, S.wrapping_add(1))
    }

    fn server(&self, flags: u8) -> Segment {
        segment(Reply, flags, S.wrapping_add(1), C + 1)
    }

    /// The kernel forwards a segment, after which the connection is in a state.
    fn forwards(&mut self, segment: &Segment, state: &str) {
        assert!(
            self.kernel.takes(segment),
            "{segment:?} in {}",
            self.state()
        );
        assert_eq!(self.state(), state, "after {segment:?}");
    }

    /// The kernel leaves a segment to the engine, which makes that of it.
    fn leaves(&mut self, segment: &Segment, made_of_it: Result<(), DropReason>, state: &str) {
        assert!(!self.kernel.takes(segment), "{segment:?}");
        assert_eq!(
            self.tracked.track(&self.conn, segment),
            made_of_it,
            "{segment:?}"
        );
        assert_eq!(self.state(), state, "after {segment:?}");
    }

    fn state(&self) -> &'static str {
        self.conn.state_name()
    }

    fn info(&self) -> ConnectionInfo {
        self.conn.info(self.tracked.now)
    }
}

const INVALID: Result<(), DropReason> = Err(DropReason::CtInvalid);

#[test]
fn a_connection_is_tracked_from_the_first_answer_to_the_last_acknowledgement() {
    let mut world = Fixture::open();
    let data = world.client(ACK).with(1_000);
    world.forwards(&data, "ESTABLISHED");
    let to = C + 1_001;
    world.forwards(&segment(Reply, ACK, S.wrapping_add(1), to), "ESTABLISHED");
    let fin = segment(Original, FIN | ACK, to, S.wrapping_add(1));
    world.forwards(&fin, "FIN_WAIT");
    world.forwards(
        &segment(Reply, ACK, S.wrapping_add(1), to + 1),
        "CLOSE_WAIT",
    );
    // Half closed: the other end goes on sending.
    let more = segment(Reply, ACK, S.wrapping_add(1), to + 1).with(700);
    world.forwards(&more, "CLOSE_WAIT");
    let end = S.wrapping_add(701);
    world.forwards(&segment(Original, ACK, to + 1, end), "CLOSE_WAIT");
    world.forwards(&segment(Reply, FIN | ACK, end, to + 1), "LAST_ACK");
    world.forwards(
        &segment(Original, ACK, to + 1, end.wrapping_add(1)),
        "TIME_WAIT",
    );
    let info = world.info();
    let counts = (info.packets_original, info.packets_reply);
    // The SYN came by the engine.
    assert_eq!(counts, (6, 5));
    let headers = 40 * 11 + 2 * 4;
    assert_eq!(
        info.bytes_original + info.bytes_reply,
        headers + 1_000 + 700
    );
    assert!(world.conn.is_finished() && world.conn.is_assured());
    // It is over: what comes now is the engine's.
    let again = segment(Original, ACK, to + 1, end.wrapping_add(1));
    world.leaves(&again, Ok(()), "TIME_WAIT");
    let next = segment(Original, SYN, C + 90_000, 0);
    assert!(!world.kernel.takes(&next));
    assert!(world.conn.is_reopened_by(&parsed(&next.frame())));
}

#[test]
fn both_ends_may_close_at_once() {
    let mut world = Fixture::open();
    world.forwards(&world.client(FIN | ACK), "FIN_WAIT");
    world.forwards(&world.server(FIN | ACK), "LAST_ACK");
    let last = segment(Original, ACK, C + 2, S.wrapping_add(2));
    world.forwards(&last, "LAST_ACK");
    world.forwards(&segment(Reply, ACK, S.wrapping_add(2), C + 2), "TIME_WAIT");
}

#[test]
fn a_refused_connection_is_closed_and_a_reset_that_answers_nothing_is_the_engine_s() {
    let mut world = Fixture::new();
    world.leaves(&segment(Reply, RST | ACK, 0, C), INVALID, "SYN_SENT");
    world.leaves(&segment(Reply, RST, C + 1, 0), INVALID, "SYN_SENT");
    world.forwards(&segment(Reply, RST | ACK, 0, C + 1), "CLOSE");
    world.leaves(&segment(Reply, RST | ACK, 0, C + 1), Ok(()), "CLOSE");
}

#[test]
fn a_reset_in_place_ends_an_open_connection_and_one_elsewhere_does_not() {
    for reset in [RST, RST | ACK] {
        let mut world = Fixture::open();
        let elsewhere = segment(Original, reset, C + 100, S.wrapping_add(1));
        world.leaves(&elsewhere, Ok(()), "ESTABLISHED");
        let outside = segment(Original, reset, C + 900_000, S.wrapping_add(1));
        world.leaves(&outside, INVALID, "ESTABLISHED");
        world.forwards(&world.client(reset), "CLOSE");
    }
}

#[test]
fn a_syn_into_somebody_s_time_wait_is_challenged_reset_and_accepted() {
    let mut world = Fixture::new();
    // The server has an older connection: its ACK is of that one, and the client resets it.
    let (old_seq, old_ack) = (77_000, 88_000);
    world.leaves(&segment(Reply, ACK, old_seq, old_ack), Ok(()), "SYN_SENT");
    world.leaves(&segment(Original, RST, old_ack, 0), Ok(()), "SYN_SENT");
    // The client tries again, with the same number; the engine tells the kernel.
    world.leaves(&syn(), Ok(()), "SYN_SENT");
    assert!(!world.conn.is_in_kernel());
    assert!(world.kernel.take_over(&world.conn));
    world.forwards(&syn_ack(), "SYN_RECV");
    world.forwards(&world.client(ACK), "ESTABLISHED");
}

#[test]
fn a_simultaneous_open_is_the_engine_s_until_it_is_through() {
    let mut world = Fixture::new();
    world.leaves(
        &segment(Reply, SYN, S, 0).offering(&SCALE),
        Ok(()),
        "SYN_SENT2",
    );
    assert!(!world.conn.is_in_kernel());
    assert!(!world.kernel.take_over(&world.conn));
    world.leaves(
        &segment(Original, SYN | ACK, C, S.wrapping_add(1)),
        Ok(()),
        "SYN_RECV",
    );
    assert!(!world.kernel.take_over(&world.conn));
    world.leaves(&syn_ack(), Ok(()), "ESTABLISHED");
    assert!(world.kernel.take_over(&world.conn));
    world.forwards(&world.client(ACK), "ESTABLISHED");
}

#[test]
fn what_is_out_of_the_window_is_the_engine_s_and_changes_nothing() {
    let mut world = Fixture::open();
    let before = world.info();
    let far = segment(Original, ACK, C + 1, S.wrapping_add(1_000_000));
    world.leaves(&far, INVALID, "ESTABLISHED");
    let ahead = segment(Original, ACK, C + 1_000_000, S.wrapping_add(1)).with(10);
    world.leaves(&ahead, INVALID, "ESTABLISHED");
    let behind = segment(Original, ACK, C.wrapping_sub(1_000_000), S.wrapping_add(1)).with(10);
    world.leaves(&behind, INVALID, "ESTABLISHED");
    assert_eq!(world.info(), before);
    world.forwards(&world.client(ACK).with(100), "ESTABLISHED");
}

#[test]
fn flags_that_no_stack_sends_are_the_engine_s() {
    let mut world = Fixture::open();
    for flags in [0, FIN, SYN | FIN, SYN | RST, FIN | RST | ACK, 0x1f] {
        world.leaves(&world.client(flags), INVALID, "ESTABLISHED");
    }
}

#[test]
fn a_syn_for_an_open_connection_is_the_engine_s_with_all_that_follows() {
    let mut world = Fixture::open();
    let syn = segment(Original, SYN, C + 500_000, 0).offering(&SCALE);
    world.leaves(&syn, Ok(()), "ESTABLISHED");
    assert!(!world.conn.is_in_kernel());
    assert!(
        !world.kernel.take_over(&world.conn),
        "it may be another from here on"
    );
    // Its receiver has lost the connection.
    let answer = segment(Reply, SYN | ACK, 9_000, C + 500_001).offering(&SCALE);
    world.leaves(&answer, Ok(()), "SYN_RECV");
    assert!(world.kernel.take_over(&world.conn));
    world.forwards(&segment(Original, ACK, C + 500_001, 9_001), "ESTABLISHED");
}

#[test]
fn scaling_takes_the_offers_of_both() {
    for (client, server, is_on) in [
        (&SCALE[..], &SCALE[..], true),
        (&SCALE[..], &[][..], false),
        (&[][..], &SCALE[..], false),
    ] {
        let mut kernel = Kernel::new();
        let tracked = Tracked::new();
        let syn = segment(Original, SYN, C, 0).offering(client);
        let conn = tracked.commit(&syn.frame()).unwrap();
        assert!(kernel.take_over(&conn));
        assert!(kernel.takes(&segment(Reply, SYN | ACK, S, C + 1).offering(server)));
        let (c, s) = (C + 1, S.wrapping_add(1));
        assert!(kernel.takes(&segment(Original, ACK, c, s)));
        // The window of 500 is 64,000 bytes for those who scale.
        assert!(kernel.takes(&segment(Reply, ACK, s, c)));
        let far = segment(Original, ACK, c + 60_000, s).with(100);
        assert_eq!(kernel.takes(&far), is_on, "{client:?} {server:?}");
        assert_eq!(tracked.track(&conn, &far).is_ok(), is_on);
    }
}

#[test]
fn selective_acknowledgements_count_and_a_broken_option_ends_them() {
    let edges = |left: u32, right: u32| {
        let mut sack = vec![1, 1, 5, 10];
        sack.extend(left.to_be_bytes());
        sack.extend(right.to_be_bytes());
        sack
    };
    let mut world = Fixture::open();
    world.forwards(&world.client(ACK).with(1_000), "ESTABLISHED");
    let sack = edges(C + 501, C + 1_001);
    world.forwards(&world.server(ACK).offering(&sack), "ESTABLISHED");
    // What was never sent cannot be acknowledged.
    let forged = edges(C + 501, C + 5_000);
    world.leaves(&world.server(ACK).offering(&forged), INVALID, "ESTABLISHED");
    for broken in [[5, 0, 0, 0], [5, 40, 0, 0], [8, 1, 1, 1]] {
        world.forwards(&world.server(ACK).offering(&broken), "ESTABLISHED");
    }
    // More options than the program reads.
    world.leaves(&world.server(ACK).offering(&[1; 40]), Ok(()), "ESTABLISHED");
}

#[test]
fn a_frame_leaves_with_other_macs_and_nothing_else_changed() {
    let mut world = Fixture::open();
    let sent = world.client(ACK).with(100).frame();
    let left = world.kernel.run(&sent).unwrap();
    assert_eq!(left[..12], LEAVE_WITH);
    assert_eq!(left[12..], sent[12..]);
}

#[test]
fn what_is_no_whole_plain_packet_is_the_engine_s() {
    let mut world = Fixture::open();
    let sent = world.client(ACK).with(100).frame();
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = sent.clone();
        edit(&mut frame);
        frame
    };
    let hostile = [
        ("options", edited(&|frame| frame[14] = 0x46)),
        ("a header of 16 bytes", edited(&|frame| frame[14] = 0x44)),
        ("version 5", edited(&|frame| frame[14] = 0x55)),
        ("a first fragment", edited(&|frame| frame[20] = 0x20)),
        ("a later fragment", edited(&|frame| frame[21] = 0x01)),
        (
            "bytes that are missing",
            edited(&|frame| frame.truncate(100)),
        ),
        ("half a header", edited(&|frame| frame.truncate(40))),
        (
            "a length of nothing",
            edited(&|frame| frame[16..18].fill(0)),
        ),
        ("a length of all", edited(&|frame| frame[16..18].fill(0xff))),
        ("a data offset of 4", edited(&|frame| frame[46] = 0x10)),
        (
            "a data offset behind the end",
            edited(&|frame| {
                frame[46] = 0xf0;
                frame[17] = 60;
            }),
        ),
        ("another source MAC", edited(&|frame| frame[11] ^= 1)),
        ("another protocol", edited(&|frame| frame[23] = 132)),
        (
            "a VLAN tag",
            edited(&|frame| {
                frame.splice(12..12, [0x81, 0, 0, 5]);
            }),
        ),
        ("another ether type", edited(&|frame| frame[12] = 0x88)),
    ];
    let before = world.info();
    for (what, frame) in &hostile {
        assert_eq!(world.kernel.run(frame), None, "{what}");
    }
    assert_eq!(world.info(), before);
    assert!(world.kernel.run(&sent).is_some());
}

#[test]
fn a_packet_that_the_device_does_not_take_is_the_engine_s_but_super_frames_are_cut() {
    let mut world = Fixture::open();
    let large = world.client(ACK).with(2_000).frame();
    assert_eq!(world.kernel.run(&large), None);
    // `gso_segs` and `gso_size` of `struct __sk_buff` (linux/bpf.h).
    let mut context = vec![0; 192];
    context[164..168].copy_from_slice(&2u32.to_ne_bytes());
    context[176..180].copy_from_slice(&1_448u32.to_ne_bytes());
    assert!(world.kernel.run_as(&large, &context).is_some());
    context[176..180].copy_from_slice(&1_480u32.to_ne_bytes());
    assert_eq!(world.kernel.run_as(&large, &context), None);
}

#[test]
fn a_publication_leaves_every_packet_to_the_engine_until_it_is_judged() {
    let mut world = Fixture::open();
    world.kernel.loaded.generation.advance();
    let data = world.client(ACK).with(10);
    world.leaves(&data, Ok(()), "ESTABLISHED");
    let current = world.kernel.loaded.generation.get();
    world.kernel.memory.set_generation(0, 0, current);
    // Each direction by itself; the kernel knows of the data that the engine forwarded.
    let more = segment(Original, ACK, C + 11, S.wrapping_add(1)).with(10);
    world.forwards(&more, "ESTABLISHED");
    let answer = segment(Reply, ACK, S.wrapping_add(1), C + 21);
    world.leaves(&answer, Ok(()), "ESTABLISHED");
}

#[test]
fn a_connection_that_left_the_kernel_is_the_engine_s_at_once() {
    let mut world = Fixture::open();
    world.forwards(&world.client(ACK).with(10), "ESTABLISHED");
    world.conn.leave_kernel();
    let more = segment(Original, ACK, C + 11, S.wrapping_add(1)).with(10);
    world.leaves(&more, Ok(()), "ESTABLISHED");
    assert_eq!(world.info().packets_original, 4);
    // It was removed from the table: cut, or evicted.
    let world = Fixture::open();
    assert!(
        world
            .tracked
            .table
            .remove(&world.conn, vswitch_datapath::ConnectionEnd::Cut)
    );
    let Fixture { mut kernel, .. } = world;
    assert!(!kernel.takes(&more));
}

#[test]
fn an_old_key_does_not_lead_to_the_place_s_next_connection() {
    let mut world = Fixture::open();
    world.conn.leave_kernel();
    // Another connection of whatever state has the place.
    world.kernel.memory.begin(0, None);
    assert!(!world.kernel.takes(&world.client(ACK)));
}

#[test]
fn datagrams_are_counted_and_keep_their_connection() {
    let mut kernel = Kernel::new();
    let tracked = Tracked::new();
    let conn = tracked.commit(&datagram(Original, b"ask")).unwrap();
    assert!(kernel.take_over(&conn), "nobody has to answer first");
    assert!(kernel.run(&datagram(Original, b"again")).is_some());
    assert_eq!(conn.state_name(), "UNREPLIED");
    assert!(kernel.run(&datagram(Reply, b"answer")).is_some());
    assert_eq!(conn.state_name(), "REPLIED");
    assert!(conn.is_replied() && !conn.is_unanswered());
    let info = conn.info(tracked.now);
    assert_eq!(
        (info.packets_original, info.bytes_original),
        (2, 28 + 3 + 28 + 5)
    );
    assert_eq!((info.packets_reply, info.bytes_reply), (1, 28 + 6));
    let mut short = datagram(Original, b"again");
    short[39] = 7;
    assert_eq!(kernel.run(&short), None, "shorter than its header");
}

#[test]
fn four_gigabytes_that_went_by_between_two_looks_do_not_confuse_the_end() {
    let mut world = Fixture::open();
    let (mut c, s) = (C + 1, S.wrapping_add(1));
    // In steps as large as the largest window there is, two and a half times around half of the
    // sequence space.
    let window = u16::MAX;
    let mut gone = 0u64;
    let wide = |mut segment: Segment| {
        segment.window = window;
        segment
    };
    while gone < 5 << 30 {
        assert!(world.kernel.takes(&wide(segment(Reply, ACK, s, c))));
        let step = u32::from(window) << 7;
        let last = segment(Original, ACK, c.wrapping_add(step - 1_000), s).with(1_000);
        assert!(world.kernel.takes(&last));
        c = c.wrapping_add(step);
        gone += u64::from(step);
    }
    assert!(world.kernel.takes(&wide(segment(Reply, ACK, s, c))));
    world.kernel.loaded.generation.advance();
    world.leaves(&segment(Original, FIN | ACK, c, s), Ok(()), "FIN_WAIT");
    world.leaves(
        &segment(Reply, FIN | ACK, s, c.wrapping_add(1)),
        Ok(()),
        "LAST_ACK",
    );
}

/// Returns a frame of IPv4 or IPv6 with its checksums; of UDP over IPv4 without one, if asked.
fn checksummed(
    (from, to): (SocketAddr, SocketAddr),
    proto: u8,
    (flags, payload): (u8, &[u8]),
    has_checksum: bool,
) -> Vec<u8> {
    let mut l4 = [from.port(), to.port()].map(u16::to_be_bytes).concat();
    let sum_at = if proto == TCP {
        let (seq, ack) = match flags {
            SYN => (C, 0),
            flags if flags == SYN | ACK => (S, C + 1),
            _ => (C + 1, S.wrapping_add(1)),
        };
        l4.extend([seq, ack].map(u32::to_be_bytes).concat());
        l4.extend([0x50, flags, 1, 244, 0, 0, 0, 0]);
        16
    } else {
        l4.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
        l4.extend([0, 0]);
        6
    };
    l4.extend(payload);
    if has_checksum {
        let sum = pseudo_header(from.ip(), to.ip(), proto, l4.len());
        let sum = sum.bytes(&l4).finish().to_be_bytes();
        l4[sum_at..sum_at + 2].copy_from_slice(&sum);
    }
    let mut frame = MACS.to_vec();
    let length = u16::try_from(l4.len()).unwrap();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, proto, 0, 0]);
            frame.extend([src.octets(), dst.octets()].concat());
            let sum = checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([proto, 64]);
            frame.extend([src.octets(), dst.octets()].concat());
        }
        _ => panic!("one family"),
    }
    frame.extend(l4);
    frame
}

/// Asserts that a frame goes between these ends and that its checksums are right.
fn assert_between(frame: &[u8], (from, to): (SocketAddr, SocketAddr), what: &str) {
    let frame = Frame::from_bytes(frame);
    let parsed = parse(&frame, PortNo(1)).unwrap();
    let key = &parsed.key;
    let ends = [(key.ip_src, key.tp_src), (key.ip_dst, key.tp_dst)];
    assert_eq!(
        ends,
        [from, to].map(|end| (Some(end.ip()), end.port())),
        "{what}"
    );
    assert!(verify_l4_checksum(&frame, &parsed), "{what}");
    if from.is_ipv4() {
        assert_eq!(checksum(&frame.bytes()[14..34]), 0, "{what}");
    }
}

#[test]
fn a_connection_to_a_service_is_translated_both_ways_with_its_checksums() {
    let cases = [
        ("10.0.0.1:40000", "10.96.0.10:80", "10.0.0.2:8080"),
        ("[fd00::1]:40000", "[fd00:96::10]:80", "[fd00::2]:8080"),
    ];
    for (client, service, endpoint) in cases {
        for (proto, has_checksum) in [(TCP, true), (UDP, true), (UDP, false)] {
            if !has_checksum && client.starts_with('[') {
                // IPv6 has none without (RFC 8200 section 8.1).
                continue;
            }
            let [client, service, endpoint]: [SocketAddr; 3] =
                [client, service, endpoint].map(|text| text.parse().unwrap());
            let what = format!("{client} {proto} {has_checksum}");
            let mut kernel = Kernel::new();
            let tracked = Tracked::new();
            let first = checksummed((client, service), proto, (SYN, b""), has_checksum);
            let parsed = parsed(&first);
            let leaves_as = FlowKey {
                ip_dst: Some(endpoint.ip()),
                tp_dst: endpoint.port(),
                ..parsed.key
            };
            let committed = tracked
                .table
                .commit(&parsed, &leaves_as, tracked.now, OPTIONS);
            let conn = committed.unwrap();
            assert!(kernel.take_over(&conn), "{what}");
            // Odd lengths, and some that make a checksum of zero.
            for last in 0..=255 {
                let payload: &[u8] = if proto == TCP { b"" } else { &[1, last, 3] };
                let answer = (SYN | ACK, payload);
                let answer = checksummed((endpoint, client), proto, answer, has_checksum);
                if proto == UDP || last == 0 {
                    let left = kernel.run(&answer).unwrap();
                    assert_between(&left, (service, client), &what);
                }
                let payload = [last, 2, 3];
                let data = checksummed((client, service), proto, (ACK, &payload), has_checksum);
                let left = kernel.run(&data).unwrap();
                assert_between(&left, (client, endpoint), &what);
                assert_eq!(left[left.len() - 3..], payload, "{what}");
            }
            // Between client and endpoint themselves there is no connection.
            let direct = checksummed((client, endpoint), proto, (ACK, b""), has_checksum);
            assert_eq!(kernel.run(&direct), None, "{what}");
        }
    }
}

/// What a segment is to where both ends have come, so that most are in place.
#[derive(Debug, Clone)]
struct Move {
    is_reply: bool,
    flags: u8,
    seq: i32,
    ack: i32,
    payload: usize,
    window: u16,
    options: Vec<u8>,
    /// Whether the rules are published anew before it.
    publishes: bool,
}

fn any_move() -> impl Strategy<Value = Move> {
    let place = || prop_oneof![8 => Just(0), 1 => Just(-1), 1 => Just(1), 1 => Just(-700), 1 => -90_000..90_000i32];
    let flags = prop_oneof![
        8 => Just(ACK), 3 => Just(FIN | ACK), 1 => Just(SYN), 2 => Just(SYN | ACK),
        1 => Just(RST), 1 => Just(RST | ACK), 1 => any::<u8>(),
    ];
    let payload = prop_oneof![3 => Just(0usize), 2 => Just(100), 1 => 0..1_400usize];
    let window = prop_oneof![4 => Just(500u16), 1 => Just(0), 1 => any::<u16>()];
    let options = prop_oneof![
        6 => Just(Vec::new()),
        2 => Just(SCALE.to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 12..=12),
        1 => any::<u32>().prop_map(|right| [&[1, 1, 5, 10, 0, 0, 0, 0][..], &right.to_be_bytes()].concat()),
    ];
    let of = (
        any::<bool>(),
        flags,
        place(),
        place(),
        payload,
        window,
        options,
        prop::bool::weighted(0.03),
    );
    of.prop_map(
        |(is_reply, flags, seq, ack, payload, window, options, publishes)| Move {
            is_reply,
            flags,
            seq,
            ack,
            payload,
            window,
            options,
            publishes,
        },
    )
}

/// Plays segments on a connection that the kernel has and on one that it never gets; returns how
/// many the kernel forwarded.
fn play(moves: &[Move], kernel: &mut Kernel) -> usize {
    let (mut alone, mut tracked) = (Tracked::new(), Tracked::new());
    let opening = syn().frame();
    let expected = alone.commit(&opening).unwrap();
    let conn = tracked.commit(&opening).unwrap();
    assert!(kernel.take_over(&conn));
    let mut reached = [C + 1, S];
    let mut forwarded = 0;
    for step in moves {
        let (own, other) = if step.is_reply { (1, 0) } else { (0, 1) };
        let segment = Segment {
            direction: if step.is_reply { Reply } else { Original },
            flags: step.flags,
            seq: reached[own].wrapping_add_signed(step.seq),
            ack: reached[other].wrapping_add_signed(step.ack),
            window: step.window,
            payload: step.payload,
            options: step.options.clone(),
        };
        if step.publishes {
            kernel.loaded.generation.advance();
        }
        alone.now = alone.now + Duration::from_millis(1);
        tracked.now = alone.now;
        let due = alone.track(&expected, &segment);
        let is_forwarded = kernel.takes(&segment);
        let actual = if is_forwarded {
            forwarded += 1;
            Ok(())
        } else {
            tracked.track(&conn, &segment)
        };
        assert_eq!(actual, due, "{segment:?} in {}", expected.state_name());
        assert_eq!(
            conn.state_name(),
            expected.state_name(),
            "after {segment:?}"
        );
        for direction in [Original, Reply] {
            assert_eq!(conn.traffic(direction), expected.traffic(direction));
            assert_eq!(
                conn.is_assured(),
                expected.is_assured(),
                "after {segment:?}"
            );
        }
        if !conn.is_in_kernel() {
            kernel.take_over(&conn);
        }
        if due.is_ok() && step.seq == 0 {
            let bits = u32::from(step.flags & SYN != 0) + u32::from(step.flags & FIN != 0);
            let length = u32::try_from(step.payload).unwrap() + bits;
            reached[own] = segment.seq.wrapping_add(length);
        }
    }
    forwarded
}

#[test]
fn the_kernel_does_with_any_segment_what_the_engine_does() {
    let kernel = std::cell::RefCell::new(Kernel::new());
    let forwarded = std::cell::Cell::new(0);
    let config = ProptestConfig {
        failure_persistence: None,
        cases: 1_500,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let histories = proptest::collection::vec(any_move(), 1..60);
    let handshake = [
        Move {
            is_reply: true,
            flags: SYN | ACK,
            seq: 0,
            ack: 0,
            payload: 0,
            window: 500,
            options: SCALE.to_vec(),
            publishes: false,
        },
        Move {
            is_reply: false,
            flags: ACK,
            seq: 0,
            ack: 0,
            payload: 0,
            window: 500,
            options: Vec::new(),
            publishes: false,
        },
    ];
    let result = runner.run(&(histories, any::<bool>()), |(mut moves, opens)| {
        if opens {
            moves.splice(0..0, handshake.clone());
        }
        let more = play(&moves, &mut kernel.borrow_mut());
        forwarded.set(forwarded.get() + more);
        Ok(())
    });
    result.unwrap();
    assert!(
        forwarded.get() > 5_000,
        "the kernel forwarded hardly anything"
    );
}

/// Packets of one direction come in on several processors at once: no maximum and no count is lost.
#[test]
fn no_number_is_lost_when_segments_come_in_on_many_processors_at_once() {
    let mut world = Fixture::open();
    let (c, s) = (C + 1, S.wrapping_add(1));
    // Offers 64,000 bytes.
    world.forwards(&world.server(ACK), "ESTABLISHED");
    let total = 4_000u32;
    let segments: Vec<_> = (0..total)
        .map(|nth| segment(Original, ACK, c + nth * 4, s).with(4).frame())
        .collect();
    let program = world
        .kernel
        .loaded
        .programs
        .classifier("from_gateway")
        .unwrap();
    let program = &*program;
    std::thread::scope(|scope| {
        for first in 0..2 {
            let segments = &segments;
            scope.spawn(move || {
                for frame in segments.iter().skip(first).step_by(2) {
                    let run = program.test_run(TestRunOptions {
                        data_in: Some(frame),
                        ..TestRunOptions::default()
                    });
                    assert_eq!(run.unwrap().return_value, 7);
                }
            });
        }
    });
    let end = c + total * 4;
    world.forwards(&segment(Reply, ACK, s, end), "ESTABLISHED");
    world.forwards(&segment(Original, FIN | ACK, end, s), "FIN_WAIT");
    assert_eq!(world.info().packets_original, 3 + u64::from(total));
}
