//! What ends of connections hear that end without them.

use vswitch_api::PortNo;
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::group::{Endpoint, Group, GroupId, GroupUpdate, LostEndpoint};
use vswitch_datapath::packet::{Frame, ParsedPacket, parse, verify_l4_checksum};
use vswitch_datapath::pipeline::{PortUpdate, TableId, Transaction};
use vswitch_datapath::{Outputs, Verdict};

use crate::packets::{ACK, Host, RST, SYN, Segment, segment, tcp, tcp_with, udp};
use crate::switch::{GATEWAY_MAC, Pod, TestSwitch};

const FIN: u8 = 0x01;
const PORTS: (u16, u16) = (5000, 80);

struct World {
    switch: TestSwitch,
    client: Pod,
    server: Pod,
    vip: Host,
}

impl World {
    /// A client (1) and a server (2) at port 8080 behind port 80 of a Service.
    fn new(addresses: [&str; 3]) -> Self {
        let [client, server, vip] = addresses.map(|ip| ip.parse().unwrap());
        let mut switch = TestSwitch::new();
        let (client, server) = (switch.add_pod_at(1, client), switch.add_pod_at(2, server));
        let vip = Host {
            mac: GATEWAY_MAC,
            ip: vip,
        };
        let suffix = if vip.ip.is_ipv4() { "" } else { "6" };
        for l4 in ["tcp", "udp"] {
            let matches = format!("{l4}{suffix},ip_dst={},tp_dst=80", vip.ip);
            switch.rules(&[(TableId::ServiceLb, 100, &matches, "group:1,goto_table:55")]);
        }
        let endpoint = Endpoint {
            ip: server.host.ip,
            port: 8080,
        };
        let group = Group {
            id: GroupId(1),
            name: "default/web:80".into(),
            endpoints: [endpoint].into(),
            entrances: [].into(),
            affinity: None,
            hairpin_source: vip.ip,
        };
        switch.dp.apply(Transaction {
            groups: vec![GroupUpdate::Set(group)],
            ..Transaction::default()
        });
        Self {
            switch,
            client,
            server,
            vip,
        }
    }

    fn v4() -> Self {
        Self::new(["10.0.0.1", "10.0.0.2", "10.96.0.10"])
    }

    fn v6() -> Self {
        Self::new(["fd00::1", "fd00::2", "fd96::10"])
    }

    #[track_caller]
    fn client_sends(&mut self, segment: Segment) {
        let bytes = tcp(self.client.host, self.vip, segment);
        let verdict = self.switch.send(self.client.port, &bytes);
        assert_eq!(verdict, Verdict::Forward(self.server.port));
    }

    #[track_caller]
    fn server_sends(&mut self, flags: u8, seq: u32, ack: u32, data: &[u8]) {
        let answer = segment((8080, 5000), flags, seq, ack);
        let bytes = tcp_with(self.server.host, self.client.host, answer, data);
        let verdict = self.switch.send(self.server.port, &bytes);
        assert_eq!(verdict, Verdict::Forward(self.client.port));
    }

    /// The client has acknowledged what the server sent up to 505.
    fn open(&mut self) {
        self.client_sends(segment(PORTS, SYN, 100, 0));
        self.server_sends(SYN | ACK, 500, 101, b"");
        self.client_sends(segment(PORTS, ACK, 101, 501));
        self.server_sends(ACK, 501, 101, b"part");
        self.client_sends(segment(PORTS, ACK, 101, 505));
    }

    fn remove(&self, pod: Pod) {
        self.switch.dp.apply(Transaction {
            ports: vec![PortUpdate::Remove(pod.port)],
            ..Transaction::default()
        });
    }

    /// Returns all that ends are to hear, with the port that each goes to.
    fn notices(&mut self) -> Vec<(PortNo, ParsedPacket)> {
        let mut out = Outputs::default();
        while self.switch.engine.notify(self.switch.now, &mut out) {}
        let read = |(port, frame): (PortNo, Frame)| {
            let packet = parse(&frame, port).unwrap();
            assert!(verify_l4_checksum(&frame, &packet));
            (port, packet)
        };
        out.replies.into_iter().map(read).collect()
    }
}

/// Flags, sequence number and acknowledgement of segments that come from one end of a connection.
#[track_caller]
fn resets(
    notices: &[(PortNo, ParsedPacket)],
    to: Pod,
    from: (Host, u16, u16),
) -> Vec<(u8, u32, u32)> {
    let read = |(port, packet): &(PortNo, ParsedPacket)| {
        let (key, tcp) = (&packet.key, packet.tcp.unwrap());
        assert_eq!(*port, to.port);
        assert_eq!((key.eth_src, key.eth_dst), (GATEWAY_MAC, to.host.mac));
        assert_eq!(
            (key.ip_src, key.ip_dst),
            (Some(from.0.ip), Some(to.host.ip))
        );
        assert_eq!((key.tp_src, key.tp_dst), (from.1, from.2));
        (tcp.flags, tcp.seq, tcp.ack)
    };
    notices.iter().map(read).collect()
}

#[test]
fn a_client_hears_the_reset_that_its_next_segment_would_get() {
    for mut world in [World::v4(), World::v6()] {
        world.open();
        world.remove(world.server);
        let notices = world.notices();
        let resets = resets(&notices, world.client, (world.vip, 80, 5000));
        assert_eq!(resets, [(RST, 505, 0)]);
        assert_eq!(world.notices(), [], "once");
    }
}

#[test]
fn a_client_may_have_received_what_it_did_not_acknowledge_yet() {
    let mut world = World::v4();
    world.open();
    world.server_sends(ACK, 505, 101, b"more");
    world.remove(world.server);
    let notices = world.notices();
    let resets = resets(&notices, world.client, (world.vip, 80, 5000));
    assert_eq!(resets, [(RST, 505, 0), (RST, 509, 0)]);
}

#[test]
fn a_server_hears_that_its_client_is_gone() {
    let mut world = World::v4();
    world.open();
    world.remove(world.client);
    let notices = world.notices();
    let resets = resets(&notices, world.server, (world.client.host, 5000, 8080));
    assert_eq!(resets, [(RST, 101, 0)]);
}

#[test]
fn who_waits_for_an_answer_to_its_syn_hears_a_refusal() {
    let mut world = World::v4();
    world.client_sends(segment(PORTS, SYN, 100, 0));
    world.remove(world.server);
    let notices = world.notices();
    let resets = resets(&notices, world.client, (world.vip, 80, 5000));
    assert_eq!(resets, [(RST | ACK, 0, 101)]);
}

#[test]
fn of_a_connection_that_is_over_nobody_hears() {
    let mut world = World::v4();
    world.open();
    world.client_sends(segment(PORTS, FIN | ACK, 101, 505));
    world.server_sends(FIN | ACK, 505, 102, b"");
    world.client_sends(segment(PORTS, ACK, 102, 506));
    world.remove(world.server);
    assert_eq!(world.notices(), []);
}

#[test]
fn ends_that_are_gone_as_well_hear_nothing() {
    let mut world = World::v4();
    world.open();
    world.remove(world.server);
    world.remove(world.client);
    assert_eq!(world.notices(), []);
}

#[test]
fn an_address_that_changed_hands_is_as_good_as_gone() {
    let mut world = World::v4();
    world.open();
    world.switch.dp.apply(Transaction {
        forget_addresses: vec![world.server.host.ip],
        ..Transaction::default()
    });
    let mut notices = world.notices();
    notices.retain(|(port, _)| *port == world.client.port);
    let resets = resets(&notices, world.client, (world.vip, 80, 5000));
    assert_eq!(resets, [(RST, 505, 0)]);
}

#[test]
fn a_udp_client_hears_of_a_pod_that_is_gone_and_nothing_of_one_that_left_its_service() {
    for mut world in [World::v4(), World::v6()] {
        let question = udp(world.client.host, world.vip, PORTS, b"question");
        let ask = |world: &mut World| {
            let verdict = world.switch.send(world.client.port, &question);
            assert_eq!(verdict, Verdict::Forward(world.server.port));
        };
        ask(&mut world);
        let at = |ip, port| Endpoint { ip, port };
        world.switch.dp.apply(Transaction {
            forget_endpoints: vec![LostEndpoint {
                proto: ip_proto::UDP,
                service: at(world.vip.ip, 80),
                endpoint: at(world.server.host.ip, 8080),
            }],
            ..Transaction::default()
        });
        assert_eq!(world.switch.dp.connections(world.switch.now), []);
        assert_eq!(world.notices(), []);

        ask(&mut world);
        world.remove(world.server);
        let notices = world.notices();
        let [(port, packet)] = notices.as_slice() else {
            panic!("{notices:?}");
        };
        assert_eq!(*port, world.client.port);
        assert_eq!(packet.key.ip_src, Some(world.vip.ip));
        assert_eq!(packet.key.ip_dst, Some(world.client.host.ip));
        let quote = packet.icmp_quote.unwrap();
        assert_eq!((quote.src, quote.dst), (world.client.host.ip, world.vip.ip));
        assert_eq!((quote.tp_src, quote.tp_dst), PORTS);
    }
}
