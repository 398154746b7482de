//! What a transaction holds for each kind of change.

use ipnet::IpNet;
use vswitch_api::PortNo;
use vswitch_datapath::flow::SetName;
use vswitch_datapath::pipeline::{PortUpdate, SetUpdate, TableId, Transaction};

use super::{attachment, deny_all, pod, tell, two_pods};
use crate::reconcile::desired::build;
use crate::reconcile::intent::Intent;
use crate::reconcile::{Desired, PortAttachMode, plan};
use crate::state::ClusterChange;

fn step(before: &Intent, after: &Intent) -> Transaction {
    plan(&build(after).0, &build(before).0)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_first_plan_brings_everything_and_a_second_nothing() {
    let desired = build(&two_pods()).0;
    let first = plan(&desired, &Desired::default());
    assert_eq!(first.add_rules.len(), desired.rules.len());
    assert_eq!(first.sets.len(), desired.sets.len());
    assert_eq!(first.ports.len(), 3);
    assert!(first.forget_addresses.is_empty());
    assert_eq!(plan(&desired, &desired), Transaction::default());
}

#[test]
fn a_new_port_comes_with_its_rules() {
    let before = two_pods();
    let mut after = before.clone();
    tell(&mut after, vec![pod("n", &[])]);
    after.attach(
        attachment(12, "n", &["10.0.0.12/24"]),
        PortAttachMode { midstream: true },
    );
    let changes = step(&before, &after);
    let [PortUpdate::Upsert(spec)] = changes.ports.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(
        (spec.no, spec.name.as_str(), spec.mtu),
        (PortNo(12), "ns/n", 1450)
    );
    assert!(spec.midstream_pickup);
    for table in [
        TableId::Classify,
        TableId::SpoofGuard,
        TableId::ArpResponder,
        TableId::Forward,
    ] {
        assert!(
            changes.add_rules.iter().any(|rule| rule.table == table),
            "{table:?}"
        );
    }
    assert!(changes.remove_rules.is_empty());
}

#[test]
fn a_detached_port_goes_with_its_rules_and_its_addresses_are_forgotten() {
    let before = two_pods();
    let mut after = before.clone();
    after.detach(PortNo(11));
    let changes = step(&before, &after);
    assert_eq!(changes.ports, [PortUpdate::Remove(PortNo(11))]);
    assert!(changes.add_rules.is_empty() && !changes.remove_rules.is_empty());
    let gone = ["10.0.0.11", "fd00::11"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(changes.forget_addresses, gone);
}

#[test]
fn an_address_that_changes_hands_is_forgotten() {
    let before = two_pods();
    let mut after = before.clone();
    after.attach(
        attachment(12, "n", &["10.0.0.10/24"]),
        PortAttachMode::default(),
    );
    let moved: std::net::IpAddr = "10.0.0.10".parse().unwrap();
    assert_eq!(step(&before, &after).forget_addresses, [moved]);
}

#[test]
fn a_remote_address_that_another_pod_takes_is_forgotten() {
    let mut before = two_pods();
    tell(&mut before, vec![pod("old", &["10.0.1.5"])]);
    let mut after = before.clone();
    tell(
        &mut after,
        vec![
            pod("new", &["10.0.1.5"]),
            ClusterChange::PodGone(super::key("old")),
        ],
    );
    let moved: std::net::IpAddr = "10.0.1.5".parse().unwrap();
    assert_eq!(step(&before, &after).forget_addresses, [moved]);
    let mut first = before.clone();
    tell(&mut first, vec![pod("other", &["10.0.1.6"])]);
    assert!(
        step(&before, &first).forget_addresses.is_empty(),
        "nobody had it before"
    );
}

#[test]
fn a_port_number_given_to_another_container_is_removed_first() {
    let before = two_pods();
    let mut after = before.clone();
    after.attach(
        attachment(11, "n", &["10.0.0.20/24"]),
        PortAttachMode::default(),
    );
    let changes = step(&before, &after);
    assert_eq!(changes.ports.len(), 2);
    assert_eq!(changes.ports[0], PortUpdate::Remove(PortNo(11)));
    assert!(matches!(&changes.ports[1], PortUpdate::Upsert(spec) if spec.no == PortNo(11)));
}

#[test]
fn the_same_container_again_keeps_its_connections() {
    let before = two_pods();
    let mut after = before.clone();
    let same = ["10.0.0.11/24", "fd00::11/64"];
    after.attach(attachment(11, "b", &same), PortAttachMode::default());
    assert_eq!(step(&before, &after), Transaction::default());
}

#[test]
fn a_pod_that_matches_a_selector_moves_members_and_no_rule() {
    let mut before = two_pods();
    let spec =
        serde_json::json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] });
    let spec = serde_json::from_value(spec).unwrap();
    let policy = crate::state::PolicyRecord {
        key: super::key("p"),
        spec,
    };
    tell(&mut before, vec![ClusterChange::Policy(policy)]);
    let mut after = before.clone();
    tell(&mut after, vec![pod("remote", &["10.0.1.5"])]);
    let changes = step(&before, &after);
    assert!(changes.add_rules.is_empty() && changes.remove_rules.is_empty());
    let name = SetName("pods:ns/ns:*".into());
    assert_eq!(
        changes.sets,
        [(name.clone(), SetUpdate::Add(vec![net("10.0.1.5/32")]))]
    );
    let back = step(&after, &before);
    assert_eq!(
        back.sets,
        [(name, SetUpdate::Remove(vec![net("10.0.1.5/32")]))]
    );
}

#[test]
fn a_deleted_policy_takes_its_rules_and_sets_along() {
    let after = two_pods();
    let mut before = after.clone();
    tell(&mut before, vec![deny_all()]);
    let changes = step(&before, &after);
    assert_eq!(changes.remove_rules.len(), 2);
    assert_eq!(
        changes.sets,
        [(SetName("ns/deny/selected".into()), SetUpdate::Delete)]
    );
}

#[test]
fn a_new_mtu_changes_the_port_alone() {
    let before = two_pods();
    let mut after = before.clone();
    after.mtus.insert(PortNo(10), 1300);
    let changes = step(&before, &after);
    assert!(matches!(changes.ports.as_slice(), [PortUpdate::Upsert(spec)] if spec.mtu == 1300));
    assert_eq!(
        Transaction {
            ports: Vec::new(),
            ..changes
        },
        Transaction::default()
    );
}
