//! Connections that have begun or ended: what is noted of them, how they ended, and which rules
//! admitted them.

use std::time::Duration;

use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::group::{Endpoint, Group, GroupId, GroupUpdate, LostEndpoint};
use vswitch_datapath::pipeline::{PortUpdate, RuleId, TableId, Transaction};
use vswitch_datapath::{
    ConnectionEnd, DropReason, NotedConnection, NotedConnections, RecordConnections, Verdict,
};

use crate::packets::{ACK, Host, RST, SYN, segment, tcp, tcp_with, udp};
use crate::switch::{Pod, TestSwitch};

const FIN: u8 = 0x01;
const PORTS: (u16, u16) = (5000, 80);
const BACK: (u16, u16) = (80, 5000);
/// IPv4 and TCP header.
const HEADERS: u64 = 40;

/// A client, and a server that admits it by policy `web`.
struct World {
    switch: TestSwitch,
    client: Pod,
    server: Pod,
    web: Vec<RuleId>,
}

impl World {
    fn new() -> Self {
        let world = Self::unrecorded();
        world.record(1, false);
        world
    }

    fn unrecorded() -> Self {
        let mut switch = TestSwitch::new();
        let (client, server) = (switch.add_pod(1), switch.add_pod(2));
        let web = switch.ingress_policy("web", 80);
        switch.set("web/pods", &[server]);
        switch.set("web/from", &[client]);
        Self {
            switch,
            client,
            server,
            web,
        }
    }

    fn record(&self, one_in: u32, all: bool) {
        self.switch.dp.record_connections(RecordConnections {
            one_in,
            all,
            starts: false,
        });
    }

    /// The same, when they begin as well.
    fn record_starts(&self, one_in: u32, all: bool) {
        self.switch.dp.record_connections(RecordConnections {
            one_in,
            all,
            starts: true,
        });
    }

    fn client_sends(&mut self, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Verdict {
        let segment = segment(PORTS, flags, seq, ack);
        let bytes = tcp_with(self.client.host, self.server.host, segment, data);
        self.switch.send(self.client.port, &bytes)
    }

    fn server_sends(&mut self, flags: u8, seq: u32, ack: u32, data: &[u8]) {
        let segment = segment(BACK, flags, seq, ack);
        let bytes = tcp_with(self.server.host, self.client.host, segment, data);
        let verdict = self.switch.send(self.server.port, &bytes);
        assert_eq!(verdict, Verdict::Forward(self.client.port));
    }

    /// The client has sent 3 packets with 7 bytes, the server 2 with 11.
    fn exchange(&mut self) {
        let to_server = Verdict::Forward(self.server.port);
        assert_eq!(self.client_sends(SYN, 100, 0, b""), to_server);
        self.server_sends(SYN | ACK, 500, 101, b"");
        assert_eq!(self.client_sends(ACK, 101, 501, b"request"), to_server);
        self.server_sends(ACK, 501, 108, b"some answer");
        assert_eq!(self.client_sends(ACK, 108, 512, b""), to_server);
    }

    fn close(&mut self) {
        self.client_sends(FIN | ACK, 108, 512, b"");
        self.server_sends(FIN | ACK, 512, 109, b"");
        self.client_sends(ACK, 109, 513, b"");
    }

    fn pass(&mut self, seconds: u64) {
        self.switch.tick(Duration::from_secs(seconds));
        self.switch.dp.expire(self.switch.now);
    }

    fn fetch(&self) -> NotedConnections {
        self.switch.dp.fetch_connections(self.switch.now)
    }

    #[track_caller]
    fn fetch_one(&self) -> NotedConnection {
        let NotedConnections { connections, lost } = self.fetch();
        assert_eq!(lost, 0);
        let [connection] = <[_; 1]>::try_from(connections).unwrap();
        connection
    }

    /// Two thousand connections begin and end; returns what is noted of them.
    #[track_caller]
    fn two_thousand(&mut self) -> Vec<NotedConnection> {
        for port in 10_000..12_000 {
            let question = udp(self.client.host, self.server.host, (port, 80), b"who?");
            self.switch.send(self.client.port, &question);
        }
        self.pass(40);
        let NotedConnections { connections, lost } = self.fetch();
        assert_eq!(lost, 0);
        connections
    }

    #[track_caller]
    fn nothing_is_noted(&self) {
        assert_eq!(self.fetch(), NotedConnections::default());
    }
}

fn admitted_by(connection: &NotedConnection) -> Vec<&str> {
    let rules = connection.rules.as_ref().unwrap().iter();
    rules.map(|rule| rule.origin.name.as_str()).collect()
}

#[test]
fn a_closed_connection_is_noted_once_with_all_that_it_carried() {
    let mut world = World::new();
    let started = world.switch.now;
    world.exchange();
    world.switch.tick(Duration::from_secs(5));
    world.close();
    let closed = world.switch.now;
    world.pass(1);
    world.nothing_is_noted();
    world.pass(1);
    let connection = world.fetch_one();
    assert_eq!(connection.end, Some(ConnectionEnd::Fin));
    assert_eq!(connection.sent, (5, 5 * HEADERS + 7));
    assert_eq!(connection.received, (3, 3 * HEADERS + 11));
    assert_eq!(connection.ports, (world.client.port, world.server.port));
    let (original, forwarded) = (connection.original, connection.forwarded);
    assert_eq!(original, forwarded);
    assert_eq!(
        (original.src, original.dst),
        (world.client.host.ip, world.server.host.ip)
    );
    assert_eq!(
        (original.proto, original.tp_src, original.tp_dst),
        (6, 5000, 80)
    );
    let times = (connection.started, connection.last, connection.at);
    assert_eq!(times, (started, closed, closed));
    assert_eq!(admitted_by(&connection), ["web"]);
    assert!(connection.is_sample);
    world.nothing_is_noted();
    world.pass(200);
    assert_eq!(world.switch.dp.connections(world.switch.now), []);
    world.nothing_is_noted();
}

#[test]
fn a_reset_ends_a_connection() {
    let mut world = World::new();
    world.exchange();
    world.client_sends(RST, 108, 0, b"");
    world.pass(20);
    let connection = world.fetch_one();
    assert_eq!(connection.end, Some(ConnectionEnd::Reset));
    assert_eq!(connection.sent, (4, 4 * HEADERS + 7));
}

#[test]
fn ports_that_are_used_again_end_the_connection_before() {
    let mut world = World::new();
    world.exchange();
    world.close();
    world.exchange();
    let connection = world.fetch_one();
    assert_eq!(connection.end, Some(ConnectionEnd::Fin));
    assert_eq!(connection.sent, (5, 5 * HEADERS + 7));
}

#[test]
fn silence_ends_a_connection_when_its_time_is_over() {
    let mut world = World::new();
    let started = world.switch.now;
    let (client, server) = (world.client, world.server);
    world
        .switch
        .send(client.port, &udp(client.host, server.host, PORTS, b"who?"));
    world
        .switch
        .send(server.port, &udp(server.host, client.host, BACK, b"nobody"));
    world.pass(29);
    world.nothing_is_noted();
    world.pass(20);
    let connection = world.fetch_one();
    assert_eq!(connection.end, Some(ConnectionEnd::Timeout));
    assert_eq!(connection.sent, (1, 28 + 4));
    assert_eq!(connection.received, (1, 28 + 6));
    assert_eq!(connection.last, started);
    assert_eq!(connection.at, started + Duration::from_secs(30));
}

#[test]
fn a_connection_that_is_met_after_its_time_ends_by_that() {
    let mut world = World::new();
    let (client, server) = (world.client, world.server);
    let question = udp(client.host, server.host, PORTS, b"who?");
    world.switch.send(client.port, &question);
    world.switch.tick(Duration::from_secs(40));
    world.switch.send(client.port, &question);
    let connection = world.fetch_one();
    assert_eq!(connection.end, Some(ConnectionEnd::Timeout));
    assert_eq!(connection.sent, (1, 28 + 4));
}

#[test]
fn a_cut_names_the_rule_that_had_admitted_the_connection() {
    let mut world = World::new();
    world.exchange();
    world.switch.remove_rules(world.web[..2].to_vec());
    let verdict = world.client_sends(ACK, 108, 512, b"more");
    assert_eq!(verdict, Verdict::Drop(DropReason::PolicyIngress));
    let connection = world.fetch_one();
    assert_eq!(connection.end, Some(ConnectionEnd::Cut));
    assert_eq!(
        connection.sent,
        (3, 3 * HEADERS + 7),
        "what was let through"
    );
    assert_eq!(admitted_by(&connection), ["web"]);
    assert_eq!(connection.at, world.switch.now);
}

#[test]
fn a_cut_that_is_told_to_the_ends_is_noted_when_it_happens_and_once() {
    let mut world = World::new();
    world.switch.rules(&[(
        TableId::IngressDefault,
        5,
        "ip_dst=@web/closed",
        "reject(policy_ingress)",
    )]);
    world.exchange();
    world.switch.set("web/from", &[]);
    world.switch.set("web/closed", &[world.server]);
    for _ in 0..2 {
        world.client_sends(ACK, 108, 512, b"more");
    }
    let connection = world.fetch_one();
    assert_eq!(connection.end, Some(ConnectionEnd::Cut));
    assert_eq!(connection.sent, (3, 3 * HEADERS + 7));
    world.pass(400);
    world.nothing_is_noted();
}

#[test]
fn a_port_that_goes_ends_its_connections() {
    let mut world = World::new();
    world.exchange();
    world.switch.dp.apply(Transaction {
        ports: vec![PortUpdate::Remove(world.server.port)],
        ..Transaction::default()
    });
    let connection = world.fetch_one();
    assert_eq!(connection.end, Some(ConnectionEnd::Detached));
    assert_eq!(admitted_by(&connection), ["web"]);
}

#[test]
fn a_connection_to_a_service_has_two_faces_and_another_endpoint_replaces_it() {
    let mut world = World::new();
    let (client, server) = (world.client, world.server);
    let vip = Host {
        mac: client.host.mac,
        ip: [10, 96, 0, 10].into(),
    };
    let rule = "udp,ip_dst=10.96.0.10,tp_dst=53";
    let rules = [(TableId::ServiceLb, 100, rule, "group:1,goto_table:55")];
    world.switch.rules(&rules);
    let at = |ip, port| Endpoint { ip, port };
    let group = Group {
        id: GroupId(1),
        name: "default/dns:53".into(),
        endpoints: [at(server.host.ip, 80)].into(),
        entrances: [].into(),
        affinity: None,
        hairpin_source: vip.ip,
    };
    world.switch.dp.apply(Transaction {
        groups: vec![GroupUpdate::Set(group)],
        ..Transaction::default()
    });
    let question = udp(client.host, vip, (5000, 53), b"who?");
    let verdict = world.switch.send(client.port, &question);
    assert_eq!(verdict, Verdict::Forward(server.port));
    world.switch.dp.apply(Transaction {
        forget_endpoints: vec![LostEndpoint {
            proto: ip_proto::UDP,
            service: at(vip.ip, 53),
            endpoint: at(server.host.ip, 80),
        }],
        ..Transaction::default()
    });
    let connection = world.fetch_one();
    assert_eq!(connection.end, Some(ConnectionEnd::Replaced));
    let to = |tuple: vswitch_datapath::conntrack::Tuple| at(tuple.dst, tuple.tp_dst);
    assert_eq!(to(connection.original), at(vip.ip, 53));
    assert_eq!(to(connection.forwarded), at(server.host.ip, 80));
    assert_eq!(admitted_by(&connection), ["web"]);
}

#[test]
fn the_rules_are_those_of_then_and_none_where_nothing_isolates() {
    let mut world = World::new();
    world.exchange();
    world.client_sends(RST, 108, 0, b"");
    world.switch.remove_rules(world.web.clone());
    world.switch.ingress_policy("other", 80);
    world.switch.set("other/pods", &[world.server]);
    world.switch.set("other/from", &[world.client]);
    world.pass(20);
    assert_eq!(admitted_by(&world.fetch_one()), ["web"]);

    world.switch.set("other/pods", &[]);
    world.exchange();
    world.client_sends(RST, 108, 0, b"");
    world.pass(20);
    assert_eq!(admitted_by(&world.fetch_one()), [""; 0]);
}

#[test]
fn both_directions_name_their_policies() {
    let mut world = World::new();
    world.switch.egress_policy("out");
    world.switch.set("out/pods", &[world.client]);
    world.switch.set("out/to", &[world.server]);
    world.exchange();
    world.client_sends(RST, 108, 0, b"");
    world.pass(20);
    assert_eq!(admitted_by(&world.fetch_one()), ["out", "web"]);
}

#[test]
fn nothing_is_noted_unless_it_is_wanted() {
    let mut world = World::unrecorded();
    world.exchange();
    world.client_sends(RST, 108, 0, b"");
    world.pass(20);
    world.nothing_is_noted();
    // What began before is recorded when it ends.
    world.exchange();
    world.record(0, true);
    world.client_sends(RST, 108, 0, b"");
    world.pass(20);
    let connection = world.fetch_one();
    assert!(!connection.is_sample, "for who looks on alone");
    assert_eq!(admitted_by(&connection), ["web"]);
    world.record(0, false);
    world.exchange();
    world.client_sends(RST, 108, 0, b"");
    world.pass(20);
    world.nothing_is_noted();
}

#[test]
fn what_is_denied_is_no_connection() {
    let mut world = World::new();
    let bytes = tcp(
        world.client.host,
        world.server.host,
        segment((5000, 81), SYN, 1, 0),
    );
    let verdict = world.switch.send(world.client.port, &bytes);
    assert_eq!(verdict, Verdict::Drop(DropReason::PolicyIngress));
    world.pass(400);
    world.nothing_is_noted();
}

#[test]
fn samples_are_one_in_so_many_and_the_same_with_and_without_who_looks_on() {
    let sample = |all: bool| {
        let mut world = World::unrecorded();
        world.record(10, all);
        let connections = world.two_thousand();
        let samples = connections.iter().filter(|of| of.is_sample).count();
        (connections.len(), samples)
    };
    let (noted, samples) = sample(false);
    assert_eq!(noted, samples);
    assert!((150..250).contains(&samples), "{samples} of 2000");
    assert_eq!(sample(true), (2_000, samples));
}

#[test]
fn a_connection_that_begins_is_noted_once_with_the_rules_that_admit_it() {
    let mut world = World::unrecorded();
    world.record_starts(1, false);
    let started = world.switch.now;
    world.exchange();
    let connection = world.fetch_one();
    assert_eq!(connection.end, None);
    assert_eq!(connection.ports, (world.client.port, world.server.port));
    let original = connection.original;
    assert_eq!(
        (original.src, original.dst, original.tp_dst),
        (world.client.host.ip, world.server.host.ip, 80)
    );
    let times = (connection.started, connection.last, connection.at);
    assert_eq!(times, (started, started, started));
    assert_eq!((connection.sent, connection.received), ((0, 0), (0, 0)));
    assert_eq!(admitted_by(&connection), ["web"]);
    assert!(connection.is_sample);
    // Judged again, by other rules that let it pass: it has begun before.
    world.switch.egress_policy("out");
    world.client_sends(ACK, 108, 512, b"more");
    world.nothing_is_noted();
    world.client_sends(RST, 112, 0, b"");
    world.pass(20);
    assert_eq!(world.fetch_one().end, Some(ConnectionEnd::Reset));
}

#[test]
fn what_is_denied_does_not_begin() {
    let mut world = World::unrecorded();
    world.record_starts(1, true);
    world.switch.set("web/from", &[]);
    let verdict = world.client_sends(SYN, 100, 0, b"");
    assert_eq!(verdict, Verdict::Drop(DropReason::PolicyIngress));
    world.nothing_is_noted();
}

#[test]
fn a_sample_is_one_when_it_begins_and_when_it_ends() {
    let sample = |all: bool| {
        let mut world = World::unrecorded();
        world.record_starts(10, all);
        let connections = world.two_thousand();
        let (begun, ended): (Vec<_>, Vec<_>) = connections.iter().partition(|of| of.end.is_none());
        let samples = |of: Vec<&NotedConnection>| {
            let samples = of.iter().filter(|of| of.is_sample);
            let mut ports: Vec<_> = samples.map(|of| of.original.tp_src).collect();
            ports.sort_unstable();
            (of.len(), ports)
        };
        let (begun, ended) = (samples(begun), samples(ended));
        assert_eq!(begun, ended);
        begun
    };
    let (noted, samples) = sample(false);
    assert_eq!(noted, samples.len());
    assert!((150..250).contains(&noted), "{noted} of 2000");
    // The same with who looks on, who hears of all.
    assert_eq!(sample(true), (2_000, samples));
}
