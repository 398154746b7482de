//! SCTP associations.

use super::*;

const CLIENT_TAG: u32 = 0xc11e;
const SERVER_TAG: u32 = 0x5e4e;

/// A packet with one chunk; `tag` is the receiver's.
fn sctp(from: End, to: End, tag: u32, chunk: u8) -> Frame {
    let mut bytes = Vec::new();
    bytes.extend(from.1.to_be_bytes());
    bytes.extend(to.1.to_be_bytes());
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([chunk, 0, 0, 20]);
    bytes.extend([0; 16]);
    ipv4(from.0, to.0, ip_proto::SCTP, 1, 0, &bytes)
}

fn from_client(tag: u32, chunk: u8) -> Frame {
    sctp(CLIENT, SERVER, tag, chunk)
}

fn from_server(tag: u32, chunk: u8) -> Frame {
    sctp(SERVER, CLIENT, tag, chunk)
}

fn associate(lab: &Lab) {
    assert_eq!(lab.accept(&from_client(0, 1)), "COOKIE_WAIT");
    assert_eq!(lab.accept(&from_server(CLIENT_TAG, 2)), "COOKIE_WAIT");
    assert_eq!(lab.accept(&from_client(SERVER_TAG, 10)), "COOKIE_ECHOED");
    assert_eq!(lab.remaining_secs(), 60);
    assert_eq!(lab.accept(&from_server(CLIENT_TAG, 11)), "ESTABLISHED");
}

#[test]
fn an_association_is_made_used_and_shut_down() {
    let lab = Lab::new();
    associate(&lab);
    assert!(lab.only_connection().assured);
    assert_eq!(lab.accept(&from_client(SERVER_TAG, 0)), "ESTABLISHED");
    assert_eq!(lab.remaining_secs(), 432_000);
    assert_eq!(lab.accept(&from_client(SERVER_TAG, 7)), "SHUTDOWN_SENT");
    assert_eq!(lab.accept(&from_server(CLIENT_TAG, 8)), "SHUTDOWN_ACK_SENT");
    assert_eq!(lab.accept(&from_client(SERVER_TAG, 14)), "CLOSED");
    assert_eq!(lab.remaining_secs(), 10);
}

#[test]
fn the_server_may_shut_down() {
    let lab = Lab::new();
    associate(&lab);
    assert_eq!(lab.accept(&from_server(CLIENT_TAG, 7)), "SHUTDOWN_RECD");
    assert_eq!(lab.accept(&from_client(SERVER_TAG, 8)), "SHUTDOWN_ACK_SENT");
}

#[test]
fn a_wrong_verification_tag_is_invalid() {
    let lab = Lab::new();
    associate(&lab);
    for chunk in [0, 3, 6, 7, 14] {
        lab.refuse(&from_client(SERVER_TAG + 1, chunk));
        lab.refuse(&from_client(0, chunk));
    }
    assert_eq!(lab.only_connection().state, "ESTABLISHED");
}

#[test]
fn an_abort_closes_with_either_tag() {
    for tag in [SERVER_TAG, CLIENT_TAG] {
        let lab = Lab::new();
        associate(&lab);
        assert_eq!(lab.accept(&from_client(tag, 6)), "CLOSED");
    }
}

#[test]
fn data_before_the_cookie_is_invalid() {
    let lab = Lab::new();
    lab.accept(&from_client(0, 1));
    lab.refuse(&from_client(SERVER_TAG, 0));
}

#[test]
fn an_init_with_a_tag_is_invalid() {
    let lab = Lab::new();
    assert_eq!(lab.state(&from_client(5, 1)), CtState::TRK | CtState::INV);
}

#[test]
fn an_init_reopens_a_closed_association() {
    let lab = Lab::new();
    associate(&lab);
    lab.accept(&from_client(SERVER_TAG, 6));
    assert_eq!(lab.state(&from_client(0, 1)), CtState::TRK | CtState::NEW);
    assert_eq!(lab.accept(&from_client(0, 1)), "COOKIE_WAIT");
}

#[test]
fn a_host_that_lost_the_association_starts_it_anew_with_other_tags() {
    let lab = Lab::new();
    associate(&lab);
    lab.accept(&from_client(0, 1));
    lab.accept(&from_server(0xaa, 2));
    lab.accept(&from_client(0xbb, 10));
    assert_eq!(lab.accept(&from_server(0xaa, 11)), "ESTABLISHED");
    lab.accept(&from_client(0xbb, 0));
    lab.accept(&from_server(0xaa, 0));
    lab.refuse(&from_client(SERVER_TAG, 0));
}

#[test]
fn a_forged_init_does_not_change_the_tags() {
    let lab = Lab::new();
    associate(&lab);
    lab.accept(&from_client(0, 1));
    lab.refuse(&from_client(0xbb, 0));
    lab.accept(&from_client(SERVER_TAG, 0));
}

#[test]
fn data_of_an_unknown_association_is_midstream() {
    let mut lab = Lab::new();
    assert!(lab.lookup(&from_client(SERVER_TAG, 0)).midstream);
    lab.refuse(&from_client(SERVER_TAG, 0));
    lab.midstream_pickup = true;
    assert_eq!(lab.accept(&from_client(SERVER_TAG, 0)), "ESTABLISHED");
}
