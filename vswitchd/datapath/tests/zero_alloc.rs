//! A packet that finds its flow in the FlowCache causes no allocation.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

#[expect(
    dead_code,
    reason = "shared with the test of memory, which uses all of it"
)]
mod allocator;
#[path = "pipeline/packets.rs"]
#[expect(
    dead_code,
    reason = "shared with the pipeline tests, which use all of it"
)]
mod packets;
#[path = "pipeline/switch.rs"]
#[expect(
    dead_code,
    reason = "shared with the pipeline tests, which use all of it"
)]
mod switch;

use std::time::Duration;

use allocator::{Counting, allocations};
use packets::{ACK, SYN, Segment, tcp, udp};
use switch::TestSwitch;
use vswitch_datapath::packet::Frame;
use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{DropReason, Outputs, RecordConnections, Verdict};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_counter_sees_allocations() {
    assert!(allocations(|| drop(std::hint::black_box(vec![0u8; 100]))) > 0);
}

#[test]
fn a_cache_hit_allocates_nothing() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[b]);
    switch.set("web/from", &[a]);
    switch.rules(&[(
        TableId::Admin,
        5,
        "udp",
        "rate_limit(pps=1000000,burst=1000),goto_table:40",
    )]);
    let segment = |flags, seq, ack| Segment {
        ports: (5000, 80),
        flags,
        seq,
        ack,
    };
    switch.send(a.port, &tcp(a.host, b.host, segment(SYN, 1, 0)));
    let reply = Segment {
        ports: (80, 5000),
        flags: SYN | ACK,
        seq: 9,
        ack: 2,
    };
    switch.send(b.port, &tcp(b.host, a.host, reply));
    for bytes in [
        udp(a.host, b.host, (5000, 80), b"x"),
        tcp(a.host, b.host, segment(ACK, 2, 10)),
    ] {
        let mut frames = vec![Frame::from_bytes(&bytes); 100];
        switch.send(a.port, &bytes);
        let (before, now) = (switch.dp.cache_stats().hits, switch.now);
        let allocated = allocations(|| {
            for frame in &mut frames {
                let verdict = switch.engine.process(a.port, frame, now, &mut switch.out);
                assert_eq!(verdict, Verdict::Forward(b.port));
            }
        });
        assert_eq!(switch.dp.cache_stats().hits - before, 100);
        assert_eq!(allocated, 0);
    }
}

#[test]
fn the_end_of_a_connection_allocates_nothing_for_what_is_noted_of_it() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let mut end = |one_in: u32, ports: std::ops::Range<u16>| {
        let wanted = RecordConnections {
            one_in,
            ..RecordConnections::default()
        };
        switch.dp.record_connections(wanted);
        for port in ports {
            switch.send(a.port, &udp(a.host, b.host, (port, 80), b"x"));
        }
        switch.tick(Duration::from_secs(60));
        let mut ended = 0;
        let allocated = allocations(|| ended = switch.dp.expire(switch.now));
        let noted = switch.dp.fetch_connections(switch.now);
        assert_eq!(noted.lost, 0);
        (ended, noted.connections.len(), allocated)
    };
    // What the table itself takes at its first time is none of what is noted.
    let (ended, noted, _) = end(0, 5_000..9_000);
    assert_eq!((ended, noted), (4_000, 0));
    assert_eq!(end(1, 5_000..6_000), (1_000, 1_000, 0));
}

#[test]
fn the_beginning_of_a_connection_allocates_nothing_for_what_is_noted_of_it() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    let mut begin = |starts: bool| {
        switch.dp.record_connections(RecordConnections {
            one_in: 1,
            starts,
            ..RecordConnections::default()
        });
        let now = switch.now;
        let frames = (5_000..6_000).map(|port| udp(a.host, b.host, (port, 80), b"x"));
        let mut frames: Vec<Frame> = frames.map(|bytes| Frame::from_bytes(&bytes)).collect();
        let mut out = Outputs::default();
        let allocated = allocations(|| {
            for frame in &mut frames {
                switch.engine.process(a.port, frame, now, &mut out);
            }
        });
        let begun = switch.dp.fetch_connections(now);
        assert_eq!(begun.lost, 0);
        switch.dp.flush_connections(|_| true);
        // What ended, and the room for it.
        drop(switch.dp.fetch_connections(now));
        (begun.connections.len(), allocated)
    };
    // What tables take at their first time is none of what is noted.
    begin(false);
    let (none, without) = begin(false);
    let (all, with) = begin(true);
    assert_eq!((none, all), (0, 1_000));
    assert_eq!(with, without);
}

#[test]
fn a_denied_packet_allocates_nothing_for_what_is_noted_of_it() {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[b]);
    let now = switch.now;
    // Each port is another kind.
    let frames = |ports: std::ops::Range<u16>| -> Vec<Frame> {
        let bytes = ports.map(|port| udp(a.host, b.host, (5000, port), b"x"));
        bytes.map(|bytes| Frame::from_bytes(&bytes)).collect()
    };
    // What a walk takes at its first time is none of a denial's.
    for frames in [&mut frames(1..2), &mut frames(2..1_002)] {
        let is_first = frames.len() == 1;
        let allocated = allocations(|| {
            for frame in frames {
                let verdict = switch.engine.process(a.port, frame, now, &mut switch.out);
                assert_eq!(verdict, Verdict::Drop(DropReason::PolicyIngress));
            }
        });
        assert!(is_first || allocated == 0, "{allocated}");
    }
    assert_eq!(switch.dp.fetch_denials().denials.len(), 1_001);
}
