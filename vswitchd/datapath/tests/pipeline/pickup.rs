//! Connections to Services after a restart: whoever sends first, they go on.

use vswitch_api::PortNo;
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::group::{Endpoint, Group, GroupId, GroupUpdate, ServiceAddress};
use vswitch_datapath::packet::{Frame, ParsedPacket, parse, verify_l4_checksum};
use vswitch_datapath::pipeline::{PortSpec, PortUpdate, TableId, Transaction};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::{ACK, Host, RST, segment, tcp, tcp_with};
use crate::switch::{GATEWAY_MAC, Pod, TestSwitch};

const VIP: [u8; 4] = [10, 96, 0, 10];
const ASKED: Verdict = Verdict::Drop(DropReason::CtAsksClient);
const INVALID: Verdict = Verdict::Drop(DropReason::CtInvalid);

struct World {
    switch: TestSwitch,
    client: Pod,
    servers: Vec<Pod>,
}

impl World {
    /// A client (1) and servers (2, 3, …) at port 8080 behind port 80 of a Service, all attached
    /// again.
    fn new(servers: u8) -> Self {
        let mut switch = TestSwitch::new();
        let client = switch.add_pod(1);
        let servers: Vec<Pod> = (2..2 + servers).map(|n| switch.add_pod(n)).collect();
        let to_service = "tcp,ip_dst=10.96.0.10,tp_dst=80";
        switch.rules(&[(TableId::ServiceLb, 100, to_service, "group:1,goto_table:55")]);
        let endpoint = |pod: &Pod| Endpoint {
            ip: pod.host.ip,
            port: 8080,
        };
        let entrance = ServiceAddress {
            proto: ip_proto::TCP,
            service: Endpoint {
                ip: VIP.into(),
                port: 80,
            },
        };
        let group = Group {
            id: GroupId(1),
            name: "default/web:80/TCP".into(),
            endpoints: servers.iter().map(endpoint).collect(),
            entrances: [entrance].into(),
            affinity: None,
            hairpin_source: [169, 254, 86, 1].into(),
        };
        switch.dp.apply(Transaction {
            groups: vec![GroupUpdate::Set(group)],
            ..Transaction::default()
        });
        let mut world = Self {
            switch,
            client,
            servers,
        };
        world.set_attached_again(true);
        world
    }

    fn set_attached_again(&mut self, midstream_pickup: bool) {
        let ports = self.switch.dp.ports().into_iter().map(|spec| {
            PortUpdate::Upsert(PortSpec {
                midstream_pickup,
                ..spec
            })
        });
        self.switch.dp.apply(Transaction {
            ports: ports.collect(),
            ..Transaction::default()
        });
    }

    fn server_sends(&mut self, server: Pod, client_port: u16) -> Verdict {
        let sent = segment((8080, client_port), ACK, 1_000, 500);
        let bytes = tcp_with(server.host, self.client.host, sent, b"data");
        self.switch.send(server.port, &bytes)
    }

    fn client_sends(&mut self, to: [u8; 4], (ports, flags): ((u16, u16), u8), ack: u32) -> Verdict {
        let to = Host {
            mac: GATEWAY_MAC,
            ip: to.into(),
        };
        let bytes = tcp(self.client.host, to, segment(ports, flags, 500, ack));
        self.switch.send(self.client.port, &bytes)
    }

    /// What the last frame had sent besides: sender, port and numbers of bare segments.
    #[track_caller]
    fn questions(&self) -> Vec<([u8; 4], u16, u32, u32)> {
        let read = |(port, frame): &(PortNo, Frame)| {
            assert_eq!(*port, self.client.port);
            let packet = reparsed(frame);
            let (key, tcp) = (&packet.key, packet.tcp.unwrap());
            assert_eq!((tcp.flags, tcp.payload_len), (ACK, 0));
            assert_eq!(key.eth_dst, self.client.host.mac);
            assert_eq!(key.ip_dst, Some(self.client.host.ip));
            let std::net::IpAddr::V4(from) = key.ip_src.unwrap() else {
                panic!("{key:?}");
            };
            (from.octets(), key.tp_src, tcp.seq, tcp.ack)
        };
        self.switch.out.replies.iter().map(read).collect()
    }

    /// Who the last frame seems to come from.
    fn seen_from(&self) -> (Option<std::net::IpAddr>, u16) {
        let key = reparsed(&self.switch.frame).key;
        (key.ip_src, key.tp_src)
    }
}

#[track_caller]
fn reparsed(frame: &Frame) -> ParsedPacket {
    let packet = parse(frame, PortNo(9)).unwrap();
    assert!(verify_l4_checksum(frame, &packet));
    packet
}

#[test]
fn a_server_that_sends_first_is_heard_once_its_client_has_said_where_it_is_connected_to() {
    let mut world = World::new(1);
    let (client, server) = (world.client, world.servers[0]);
    assert_eq!(world.server_sends(server, 5000), ASKED);
    let questions = [(VIP, 80, 999, 500), ([10, 0, 0, 2], 8080, 999, 500)];
    assert_eq!(world.questions(), questions);
    assert_eq!(world.switch.dp.connections(world.switch.now), []);
    // It has no connection to the pod itself.
    let direct = (5000, 8080);
    assert_eq!(world.client_sends([10, 0, 0, 2], (direct, RST), 0), INVALID);
    let through = (5000, 80);
    let forwarded = Verdict::Forward(server.port);
    assert_eq!(world.client_sends(VIP, (through, ACK), 1_000), forwarded);
    assert_eq!(
        world.server_sends(server, 5000),
        Verdict::Forward(client.port)
    );
    assert_eq!(world.seen_from(), (Some(VIP.into()), 80));
    assert_eq!(world.switch.dp.connections(world.switch.now).len(), 1);
}

#[test]
fn a_client_without_a_service_says_so_too() {
    let mut world = World::new(1);
    let (client, server) = (world.client, world.servers[0]);
    assert_eq!(world.server_sends(server, 5000), ASKED);
    assert_eq!(world.client_sends(VIP, ((5000, 80), RST), 0), INVALID);
    let direct = (5000, 8080);
    let answer = world.client_sends([10, 0, 0, 2], (direct, ACK), 1_000);
    assert_eq!(answer, Verdict::Forward(server.port));
    assert_eq!(
        world.server_sends(server, 5000),
        Verdict::Forward(client.port)
    );
    assert_eq!(world.seen_from(), (Some(server.host.ip), 8080));
}

#[test]
fn the_answer_goes_to_whoever_sent_the_stream_whatever_the_group_would_choose() {
    let mut world = World::new(3);
    for client_port in 5000..5030 {
        let server = world.servers[usize::from(client_port) % 3];
        assert_eq!(world.server_sends(server, client_port), ASKED);
        let through = (client_port, 80);
        let answer = world.client_sends(VIP, (through, ACK), 1_000);
        assert_eq!(answer, Verdict::Forward(server.port));
    }
}

#[test]
fn an_endpoint_that_cannot_have_sent_the_stream_does_not_get_it() {
    let mut world = World::new(3);
    let (mut asked, mut got) = (0, 0);
    for client_port in 5000..5030 {
        let liar = world.servers[usize::from(client_port) % 3];
        asked += u32::from(world.server_sends(liar, client_port) == ASKED);
        let through = (client_port, 80);
        let answer = world.client_sends(VIP, (through, ACK), 1_000_000);
        got += u32::from(answer == Verdict::Forward(liar.port));
    }
    assert_eq!(asked, 30);
    assert!(got < 20, "as the group chooses, not {got} of 30");
}

#[test]
fn a_client_whose_egress_policy_names_the_pods_of_a_service_goes_on_by_itself() {
    let mut world = World::new(1);
    let server = world.servers[0];
    world.switch.egress_policy("out");
    world.switch.set("out/pods", &[world.client]);
    world.switch.set("out/to", &[server]);
    let answer = world.client_sends(VIP, ((5000, 80), ACK), 1_000);
    assert_eq!(answer, Verdict::Forward(server.port));
    let connections = world.switch.dp.connections(world.switch.now);
    assert_eq!(connections[0].reply.src, server.host.ip);
}

#[test]
fn nobody_is_asked_about_a_connection_that_policies_forbid() {
    let mut world = World::new(1);
    let server = world.servers[0];
    world.switch.ingress_policy("in", 8080);
    world.switch.set("in/pods", &[server]);
    world.switch.set("in/from", &[]);
    world.switch.egress_policy("out");
    world.switch.set("out/pods", &[server]);
    world.switch.set("out/to", &[]);
    let egress = Verdict::Drop(DropReason::PolicyEgress);
    assert_eq!(world.server_sends(server, 5000), egress);
    assert_eq!(world.questions(), []);
    let ingress = Verdict::Drop(DropReason::PolicyIngress);
    assert_eq!(world.client_sends(VIP, ((5000, 80), ACK), 1_000), ingress);
    assert_eq!(world.switch.dp.connections(world.switch.now), []);
}

#[test]
fn nobody_is_asked_when_the_time_after_a_restart_is_over() {
    let mut world = World::new(1);
    world.set_attached_again(false);
    assert_eq!(world.server_sends(world.servers[0], 5000), INVALID);
    assert_eq!(world.questions(), []);
}

#[test]
fn a_flood_of_segments_makes_no_flood_of_questions() {
    let mut world = World::new(1);
    let server = world.servers[0];
    let questions: usize = (10_000..20_000)
        .map(|client_port| {
            assert_eq!(world.server_sends(server, client_port), ASKED);
            world.questions().len()
        })
        .sum();
    assert!((1..=2_000).contains(&questions), "{questions}");
}
