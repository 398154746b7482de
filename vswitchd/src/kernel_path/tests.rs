//! The kernel path with an engine above it, as far as room goes.

use std::sync::Arc;
use std::time::Duration;

use vswitch_api::{Cookie, MacAddr, PortNo, Priority};
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::packet::{Frame, VnetHeader};
use vswitch_datapath::pipeline::{
    Origin, PortSpec, PortUpdate, Rule, RuleId, TableId, Transaction,
};
use vswitch_datapath::{
    Datapath, DatapathConfig, Engine, KernelPath as _, Outputs, Timestamp, Verdict, parse_actions,
};

use super::{FastPath, PortKind};
use crate::clock::MonotonicClock;
use crate::netns::in_netns;
use crate::port::testnet::{Sandbox, ifname};

const CLIENT: PortNo = PortNo(1);
const SERVER: PortNo = PortNo(2);

fn rule(id: u64, table: TableId, matches: &str, actions: &str) -> Rule {
    Rule {
        id: RuleId(id),
        table,
        priority: Priority(9),
        matches: matches.parse().unwrap(),
        actions: parse_actions(actions).unwrap(),
        cookie: Cookie(0),
        origin: Arc::new(Origin {
            kind: "Test",
            name: String::new(),
            part: String::new(),
        }),
    }
}

/// A switch with two ports and room for four connections in the kernel.
struct World {
    fast_path: Arc<FastPath>,
    datapath: Arc<Datapath>,
    engine: Engine,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let clock = MonotonicClock::start();
        let fast_path = FastPath::with_room(4, clock).unwrap();
        for (port, device) in [(CLIENT, "client"), (SERVER, "server")] {
            let (ifname, counters) = (ifname(device), Arc::default());
            let attached = fast_path.attach(port, &ifname, PortKind::Gateway, counters);
            attached.unwrap();
        }
        let config = DatapathConfig {
            flow_cache_entries: 1_024,
            ..DatapathConfig::default()
        };
        let datapath = Datapath::with_kernel_path(
            config,
            Arc::clone(&fast_path) as Arc<dyn vswitch_datapath::KernelPath>,
        );
        let port = |no| {
            PortUpdate::Upsert(PortSpec {
                no,
                class: PortClass::Pod,
                name: String::new(),
                mac: MacAddr::default(),
                mtu: 1_500,
                midstream_pickup: false,
            })
        };
        datapath.apply(Transaction {
            add_rules: vec![
                rule(1, TableId::Classify, "", "goto_table:40"),
                rule(2, TableId::Forward, "in_port=1", "output:2,goto_table:75"),
                rule(3, TableId::Forward, "in_port=2", "output:1,goto_table:75"),
            ],
            ports: vec![port(CLIENT), port(SERVER)],
            ..Transaction::default()
        });
        Self {
            engine: datapath.engine(),
            fast_path,
            datapath,
            now: clock.now(),
        }
    }

    /// A client's port sends a datagram to the server, or is answered.
    fn send(&mut self, port: u16, is_answer: bool) {
        let mut bytes = [
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, // Ethernet
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x66, 0xcf, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
            0, 0, 0, 53, 0, 8, 0, 0, // UDP
        ];
        bytes[34..36].copy_from_slice(&port.to_be_bytes());
        let (from, to) = if is_answer {
            bytes.copy_within(34..36, 36);
            bytes[34..36].copy_from_slice(&[0, 53]);
            let (src, dst) = bytes[26..34].split_at_mut(4);
            src.swap_with_slice(dst);
            let (dst, src) = bytes[..12].split_at_mut(6);
            dst.swap_with_slice(src);
            (SERVER, CLIENT)
        } else {
            (CLIENT, SERVER)
        };
        let mut frame = Frame::from_bytes(&bytes);
        frame.vnet.flags = VnetHeader::F_DATA_VALID;
        let verdict = self
            .engine
            .process(from, &mut frame, self.now, &mut Outputs::default());
        assert_eq!(verdict, Verdict::Forward(to), "{port}");
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.datapath.sync_kernel_path(self.now);
    }
}

fn in_a_world(test: impl FnOnce(World) + Send + 'static) {
    let net = Sandbox::new();
    net.ip("switch", "link add client type veth peer name server");
    in_netns(&net.open("switch"), || test(World::new())).unwrap();
}

#[test]
fn connections_for_which_there_is_no_room_go_through_the_workers() {
    in_a_world(|mut world| {
        (1..=10).for_each(|port| world.send(port, false));
        assert_eq!(world.fast_path.flows(), 4, "two of four places");
        assert_eq!(world.datapath.connections(world.now).len(), 10);
        // Those that have no place go on, and answers too.
        for _ in 0..20 {
            (1..=10).for_each(|port| world.send(port, false));
            (1..=10).for_each(|port| world.send(port, true));
        }
        let in_kernel = |world: &World| {
            let connections = world.datapath.connections(world.now);
            connections.iter().filter(|one| one.in_kernel).count()
        };
        assert_eq!(in_kernel(&world), 2);
        // What lasts has the other half.
        world.pass(Duration::from_secs(3));
        for _ in 0..20 {
            (1..=10).for_each(|port| world.send(port, true));
            (1..=10).for_each(|port| world.send(port, false));
        }
        assert_eq!((in_kernel(&world), world.fast_path.flows()), (4, 8));
    });
}

#[test]
fn a_place_rests_before_another_connection_has_it() {
    in_a_world(|mut world| {
        let mut port = 0;
        let mut connect = |world: &mut World| {
            port += 1;
            world.send(port, false);
            world.fast_path.flows()
        };
        assert_eq!([connect(&mut world), connect(&mut world)], [2, 4]);
        let flush = |world: &mut World| {
            world.datapath.flush_connections(|_| true);
            world.pass(Duration::ZERO);
            assert_eq!(world.fast_path.flows(), 0);
        };
        flush(&mut world);
        // Two places are left.
        assert_eq!([connect(&mut world), connect(&mut world)], [2, 4]);
        flush(&mut world);
        assert_eq!(connect(&mut world), 0);
        // Somebody reads the figures, again and again.
        (0..9).for_each(|_| world.pass(Duration::from_millis(100)));
        assert_eq!(connect(&mut world), 0);
        world.pass(Duration::from_millis(200));
        assert_eq!(connect(&mut world), 2);
    });
}
