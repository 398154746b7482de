//! A path below the engine: what it is offered, when that ends, and what it tells.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vswitch_api::MacAddr;
use vswitch_datapath::conntrack::{Connection, Direction};
use vswitch_datapath::kernel_path::Account;
use vswitch_datapath::pipeline::{Bandwidth, PortUpdate, TableId, Transaction};
use vswitch_datapath::{
    ConnectionEnd, DropReason, KernelFlow, KernelPath, KernelUsage, RecordConnections, TcpProgress,
    Timestamp, Verdict,
};

use crate::packets::{ACK, SYN, ping, segment, tcp, tcp_with, udp};
use crate::switch::{GATEWAY_MAC, Pod, TestSwitch};

const FIN: u8 = 0x01;
/// More than any flow needs to be offered.
pub(crate) const PLENTY: u32 = 12;

/// Takes every flow and forwards nothing by itself.
#[derive(Debug, Default)]
pub(crate) struct Below {
    generation: AtomicU64,
    flows: Mutex<Vec<(KernelFlow, u64)>>,
    /// What is to be told of a direction at the next opportunity.
    untold: Mutex<Vec<(Direction, KernelUsage)>>,
}

impl Below {
    fn report(&self, is_of: impl Fn(&KernelFlow) -> bool, account: Account<'_>) {
        let flows = self.flows.lock().unwrap();
        for (direction, usage) in self.untold.lock().unwrap().drain(..) {
            let is_it = |flow: &KernelFlow| is_of(flow) && flow.direction == direction;
            if let Some((flow, _)) = flows.iter().find(|(flow, _)| is_it(flow)) {
                account(flow, usage);
            }
        }
    }

    /// Returns the directions that are followed.
    pub(crate) fn followed(&self) -> Vec<Direction> {
        let flows = self.flows.lock().unwrap();
        let current = flows
            .iter()
            .filter(|(_, of)| *of == self.generation.load(SeqCst));
        current.map(|(flow, _)| flow.direction).collect()
    }
}

impl KernelPath for Below {
    fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    fn install(&self, flow: KernelFlow, generation: u64, _account: Account<'_>) {
        flow.conn.set_in_kernel(true);
        let mut flows = self.flows.lock().unwrap();
        flows.retain(|(old, _)| old.tuple != flow.tuple);
        flows.push((flow, generation));
    }

    fn catch_up(&self, conn: &Arc<Connection>, account: Account<'_>) {
        self.report(|flow| Arc::ptr_eq(&flow.conn, conn), account);
    }

    fn reclaim(&self, conn: &Arc<Connection>, account: Account<'_>) {
        self.catch_up(conn, account);
        let mut flows = self.flows.lock().unwrap();
        flows.retain(|(flow, _)| !Arc::ptr_eq(&flow.conn, conn));
        conn.set_in_kernel(false);
    }

    fn revoke(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    fn sync(&self, _now: Timestamp, account: Account<'_>) {
        self.report(|_| true, account);
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

    /// Opens a connection and has both directions offered.
    pub(crate) fn open_in_kernel(&mut self) {
        self.open();
        for _ in 0..PLENTY {
            self.client_sends(ACK, 101, 501);
            self.server_sends(ACK, 501, 101);
        }
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

    fn goes_by(&self, direction: Direction, packets: u64, tcp: Option<TcpProgress>) {
        let usage = KernelUsage {
            packets,
            bytes: packets * 1_014,
            tcp,
        };
        self.below.untold.lock().unwrap().push((direction, usage));
    }

    fn state(&self) -> (&'static str, u64, u64) {
        let connections = self.switch.dp.connections(self.switch.now);
        let info = connections.first().unwrap();
        (info.state, info.packets_original, info.bytes_original)
    }
}

#[test]
fn a_flow_is_offered_once_it_lasts_and_leaves_as_the_rules_say() {
    let mut world = World::new();
    world.open();
    assert_eq!(world.below.flows(), 0);
    for _ in 0..PLENTY {
        world.client_sends(ACK, 101, 501);
    }
    let flows = world.below.flows.lock().unwrap();
    let [(flow, _)] = flows.as_slice() else {
        panic!("{flows:?}");
    };
    let (client, server) = (&world.client, &world.server);
    assert_eq!((flow.in_port, flow.out_port), (client.port, server.port));
    let macs = |dst: MacAddr, src: MacAddr| [dst.0, src.0].concat();
    assert_eq!(flow.macs.to_vec(), macs(server.host.mac, client.host.mac));
    assert_eq!(
        flow.leaves_with.to_vec(),
        macs(server.host.mac, GATEWAY_MAC)
    );
    assert_eq!(flow.direction, Direction::Original);
    assert_eq!((flow.tuple.tp_src, flow.tuple.tp_dst), (5000, 80));
    assert_eq!(flow.mtu, 1_500);
}

#[test]
fn what_is_not_established_mirrored_metered_or_no_stream_is_never_offered() {
    let mut world = World::new();
    for _ in 0..PLENTY {
        world.client_sends(SYN, 100, 0);
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
    let mut world = World::new();
    world.open_in_kernel();
    // Ten megabytes, which no window of the handshake covers.
    let sent = 10_000_000;
    let client = TcpProgress {
        seq_end: 101 + sent,
        ack: 501,
        window: 500,
    };
    let server = TcpProgress {
        seq_end: 501,
        ack: 101 + sent,
        window: 500,
    };
    world.goes_by(Direction::Original, 10_000, Some(client));
    world.goes_by(Direction::Reply, 5_000, Some(server));
    assert_eq!(
        world.client_sends(FIN | ACK, 101 + sent, 501),
        world.to_server()
    );
    let (state, packets, bytes) = world.state();
    assert_eq!(state, "FIN_WAIT");
    assert!(packets > 10_000, "{packets}");
    assert!(bytes > 10_000 * 1_000 && bytes < 10_000 * 1_014, "{bytes}");
    assert_eq!(world.server_sends(ACK, 501, 102 + sent), world.to_client());
    assert_eq!(world.state().0, "CLOSE_WAIT");
    // What is far from all that went by is still nobody's.
    assert_eq!(
        world.server_sends(ACK, 900_000_000, 102 + sent),
        Verdict::Drop(DropReason::CtInvalid)
    );
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
    let is_in_kernel = |world: &World| {
        let connections = world.switch.dp.connections(world.switch.now);
        connections.iter().any(|connection| connection.in_kernel)
    };
    for _ in 0..PLENTY {
        world.switch.send(client.port, &ask);
    }
    assert!(!is_in_kernel(&world), "nobody answered yet");
    let answer = udp(server.host, client.host, (80, 5000), b"y");
    world.switch.send(server.port, &answer);
    for _ in 0..PLENTY {
        world.switch.send(client.port, &ask);
    }
    assert!(is_in_kernel(&world));
    let before = world.switch.count_of(id);
    world.switch.tick(Duration::from_secs(25));
    world.goes_by(Direction::Original, 1_000, None);
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
fn data_in_sequence_is_taken_after_data_went_by() {
    let mut world = World::new();
    world.open_in_kernel();
    let progress = |seq_end, ack| TcpProgress {
        seq_end,
        ack,
        window: 500,
    };
    world.goes_by(Direction::Original, 100, Some(progress(5_000_101, 501)));
    world.goes_by(Direction::Reply, 50, Some(progress(501, 5_000_101)));
    let bytes = tcp_with(
        world.client.host,
        world.server.host,
        segment((5000, 80), ACK, 5_000_101, 501),
        b"more",
    );
    let verdict = world.switch.send(world.client.port, &bytes);
    assert_eq!(verdict, world.to_server());
}

#[test]
fn a_connection_whose_data_went_by_and_is_acknowledged_lives_as_long_as_any() {
    for order in [
        [Direction::Original, Direction::Reply],
        [Direction::Reply, Direction::Original],
    ] {
        let mut world = World::new();
        world.open_in_kernel();
        for direction in order {
            let (seq_end, ack) = match direction {
                Direction::Original => (5_101, 7_501),
                Direction::Reply => (7_501, 5_101),
            };
            let progress = TcpProgress {
                seq_end,
                ack,
                window: 500,
            };
            world.goes_by(direction, 10, Some(progress));
        }
        world.switch.dp.sync_kernel_path(world.switch.now);
        let connections = world.switch.dp.connections(world.switch.now);
        let remaining = connections.first().unwrap().remaining;
        assert_eq!(remaining, Duration::from_secs(432_000), "{order:?}");
    }
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
        all: false,
    });
    world.open_in_kernel();
    let (_, packets, bytes) = world.state();
    world.goes_by(Direction::Original, 3, None);
    world.switch.dp.apply(Transaction {
        ports: vec![PortUpdate::Remove(world.server.port)],
        ..Transaction::default()
    });
    world.goes_by(Direction::Original, 2, None);
    let noted = world.switch.dp.fetch_connections(world.switch.now);
    let [connection] = &noted.connections[..] else {
        panic!("{noted:?}");
    };
    assert_eq!(connection.end, ConnectionEnd::Detached);
    // The Ethernet headers of what the kernel forwarded do not count.
    assert_eq!(connection.sent, (packets + 5, bytes + 5 * 1_000));
}
