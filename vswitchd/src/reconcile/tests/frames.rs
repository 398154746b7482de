//! Datagrams through the reconciler's rules in a real datapath, with its connections.

use std::net::Ipv4Addr;

use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{Datapath, DatapathConfig, DropReason, Engine, Outputs, Timestamp, Verdict};

use super::{GATEWAY_MAC, attachment, config, deny_all, key, mac, pod};
use crate::reconcile::{PortAttachMode, ReconcileHandle, Reconciler};
use crate::state::{ClusterChange, PolicyRecord};
use crate::supervise::Supervisor;

/// A UDP datagram as it stands on the wire, UDP checksum left out (RFC 768 allows it).
fn datagram(src_mac: MacAddr, from: (&str, u16), to: (&str, u16)) -> Frame {
    let [src, dst] = [from.0, to.0].map(|ip| ip.parse::<Ipv4Addr>().unwrap().octets());
    let mut ip = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip.extend(src.into_iter().chain(dst));
    let words = ip
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut bytes = [GATEWAY_MAC.0, src_mac.0].concat();
    bytes.extend([0x08, 0x00]);
    bytes.extend(ip);
    for word in [from.1, to.1, 8, 0] {
        bytes.extend(word.to_be_bytes());
    }
    Frame::from_bytes(&bytes)
}

struct RunningReconciler {
    handle: ReconcileHandle,
    engine: Engine,
    runtime: tokio::runtime::Runtime,
}

const A: &str = "10.0.0.10";
const B: &str = "10.0.0.11";

impl RunningReconciler {
    /// The pods a (port 10) and b (port 11), known and attached.
    fn start() -> Self {
        let datapath = Datapath::new(DatapathConfig::default());
        let (handle, _thread) =
            Reconciler::start(datapath.clone(), config(), &Supervisor::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for (port, name, ip) in [(10, "a", A), (11, "b", B)] {
            handle.cluster(vec![pod(name, &[])]);
            let addresses = format!("{ip}/24");
            handle.attach(
                attachment(port, name, &[&addresses]),
                PortAttachMode::default(),
            );
        }
        handle.cluster_synced();
        let switch = Self {
            handle,
            engine: datapath.engine(),
            runtime,
        };
        switch.wait_until_in_force();
        switch
    }

    fn wait_until_in_force(&self) {
        self.runtime
            .block_on(self.handle.wait_until_in_force())
            .unwrap();
    }

    fn apply(&self, changes: Vec<ClusterChange>) {
        self.handle.cluster(changes);
        self.wait_until_in_force();
    }

    fn send(&mut self, port: u32, from: (&str, u16), to: (&str, u16)) -> Verdict {
        let mut frame = datagram(mac(port), from, to);
        let (now, mut out) = (Timestamp::from_nanos(1), Outputs::default());
        self.engine.process(PortNo(port), &mut frame, now, &mut out)
    }

    fn ask(&mut self) -> Verdict {
        self.send(10, (A, 4000), (B, 53))
    }

    fn answer(&mut self) -> Verdict {
        self.send(11, (B, 53), (A, 4000))
    }
}

impl Drop for RunningReconciler {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

const TO_A: Verdict = Verdict::Forward(PortNo(10));
const TO_B: Verdict = Verdict::Forward(PortNo(11));

/// Isolates both pods; a may ask b at UDP 53, which needs a rule at either end.
fn only_questions() -> ClusterChange {
    let rule = serde_json::json!([{ "ports": [{ "protocol": "UDP", "port": 53 }] }]);
    let spec = serde_json::json!({
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": rule, "egress": rule
    });
    let spec = serde_json::from_value(spec).unwrap();
    ClusterChange::Policy(PolicyRecord {
        key: key("questions"),
        spec,
        mode: None,
    })
}

#[test]
fn the_answer_to_an_allowed_question_passes_between_isolated_pods() {
    let mut switch = RunningReconciler::start();
    switch.apply(vec![only_questions()]);
    assert_eq!(
        switch.answer(),
        Verdict::Drop(DropReason::PolicyEgress),
        "nobody asked yet"
    );
    assert_eq!(switch.ask(), TO_B);
    assert_eq!(switch.answer(), TO_A);
}

#[test]
fn a_policy_cuts_an_established_connection_in_both_directions_at_once() {
    for asker_first in [true, false] {
        let mut switch = RunningReconciler::start();
        assert_eq!((switch.ask(), switch.answer()), (TO_B, TO_A));
        switch.apply(vec![deny_all()]);
        let verdicts = if asker_first {
            [switch.ask(), switch.answer()]
        } else {
            [switch.answer(), switch.ask()]
        };
        let cut = Verdict::Drop(DropReason::PolicyEgress);
        assert_eq!(verdicts, [cut, cut], "asker first: {asker_first}");
        switch.apply(vec![ClusterChange::PolicyGone(key("deny"))]);
        assert_eq!(switch.ask(), TO_B, "open at once");
    }
}

#[test]
fn a_reused_address_inherits_no_connection() {
    let mut switch = RunningReconciler::start();
    assert_eq!((switch.ask(), switch.answer()), (TO_B, TO_A));
    switch.handle.detach(PortNo(10));
    let mut isolated = pod("new", &[]);
    if let ClusterChange::Pod(record) = &mut isolated {
        record.labels.insert("app".to_owned(), "new".to_owned());
    }
    let spec = serde_json::json!({ "podSelector": { "matchLabels": { "app": "new" } } });
    let spec = serde_json::from_value(spec).unwrap();
    let policy = ClusterChange::Policy(PolicyRecord {
        key: key("p"),
        spec,
        mode: None,
    });
    let addresses = format!("{A}/24");
    let taken_over = attachment(12, "new", &[&addresses]);
    switch.handle.attach(taken_over, PortAttachMode::default());
    switch.apply(vec![policy, isolated]);
    assert_eq!(switch.answer(), Verdict::Drop(DropReason::PolicyIngress));
}
