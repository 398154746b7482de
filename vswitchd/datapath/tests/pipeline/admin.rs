//! Flows that operators put into table 30.

use std::time::Duration;

use vswitch_api::PortNo;
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::pipeline::{RuleId, TableId, Transaction};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::{ethernet, udp};
use crate::switch::{GATEWAY_MAC, Pod, TestSwitch, rule};

const MONITOR: PortNo = PortNo(50);

fn two_pods() -> (TestSwitch, Pod, Pod) {
    let mut switch = TestSwitch::new();
    switch.add_port(MONITOR, PortClass::Unknown, GATEWAY_MAC, 1_500);
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    (switch, a, b)
}

fn query(from: Pod, to: Pod) -> Vec<u8> {
    udp(from.host, to.host, (5000, 53), b"x")
}

#[test]
fn an_admin_drop_cuts_an_established_connection_and_spares_it() {
    let (mut switch, a, b) = two_pods();
    switch.send(a.port, &query(a, b));
    let ids = switch.rules(&[(TableId::Admin, 5, "udp,tp_dst=53", "drop")]);
    assert_eq!(
        switch.send(a.port, &query(a, b)),
        Verdict::Drop(DropReason::AdminDrop)
    );
    assert_eq!(switch.dp.connections(switch.now).len(), 1);
    switch.remove_rules(ids);
    assert_eq!(switch.send(a.port, &query(a, b)), Verdict::Forward(b.port));
}

#[test]
fn a_mirror_gets_the_frame_as_it_came_even_if_it_is_dropped_behind() {
    let (mut switch, a, b) = two_pods();
    switch.rules(&[(TableId::Admin, 5, "in_port=1", "mirror:50,goto_table:40")]);
    let bytes = query(a, b);
    for _ in 0..3 {
        assert_eq!(switch.send(a.port, &bytes), Verdict::Forward(b.port));
        let [(port, copy)] = &switch.out.copies[..] else {
            panic!("one copy")
        };
        assert_eq!((*port, copy.bytes()), (MONITOR, &bytes[..]));
    }
    switch.rules(&[(TableId::IngressDefault, 5, "", "drop(policy_ingress)")]);
    assert_eq!(
        switch.send(a.port, &bytes),
        Verdict::Drop(DropReason::PolicyIngress)
    );
    assert_eq!(switch.out.copies.len(), 1);
}

#[test]
fn a_redirect_goes_past_policies_and_conntrack() {
    let (mut switch, a, b) = two_pods();
    switch.rules(&[(TableId::Admin, 5, "in_port=1", "redirect:50")]);
    for _ in 0..3 {
        assert_eq!(switch.send(a.port, &query(a, b)), Verdict::Forward(MONITOR));
    }
    let lldp = ethernet(a.host.mac, GATEWAY_MAC, 0x88cc, &[0; 46]);
    switch.rules(&[(TableId::SpoofGuard, 5, "dl_type=0x88cc", "goto_table:20")]);
    assert_eq!(switch.send(a.port, &lldp), Verdict::Forward(MONITOR));
    assert_eq!(switch.dp.connections(switch.now), []);
}

#[test]
fn a_rate_limit_holds_on_the_cached_path_too() {
    let (mut switch, a, b) = two_pods();
    let ids = switch.rules(&[(
        TableId::Admin,
        5,
        "udp",
        "rate_limit(pps=10,burst=3),goto_table:40",
    )]);
    let passed = |switch: &mut TestSwitch| {
        (0..10)
            .filter(|_| switch.send(a.port, &query(a, b)) == Verdict::Forward(b.port))
            .count()
    };
    assert_eq!(passed(&mut switch), 3);
    assert_eq!(switch.drops(), [(DropReason::RateLimited, 7)].into());
    switch.tick(Duration::from_millis(100));
    assert_eq!(passed(&mut switch), 1);
    assert_eq!(switch.count_of(ids[0]).0, 20, "the limiting rule saw all");
    assert_eq!(
        switch.builtin_count(TableId::Output, ""),
        4,
        "the rules behind what passed"
    );
    assert!(switch.dp.cache_stats().hits > 10);
}

#[test]
fn a_replaced_rule_keeps_its_counters() {
    let (mut switch, a, b) = two_pods();
    let id = switch.rules(&[(TableId::Admin, 5, "udp", "goto_table:40")])[0];
    switch.send(a.port, &query(a, b));
    let add_rules = vec![rule(id.0, TableId::Admin, 5, "udp", "drop", "")];
    switch.dp.apply(Transaction {
        add_rules,
        ..Transaction::default()
    });
    switch.send(a.port, &query(a, b));
    assert_eq!(switch.count_of(id).0, 2);
}

#[test]
fn among_rules_of_one_priority_the_lowest_id_wins() {
    let (mut switch, a, b) = two_pods();
    let add_rules = vec![
        rule(901, TableId::Admin, 5, "udp", "drop", ""),
        rule(900, TableId::Admin, 5, "in_port=1", "goto_table:40", ""),
    ];
    switch.dp.apply(Transaction {
        add_rules,
        ..Transaction::default()
    });
    assert_eq!(switch.send(a.port, &query(a, b)), Verdict::Forward(b.port));
    switch.remove_rules(vec![RuleId(900)]);
    assert_eq!(
        switch.send(a.port, &query(a, b)),
        Verdict::Drop(DropReason::AdminDrop)
    );
}
