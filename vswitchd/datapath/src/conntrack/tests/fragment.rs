//! Fragments: later ones follow an allowed first one.

use super::*;
use crate::conntrack::{ConnectionEnd, Direction};

const MORE: u16 = 0x2000;

fn first(from: End, to: End, id: u16) -> Frame {
    ipv4(
        from.0,
        to.0,
        ip_proto::UDP,
        id,
        MORE,
        udp_payload(from, to, 1000).split_at(808).0,
    )
}

fn later(from: End, to: End, id: u16) -> Frame {
    ipv4(from.0, to.0, ip_proto::UDP, id, 101, &[0x55; 200])
}

#[test]
fn later_fragments_have_the_ports_of_an_allowed_first_one() {
    let lab = Lab::new();
    let conn = lab.send(&first(CLIENT, SERVER, 9)).unwrap();
    let found = lab.lookup(&later(CLIENT, SERVER, 9));
    assert_eq!(found.state, CtState::TRK | CtState::EST);
    assert_eq!((found.key.tp_src, found.key.tp_dst), (40_000, 80));
    assert!(found.key.is_later_fragment);
    lab.accept(&later(CLIENT, SERVER, 9));
    assert_eq!(conn.traffic(Direction::Original).0, 2);
}

#[test]
fn later_fragments_without_a_first_one_are_unknown() {
    let lab = Lab::new();
    lab.send(&first(CLIENT, SERVER, 9)).unwrap();
    for frame in [
        later(CLIENT, SERVER, 8),
        later(SERVER, CLIENT, 9),
        later(ROUTER, SERVER, 9),
    ] {
        let found = lab.table.lookup(&parsed(&frame), &frame, lab.now);
        assert_eq!(found.unwrap_err(), DropReason::FragmentUnknown);
    }
}

#[test]
fn a_first_fragment_that_is_not_forwarded_allows_no_later_ones() {
    let lab = Lab::new();
    lab.lookup(&first(CLIENT, SERVER, 9));
    assert_eq!(
        lab.send(&later(CLIENT, SERVER, 9)).unwrap_err(),
        DropReason::FragmentUnknown
    );
}

#[test]
fn later_fragments_through_another_port_are_unknown() {
    let lab = Lab::new();
    lab.send(&first(CLIENT, SERVER, 9)).unwrap();
    let frame = later(CLIENT, SERVER, 9);
    let pkt = parse(&frame, PortNo(77)).unwrap();
    let found = lab.table.lookup(&pkt, &frame, lab.now);
    assert_eq!(found.unwrap_err(), DropReason::FragmentUnknown);
}

#[test]
fn later_fragments_come_too_late_after_thirty_seconds() {
    let mut lab = Lab::new();
    lab.send(&first(CLIENT, SERVER, 9)).unwrap();
    lab.wait_secs(30);
    assert_eq!(
        lab.send(&later(CLIENT, SERVER, 9)).unwrap_err(),
        DropReason::FragmentUnknown
    );
}

#[test]
fn a_later_fragment_never_starts_a_connection() {
    let lab = Lab::new();
    lab.send(&first(CLIENT, SERVER, 9)).unwrap();
    lab.table.flush(|_| Some(ConnectionEnd::Cut));
    assert_eq!(
        lab.state(&later(CLIENT, SERVER, 9)),
        CtState::TRK | CtState::NEW
    );
    assert_eq!(
        lab.send(&later(CLIENT, SERVER, 9)).unwrap_err(),
        DropReason::FragmentUnknown
    );
}

#[test]
fn fragments_of_an_echo_follow_its_connection() {
    let lab = Lab::new();
    let echo: Vec<u8> = [8, 0, 0, 0, 0, 7, 0, 1]
        .into_iter()
        .chain([0; 792])
        .collect();
    lab.accept(&ipv4(CLIENT.0, SERVER.0, ip_proto::ICMP, 5, MORE, &echo));
    let rest = ipv4(CLIENT.0, SERVER.0, ip_proto::ICMP, 5, 100, &[0; 100]);
    assert_eq!(lab.state(&rest), CtState::TRK | CtState::EST);
    lab.accept(&rest);
}
