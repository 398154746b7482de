//! Workers on their threads while rules change.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use vswitch_datapath::packet::Frame;
use vswitch_datapath::{DropReason, Outputs, Verdict};

use crate::packets::udp;
use crate::switch::TestSwitch;

#[test]
fn a_published_change_holds_for_the_next_packet_of_every_engine_while_others_work() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[b]);
    let bytes = udp(a.host, b.host, (5000, 80), b"x");
    let (datapath, now, is_over) = (switch.dp.clone(), switch.now, AtomicBool::new(false));
    let (allowed, denied) = (
        Verdict::Forward(b.port),
        Verdict::Drop(DropReason::PolicyIngress),
    );
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut engine = datapath.engine();
            let (bytes, is_over) = (&bytes, &is_over);
            scope.spawn(move || {
                let mut out = Outputs::default();
                while !is_over.load(Relaxed) {
                    let mut frame = Frame::from_bytes(bytes);
                    let verdict = engine.process(a.port, &mut frame, now, &mut out);
                    // Another worker may remove the connection between lookup and track.
                    let raced = Verdict::Drop(DropReason::CtInvalid);
                    assert!([allowed, denied, raced].contains(&verdict), "{verdict:?}");
                }
            });
        }
        for round in 0..300 {
            let (members, expected) = if round % 2 == 0 {
                (&[a][..], allowed)
            } else {
                (&[][..], denied)
            };
            switch.set("web/from", members);
            // The loser of a race with the removal of the old connection tries again.
            let verdict = (0..10)
                .map(|_| switch.send(a.port, &bytes))
                .find(|verdict| *verdict != Verdict::Drop(DropReason::CtInvalid));
            assert_eq!(verdict, Some(expected), "round {round}");
        }
        is_over.store(true, Relaxed);
    });
}
