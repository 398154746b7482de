//! Nanoseconds of what packets go through, step by step and as a whole.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up has failed"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use vswitch_api::PortNo;
use vswitch_bench::frames::Segment;
use vswitch_bench::ruleset::Ruleset;
use vswitch_bench::scenarios::{
    Conversation, PACKETS, Run, SCENARIOS, data_segment, first_segment,
};
use vswitch_datapath::ConnectionEnd;
use vswitch_datapath::conntrack::{CommitOptions, ConnTable, ConntrackConfig};
use vswitch_datapath::packet::checksum::checksum;
use vswitch_datapath::packet::{Frame, ParsedPacket, VnetHeader, offload, parse};
use vswitch_datapath::{Outputs, Timestamp};

/// Returns the time of so many packets, without their renewal.
fn time(run: &mut Run, packets: u64) -> Duration {
    let (mut took, mut left) = (Duration::ZERO, packets);
    while left > 0 {
        let now = left.min(PACKETS as u64);
        run.renew();
        let start = Instant::now();
        (0..now).for_each(|_| run.packet());
        took += start.elapsed();
        left -= now;
    }
    took
}

/// The scenarios whose instructions are counted as well.
fn scenarios(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet");
    for scenario in SCENARIOS {
        let mut run = (scenario.prepare)().unwrap();
        group.bench_function(scenario.name, |b| {
            b.iter_custom(|packets| time(&mut run, packets))
        });
    }
    group.finish();
}

/// Hits on so many flows in turn: what caches of the processor cost.
fn many_flows(c: &mut Criterion) {
    let mut group = c.benchmark_group("hit_of_flows");
    for flows in [1u16, 64, 1_024, 16_384] {
        let ruleset = Ruleset::install(1_000, 131_072).unwrap();
        let (mut engine, mut out) = (ruleset.datapath.engine(), Outputs::default());
        let mut open = |n: u16| {
            let client = (usize::from(n % 64), 1_024 + n / 64);
            Conversation::open(&mut engine, &mut out, client, false).unwrap()
        };
        let mut conversations: Vec<_> = (0..flows).map(&mut open).collect();
        let mut at = 0;
        group.bench_function(BenchmarkId::from_parameter(flows), |b| {
            b.iter(|| {
                at = (at + 1) % conversations.len();
                conversations[at].go_on(&mut engine, &mut out)
            });
        });
    }
    group.finish();
}

const OPTIONS: CommitOptions = CommitOptions {
    midstream_pickup: false,
    swapped: false,
    in_port: PortNo(2),
    out_port: PortNo(1),
};

/// The first packet of connection `number`.
fn syn(template: &ParsedPacket, number: u32) -> ParsedPacket {
    let mut packet = *template;
    packet.key.ip_src = Some(std::net::Ipv4Addr::from_bits(0x0b00_0000 + number).into());
    packet
}

fn table_of(template: &ParsedPacket, connections: u32) -> ConnTable {
    let table = ConnTable::new(ConntrackConfig {
        max_entries: 2 << 20,
        ..ConntrackConfig::default()
    });
    for number in 0..connections {
        let packet = syn(template, number);
        table
            .commit(&packet, &packet.key, Timestamp::default(), OPTIONS)
            .unwrap();
    }
    table
}

fn connection_table(c: &mut Criterion) {
    let mut group = c.benchmark_group("conntrack");
    let (port, frame) = first_segment(0, 5_000);
    let template = parse(&frame, port).unwrap();
    for connections in [1_000u32, 100_000, 1_000_000] {
        let table = table_of(&template, connections);
        let mut number = 0u32;
        // Steps that are no neighbours, as packets are not.
        let mut next = move || {
            number = (number + 7_919) % connections;
            number
        };
        group.bench_function(BenchmarkId::new("lookup", connections), |b| {
            b.iter(|| {
                let packet = syn(&template, next());
                black_box(table.lookup(&packet, &frame, Timestamp::default()))
            });
        });
        let mut fresh = connections;
        group.bench_function(BenchmarkId::new("insert_and_remove", connections), |b| {
            b.iter(|| {
                fresh = fresh.wrapping_add(1).max(connections);
                let packet = syn(&template, fresh % 0x00ff_ffff + connections);
                let conn = table.commit(&packet, &packet.key, Timestamp::default(), OPTIONS);
                let conn: Arc<_> = conn.unwrap();
                table.remove(&conn, ConnectionEnd::Timeout)
            });
        });
        expire(&mut group, &table, connections);
    }
    group.finish();
}

/// One call that finds nothing past its time: it looks at a sixteenth of the most that the table
/// takes, or all there is.
fn expire(group: &mut BenchmarkGroup<'_, WallTime>, table: &ConnTable, connections: u32) {
    group.bench_function(BenchmarkId::new("expire", connections), |b| {
        b.iter(|| table.expire(Timestamp::default()));
    });
}

fn bytes(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [20usize, 1_500, 65_535] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter(|| checksum(black_box(&bytes)));
        });
    }
    group.finish();
}

/// A super-frame of 44 segments, cut for a port that cannot take it whole.
fn segmentation(c: &mut Criterion) {
    const PAYLOAD: u16 = 44 * 1_448;
    let mut group = c.benchmark_group("gso");
    let segment = Segment {
        payload: PAYLOAD,
        ..data_segment(0, 5_000)
    };
    let mut frame: Frame = segment.frame();
    frame.vnet = VnetHeader {
        flags: VnetHeader::F_NEEDS_CSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        hdr_len: 66,
        gso_size: 1_448,
        csum_start: 34,
        csum_offset: 16,
    };
    let mut scratch = Vec::new();
    group.throughput(Throughput::Bytes(PAYLOAD.into()));
    group.bench_function("segment_64k", |b| {
        b.iter(|| {
            let count = offload::segment(black_box(&frame), &mut scratch, |segment| {
                black_box(segment);
            });
            assert_eq!(count.unwrap(), 44);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = scenarios, many_flows, connection_table, bytes, segmentation
}
criterion_main!(benches);
