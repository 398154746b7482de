//! Beginnings and ends of connections as the table notes them.

use vswitch_api::Epoch;

use super::table::{host, open_from, small, syn_from};
use super::*;
use crate::conntrack::{ConnectionEnd, RecordConnections};

const ALL: RecordConnections = RecordConnections {
    one_in: 1,
    all: false,
    starts: false,
};

/// The same, when they begin as well.
const STARTS: RecordConnections = RecordConnections {
    starts: true,
    ..ALL
};

/// Who began, and how it ended, of all that is noted.
fn noted(lab: &Lab) -> (Vec<(End, Option<ConnectionEnd>)>, u64) {
    let mut all = Vec::new();
    let lost = lab.table.fetch_noted(|noted| {
        let client = noted.conn.original();
        let std::net::IpAddr::V4(ip) = client.src else {
            panic!("{client:?}");
        };
        all.push(((ip.octets(), client.tp_src), noted.end));
    });
    (all, lost)
}

/// The same, if all have ended.
fn ends(lab: &Lab) -> (Vec<(End, ConnectionEnd)>, u64) {
    let (noted, lost) = noted(lab);
    let ends = noted.into_iter();
    (
        ends.map(|(client, end)| (client, end.unwrap())).collect(),
        lost,
    )
}

/// Has a connection begin that rules allow.
fn admit_from(lab: &Lab, n: u16) -> Arc<Connection> {
    let conn = lab.send(&syn_from(n)).unwrap();
    conn.set_judged(Epoch(1));
    conn
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
            rooms += super::super::table::lock(&shard.connections).notes().room();
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

#[test]
fn a_connection_that_begins_is_noted_once_and_again_when_it_ends() {
    let lab = small(100);
    lab.table.record(STARTS);
    let conn = admit_from(&lab, 1);
    // It comes again.
    admit_from(&lab, 1);
    assert_eq!(noted(&lab), (vec![(host(1), None)], 0));
    assert_eq!(noted(&lab), (Vec::new(), 0));
    lab.table.remove(&conn, ConnectionEnd::Cut);
    let cut = (host(1), Some(ConnectionEnd::Cut));
    assert_eq!(noted(&lab), (vec![cut], 0));
}

#[test]
fn what_begins_in_the_place_of_another_is_noted_beside_its_end() {
    let mut lab = small(100);
    lab.table.record(STARTS);
    admit_from(&lab, 1);
    lab.wait_secs(1_000);
    admit_from(&lab, 1);
    let timeout = Some(ConnectionEnd::Timeout);
    let expected = [None, timeout, None].map(|end| (host(1), end));
    assert_eq!(noted(&lab), (expected.to_vec(), 0));
}

#[test]
fn a_connection_has_begun_once_it_is_judged_and_not_if_it_is_taken_back() {
    let lab = small(100);
    lab.table.record(STARTS);
    let conn = lab.send(&syn_from(1)).unwrap();
    let taken_back = lab.send(&syn_from(2)).unwrap();
    assert_eq!(noted(&lab), (Vec::new(), 0));
    lab.table.undo(&taken_back);
    conn.set_judged(Epoch(1));
    assert_eq!(noted(&lab), (vec![(host(1), None)], 0));
    assert_eq!(noted(&lab), (Vec::new(), 0));
}

#[test]
fn beginnings_are_not_noted_unless_they_are_wanted() {
    let lab = small(100);
    let alone = RecordConnections {
        one_in: 0,
        ..STARTS
    };
    for unwanted in [RecordConnections::default(), ALL, alone] {
        lab.table.record(unwanted);
        let conn = admit_from(&lab, 1);
        assert_eq!(noted(&lab), (Vec::new(), 0), "{unwanted:?}");
        lab.table.undo(&conn);
    }
}

#[test]
fn beginnings_beyond_the_room_are_lost_as_ends_are() {
    let mut lab = small(100);
    lab.table.record(STARTS);
    // Each begins, and makes room for one after it.
    let connections: u16 = 40_000;
    for n in 0..connections {
        lab.wait(Duration::from_millis(1));
        admit_from(&lab, n);
    }
    let (all, lost) = noted(&lab);
    let happened = 2 * u64::from(connections) - 100;
    assert_eq!((all.len(), lost), (65_536, happened - 65_536));
    let begun = all.iter().filter(|(_, end)| end.is_none()).count();
    assert!((30_000..40_000).contains(&begun), "{begun}");
}

#[test]
fn samples_are_chosen_when_connections_begin() {
    let mut lab = small(10_000);
    let one_in_ten = RecordConnections {
        one_in: 10,
        ..STARTS
    };
    let clients = |noted: Vec<(End, Option<ConnectionEnd>)>| -> Vec<End> {
        let mut clients: Vec<_> = noted.into_iter().map(|(client, _)| client).collect();
        clients.sort_unstable();
        clients
    };
    lab.table.record(one_in_ten);
    for n in 0..2_000 {
        admit_from(&lab, n);
    }
    let begun = clients(noted(&lab).0);
    assert!((150..250).contains(&begun.len()), "{}", begun.len());
    lab.wait_secs(1_000);
    while lab.table.expire(lab.now) > 0 {}
    assert_eq!(clients(noted(&lab).0), begun);
}
