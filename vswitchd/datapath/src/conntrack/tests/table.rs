//! The table itself: limit, early drop, expiry, flushing, many threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use vswitch_api::Epoch;

use super::*;
use crate::conntrack::{ConnectionEnd, Direction};

pub(super) fn small(max_entries: usize) -> Lab {
    Lab::with(ConntrackConfig {
        max_entries,
        ..ConntrackConfig::default()
    })
}

pub(super) fn host(n: u16) -> End {
    let [high, low] = n.to_be_bytes();
    ([10, 1, high, low], 1000)
}

pub(super) fn syn_from(n: u16) -> Frame {
    Tcp::new(host(n), SERVER, SYN).seq(1000).build()
}

/// Opens a connection from host `n` completely.
pub(super) fn open_from(lab: &Lab, n: u16) -> Arc<Connection> {
    open_by(lab, host(n))
}

#[test]
fn a_connection_takes_at_most_256_bytes() {
    let size = size_of::<Connection>();
    assert!(size <= 256, "{size}");
}

#[test]
fn a_syn_flood_displaces_only_what_is_not_assured() {
    let mut lab = small(100);
    let assured: Vec<_> = (0..30).map(|n| open_from(&lab, n)).collect();
    for n in 1000..3000 {
        lab.wait(Duration::from_millis(1));
        lab.accept(&syn_from(n));
    }
    assert!(assured.iter().all(|conn| !conn.is_dead()));
    let stats = lab.table.stats();
    assert_eq!(
        (stats.entries, stats.early_dropped, stats.full_drops),
        (100, 1930, 0)
    );
}

#[test]
fn a_large_table_under_a_flood_keeps_what_is_assured_too() {
    let lab = small(4096);
    let assured: Vec<_> = (0..500).map(|n| open_from(&lab, n)).collect();
    let refused = (1000..9000)
        .filter(|&n| lab.send(&syn_from(n)).is_err())
        .count();
    assert!(assured.iter().all(|conn| !conn.is_dead()));
    assert_eq!(lab.table.stats().entries, 4096);
    assert_eq!(refused, 0);
}

#[test]
fn a_full_table_makes_room_from_connections_that_their_ends_have_ended() {
    let lab = small(40);
    let open: Vec<_> = (0..20).map(|n| open_from(&lab, n)).collect();
    let ended: Vec<_> = (20..40).map(|n| open_and_close(&lab, host(n))).collect();
    let fresh: Vec<_> = (100..110)
        .map(|n| lab.send(&syn_from(n)).unwrap())
        .collect();
    assert!(open.iter().chain(&fresh).all(|conn| !conn.is_dead()));
    assert_eq!(ended.iter().filter(|conn| conn.is_dead()).count(), 10);
    assert_eq!(lab.table.stats().early_dropped, 10);
}

#[test]
fn short_connections_go_on_for_ever_in_a_small_table() {
    let mut lab = small(1_000);
    for n in 0..20_000 {
        lab.wait(Duration::from_micros(100));
        open_and_close(&lab, host(n));
    }
    let stats = lab.table.stats();
    assert_eq!((stats.entries, stats.full_drops), (1_000, 0));
}

#[test]
fn a_table_full_of_assured_connections_refuses_new_ones() {
    let lab = small(20);
    for n in 0..20 {
        open_from(&lab, n);
    }
    assert_eq!(
        lab.send(&syn_from(99)).unwrap_err(),
        DropReason::CtTableFull
    );
    assert_eq!(lab.table.stats().full_drops, 1);
    assert_eq!(lab.table.stats().entries, 20);
}

#[test]
fn a_full_table_makes_room_from_expired_connections() {
    let mut lab = small(20);
    for n in 0..20 {
        open_from(&lab, n);
    }
    lab.wait_secs(432_001);
    lab.accept(&syn_from(99));
    assert_eq!(lab.table.stats().entries, 20);
}

#[test]
fn an_expired_connection_is_not_found_and_is_removed_on_the_way() {
    let mut lab = Lab::new();
    let conn = lab.send(&udp(CLIENT, SERVER)).unwrap();
    lab.wait_secs(30);
    assert_eq!(lab.state(&udp(CLIENT, SERVER)), CtState::TRK | CtState::NEW);
    assert!(conn.is_dead());
    let stats = lab.table.stats();
    assert_eq!((stats.entries, stats.expired), (0, 1));
}

#[test]
fn a_cached_connection_that_is_past_its_time_tracks_nothing() {
    let mut lab = Lab::new();
    let frame = udp(CLIENT, SERVER);
    let conn = lab.send(&frame).unwrap();
    lab.wait_secs(30);
    assert!(!conn.is_dead() && conn.is_expired(lab.now));
    let tracked = conn.track(
        &parsed(&frame),
        Direction::Original,
        lab.now,
        lab.table.config(),
    );
    assert_eq!(tracked, Err(DropReason::CtInvalid));
}

#[test]
fn expire_removes_what_is_past_its_time_and_nothing_else() {
    let mut lab = Lab::new();
    let old = lab.send(&udp(CLIENT, SERVER)).unwrap();
    lab.wait_secs(20);
    let young = lab.send(&udp(CLIENT, (SERVER.0, 81))).unwrap();
    lab.wait_secs(10);
    assert_eq!(lab.table.expire(lab.now), 1);
    assert!(old.is_dead() && !young.is_dead());
}

#[test]
fn expire_reaches_every_connection_of_a_large_table_in_some_calls() {
    let mut lab = small(262_144);
    for n in 0..40_000 {
        lab.accept(&syn_from(n));
    }
    lab.wait_secs(121);
    let calls: Vec<_> = (0..4).map(|_| lab.table.expire(lab.now)).collect();
    assert!(
        calls.first().is_some_and(|&first| first < 20_000),
        "{calls:?}"
    );
    assert_eq!(calls.iter().sum::<usize>(), 40_000);
    assert_eq!(lab.table.stats().entries, 0);
}

#[test]
fn flush_removes_what_it_is_asked_to() {
    let lab = Lab::new();
    let gone = lab.send(&udp(CLIENT, SERVER)).unwrap();
    let kept = lab.send(&udp(ROUTER, SERVER)).unwrap();
    let client = std::net::IpAddr::from(CLIENT.0);
    assert_eq!(
        lab.table
            .flush(|conn| (conn.original().src == client).then_some(ConnectionEnd::Cut)),
        1
    );
    assert!(gone.is_dead() && !kept.is_dead());
}

#[test]
fn a_removed_connection_is_dead_and_is_removed_once() {
    let lab = Lab::new();
    let conn = lab.send(&udp(CLIENT, SERVER)).unwrap();
    assert!(lab.table.remove(&conn, ConnectionEnd::Cut));
    assert!(!lab.table.remove(&conn, ConnectionEnd::Cut));
    assert!(conn.is_dead());
    assert_eq!(lab.table.stats().entries, 0);
}

#[test]
fn removing_a_connection_leaves_its_successor_alone() {
    let lab = Lab::new();
    let old = lab.send(&udp(CLIENT, SERVER)).unwrap();
    lab.table.remove(&old, ConnectionEnd::Cut);
    let new = lab.send(&udp(CLIENT, SERVER)).unwrap();
    assert!(!lab.table.remove(&old, ConnectionEnd::Cut));
    assert!(!new.is_dead());
}

#[test]
fn committing_a_known_connection_returns_it() {
    let lab = Lab::new();
    let there = lab.send(&udp(CLIENT, SERVER)).unwrap();
    let pkt = parsed(&udp(SERVER, CLIENT));
    let again = lab
        .table
        .commit(&pkt, &pkt.key, lab.now, lab.options())
        .unwrap();
    assert!(Arc::ptr_eq(&there, &again));
    assert_eq!(there.traffic(Direction::Reply).0, 1);
}

#[test]
fn the_snapshot_says_everything_about_a_connection() {
    let mut lab = Lab::new();
    lab.send(&udp(CLIENT, SERVER)).unwrap().set_judged(Epoch(7));
    lab.wait_secs(4);
    let info = lab.only_connection();
    assert_eq!(info.original.tp_dst, 80);
    assert_eq!(info.reply, info.original.reversed());
    assert_eq!((info.in_port, info.out_port), (CLIENT_PORT, SERVER_PORT));
    assert_eq!((info.judged, info.zone), (Epoch(7), 0));
    assert_eq!((info.remaining.as_secs(), info.idle.as_secs()), (26, 4));
    assert_eq!((info.packets_original, info.bytes_original), (1, 38));
    assert_eq!((info.packets_reply, info.bytes_reply), (0, 0));
}

#[test]
fn an_older_judgement_does_not_replace_a_newer_one() {
    let lab = Lab::new();
    let conn = lab.send(&udp(CLIENT, SERVER)).unwrap();
    conn.set_judged(Epoch(9));
    conn.set_judged(Epoch(8));
    assert_eq!(conn.judged(), Epoch(9));
}

#[derive(Debug, Clone)]
enum Step {
    Syn(u16),
    Datagram(u16, bool),
    Wait(u64),
    Expire,
    Flush(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..200u16).prop_map(Step::Syn),
        6 => (0..200u16, any::<bool>()).prop_map(|(n, is_reply)| Step::Datagram(n, is_reply)),
        2 => (0..40u64).prop_map(Step::Wait),
        1 => Just(Step::Expire),
        1 => (0..200u16).prop_map(Step::Flush),
    ]
}

fn run(lab: &mut Lab, step: &Step) {
    // Whether a step does anything depends on what came before; only the table counts.
    let _ = match *step {
        Step::Syn(n) => lab.send(&syn_from(n)).is_ok(),
        Step::Datagram(n, false) => lab.send(&udp(host(n), SERVER)).is_ok(),
        Step::Datagram(n, true) => lab.send(&udp(SERVER, host(n))).is_ok(),
        Step::Wait(secs) => {
            lab.wait_secs(secs);
            true
        }
        Step::Expire => lab.table.expire(lab.now) > 0,
        Step::Flush(n) => {
            let address = std::net::IpAddr::from(host(n).0);
            lab.table
                .flush(|conn| (conn.original().src == address).then_some(ConnectionEnd::Cut))
                > 0
        }
    };
}

proptest! {
    #[test]
    fn the_table_is_never_over_its_limit_and_counts_right(
        max_entries in 1..40usize,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut lab = small(max_entries);
        for step in &steps {
            run(&mut lab, step);
            let mut in_table = 0;
            lab.table.for_each(|conn| in_table += usize::from(!conn.is_dead()));
            prop_assert_eq!(in_table, lab.table.stats().entries);
            prop_assert!(in_table <= max_entries);
        }
        lab.table.flush(|_| Some(ConnectionEnd::Cut));
        prop_assert_eq!(lab.table.stats().entries, 0);
    }
}

#[test]
fn many_threads_share_one_table() {
    let lab = small(600);
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u16 {
            let (lab, made) = (&lab, &made);
            scope.spawn(move || {
                for round in 0..3000u16 {
                    // All threads fight for the same thousand tuples.
                    let n = round.wrapping_mul(7).wrapping_add(thread) % 1000;
                    let (there, back) = (udp(host(n), SERVER), udp(SERVER, host(n)));
                    if let Ok(conn) = lab.send(if round % 3 == 0 { &back } else { &there }) {
                        made.fetch_add(1, Ordering::Relaxed);
                        if round % 50 == 0 {
                            lab.table.remove(&conn, ConnectionEnd::Cut);
                        }
                    }
                    assert!(lab.table.stats().entries <= 600);
                    if round % 500 == 0 {
                        lab.table.expire(lab.now);
                        drop(lab.table.snapshot(lab.now));
                    }
                }
            });
        }
    });
    let mut tuples = std::collections::HashSet::new();
    lab.table.for_each(|conn| {
        assert!(!conn.is_dead());
        assert!(tuples.insert(conn.original()) && !tuples.contains(&conn.reply()));
    });
    assert_eq!(tuples.len(), lab.table.stats().entries);
    assert!(made.into_inner() > 6000);
}

#[test]
fn racing_commits_of_one_tuple_make_one_connection() {
    const THREADS: usize = 4;
    let lab = Lab::new();
    let barrier = std::sync::Barrier::new(THREADS);
    let race = || -> Vec<_> {
        let commit = |n| {
            let pkt = parsed(&udp(host(n), SERVER));
            barrier.wait();
            lab.table
                .commit(&pkt, &pkt.key, lab.now, lab.options())
                .unwrap()
        };
        (0..500).map(commit).collect()
    };
    let runs: Vec<Vec<Arc<Connection>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(race)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for n in 0..500 {
        let first = &runs[0][n];
        assert!(runs.iter().all(|run| Arc::ptr_eq(&run[n], first)));
        assert_eq!(first.traffic(Direction::Original).0, 4);
    }
    assert_eq!(lab.table.stats().entries, 500);
}
