//! Limits of ports: what a pod may send and receive.

use std::time::Duration;

use vswitch_api::PortNo;
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::pipeline::{Bandwidth, PortUpdate, Transaction};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::udp;
use crate::switch::{Pod, TestSwitch};

/// One megabit per second: 125,000 bytes, and 131,072 at once.
const RATE: Option<u64> = Some(1_000_000);
/// Payload of 958 bytes: a frame of 1,000.
const PAYLOAD: [u8; 958] = [0; 958];

fn limit(switch: &TestSwitch, port: PortNo, bandwidth: Bandwidth) {
    switch.dp.apply(Transaction {
        ports: vec![PortUpdate::Limit(port, bandwidth)],
        ..Transaction::default()
    });
}

/// Sends 300 frames and returns how many passed.
fn passing(switch: &mut TestSwitch, from: Pod, to: Pod) -> usize {
    let frame = udp(from.host, to.host, (5000, 53), &PAYLOAD);
    let sent = (0..300).map(|_| switch.send(from.port, &frame));
    let verdicts: Vec<Verdict> = sent.collect();
    let passed = verdicts.iter().filter(|v| **v == Verdict::Forward(to.port));
    let passed = passed.count();
    let refused = Verdict::Drop(DropReason::BandwidthExceeded);
    let dropped = verdicts.iter().filter(|verdict| **verdict == refused);
    assert_eq!(passed + dropped.count(), 300);
    passed
}

fn drops_at(switch: &TestSwitch, pod: Pod) -> u64 {
    let drops = switch.dp.port_drops(pod.port);
    let of_limits = |(reason, _): &&(DropReason, u64)| *reason == DropReason::BandwidthExceeded;
    drops.iter().find(of_limits).unwrap().1
}

#[test]
fn a_pod_sends_and_receives_no_faster_than_its_limits_and_drops_count_at_the_limited_port() {
    let only = Bandwidth::default();
    let (egress, ingress) = (
        Bandwidth {
            egress_bps: RATE,
            ..only
        },
        Bandwidth {
            ingress_bps: RATE,
            ..only
        },
    );
    for (limited, bandwidth) in [(0, egress), (1, ingress)] {
        let mut switch = TestSwitch::new();
        let pods = [switch.add_pod(1), switch.add_pod(2)];
        let [a, b] = pods;
        limit(&switch, pods[limited].port, bandwidth);
        assert_eq!(passing(&mut switch, a, b), 132);
        switch.tick(Duration::from_secs(1));
        assert_eq!(passing(&mut switch, a, b), 125);
        assert_eq!(drops_at(&switch, pods[limited]), 168 + 175);
        assert_eq!(drops_at(&switch, pods[1 - limited]), 0);
        // The other way is free.
        assert_eq!(passing(&mut switch, b, a), 300);
    }
}

#[test]
fn a_limit_that_is_changed_or_taken_away_counts_at_once_and_one_that_stays_keeps_its_bucket() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let limited = Bandwidth {
        egress_bps: RATE,
        ..Bandwidth::default()
    };
    limit(&switch, a.port, limited);
    assert_eq!(passing(&mut switch, a, b), 132);
    // The other direction gets a limit; the port is told again what it is.
    limit(
        &switch,
        a.port,
        Bandwidth {
            ingress_bps: RATE,
            ..limited
        },
    );
    switch.add_port(a.port, PortClass::Pod, a.host.mac, 1_500);
    assert_eq!(passing(&mut switch, a, b), 0);
    limit(
        &switch,
        a.port,
        Bandwidth {
            egress_bps: Some(2_000_000),
            ..limited
        },
    );
    assert_eq!(passing(&mut switch, a, b), 132);
    limit(&switch, a.port, Bandwidth::default());
    assert_eq!(passing(&mut switch, a, b), 300);
    assert_eq!(switch.dp.port_bandwidth(a.port), Bandwidth::default());
}

#[test]
fn a_limit_goes_with_its_port() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let bandwidth = Bandwidth {
        egress_bps: RATE,
        ..Bandwidth::default()
    };
    limit(&switch, a.port, bandwidth);
    assert_eq!(switch.dp.port_bandwidth(a.port), bandwidth);
    switch.dp.apply(Transaction {
        ports: vec![PortUpdate::Remove(a.port)],
        ..Transaction::default()
    });
    let a = switch.add_pod(1);
    assert_eq!(passing(&mut switch, a, b), 300);
}
