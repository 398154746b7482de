//! What a transaction holds for each kind of change.

use ipnet::IpNet;
use vswitch_api::PortNo;
use vswitch_datapath::flow::SetName;
use vswitch_datapath::pipeline::{Bandwidth, PortUpdate, SetUpdate, TableId, Transaction};

use super::{RecordedModel, attachment, deny_all, pod, two_pods};
use crate::reconcile::PortAttachMode;
use crate::reconcile::model::ModelInput;
use crate::state::ClusterChange;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_first_plan_brings_everything_and_a_second_nothing() {
    let mut switch = RecordedModel::new();
    switch.apply(vec![pod("a", &[])]);
    switch.attach(
        attachment(10, "a", &["10.0.0.10/24"]),
        PortAttachMode::default(),
    );
    let first = switch.flush();
    assert!(!first.add_rules.is_empty() && first.ports.len() == 1);
    assert!(first.forget_addresses.is_empty());
    assert_eq!(switch.flush(), Transaction::default());
}

#[test]
fn a_new_port_comes_with_its_rules() {
    let mut switch = two_pods();
    switch.apply(vec![pod("n", &[])]);
    switch.attach(
        attachment(12, "n", &["10.0.0.12/24"]),
        PortAttachMode { midstream: true },
    );
    let changes = switch.flush();
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
    let mut switch = two_pods();
    switch.take(ModelInput::Detach(PortNo(11)));
    let changes = switch.flush();
    assert_eq!(changes.ports, [PortUpdate::Remove(PortNo(11))]);
    assert!(changes.add_rules.is_empty() && !changes.remove_rules.is_empty());
    let gone = ["10.0.0.11", "fd00::11"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(changes.forget_addresses, gone);
}

#[test]
fn an_address_that_changes_hands_is_forgotten() {
    let mut switch = two_pods();
    switch.attach(
        attachment(12, "n", &["10.0.0.10/24"]),
        PortAttachMode::default(),
    );
    let moved: std::net::IpAddr = "10.0.0.10".parse().unwrap();
    assert_eq!(switch.flush().forget_addresses, [moved]);
}

#[test]
fn a_remote_address_that_another_pod_takes_is_forgotten() {
    let mut switch = two_pods();
    let first = switch.apply(vec![pod("old", &["10.0.1.5"])]).flush();
    assert!(first.forget_addresses.is_empty(), "nobody had it before");
    let gone = ClusterChange::PodGone(super::key("old"));
    let changes = switch.apply(vec![pod("new", &["10.0.1.5"]), gone]).flush();
    let moved: std::net::IpAddr = "10.0.1.5".parse().unwrap();
    assert_eq!(changes.forget_addresses, [moved]);
}

#[test]
fn a_port_number_given_to_another_container_is_removed_first() {
    let mut switch = two_pods();
    switch.attach(
        attachment(11, "n", &["10.0.0.20/24"]),
        PortAttachMode::default(),
    );
    let changes = switch.flush();
    assert_eq!(changes.ports.len(), 2);
    assert_eq!(changes.ports[0], PortUpdate::Remove(PortNo(11)));
    assert!(matches!(&changes.ports[1], PortUpdate::Upsert(spec) if spec.no == PortNo(11)));
}

#[test]
fn the_same_container_again_keeps_its_connections() {
    let mut switch = two_pods();
    let same = ["10.0.0.11/24", "fd00::11/64"];
    switch.attach(attachment(11, "b", &same), PortAttachMode::default());
    assert_eq!(switch.flush(), Transaction::default());
}

#[test]
fn a_pod_that_matches_a_selector_moves_members_and_no_rule() {
    let mut switch = two_pods();
    let spec =
        serde_json::json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] });
    let spec = serde_json::from_value(spec).unwrap();
    let policy = crate::state::PolicyRecord {
        key: super::key("p"),
        spec,
        mode: None,
    };
    switch.apply(vec![ClusterChange::Policy(policy)]).flush();
    switch.apply(vec![pod("remote", &["10.0.1.5"])]);
    let changes = switch.flush();
    assert!(changes.add_rules.is_empty() && changes.remove_rules.is_empty());
    let name = SetName("pods:ns/ns:*".into());
    assert_eq!(
        changes.sets,
        [(name.clone(), SetUpdate::Add(vec![net("10.0.1.5/32")]))]
    );
    let gone = ClusterChange::PodGone(super::key("remote"));
    let back = switch.apply(vec![gone]).flush();
    assert_eq!(
        back.sets,
        [(name, SetUpdate::Remove(vec![net("10.0.1.5/32")]))]
    );
}

#[test]
fn a_deleted_policy_takes_its_rules_and_sets_along() {
    let mut switch = two_pods();
    switch.apply(vec![deny_all()]).flush();
    switch.apply(vec![ClusterChange::PolicyGone(super::key("deny"))]);
    let changes = switch.flush();
    assert_eq!(changes.remove_rules.len(), 2);
    assert_eq!(
        changes.sets,
        [(SetName("ns/deny/selected".into()), SetUpdate::Delete)]
    );
}

#[test]
fn a_new_mtu_changes_the_port_alone() {
    let mut switch = two_pods();
    switch.take(ModelInput::Mtu(PortNo(10), 1300));
    let changes = switch.flush();
    assert!(matches!(changes.ports.as_slice(), [PortUpdate::Upsert(spec)] if spec.mtu == 1300));
    assert_eq!(
        Transaction {
            ports: Vec::new(),
            ..changes
        },
        Transaction::default()
    );
}

#[test]
fn the_bandwidth_of_a_pod_limits_its_port_as_it_changes() {
    let mut switch = two_pods();
    let limited = |ingress_bps| {
        let ClusterChange::Pod(mut record) = pod("a", &[]) else {
            panic!("a pod")
        };
        record.bandwidth.ingress_bps = ingress_bps;
        ClusterChange::Pod(record)
    };
    let limits = |switch: &mut RecordedModel| -> Vec<(PortNo, Bandwidth)> {
        let changes = switch.flush();
        let limits = changes.ports.into_iter().filter_map(|update| match update {
            PortUpdate::Limit(port, bandwidth) => Some((port, bandwidth)),
            PortUpdate::Upsert(_) | PortUpdate::Remove(_) => None,
        });
        limits.collect()
    };
    let of = |ingress_bps| Bandwidth {
        ingress_bps,
        egress_bps: None,
    };
    switch.apply(vec![limited(Some(5_000))]);
    assert_eq!(limits(&mut switch), [(PortNo(10), of(Some(5_000)))]);
    switch.apply(vec![limited(Some(5_000))]);
    assert_eq!(switch.flush(), Transaction::default());
    switch.apply(vec![limited(None)]);
    assert_eq!(limits(&mut switch), [(PortNo(10), of(None))]);
    switch.apply(vec![limited(Some(7_000))]);
    switch.flush();
    switch.apply(vec![ClusterChange::PodGone(super::key("a"))]);
    assert_eq!(limits(&mut switch), [(PortNo(10), of(None))]);
    switch.apply(vec![limited(Some(7_000))]);
    switch.attach(
        attachment(12, "a", &["10.0.0.12/24"]),
        PortAttachMode::default(),
    );
    let both = [10, 12].map(|port| (PortNo(port), of(Some(7_000))));
    assert_eq!(limits(&mut switch), both);
    // Another container of the pod at a number in use is another port.
    let mut other = attachment(12, "a", &["10.0.0.12/24"]);
    other.container_id = "other".to_owned();
    switch.attach(other, PortAttachMode::default());
    assert_eq!(limits(&mut switch), [(PortNo(12), of(Some(7_000)))]);
}
