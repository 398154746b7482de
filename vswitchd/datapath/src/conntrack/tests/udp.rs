//! UDP, and protocols without states.

use super::*;

#[test]
fn an_unanswered_datagram_is_kept_for_thirty_seconds() {
    let mut lab = Lab::new();
    lab.accept(&udp(CLIENT, SERVER));
    assert_eq!(lab.only_connection().state, "UNREPLIED");
    lab.wait_secs(29);
    assert_eq!(
        lab.state(&udp(SERVER, CLIENT)),
        CtState::TRK | CtState::EST | CtState::RPL
    );
    lab.wait_secs(1);
    assert_eq!(lab.state(&udp(SERVER, CLIENT)), CtState::TRK | CtState::NEW);
}

#[test]
fn a_question_and_its_answer_are_no_stream() {
    let lab = Lab::new();
    lab.accept(&udp(CLIENT, SERVER));
    assert_eq!(lab.accept(&udp(SERVER, CLIENT)), "REPLIED");
    assert_eq!(lab.remaining_secs(), 30);
}

#[test]
fn a_flow_that_goes_both_ways_for_longer_is_a_stream() {
    let mut lab = Lab::new();
    lab.accept(&udp(CLIENT, SERVER));
    lab.accept(&udp(SERVER, CLIENT));
    lab.wait(Duration::from_millis(2100));
    assert_eq!(lab.accept(&udp(CLIENT, SERVER)), "STREAM");
    assert_eq!(lab.remaining_secs(), 120);
    assert!(lab.only_connection().assured);
}

#[test]
fn a_flow_without_answers_never_becomes_a_stream() {
    let mut lab = Lab::new();
    lab.accept(&udp(CLIENT, SERVER));
    lab.wait_secs(20);
    assert_eq!(lab.accept(&udp(CLIENT, SERVER)), "UNREPLIED");
    assert_eq!(lab.remaining_secs(), 30);
}

#[test]
fn other_protocols_are_known_by_their_addresses() {
    let lab = Lab::new();
    let gre = |from: End, to: End| ipv4(from.0, to.0, 47, 1, 0, &[0, 0, 8, 0, 1, 2, 3, 4]);
    assert_eq!(lab.accept(&gre(CLIENT, SERVER)), "UNREPLIED");
    assert_eq!(lab.accept(&gre(SERVER, CLIENT)), "REPLIED");
    assert_eq!(lab.remaining_secs(), 600);
}

#[test]
fn a_wrong_checksum_that_nobody_vouches_for_is_invalid() {
    let lab = Lab::new();
    let mut datagram = udp_payload(CLIENT, SERVER, 10);
    datagram.splice(6..8, [0x12, 0x34]);
    let mut frame = ipv4(CLIENT.0, SERVER.0, ip_proto::UDP, 1, 0, &datagram);
    assert_eq!(lab.state(&frame), CtState::TRK | CtState::NEW);
    frame.vnet.flags = 0;
    assert_eq!(lab.state(&frame), CtState::TRK | CtState::INV);
}
