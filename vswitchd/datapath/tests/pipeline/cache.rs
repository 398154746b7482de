//! A cached verdict is the verdict that a translation would have given.

use std::time::Duration;

use proptest::prelude::*;
use vswitch_datapath::Verdict;
use vswitch_datapath::pipeline::{RuleId, TableId};

use crate::packets::{ACK, RST, SYN, Segment, ping, tcp, udp};
use crate::switch::{Pod, TestSwitch};

/// What may happen to a switch.
#[derive(Debug, Clone)]
enum Event {
    Udp {
        from: u8,
        to: u8,
        swap: bool,
    },
    Tcp {
        from: u8,
        to: u8,
        swap: bool,
        flags: u8,
    },
    Ping {
        from: u8,
        to: u8,
        id: u16,
    },
    Label {
        set: &'static str,
        members: u8,
    },
    AdminDrop {
        pod: u8,
    },
    Wait(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    let sets = vec!["web/pods", "web/from", "out/pods", "out/to"];
    prop_oneof![
        6 => (0u8..3, 0u8..3, any::<bool>())
            .prop_map(|(from, to, swap)| Event::Udp { from, to, swap }),
        6 => (0u8..3, 0u8..3, any::<bool>(), proptest::sample::select(vec![SYN, SYN | ACK, ACK, RST, RST | ACK]))
            .prop_map(|(from, to, swap, flags)| Event::Tcp { from, to, swap, flags }),
        2 => (0u8..3, 0u8..3, 0u16..2).prop_map(|(from, to, id)| Event::Ping { from, to, id }),
        2 => (proptest::sample::select(sets), 0u8..8)
            .prop_map(|(set, members)| Event::Label { set, members }),
        1 => (0u8..3).prop_map(|pod| Event::AdminDrop { pod }),
        1 => (1u64..200).prop_map(Event::Wait),
    ]
}

/// Verdict, the frame if it is sent, and copies for mirrors.
type Outcome = (Verdict, Vec<u8>, usize);

struct World {
    switch: TestSwitch,
    pods: [Pod; 3],
    admin: Vec<RuleId>,
}

impl World {
    fn new(cache: usize) -> Self {
        let mut switch = TestSwitch::with_cache(cache);
        let pods = [1, 2, 3].map(|n| switch.add_pod(n));
        switch.ingress_policy("web", 80);
        switch.egress_policy("out");
        let mirror = "mirror:50,goto_table:40";
        switch.rules(&[(TableId::Admin, 4, "in_port=2", mirror)]);
        Self {
            switch,
            pods,
            admin: Vec::new(),
        }
    }

    fn pod(&self, n: u8) -> Pod {
        self.pods[usize::from(n)]
    }

    fn send(&mut self, from: Pod, bytes: &[u8]) -> Option<Outcome> {
        let verdict = self.switch.send(from.port, bytes);
        let bytes = self.switch.frame.bytes();
        // What is left of a dropped frame is nobody's business.
        let sent = if matches!(verdict, Verdict::Forward(_)) {
            bytes.to_vec()
        } else {
            vec![]
        };
        let copies = self.switch.out.copies.len();
        Some((verdict, sent, copies))
    }

    fn step(&mut self, event: &Event) -> Option<Outcome> {
        let ports = |swap: bool| if swap { (80, 5000) } else { (5000, 80) };
        match *event {
            Event::Udp { from, to, swap } => {
                let (from, to) = (self.pod(from), self.pod(to));
                self.send(from, &udp(from.host, to.host, ports(swap), b"x"))
            }
            Event::Tcp {
                from,
                to,
                swap,
                flags,
            } => {
                let (from, to) = (self.pod(from), self.pod(to));
                let segment = Segment {
                    ports: ports(swap),
                    flags,
                    seq: 1,
                    ack: 1,
                };
                self.send(from, &tcp(from.host, to.host, segment))
            }
            Event::Ping { from, to, id } => {
                let (from, to) = (self.pod(from), self.pod(to));
                self.send(from, &ping(from.host, to.host, id))
            }
            Event::Label { set, members } => {
                let is_member = |n: &u8| members & (1 << n) != 0;
                let members: Vec<_> = (0..3).filter(is_member).map(|n| self.pod(n)).collect();
                self.switch.set(set, &members);
                None
            }
            Event::AdminDrop { pod } => {
                let old = std::mem::take(&mut self.admin);
                self.switch.remove_rules(old);
                let line = (TableId::Admin, 5, &*format!("in_port={}", pod + 1), "drop");
                self.admin = self.switch.rules(&[line]);
                None
            }
            Event::Wait(seconds) => {
                self.switch.tick(Duration::from_secs(seconds));
                None
            }
        }
    }
}

/// Returns what every rule counted.
fn counted(world: &World) -> Vec<(RuleId, u64, u64)> {
    let rules = world.switch.dp.rules();
    rules
        .iter()
        .map(|stats| (stats.rule.id, stats.packets, stats.bytes))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_switch_with_and_one_without_a_cache_do_the_same(
        events in proptest::collection::vec(any_event(), 1..80),
        cache in proptest::sample::select(vec![1usize, 4, 64]),
    ) {
        let (mut cached, mut uncached) = (World::new(cache), World::new(0));
        for event in &events {
            let (with, without) = (cached.step(event), uncached.step(event));
            prop_assert_eq!(with, without, "{:?}", event);
        }
        let now = cached.switch.now;
        let connections = |world: &World| {
            let mut all = world.switch.dp.connections(now);
            all.sort_by_key(|c| (c.original.src, c.original.dst, c.original.proto, c.original.tp_src, c.original.icmp_type));
            all
        };
        prop_assert_eq!(connections(&cached), connections(&uncached));
        prop_assert_eq!(cached.switch.drops(), uncached.switch.drops());
        prop_assert_eq!(counted(&cached), counted(&uncached));
        prop_assert_eq!(uncached.switch.dp.cache_stats().hits, 0);
    }
}

#[test]
fn the_first_packet_already_fills_the_cache() {
    let mut world = World::new(64);
    let event = Event::Udp {
        from: 0,
        to: 1,
        swap: false,
    };
    (0..5).for_each(|_| drop(world.step(&event)));
    let stats = world.switch.dp.cache_stats();
    assert_eq!(
        (stats.hits, stats.misses, stats.entries, stats.max_entries),
        (4, 1, 1, 64)
    );
}

#[test]
fn a_rule_on_the_connection_state_sees_the_second_packet() {
    let mut world = World::new(64);
    let lines = [(
        TableId::IngressRule,
        200,
        "ct_state=+trk+est",
        "drop(policy_ingress)",
    )];
    world.switch.rules(&lines);
    let event = Event::Udp {
        from: 0,
        to: 1,
        swap: false,
    };
    let verdict = |world: &mut World| world.step(&event).map(|outcome| outcome.0);
    assert_eq!(
        verdict(&mut world),
        Some(Verdict::Forward(world.pods[1].port))
    );
    assert!(matches!(verdict(&mut world), Some(Verdict::Drop(_))));
}

#[test]
fn a_change_of_rules_is_in_force_for_the_next_packet() {
    let mut world = World::new(64);
    let event = Event::Udp {
        from: 0,
        to: 1,
        swap: false,
    };
    (0..3).for_each(|_| drop(world.step(&event)));
    world.step(&Event::AdminDrop { pod: 0 });
    assert!(matches!(world.step(&event), Some((Verdict::Drop(_), ..))));
}
