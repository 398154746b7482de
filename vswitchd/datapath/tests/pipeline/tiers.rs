//! Tables of tiers: passed over while they have no policies, asked in their place when they have.

use vswitch_datapath::packet::Frame;
use vswitch_datapath::pipeline::{TableId, Trace, TraceInput, TracePacket, TraceVerdict};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::udp;
use crate::switch::{Pod, TestSwitch};

const INGRESS: Verdict = Verdict::Drop(DropReason::PolicyIngress);
const EGRESS: Verdict = Verdict::Drop(DropReason::PolicyEgress);

fn pods() -> (TestSwitch, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    (switch, a, b)
}

fn send(switch: &mut TestSwitch, from: Pod, dst: Pod, ports: (u16, u16)) -> Verdict {
    switch.send(from.port, &udp(from.host, dst.host, ports, b"x"))
}

fn trace(switch: &TestSwitch, from: Pod, to: Pod) -> Trace {
    let frame = Frame::from_bytes(&udp(from.host, to.host, (5000, 80), b"x"));
    let input = TraceInput {
        in_port: from.port,
        packet: TracePacket::Frame(frame),
    };
    switch.dp.trace(&input, switch.now)
}

/// A rule that denies what it matches.
fn deny(table: TableId, matches: &'static str) -> (TableId, u16, &'static str, &'static str) {
    let action = if table < TableId::Forward {
        "drop(policy_egress)"
    } else {
        "drop(policy_ingress)"
    };
    (table, 100, matches, action)
}

fn tables(trace: &Trace) -> Vec<u8> {
    trace.steps.iter().map(|step| step.table.number()).collect()
}

#[test]
fn a_table_of_a_tier_is_walked_only_while_it_has_a_policy_s_rule() {
    let (mut switch, a, b) = pods();
    let without = [0, 10, 20, 30, 40, 50, 60, 61, 70, 80, 81, 90];
    assert_eq!(tables(&trace(&switch, a, b)), without);
    let cases = [
        (TableId::EgressAdminTier, "goto_table:56"),
        (TableId::EgressAdminTier2, "goto_table:57"),
        (TableId::EgressAdminTier3, "goto_table:58"),
        (TableId::EgressAdminTier4, "goto_table:60"),
        (TableId::EgressBaselineTier, "goto_table:66"),
        (TableId::EgressBaselineTier2, "goto_table:70"),
        (TableId::IngressAdminTier, "goto_table:76"),
        (TableId::IngressAdminTier2, "goto_table:77"),
        (TableId::IngressAdminTier3, "goto_table:78"),
        (TableId::IngressAdminTier4, "goto_table:80"),
        (TableId::IngressBaselineTier, "goto_table:86"),
        (TableId::IngressBaselineTier2, "goto_table:90"),
    ];
    for (table, pass) in cases {
        let rules = switch.rules(&[(table, 100, "tcp", pass)]);
        let walked = tables(&trace(&switch, a, b));
        let mut with = without.to_vec();
        with.push(table.number());
        with.sort_unstable();
        assert_eq!(walked, with, "{table}");
        switch.remove_rules(rules);
        assert_eq!(tables(&trace(&switch, a, b)), without, "{table}");
    }
}

#[test]
fn tier_admin_decides_before_networkpolicies_and_baseline_after_them() {
    let (mut switch, a, b) = pods();
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[b]);
    switch.set("web/from", &[a]);
    switch.rules(&[deny(TableId::IngressBaselineTier, "ip_dst=10.0.0.2")]);
    assert_eq!(
        send(&mut switch, a, b, (5000, 80)),
        Verdict::Forward(b.port)
    );
    assert_eq!(send(&mut switch, a, b, (5000, 81)), INGRESS, "isolated");
    let denied = deny(TableId::IngressAdminTier, "udp,tp_dst=80");
    let accepted = (
        TableId::IngressAdminTier,
        100,
        "udp,tp_dst=81",
        "goto_table:90",
    );
    switch.rules(&[denied, accepted]);
    assert_eq!(send(&mut switch, a, b, (5001, 80)), INGRESS);
    assert_eq!(
        send(&mut switch, a, b, (5001, 81)),
        Verdict::Forward(b.port)
    );
    assert_eq!(
        send(&mut switch, b, a, (5002, 82)),
        Verdict::Forward(a.port)
    );
    let egress = deny(TableId::EgressBaselineTier, "ip_src=10.0.0.2");
    switch.rules(&[egress]);
    assert_eq!(send(&mut switch, b, a, (5003, 82)), EGRESS);
}

#[test]
fn a_reply_is_not_judged_by_a_tier_but_its_connection_is() {
    let (mut switch, a, b) = pods();
    let tiers = [
        TableId::IngressAdminTier,
        TableId::IngressAdminTier2,
        TableId::IngressAdminTier3,
        TableId::IngressAdminTier4,
        TableId::IngressBaselineTier,
        TableId::IngressBaselineTier2,
    ];
    for table in tiers {
        switch.rules(&[deny(table, "ip_dst=10.0.0.1")]);
    }
    for _ in 0..3 {
        assert_eq!(
            send(&mut switch, a, b, (5000, 80)),
            Verdict::Forward(b.port)
        );
        assert_eq!(
            send(&mut switch, b, a, (80, 5000)),
            Verdict::Forward(a.port)
        );
    }
    assert_eq!(send(&mut switch, b, a, (80, 5001)), INGRESS, "no reply");
    let to_b = deny(TableId::EgressAdminTier, "ip_dst=10.0.0.2");
    switch.rules(&[to_b]);
    assert_eq!(
        send(&mut switch, b, a, (80, 5000)),
        EGRESS,
        "judged anew, from either side"
    );
    assert_eq!(send(&mut switch, a, b, (5000, 80)), EGRESS);
}

#[test]
fn the_rule_of_a_tier_that_decides_is_named_alone() {
    let (mut switch, a, b) = pods();
    let drop = "drop(policy_ingress)";
    switch.named_rules(&[
        (TableId::IngressAdminTier, 101, "udp", drop, "first"),
        (TableId::IngressAdminTier, 100, "ip", drop, "second"),
    ]);
    let denied = trace(&switch, a, b);
    assert_eq!(
        denied.verdict,
        TraceVerdict::Drop(DropReason::PolicyIngress)
    );
    let names: Vec<&str> = denied
        .deciding
        .iter()
        .map(|rule| rule.origin.name.as_str())
        .collect();
    assert_eq!(names, ["first"]);
}
