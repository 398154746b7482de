//! Traces: the same walk, explained, without consequences.

use vswitch_api::PortNo;
use vswitch_datapath::flow::{CtState, FlowKey};
use vswitch_datapath::packet::Frame;
use vswitch_datapath::pipeline::{TableId, Trace, TraceInput, TracePacket, TraceVerdict};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::{Host, arp, udp};
use crate::switch::{GATEWAY, GATEWAY_MAC, Pod, TestSwitch};

fn trace(switch: &TestSwitch, port: PortNo, bytes: &[u8]) -> Trace {
    let packet = TracePacket::Frame(Frame::from_bytes(bytes));
    switch.dp.trace(
        &TraceInput {
            in_port: port,
            packet,
        },
        switch.now,
    )
}

fn origins(trace: &Trace) -> Vec<&str> {
    trace
        .deciding
        .iter()
        .map(|rule| rule.origin.name.as_str())
        .collect()
}

fn tables(trace: &Trace) -> Vec<u8> {
    trace.steps.iter().map(|step| step.table.number()).collect()
}

fn two_pods() -> (TestSwitch, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    (switch, a, b)
}

#[test]
fn a_trace_changes_nothing() {
    let (mut switch, a, b) = two_pods();
    switch.ingress_policy("web", 80);
    let before = (switch.dp.rules(), switch.dp.epoch());
    let result = trace(&switch, a.port, &udp(a.host, b.host, (5000, 80), b""));
    assert_eq!(result.verdict, TraceVerdict::Forward(b.port));
    assert_eq!(
        tables(&result),
        [0, 10, 20, 30, 40, 50, 60, 61, 70, 80, 81, 90]
    );
    assert_eq!((switch.dp.rules(), switch.dp.epoch()), before);
    assert_eq!(switch.dp.connections(switch.now), []);
    assert_eq!(switch.drops(), [].into());
}

#[test]
fn a_denied_packet_names_every_policy_that_isolates_the_pod() {
    let (mut switch, a, b) = two_pods();
    for policy in ["first", "second", "elsewhere"] {
        switch.ingress_policy(policy, 80);
    }
    switch.set("first/pods", &[b]);
    switch.set("second/pods", &[b]);
    switch.set("elsewhere/pods", &[a]);
    let result = trace(&switch, a.port, &udp(a.host, b.host, (5000, 80), b""));
    assert_eq!(
        result.verdict,
        TraceVerdict::Drop(DropReason::PolicyIngress)
    );
    assert_eq!(origins(&result), ["first", "second"]);
}

#[test]
fn an_allowed_packet_names_the_policy_that_allowed_it() {
    let (mut switch, a, b) = two_pods();
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[b]);
    switch.set("web/from", &[a]);
    let result = trace(&switch, a.port, &udp(a.host, b.host, (5000, 80), b""));
    assert!(origins(&result).contains(&"web"), "{:?}", origins(&result));
    let at = result
        .steps
        .iter()
        .find(|step| step.table == TableId::IngressRule)
        .unwrap();
    assert_eq!(at.ct_state, CtState::TRK | CtState::NEW);
}

#[test]
fn a_reply_shows_how_its_connection_is_judged() {
    let (mut switch, a, b) = two_pods();
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[b]);
    switch.set("web/from", &[a]);
    switch.send(a.port, &udp(a.host, b.host, (5000, 80), b""));
    let reply = udp(b.host, a.host, (80, 5000), b"");
    let result = trace(&switch, b.port, &reply);
    assert_eq!(tables(&result), [0, 10, 20, 30, 40, 70, 80, 90]);
    switch.set("web/from", &[]);
    let result = trace(&switch, b.port, &reply);
    assert_eq!(
        result.verdict,
        TraceVerdict::Drop(DropReason::PolicyIngress)
    );
    assert_eq!(origins(&result), ["web"]);
    assert!(result.steps.iter().any(|step| step.judges_connection));
    assert_eq!(
        switch.dp.connections(switch.now).len(),
        1,
        "only a packet removes it"
    );
}

#[test]
fn a_described_packet_is_the_first_of_its_flow() {
    let (mut switch, a, b) = two_pods();
    for proto in [6, 17, 132] {
        let key = FlowKey {
            eth_src: a.host.mac,
            eth_type: 0x0800,
            ip_proto: proto,
            ip_src: Some(a.host.ip),
            ip_dst: Some(b.host.ip),
            tp_src: 5000,
            tp_dst: 80,
            ..FlowKey::default()
        };
        let input = TraceInput {
            in_port: a.port,
            packet: TracePacket::Key(key),
        };
        let result = switch.dp.trace(&input, switch.now);
        assert_eq!(
            result.verdict,
            TraceVerdict::Forward(b.port),
            "protocol {proto}"
        );
    }
    assert_eq!(
        switch.send(b.port, &[]),
        Verdict::Drop(DropReason::Truncated)
    );
}

#[test]
fn answers_and_what_cannot_be_parsed_are_explained_too() {
    let (switch, a, _) = two_pods();
    let request = arp(a.host, 1, std::net::Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(
        trace(&switch, a.port, &request).verdict,
        TraceVerdict::Answered(GATEWAY_MAC)
    );
    let broken = trace(&switch, a.port, &[0; 3]);
    assert_eq!(broken.verdict, TraceVerdict::Drop(DropReason::Truncated));
    assert_eq!((broken.key, broken.steps), (None, vec![]));
    let far = Host::v4(9, [192, 0, 2, 1]);
    let out = trace(&switch, a.port, &udp(a.host, far, (1, 2), b""));
    assert_eq!(out.verdict, TraceVerdict::Forward(GATEWAY));
}
