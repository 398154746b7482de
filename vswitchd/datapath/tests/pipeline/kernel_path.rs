//! A path below the engine: what it is offered, when that ends, and what it tells.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vswitch_api::MacAddr;
use vswitch_datapath::conntrack::{
    Connection, Direction, KernelCell, KernelState, KernelTcp, KernelTcpEnd,
};
use vswitch_datapath::kernel_path::Account;
use vswitch_datapath::pipeline::{Bandwidth, PortUpdate, TableId, Transaction};
use vswitch_datapath::{
    ConnectionEnd, DropReason, KernelFlow, KernelPath, KernelUsage, RecordConnections, Timestamp,
    Verdict,
};

use crate::packets::{ACK, RST, SYN, ping, segment, tcp, tcp_with, udp};
use crate::switch::{GATEWAY_MAC, Pod, TestSwitch};

const FIN: u8 = 0x01;
/// More than any flow needs to be offered again.
pub(crate) const PLENTY: u32 = 12;

/// A connection's place.
#[derive(Debug, Default)]
struct Cell {
    state: Mutex<KernelState>,
    is_closed: AtomicBool,
}

/// The place as the connection has it.
#[derive(Debug)]
struct Place(Arc<Cell>);

impl KernelCell for Place {
    fn read(&self) -> KernelState {
        *self.0.state.lock().unwrap()
    }

    fn join(&self, tcp: &KernelTcp) {
        self.0.state.lock().unwrap().tcp = Some(*tcp);
    }

    fn close(&self) {
        self.0.is_closed.store(true, SeqCst);
    }
}

/// What the kernel follows.
#[derive(Debug)]
struct Followed {
    flow: KernelFlow,
    generation: u64,
    cell: Arc<Cell>,
    told: KernelUsage,
}

/// Takes every flow and forwards nothing by itself.
#[derive(Debug, Default)]
pub(crate) struct Below {
    generation: AtomicU64,
    flows: Mutex<Vec<Followed>>,
}

const fn side(direction: Direction) -> usize {
    match direction {
        Direction::Original => 0,
        Direction::Reply => 1,
    }
}

impl Below {
    /// Returns the directions that are followed.
    pub(crate) fn followed(&self) -> Vec<Direction> {
        let flows = self.flows.lock().unwrap();
        let current = flows.iter().filter(|followed| {
            followed.generation == self.generation.load(SeqCst)
                && !followed.cell.is_closed.load(SeqCst)
        });
        let mut directions: Vec<_> = current.map(|followed| followed.flow.direction).collect();
        directions.sort_by_key(|direction| side(*direction));
        directions
    }

    fn cell_of(&self, conn: &Arc<Connection>) -> Option<Arc<Cell>> {
        let flows = self.flows.lock().unwrap();
        let mut own = flows
            .iter()
            .filter(|followed| Arc::ptr_eq(&followed.flow.conn, conn))
            .map(|followed| &followed.cell);
        own.find(|cell| !cell.is_closed.load(SeqCst))
            .map(Arc::clone)
    }

    /// Returns the only connection's place.
    fn cell(&self) -> Arc<Cell> {
        let flows = self.flows.lock().unwrap();
        Arc::clone(&flows.last().unwrap().cell)
    }
}

impl KernelPath for Below {
    fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    fn install(&self, flows: &[KernelFlow], generation: u64, _account: Account<'_>) {
        for flow in flows {
            let mut cell = self.cell_of(&flow.conn);
            if cell.is_none() {
                flow.conn.enter_kernel(|tcp| {
                    let made = Arc::new(Cell::default());
                    made.state.lock().unwrap().tcp = tcp.copied();
                    cell = Some(Arc::clone(&made));
                    Box::new(Place(made))
                });
            }
            let Some(cell) = cell else { return };
            let mut flows = self.flows.lock().unwrap();
            let told = cell.state.lock().unwrap().sides[side(flow.direction)];
            flows.retain(|old| old.flow.tuple != flow.tuple);
            flows.push(Followed {
                flow: flow.clone(),
                generation,
                cell,
                told,
            });
        }
    }

    fn revoke(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    fn sync(&self, _now: Timestamp, account: Account<'_>) {
        for followed in &mut *self.flows.lock().unwrap() {
            let total = followed.cell.state.lock().unwrap().sides[side(followed.flow.direction)];
            let usage = KernelUsage {
                packets: total.packets - followed.told.packets,
                bytes: total.bytes - followed.told.bytes,
            };
            followed.told = total;
            if usage.packets > 0 {
                account(&followed.flow, usage);
            }
        }
    }

    fn flows(&self) -> usize {
        self.flows.lock().unwrap().len()
    }
}

/// A switch with a path below it and two pods; `web` isolates the second but for the first.
pub(crate) struct World {
    pub(crate) switch: TestSwitch,
    pub(crate) below: Arc<Below>,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
}

impl World {
    pub(crate) fn new() -> Self {
        let below = Arc::new(Below::default());
        let mut switch = TestSwitch::with_kernel_path(Arc::clone(&below) as Arc<dyn KernelPath>);
        let (client, server) = (switch.add_pod(1), switch.add_pod(2));
        switch.ingress_policy("web", 80);
        switch.set("web/pods", &[server]);
        switch.set("web/from", &[client]);
        Self {
            switch,
            below,
            client,
            server,
        }
    }

    pub(crate) fn client_sends(&mut self, flags: u8, seq: u32, ack: u32) -> Verdict {
        let bytes = tcp(
            self.client.host,
            self.server.host,
            segment((5000, 80), flags, seq, ack),
        );
        self.switch.send(self.client.port, &bytes)
    }

    pub(crate) fn server_sends(&mut self, flags: u8, seq: u32, ack: u32) -> Verdict {
        let bytes = tcp(
            self.server.host,
            self.client.host,
            segment((80, 5000), flags, seq, ack),
        );
        self.switch.send(self.server.port, &bytes)
    }

    /// Opens a connection: the client's next number is 101, the server's 501.
    fn open(&mut self) {
        let (to_server, to_client) = (self.to_server(), self.to_client());
        assert_eq!(self.client_sends(SYN, 100, 0), to_server);
        assert_eq!(self.server_sends(SYN | ACK, 500, 101), to_client);
        assert_eq!(self.client_sends(ACK, 101, 501), to_server);
    }

    /// Opens a connection and has both directions offered as they come.
    pub(crate) fn open_in_kernel(&mut self) {
        self.open();
        assert_eq!(
            self.below.followed(),
            [Direction::Original, Direction::Reply]
        );
    }

    fn to_server(&self) -> Verdict {
        Verdict::Forward(self.server.port)
    }

    fn to_client(&self) -> Verdict {
        Verdict::Forward(self.client.port)
    }

    /// Packets of 1,000 bytes go by in the kernel.
    fn goes_by(&self, direction: Direction, packets: u64) {
        let cell = self.below.cell();
        let mut state = cell.state.lock().unwrap();
        let usage = &mut state.sides[side(direction)];
        usage.packets += packets;
        usage.bytes += packets * 1_014;
        state.last[side(direction)] = self.switch.now;
    }

    /// The kernel comes to know something of TCP's end that sends in a direction.
    fn learns(&self, direction: Direction, change: impl FnOnce(&mut KernelTcpEnd)) {
        let cell = self.below.cell();
        let mut state = cell.state.lock().unwrap();
        change(&mut state.tcp.as_mut().unwrap().ends[side(direction)]);
    }

    /// So much data goes by from the client, and its acknowledgement.
    fn uploads(&self, bytes: u32) {
        self.goes_by(Direction::Original, 10);
        self.goes_by(Direction::Reply, 5);
        self.learns(Direction::Original, |client| {
            client.end = client.end.wrapping_add(bytes);
            client.max_end = client.end.wrapping_add(60_000);
        });
        self.learns(Direction::Reply, |server| {
            server.max_ack = server.max_ack.wrapping_add(bytes);
        });
    }

    fn state(&self) -> (&'static str, u64, u64) {
        let connections = self.switch.dp.connections(self.switch.now);
        let info = connections.first().unwrap();
        (info.state, info.packets_original, info.bytes_original)
    }
}

#[test]
fn both_directions_are_offered_with_the_first_packet_and_leave_as_the_rules_say() {
    let mut world = World::new();
    assert_eq!(world.client_sends(SYN, 100, 0), world.to_server());
    let flows = world.below.flows.lock().unwrap();
    let [asks, answers] = flows.as_slice() else {
        panic!("{flows:?}");
    };
    let (asks, answers) = (&asks.flow, &answers.flow);
    let (client, server) = (&world.client, &world.server);
    assert_eq!((asks.in_port, asks.out_port), (client.port, server.port));
    let macs = |dst: MacAddr, src: MacAddr| [dst.0, src.0].concat();
    assert_eq!(asks.macs.to_vec(), macs(server.host.mac, client.host.mac));
    let leaves_with = macs(server.host.mac, GATEWAY_MAC);
    assert_eq!(asks.leaves_with.to_vec(), leaves_with);
    assert_eq!(asks.direction, Direction::Original);
    assert_eq!((asks.tuple.tp_src, asks.tuple.tp_dst), (5000, 80));
    assert_eq!(asks.mtu, 1_500);
    // Answers come from where it went, to whom it seemed to come from.
    assert_eq!(
        (answers.in_port, answers.out_port),
        (server.port, client.port)
    );
    assert_eq!(answers.macs.to_vec(), macs(GATEWAY_MAC, server.host.mac));
    let leaves_with = macs(client.host.mac, GATEWAY_MAC);
    assert_eq!(answers.leaves_with.to_vec(), leaves_with);
    assert_eq!(answers.direction, Direction::Reply);
    assert_eq!((answers.tuple.tp_src, answers.tuple.tp_dst), (80, 5000));
}

#[test]
fn answers_that_come_with_other_macs_are_offered_as_they_come() {
    let mut world = World::new();
    world.client_sends(SYN, 100, 0);
    // To the client's own MAC.
    assert_eq!(world.server_sends(SYN | ACK, 500, 101), world.to_client());
    let flows = world.below.flows.lock().unwrap();
    let answers = flows
        .iter()
        .find(|followed| followed.flow.direction == Direction::Reply);
    let macs = [world.client.host.mac.0, world.server.host.mac.0].concat();
    assert_eq!(answers.unwrap().flow.macs.to_vec(), macs);
}

#[test]
fn answers_that_are_predicted_count_in_the_rules_that_they_would_have_counted_in() {
    let counts_of = |is_in_kernel: bool| {
        let mut world = World::new();
        world.client_sends(SYN, 100, 0);
        if is_in_kernel {
            world.goes_by(Direction::Reply, 1);
            world.switch.dp.sync_kernel_path(world.switch.now);
        } else {
            let bytes = tcp(
                world.server.host,
                crate::packets::Host {
                    mac: GATEWAY_MAC,
                    ..world.client.host
                },
                segment((80, 5000), SYN | ACK, 500, 101),
            );
            let verdict = world.switch.send(world.server.port, &bytes);
            assert_eq!(verdict, world.to_client());
        }
        let rules = world.switch.dp.rules();
        let packets = |stats: &vswitch_datapath::pipeline::RuleStats| {
            (
                stats.rule.table,
                stats.rule.matches.to_string(),
                stats.packets,
            )
        };
        rules.iter().map(packets).collect::<Vec<_>>()
    };
    assert_eq!(counts_of(true), counts_of(false));
}

#[test]
fn what_is_mirrored_metered_or_neither_tcp_nor_udp_is_never_offered() {
    let mut world = World::new();
    for _ in 0..PLENTY {
        let (client, server) = (world.client, world.server);
        world
            .switch
            .send(server.port, &ping(server.host, client.host, 7));
    }
    assert_eq!(world.below.flows(), 0);

    for actions in [
        "mirror:50,goto_table:40",
        "rate_limit(pps=1000000,burst=1000),goto_table:40",
    ] {
        let mut world = World::new();
        let flow = [(TableId::Admin, 9, "in_port=1", actions)];
        world.switch.rules(&flow);
        let (client, server) = (world.client, world.server);
        for _ in 0..PLENTY {
            let bytes = udp(client.host, server.host, (5000, 80), b"x");
            assert_eq!(
                world.switch.send(client.port, &bytes),
                Verdict::Forward(server.port)
            );
        }
        assert_eq!(world.below.flows(), 0, "{actions}");
    }
}

#[test]
fn where_only_answers_are_mirrored_they_alone_stay_with_the_engine() {
    let mut world = World::new();
    let flow = [(TableId::Admin, 9, "in_port=2", "mirror:50,goto_table:40")];
    world.switch.rules(&flow);
    world.client_sends(SYN, 100, 0);
    assert_eq!(world.below.followed(), [Direction::Original]);
    // The answer is another connection's as far as the kernel knows; and then it lasts.
    world.server_sends(SYN | ACK, 500, 101);
    assert_eq!(world.below.followed(), []);
    for _ in 0..PLENTY {
        world.client_sends(ACK, 101, 501);
    }
    assert_eq!(world.below.followed(), [Direction::Original]);
}

#[test]
fn a_syn_that_comes_again_takes_the_connection_back_and_hands_it_over_anew() {
    let mut world = World::new();
    world.client_sends(SYN, 100, 0);
    let before = world.below.cell();
    assert_eq!(world.client_sends(SYN, 100, 0), world.to_server());
    assert!(before.is_closed.load(SeqCst));
    assert!(world.below.followed().contains(&Direction::Original));
    assert_eq!(world.state().0, "SYN_SENT");
}

#[test]
fn a_syn_after_the_end_in_the_kernel_begins_a_new_connection() {
    let mut world = World::new();
    world.switch.dp.record_connections(RecordConnections {
        one_in: 1,
        ..RecordConnections::default()
    });
    world.open_in_kernel();
    world.uploads(1_000);
    for direction in [Direction::Original, Direction::Reply] {
        world.goes_by(direction, 1);
        world.learns(direction, |end| {
            end.has_sent_fin = true;
            end.end = end.end.wrapping_add(1);
        });
        world.learns(direction.opposite(), |end| {
            end.max_ack = end.max_ack.wrapping_add(1);
        });
    }
    assert_eq!(world.client_sends(SYN, 900_000, 0), world.to_server());
    let (state, packets, _) = world.state();
    assert_eq!((state, packets), ("SYN_SENT", 1));
    let ended = world.switch.dp.fetch_connections(world.switch.now);
    let [ended] = &ended.connections[..] else {
        panic!("{ended:?}");
    };
    assert_eq!(ended.end, Some(ConnectionEnd::Fin));
    // SYN and ACK before, ten packets and a FIN of 1,000 bytes each in the kernel.
    assert_eq!(ended.sent, (13, 80 + 11_000));
    assert_eq!(ended.received, (7, 40 + 6_000));
    assert_eq!(
        world.below.followed(),
        [Direction::Original, Direction::Reply]
    );
}

#[test]
fn a_reset_in_the_kernel_is_the_end_that_is_recorded_at_the_time_it_came() {
    let mut world = World::new();
    world.switch.dp.record_connections(RecordConnections {
        one_in: 1,
        ..RecordConnections::default()
    });
    world.open_in_kernel();
    world.switch.tick(Duration::from_millis(300));
    world.goes_by(Direction::Reply, 1);
    world
        .below
        .cell()
        .state
        .lock()
        .unwrap()
        .tcp
        .as_mut()
        .unwrap()
        .is_reset = true;
    let reset_at = world.switch.now;
    world.switch.tick(Duration::from_secs(20));
    world.switch.dp.expire(world.switch.now);
    let ended = world.switch.dp.fetch_connections(world.switch.now);
    let [ended] = &ended.connections[..] else {
        panic!("{ended:?}");
    };
    assert_eq!(ended.end, Some(ConnectionEnd::Reset));
    assert_eq!((ended.last, ended.at), (reset_at, reset_at));
    // It is the engine's again.
    assert_eq!(
        world.client_sends(RST, 101, 501),
        Verdict::Drop(DropReason::CtInvalid)
    );
}

#[test]
fn what_the_kernel_forwards_is_answered_and_not_held_against_its_port() {
    let mut world = World::new();
    world.client_sends(SYN, 100, 0);
    let share = world.switch.engine.port_share(world.client.port).0;
    assert_eq!((share.unanswered(), share.answered()), (1, 0));
    world.goes_by(Direction::Reply, 1);
    world.goes_by(Direction::Original, 1);
    {
        let cell = world.below.cell();
        cell.state.lock().unwrap().tcp.as_mut().unwrap().is_open = true;
    }
    world.learns(Direction::Reply, |server| server.has_acked = true);
    world.learns(Direction::Original, |client| client.has_acked = true);
    world.switch.dp.sync_kernel_path(world.switch.now);
    assert_eq!((share.unanswered(), share.answered()), (0, 1));
}

#[test]
fn a_publication_ends_what_was_offered_and_one_packet_brings_it_back() {
    let mut world = World::new();
    world.open_in_kernel();
    world.switch.set("other", &[]);
    assert_eq!(world.below.followed(), []);
    assert_eq!(world.client_sends(ACK, 101, 501), world.to_server());
    assert_eq!(world.client_sends(ACK, 101, 501), world.to_server());
    assert!(world.below.followed().contains(&Direction::Original));
}

#[test]
fn a_connection_that_is_forbidden_is_not_followed_and_not_offered_again() {
    let mut world = World::new();
    world.open_in_kernel();
    world.switch.set("web/from", &[]);
    assert_eq!(world.below.followed(), []);
    for _ in 0..PLENTY {
        let verdict = world.client_sends(ACK, 101, 501);
        assert!(matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
    }
    assert_eq!(world.below.followed(), []);
}

#[test]
fn a_flush_ends_what_was_offered() {
    let mut world = World::new();
    world.open_in_kernel();
    assert_eq!(world.switch.dp.flush_connections(|_| true), 1);
    assert_eq!(world.below.followed(), []);
    assert_eq!(
        world.client_sends(ACK, 101, 501),
        Verdict::Drop(DropReason::CtInvalid)
    );
}

#[test]
fn the_state_knows_what_went_by_before_it_judges_the_next_packet() {
    // Ten megabytes, which no window of the handshake covers; and more than half of the sequence
    // space, of which no comparison with the state of before could tell that it is ahead.
    for sent in [10_000_000, 3_000_000_000] {
        let mut world = World::new();
        world.open_in_kernel();
        world.uploads(sent);
        let next = 101u32.wrapping_add(sent);
        assert_eq!(world.client_sends(FIN | ACK, next, 501), world.to_server());
        let (state, packets, bytes) = world.state();
        assert_eq!((state, packets, bytes), ("FIN_WAIT", 13, 3 * 40 + 10_000));
        let fin = next.wrapping_add(1);
        assert_eq!(world.server_sends(ACK, 501, fin), world.to_client());
        assert_eq!(world.state().0, "CLOSE_WAIT");
        // What is far from all that went by is still nobody's.
        assert_eq!(
            world.server_sends(ACK, 900_000_000, fin),
            Verdict::Drop(DropReason::CtInvalid)
        );
    }
}

#[test]
fn a_segment_beyond_what_the_state_knows_is_refused_if_nothing_went_by() {
    let mut world = World::new();
    world.open_in_kernel();
    assert_eq!(
        world.client_sends(FIN | ACK, 10_000_101, 501),
        Verdict::Drop(DropReason::CtInvalid)
    );
}

#[test]
fn what_went_by_counts_in_the_rules_and_keeps_the_connection() {
    let mut world = World::new();
    let (client, server) = (world.client, world.server);
    let rules = world.switch.dp.rules();
    let allow = rules
        .iter()
        .find(|stats| stats.rule.matches.to_string().contains("udp"))
        .unwrap();
    let id = allow.rule.id;
    let ask = udp(client.host, server.host, (5000, 80), b"x");
    world.switch.send(client.port, &ask);
    assert_eq!(
        world.below.followed(),
        [Direction::Original, Direction::Reply],
        "nobody has to answer first"
    );
    let before = world.switch.count_of(id);
    world.switch.tick(Duration::from_secs(25));
    world.goes_by(Direction::Original, 1_000);
    world.goes_by(Direction::Reply, 1);
    world.switch.dp.sync_kernel_path(world.switch.now);
    let after = world.switch.count_of(id);
    assert_eq!((after.0 - before.0, after.1 - before.1), (1_000, 1_014_000));
    // The timeout of a stream is 120 seconds.
    world.switch.tick(Duration::from_secs(115));
    assert_eq!(world.switch.dp.expire(world.switch.now), 0);
    assert_eq!(world.switch.dp.connections(world.switch.now).len(), 1);
    world.switch.tick(Duration::from_secs(10));
    world.switch.dp.expire(world.switch.now);
    assert_eq!(world.switch.dp.connections(world.switch.now), []);
}

#[test]
fn what_nobody_answers_in_the_kernel_is_forgotten_as_soon_as_elsewhere() {
    let mut world = World::new();
    let (client, server) = (world.client, world.server);
    let ask = udp(client.host, server.host, (5000, 80), b"x");
    world.switch.send(client.port, &ask);
    world.goes_by(Direction::Original, 5);
    world.switch.dp.sync_kernel_path(world.switch.now);
    let info = world.switch.dp.connections(world.switch.now).remove(0);
    assert_eq!((info.state, info.in_kernel), ("UNREPLIED", true));
    world.switch.tick(Duration::from_secs(31));
    assert_eq!(world.switch.dp.expire(world.switch.now), 1);
    assert_eq!(world.below.followed(), [], "the kernel has it no longer");
}

#[test]
fn data_in_sequence_is_taken_after_data_went_by_and_the_kernel_is_told() {
    let mut world = World::new();
    world.open_in_kernel();
    world.uploads(5_000_000);
    let bytes = tcp_with(
        world.client.host,
        world.server.host,
        segment((5000, 80), ACK, 5_000_101, 501),
        b"more",
    );
    let verdict = world.switch.send(world.client.port, &bytes);
    assert_eq!(verdict, world.to_server());
    let state = *world.below.cell().state.lock().unwrap();
    assert_eq!(state.tcp.unwrap().ends[0].end, 5_000_105);
}

#[test]
fn a_connection_whose_data_went_by_and_is_acknowledged_lives_as_long_as_any() {
    let mut world = World::new();
    world.open_in_kernel();
    world.uploads(5_000);
    world.switch.dp.sync_kernel_path(world.switch.now);
    let remaining = |world: &World| {
        let connections = world.switch.dp.connections(world.switch.now);
        connections.first().unwrap().remaining
    };
    assert_eq!(remaining(&world), Duration::from_secs(432_000));
    // One whose data nobody acknowledges does not.
    world.goes_by(Direction::Original, 1);
    world.learns(Direction::Original, |client| client.end += 1_000);
    world.switch.dp.sync_kernel_path(world.switch.now);
    assert_eq!(remaining(&world), Duration::from_secs(300));
}

#[test]
fn a_flow_of_a_limited_port_is_not_offered_and_one_that_was_is_called_back() {
    let mut world = World::new();
    world.open_in_kernel();
    let limit = |world: &World, ingress_bps| {
        let bandwidth = Bandwidth {
            ingress_bps,
            egress_bps: None,
        };
        world.switch.dp.apply(Transaction {
            ports: vec![PortUpdate::Limit(world.server.port, bandwidth)],
            ..Transaction::default()
        });
    };
    let both_send = |world: &mut World| {
        for _ in 0..2 * PLENTY {
            world.client_sends(ACK, 101, 501);
            world.server_sends(ACK, 501, 101);
        }
    };
    limit(&world, Some(1_000_000));
    both_send(&mut world);
    assert_eq!(world.below.followed(), []);
    limit(&world, None);
    both_send(&mut world);
    assert_eq!(
        world.below.followed(),
        [Direction::Original, Direction::Reply]
    );
}

#[test]
fn what_went_by_untold_is_in_what_is_noted_of_a_connection_that_ends() {
    let mut world = World::new();
    world.switch.dp.record_connections(RecordConnections {
        one_in: 1,
        ..RecordConnections::default()
    });
    world.open_in_kernel();
    let (_, packets, bytes) = world.state();
    world.goes_by(Direction::Original, 3);
    world.switch.dp.apply(Transaction {
        ports: vec![PortUpdate::Remove(world.server.port)],
        ..Transaction::default()
    });
    world.goes_by(Direction::Original, 2);
    let noted = world.switch.dp.fetch_connections(world.switch.now);
    let [connection] = &noted.connections[..] else {
        panic!("{noted:?}");
    };
    assert_eq!(connection.end, Some(ConnectionEnd::Detached));
    // The Ethernet headers of what the kernel forwarded do not count.
    assert_eq!(connection.sent, (packets + 5, bytes + 5 * 1_000));
}

#[test]
fn a_connection_that_goes_to_the_kernel_with_its_first_packet_is_noted_when_it_begins() {
    let mut world = World::new();
    world.switch.dp.record_connections(RecordConnections {
        one_in: 1,
        starts: true,
        ..RecordConnections::default()
    });
    world.client_sends(SYN, 100, 0);
    assert_eq!(
        world.below.followed(),
        [Direction::Original, Direction::Reply]
    );
    world.goes_by(Direction::Reply, 1);
    world.goes_by(Direction::Original, 3);
    let noted = world.switch.dp.fetch_connections(world.switch.now);
    let [connection] = &noted.connections[..] else {
        panic!("{noted:?}");
    };
    assert_eq!(connection.end, None);
    assert_eq!(
        connection.ports,
        (world.client.port, world.server.port),
        "{connection:?}"
    );
}
