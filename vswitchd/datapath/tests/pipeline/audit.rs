//! Policies in audit deny nothing, and what they would deny is noted by connection.

use vswitch_datapath::pipeline::{AuditUpdate, RuleId, SetUpdate, TableId, Transaction};
use vswitch_datapath::{Denial, DenialVerdict, DropReason, Verdict};

use crate::packets::{ping, udp};
use crate::switch::{Pod, TestSwitch, rule};

fn pods() -> (TestSwitch, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    (switch, a, b)
}

/// Audits rules: table, priority, match, actions, name.
fn audit(switch: &TestSwitch, lines: &[(TableId, u16, &str, &str, &str)]) {
    let add_rules = (1_u64..)
        .zip(lines)
        .map(|(id, (table, priority, m, a, name))| rule(id, *table, *priority, m, a, name))
        .collect();
    update(
        switch,
        AuditUpdate::Change {
            remove_rules: Vec::new(),
            add_rules,
            sets: Vec::new(),
        },
    );
}

fn update(switch: &TestSwitch, audit: AuditUpdate) {
    switch.dp.apply(Transaction {
        audit,
        ..Transaction::default()
    });
}

fn send(switch: &mut TestSwitch, from: Pod, to: Pod, ports: (u16, u16)) {
    let verdict = switch.send(from.port, &udp(from.host, to.host, ports, b"x"));
    assert_eq!(verdict, Verdict::Forward(to.port));
}

/// Returns what policies in audit would have denied.
fn would_deny(switch: &TestSwitch) -> Vec<Denial> {
    let mut denials = switch.dp.fetch_denials().denials;
    denials.retain(|of| of.verdict == DenialVerdict::WouldDeny);
    denials
}

/// Returns what was noted: connections, destination port, names of the rules' origins.
fn noted(switch: &TestSwitch) -> Vec<(u64, u16, Vec<String>)> {
    let names = |of: &Denial| -> Vec<String> {
        let origins = of.rules.iter().map(|rule| rule.origin.name.clone());
        origins.collect()
    };
    let noted = would_deny(switch);
    let mut noted: Vec<_> = noted
        .iter()
        .map(|one| (one.connections, one.of.unwrap().number, names(one)))
        .collect();
    noted.sort();
    noted
}

const ISOLATE_B: (TableId, u16, &str, &str, &str) = (
    TableId::IngressDefault,
    100,
    "ip_dst=10.0.0.2",
    "drop(policy_ingress)",
    "isolate",
);
const ALLOW_80: (TableId, u16, &str, &str, &str) = (
    TableId::IngressRule,
    100,
    "udp,ip_dst=10.0.0.2,tp_dst=80",
    "goto_table:90",
    "isolate",
);

fn one(connections: u64, port: u16) -> (u64, u16, Vec<String>) {
    (connections, port, vec!["isolate".to_owned()])
}

#[test]
fn what_would_be_denied_passes_and_is_noted_once_for_each_connection() {
    let (mut switch, a, b) = pods();
    audit(&switch, &[ISOLATE_B, ALLOW_80]);
    for _ in 0..3 {
        send(&mut switch, a, b, (5000, 81));
        send(&mut switch, a, b, (5001, 81));
        send(&mut switch, b, a, (81, 5000));
        send(&mut switch, a, b, (5000, 80));
        send(&mut switch, b, a, (5002, 82));
    }
    let noted_now = would_deny(&switch);
    let [of_81] = &noted_now[..] else {
        panic!("{noted_now:?}");
    };
    assert_eq!(of_81.connections, 2);
    let of = of_81.of.unwrap();
    assert_eq!(of_81.reason, DropReason::PolicyIngress);
    assert_eq!((of.ports, of.proto, of.number), ((a.port, b.port), 17, 81));
    assert_eq!(of.ends, (a.host.ip, b.host.ip));
    assert_eq!(of_81.rules.len(), 1);
    assert_eq!(of_81.rules[0].origin.name, "isolate");
    assert!(noted(&switch).is_empty(), "fetched once");
    assert!(switch.drops().values().all(|drops| *drops == 0));
}

#[test]
fn connections_from_before_are_judged_too_whichever_side_sends_next() {
    let (mut switch, a, b) = pods();
    send(&mut switch, a, b, (5000, 81));
    send(&mut switch, a, b, (5001, 81));
    send(&mut switch, b, a, (81, 5001));
    audit(&switch, &[ISOLATE_B]);
    send(&mut switch, a, b, (5000, 81));
    send(&mut switch, b, a, (81, 5001));
    assert_eq!(noted(&switch), [one(2, 81)]);
    send(&mut switch, b, a, (81, 5000));
    send(&mut switch, a, b, (5001, 81));
    assert!(noted(&switch).is_empty());
}

#[test]
fn other_changes_do_not_count_a_connection_again() {
    let (mut switch, a, b) = pods();
    audit(&switch, &[ISOLATE_B]);
    send(&mut switch, a, b, (5000, 81));
    switch.rules(&[(TableId::Admin, 1, "tcp", "drop")]);
    send(&mut switch, a, b, (5000, 81));
    assert_eq!(noted(&switch), [one(1, 81)]);
    audit(&switch, &[ISOLATE_B, ALLOW_80]);
    switch.tick(std::time::Duration::from_secs(5));
    send(&mut switch, a, b, (5000, 81));
    let again = would_deny(&switch);
    assert_eq!(again.len(), 1, "it would still be denied");
    assert_eq!((again[0].connections, again[0].last), (0, switch.now));
}

#[test]
fn what_is_denied_is_no_matter_of_audit_and_neither_is_anything_when_it_is_off() {
    let (mut switch, a, b) = pods();
    audit(&switch, &[ISOLATE_B]);
    let enforced = switch.rules(&[(
        TableId::IngressDefault,
        100,
        "ip_dst=10.0.0.2",
        "drop(policy_ingress)",
    )]);
    let datagram = udp(a.host, b.host, (5000, 81), b"x");
    assert_eq!(
        switch.send(a.port, &datagram),
        Verdict::Drop(DropReason::PolicyIngress)
    );
    assert!(noted(&switch).is_empty());
    switch.remove_rules(enforced);
    update(&switch, AuditUpdate::Off);
    send(&mut switch, a, b, (5000, 81));
    assert!(noted(&switch).is_empty());
    for _ in 0..2 {
        audit(&switch, &[ISOLATE_B]);
        send(&mut switch, a, b, (5000, 81));
        assert_eq!(noted(&switch), [one(1, 81)], "from nothing again");
        update(&switch, AuditUpdate::Off);
    }
}

#[test]
fn rules_and_sets_change_one_by_one_and_all_that_isolate_are_named() {
    let (mut switch, a, b) = pods();
    let by_set = |name| {
        (
            TableId::IngressDefault,
            100,
            "ip_dst=@web",
            "drop(policy_ingress)",
            name,
        )
    };
    audit(&switch, &[by_set("first"), by_set("second")]);
    send(&mut switch, a, b, (5000, 81));
    assert!(noted(&switch).is_empty(), "the set is empty");
    let members = |switch: &TestSwitch, update_of: SetUpdate, remove_rules| {
        let sets = vec![(vswitch_datapath::flow::SetName("web".into()), update_of)];
        update(
            switch,
            AuditUpdate::Change {
                remove_rules,
                add_rules: Vec::new(),
                sets,
            },
        );
    };
    let b_alone = || vec![b.host.ip.into()];
    members(&switch, SetUpdate::Add(b_alone()), Vec::new());
    send(&mut switch, a, b, (5000, 81));
    let both = vec!["first".to_owned(), "second".to_owned()];
    assert_eq!(noted(&switch), [(1, 81, both)]);
    members(&switch, SetUpdate::Add(Vec::new()), vec![RuleId(1)]);
    send(&mut switch, a, b, (5001, 81));
    assert_eq!(noted(&switch), [(1, 81, vec!["second".to_owned()])]);
    members(&switch, SetUpdate::Remove(b_alone()), Vec::new());
    send(&mut switch, a, b, (5002, 81));
    assert!(noted(&switch).is_empty());
}

#[test]
fn more_kinds_than_there_is_room_for_are_counted_by_their_rule() {
    let (mut switch, a, b) = pods();
    audit(&switch, &[ISOLATE_B]);
    for port in 1..=20_000 {
        send(&mut switch, a, b, (5000, port));
    }
    let noted = would_deny(&switch);
    assert_eq!(noted.len(), 16_385);
    let connections: u64 = noted.iter().map(|one| one.connections).sum();
    assert_eq!(connections, 20_000);
    let rest: Vec<_> = noted.iter().filter(|one| one.of.is_none()).collect();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].connections, 20_000 - 16_384);
    assert_eq!(rest[0].rules[0].origin.name, "isolate");
}

#[test]
fn echo_requests_are_told_apart_by_their_type() {
    let (mut switch, a, b) = pods();
    audit(&switch, &[ISOLATE_B]);
    for id in [7, 8] {
        let verdict = switch.send(a.port, &ping(a.host, b.host, id));
        assert_eq!(verdict, Verdict::Forward(b.port));
    }
    let noted = would_deny(&switch);
    let of: Vec<_> = noted
        .iter()
        .map(|one| {
            (
                one.of.unwrap().proto,
                one.of.unwrap().number,
                one.connections,
            )
        })
        .collect();
    assert_eq!(of, [(1, 8, 2)]);
}
