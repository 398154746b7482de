//! Ends of connections as the table notes them.

use super::table::{host, open_from, small, syn_from};
use super::*;
use crate::conntrack::{ConnectionEnd, RecordConnections};

const ALL: RecordConnections = RecordConnections {
    one_in: 1,
    all: false,
};

fn ends(lab: &Lab) -> (Vec<(End, ConnectionEnd)>, u64) {
    let mut ends = Vec::new();
    let lost = lab.table.fetch_ended(|ended| {
        let client = ended.conn.original();
        let std::net::IpAddr::V4(ip) = client.src else {
            panic!("{client:?}");
        };
        ends.push(((ip.octets(), client.tp_src), ended.end));
    });
    (ends, lost)
}

#[test]
fn what_makes_room_in_a_full_table_is_evicted() {
    let mut lab = small(100);
    lab.table.record(ALL);
    for n in 0..101 {
        lab.wait(Duration::from_millis(1));
        lab.accept(&syn_from(n));
    }
    let (ends, lost) = ends(&lab);
    let [(client, end)] = ends[..] else {
        panic!("{ends:?}");
    };
    assert!((0..100).any(|n| host(n) == client), "{client:?}");
    assert_eq!((end, lost), (ConnectionEnd::Evicted, 0));
}

#[test]
fn what_waits_too_long_in_a_crowded_table_is_evicted() {
    let mut lab = small(1_000);
    lab.table.record(ALL);
    for n in 0..300 {
        lab.accept(&syn_from(n));
    }
    lab.wait_secs(3);
    assert_eq!(lab.table.expire(lab.now), 300 - 64);
    let (ends, lost) = ends(&lab);
    assert_eq!((ends.len(), lost), (300 - 64, 0));
    assert!(ends.iter().all(|(_, end)| *end == ConnectionEnd::Evicted));
}

#[test]
fn beyond_its_room_the_table_counts_what_it_loses_and_goes_on_once_it_is_fetched() {
    let mut lab = small(100);
    lab.table.record(ALL);
    let more = 500;
    let mut flood = |connections: usize| {
        for n in 0..connections {
            lab.wait(Duration::from_millis(1));
            let from = u16::try_from(n % 60_000).unwrap();
            lab.accept(&syn_from(from));
        }
        ends(&lab)
    };
    let (noted, lost) = flood(100 + 65_536 + more);
    assert_eq!(noted.len(), 65_536);
    assert_eq!(lost, u64::try_from(more).unwrap());
    let (noted, lost) = flood(more);
    assert_eq!((noted.len(), lost), (more, 0));
}

#[test]
fn a_table_that_gives_memory_back_keeps_what_it_noted() {
    let mut lab = small(100_000);
    lab.table.record(ALL);
    for n in 0..20_000 {
        lab.accept(&syn_from(n));
    }
    let slots = lab.table.slots();
    lab.wait_secs(300);
    while lab.table.expire(lab.now) > 0 {}
    assert!(lab.table.slots() < slots);
    assert_eq!(ends(&lab).0.len(), 20_000);
}

#[test]
fn room_is_held_only_while_ends_are_noted() {
    let lab = small(100);
    let rooms = |lab: &Lab| -> usize {
        let mut rooms = 0;
        for shard in &lab.table.shards {
            rooms += super::super::table::lock(&shard.connections).ended().room();
        }
        rooms
    };
    assert_eq!(rooms(&lab), 0);
    lab.table.record(ALL);
    assert!(rooms(&lab) > 0);
    let conn = open_from(&lab, 1);
    lab.table.record(RecordConnections::default());
    lab.table.remove(&conn, ConnectionEnd::Cut);
    assert_eq!(ends(&lab), (Vec::new(), 0));
    assert_eq!(rooms(&lab), 0);
}

#[test]
fn a_connection_that_is_taken_back_has_not_ended() {
    let lab = small(100);
    lab.table.record(ALL);
    let conn = open_from(&lab, 1);
    lab.table.undo(&conn);
    assert!(conn.is_dead());
    assert_eq!(ends(&lab), (Vec::new(), 0));
}
