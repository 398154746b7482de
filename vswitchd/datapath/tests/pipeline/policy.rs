//! The story of policies: allow, deny, relabel, and what becomes of connections.

use std::time::Duration;

use vswitch_api::PortNo;
use vswitch_datapath::pipeline::{PortUpdate, TableId, Transaction};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::{ACK, Host, SYN, Segment, tcp, udp};
use crate::switch::{GATEWAY, GATEWAY_MAC, Pod, TestSwitch};

const EGRESS: Verdict = Verdict::Drop(DropReason::PolicyEgress);
const INGRESS: Verdict = Verdict::Drop(DropReason::PolicyIngress);

fn to(pod: Pod) -> Verdict {
    Verdict::Forward(pod.port)
}

fn send(switch: &mut TestSwitch, from: Pod, dst: Pod, ports: (u16, u16)) -> Verdict {
    switch.send(from.port, &udp(from.host, dst.host, ports, b"x"))
}

/// A client and a server, which only members of `web/from` may reach, on port 80.
fn isolated_server() -> (TestSwitch, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (client, server) = (switch.add_pod(1), switch.add_pod(2));
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[server]);
    (switch, client, server)
}

#[test]
fn without_policies_everybody_reaches_everybody() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    assert_eq!(send(&mut switch, a, b, (5000, 80)), to(b));
    assert_eq!(&switch.frame.bytes()[..6], b.host.mac.0);
    assert_eq!(send(&mut switch, b, a, (80, 5000)), to(a));
    assert_eq!(switch.dp.connections(switch.now).len(), 1);
}

#[test]
fn a_change_of_labels_changes_who_may_come_in() {
    let (mut switch, client, server) = isolated_server();
    assert_eq!(send(&mut switch, client, server, (5000, 80)), INGRESS);
    switch.set("web/from", &[client]);
    assert_eq!(send(&mut switch, client, server, (5000, 80)), to(server));
    assert_eq!(send(&mut switch, client, server, (5000, 81)), INGRESS);
    switch.set("web/from", &[]);
    assert_eq!(send(&mut switch, client, server, (5001, 80)), INGRESS);
    assert_eq!(switch.drops(), [(DropReason::PolicyIngress, 3)].into());
}

#[test]
fn egress_is_judged_before_ingress() {
    let (mut switch, client, server) = isolated_server();
    switch.egress_policy("locked");
    switch.set("locked/pods", &[client]);
    assert_eq!(send(&mut switch, client, server, (5000, 80)), EGRESS);
    switch.set("locked/to", &[server]);
    assert_eq!(send(&mut switch, client, server, (5000, 80)), INGRESS);
}

#[test]
fn rules_count_connections_when_they_begin_and_attempts_that_they_deny() {
    let mut switch = TestSwitch::new();
    let (client, server) = (switch.add_pod(1), switch.add_pod(2));
    let [allow, _, deny] = switch.ingress_policy("web", 80)[..] else {
        panic!("udp, tcp and isolation");
    };
    switch.set("web/pods", &[server]);
    let egress = switch.egress_policy("locked");
    switch.set("locked/pods", &[client]);
    switch.set("locked/to", &[server]);
    for _ in 0..2 {
        assert_eq!(send(&mut switch, client, server, (5000, 80)), INGRESS);
    }
    let counted = |switch: &TestSwitch| {
        [egress[0], egress[1], allow, deny].map(|rule| switch.connections_of(rule))
    };
    assert_eq!(counted(&switch), [0, 0, 0, 2], "none began");
    switch.set("web/from", &[client]);
    for port in [5000, 5001] {
        for _ in 0..3 {
            assert_eq!(send(&mut switch, client, server, (port, 80)), to(server));
            assert_eq!(send(&mut switch, server, client, (80, port)), to(client));
        }
    }
    assert_eq!(counted(&switch), [2, 0, 2, 2]);
    switch.set("locked/to", &[]);
    assert_eq!(send(&mut switch, client, server, (5000, 80)), EGRESS);
    assert_eq!(counted(&switch), [2, 0, 2, 2], "it had begun and was cut");
    assert_eq!(send(&mut switch, client, server, (5002, 80)), EGRESS);
    assert_eq!(counted(&switch), [2, 1, 2, 2]);
}

#[test]
fn policies_add_up() {
    let (mut switch, client, server) = isolated_server();
    switch.ingress_policy("other", 80);
    switch.set("other/pods", &[server]);
    switch.set("other/from", &[client]);
    assert_eq!(send(&mut switch, client, server, (5000, 80)), to(server));
}

#[test]
fn a_reply_is_allowed_although_its_receiver_is_isolated() {
    let mut switch = TestSwitch::new();
    let (client, server) = (switch.add_pod(1), switch.add_pod(2));
    switch.ingress_policy("closed", 1);
    switch.set("closed/pods", &[client]);
    assert_eq!(send(&mut switch, client, server, (5000, 80)), to(server));
    assert_eq!(send(&mut switch, server, client, (80, 5000)), to(client));
    assert_eq!(send(&mut switch, server, client, (80, 5001)), INGRESS);
}

#[test]
fn a_relabelled_client_loses_its_established_connection_at_once() {
    let (mut switch, client, server) = isolated_server();
    switch.set("web/from", &[client]);
    // Until both directions come from the cache.
    for _ in 0..3 {
        assert_eq!(send(&mut switch, client, server, (5000, 80)), to(server));
        assert_eq!(send(&mut switch, server, client, (80, 5000)), to(client));
    }
    switch.set("web/from", &[]);
    assert_eq!(send(&mut switch, client, server, (5000, 80)), INGRESS);
    assert_eq!(switch.dp.connections(switch.now), []);
}

#[test]
fn replies_of_a_connection_that_is_no_longer_allowed_are_cut_too() {
    let (mut switch, client, server) = isolated_server();
    switch.set("web/from", &[client]);
    for _ in 0..3 {
        send(&mut switch, client, server, (5000, 80));
        send(&mut switch, server, client, (80, 5000));
    }
    switch.set("web/from", &[]);
    assert_eq!(send(&mut switch, server, client, (80, 5000)), INGRESS);
    assert_eq!(switch.dp.connections(switch.now), []);
    // The server is free to open a connection of its own with the same ports.
    assert_eq!(send(&mut switch, server, client, (80, 5000)), to(client));
}

#[test]
fn a_connection_that_stays_allowed_keeps_its_state_through_changes() {
    let (mut switch, client, server) = isolated_server();
    switch.set("web/from", &[client]);
    send(&mut switch, client, server, (5000, 80));
    send(&mut switch, server, client, (80, 5000));
    switch.tick(Duration::from_secs(5));
    let epoch = switch.dp.epoch();
    switch.ingress_policy("unrelated", 99);
    assert!(switch.dp.epoch() > epoch);
    assert_eq!(send(&mut switch, server, client, (80, 5000)), to(client));
    let connections = switch.dp.connections(switch.now);
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].age, Duration::from_secs(5));
    assert_eq!(connections[0].judged, switch.dp.epoch());
}

#[test]
fn a_deleted_set_matches_nobody() {
    use vswitch_datapath::flow::SetName;
    use vswitch_datapath::pipeline::SetUpdate;
    let (mut switch, client, server) = isolated_server();
    let sets = vec![(SetName("web/pods".into()), SetUpdate::Delete)];
    switch.dp.apply(Transaction {
        sets,
        ..Transaction::default()
    });
    assert_eq!(send(&mut switch, client, server, (5000, 80)), to(server));
}

#[test]
fn a_removed_port_takes_its_connections_with_it() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    send(&mut switch, a, b, (5000, 80));
    let ports = vec![PortUpdate::Remove(b.port)];
    switch.dp.apply(Transaction {
        ports,
        ..Transaction::default()
    });
    assert_eq!(switch.dp.connections(switch.now), []);
    assert_eq!(
        send(&mut switch, a, b, (5000, 80)),
        Verdict::Drop(DropReason::PortDown)
    );
}

#[test]
fn an_address_that_changed_hands_takes_no_connection_along() {
    let mut switch = TestSwitch::new();
    let (a, b, c) = (switch.add_pod(1), switch.add_pod(2), switch.add_pod(3));
    send(&mut switch, a, b, (5000, 80));
    send(&mut switch, a, c, (5000, 80));
    let forget_addresses = vec![b.host.ip];
    switch.dp.apply(Transaction {
        forget_addresses,
        ..Transaction::default()
    });
    let connections = switch.dp.connections(switch.now);
    assert_eq!(
        connections
            .iter()
            .map(|c| c.original.dst)
            .collect::<Vec<_>>(),
        [c.host.ip]
    );
}

#[test]
fn the_rules_on_a_packets_way_count_it() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let ids = switch.ingress_policy("web", 80);
    switch.set("web/pods", &[b]);
    switch.set("web/from", &[a]);
    let bytes = udp(a.host, b.host, (5000, 80), b"hello").len() as u64;
    for _ in 0..4 {
        switch.send(a.port, &udp(a.host, b.host, (5000, 80), b"hello"));
    }
    assert_eq!(switch.count_of(ids[0]), (4, 4 * bytes));
    assert_eq!(switch.count_of(ids[1]), (0, 0));
    assert_eq!(switch.builtin_count(TableId::Output, ""), 4);
    assert_eq!(switch.dp.cache_stats().hits, 3);
}

/// A segment in the middle of the stream between 1,000 on port 80 and 2,000 on port 5000.
fn middle(from: Pod, to: Pod, ports: (u16, u16)) -> Vec<u8> {
    let (seq, ack) = if ports.0 == 80 {
        (1_000, 2_000)
    } else {
        (2_000, 1_000)
    };
    let segment = Segment {
        ports,
        flags: ACK,
        seq,
        ack,
    };
    tcp(from.host, to.host, segment)
}

fn set_midstream_pickup(switch: &mut TestSwitch, port: PortNo, midstream_pickup: bool) {
    let spec = switch
        .dp
        .ports()
        .into_iter()
        .find(|spec| spec.no == port)
        .unwrap();
    let spec = vswitch_datapath::pipeline::PortSpec {
        midstream_pickup,
        ..spec
    };
    let ports = vec![PortUpdate::Upsert(spec)];
    switch.dp.apply(Transaction {
        ports,
        ..Transaction::default()
    });
}

#[test]
fn the_middle_of_an_unknown_stream_is_invalid() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let verdict = switch.send(a.port, &middle(a, b, (5000, 80)));
    assert_eq!(verdict, Verdict::Drop(DropReason::CtInvalid));
}

#[test]
fn streams_of_ports_attached_again_are_picked_up_in_the_allowed_direction() {
    let (mut switch, client, server) = isolated_server();
    switch.set("web/from", &[client]);
    // The client's own isolation forbids the server's packets but as replies.
    switch.ingress_policy("closed", 1);
    switch.set("closed/pods", &[client]);
    set_midstream_pickup(&mut switch, client.port, true);
    assert_eq!(
        switch.send(server.port, &middle(server, client, (80, 5000))),
        to(client)
    );
    let connections = switch.dp.connections(switch.now);
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].original.src, client.host.ip);
    assert_eq!(
        (connections[0].in_port, connections[0].out_port),
        (client.port, server.port)
    );
    assert_eq!(
        switch.send(client.port, &middle(client, server, (5000, 80))),
        to(server)
    );
}

#[test]
fn pickup_gives_nobody_a_connection_that_policies_deny() {
    let (mut switch, client, server) = isolated_server();
    switch.egress_policy("locked");
    switch.set("locked/pods", &[server]);
    set_midstream_pickup(&mut switch, client.port, true);
    assert_eq!(
        switch.send(client.port, &middle(client, server, (5000, 80))),
        INGRESS
    );
    assert_eq!(
        switch.send(server.port, &middle(server, client, (80, 5000))),
        EGRESS
    );
    assert_eq!(switch.dp.connections(switch.now), []);
}

#[test]
fn a_connection_that_is_cut_is_not_picked_up_as_a_reply() {
    let (mut switch, client, server) = isolated_server();
    switch.set("web/from", &[client]);
    set_midstream_pickup(&mut switch, client.port, true);
    let segment = middle(client, server, (5000, 80));
    assert_eq!(switch.send(client.port, &segment), to(server));
    switch.set("web/from", &[]);
    for _ in 0..3 {
        assert_eq!(switch.send(client.port, &segment), INGRESS);
    }
}

#[test]
fn where_both_directions_are_allowed_the_lower_port_is_the_servers() {
    for (ports, original_is_sender) in [((5000, 80), true), ((80, 5000), false)] {
        let mut switch = TestSwitch::new();
        let (a, b) = (switch.add_pod(1), switch.add_pod(2));
        set_midstream_pickup(&mut switch, a.port, true);
        assert_eq!(switch.send(a.port, &middle(a, b, ports)), to(b));
        let original = switch.dp.connections(switch.now)[0].original;
        assert_eq!(original.src == a.host.ip, original_is_sender);
    }
}

#[test]
fn a_tcp_connection_lives_from_handshake_to_cut() {
    let (mut switch, client, server) = isolated_server();
    switch.set("web/from", &[client]);
    let segment = |switch: &mut TestSwitch, from: Pod, dst: Pod, ports, flags, seq, ack| {
        switch.send(
            from.port,
            &tcp(
                from.host,
                dst.host,
                Segment {
                    ports,
                    flags,
                    seq,
                    ack,
                },
            ),
        )
    };
    let (there, back) = ((5000, 80), (80, 5000));
    assert_eq!(
        segment(&mut switch, client, server, there, SYN, 10, 0),
        to(server)
    );
    assert_eq!(
        segment(&mut switch, server, client, back, SYN | ACK, 50, 11),
        to(client)
    );
    assert_eq!(
        segment(&mut switch, client, server, there, ACK, 11, 51),
        to(server)
    );
    assert_eq!(switch.dp.connections(switch.now)[0].state, "ESTABLISHED");
    switch.set("web/from", &[]);
    assert_eq!(
        segment(&mut switch, server, client, back, ACK, 51, 11),
        INGRESS
    );
    assert_eq!(
        segment(&mut switch, client, server, there, ACK, 11, 51),
        Verdict::Drop(DropReason::CtInvalid),
        "its connection is gone"
    );
}

#[test]
fn the_nodes_probes_of_an_isolated_pod_stay_allowed_when_rules_change() {
    let (mut switch, _, server) = isolated_server();
    let node = Host {
        mac: GATEWAY_MAC,
        ip: [10, 0, 0, 254].into(),
    };
    let node = Pod {
        port: GATEWAY,
        host: node,
    };
    let probe = "class=gateway,ip_src=@node";
    switch.rules(&[(TableId::IngressRule, 200, probe, "goto_table:90")]);
    switch.set("node", &[node]);
    assert_eq!(send(&mut switch, node, server, (5000, 80)), to(server));
    switch.ingress_policy("unrelated", 99);
    assert_eq!(send(&mut switch, server, node, (80, 5000)), to(node));
    switch.set("node", &[]);
    assert_eq!(send(&mut switch, server, node, (80, 5000)), INGRESS);
}

#[test]
fn a_pod_that_is_not_known_yet_gets_nothing_and_keeps_its_connections() {
    let mut switch = TestSwitch::new();
    let (client, server) = (switch.add_pod(1), switch.add_pod(2));
    assert_eq!(send(&mut switch, client, server, (5000, 80)), to(server));
    let unknown = "drop(pod_unknown)";
    let isolation = [(TableId::IngressDefault, 250, "out_port=2", unknown)];
    let ids = switch.rules(&isolation);
    let verdict = Verdict::Drop(DropReason::PodUnknown);
    assert_eq!(send(&mut switch, client, server, (5000, 80)), verdict);
    assert_eq!(send(&mut switch, server, client, (80, 5000)), verdict);
    switch.remove_rules(ids);
    assert_eq!(send(&mut switch, server, client, (80, 5000)), to(client));
    assert_eq!(switch.dp.connections(switch.now).len(), 1);
}
