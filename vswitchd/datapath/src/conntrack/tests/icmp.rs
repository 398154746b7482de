//! ICMP queries, and errors about connections.

use super::*;
use crate::conntrack::Direction;

fn message(from: End, to: End, icmp_type: u8, id: u16) -> Frame {
    let [high, low] = id.to_be_bytes();
    let body = [icmp_type, 0, 0, 0, high, low, 0, 1, 0x55, 0x55, 0x55, 0x55];
    ipv4(from.0, to.0, ip_proto::ICMP, 1, 0, &body)
}

/// An unreachable that quotes the network packet of a frame.
fn error_about(quoted: &Frame, from: End, to: End) -> Frame {
    let mut body = vec![3, 1, 0, 0, 0, 0, 0, 0];
    body.extend(quoted.bytes().iter().skip(14).take(28));
    ipv4(from.0, to.0, ip_proto::ICMP, 1, 0, &body)
}

#[test]
fn an_echo_reply_belongs_to_its_request() {
    let lab = Lab::new();
    assert_eq!(lab.accept(&message(CLIENT, SERVER, 8, 7)), "UNREPLIED");
    let reply = message(SERVER, CLIENT, 0, 7);
    assert_eq!(
        lab.state(&reply),
        CtState::TRK | CtState::EST | CtState::RPL
    );
    assert_eq!(lab.accept(&reply), "REPLIED");
    assert_eq!(lab.remaining_secs(), 30);
}

#[test]
fn an_echo_reply_without_its_request_is_invalid() {
    let lab = Lab::new();
    lab.accept(&message(CLIENT, SERVER, 8, 7));
    for reply in [
        message(SERVER, CLIENT, 0, 8),
        message(CLIENT, SERVER, 0, 7),
        message(ROUTER, CLIENT, 0, 7),
    ] {
        assert_eq!(lab.state(&reply), CtState::TRK | CtState::INV);
    }
}

#[test]
fn hosts_that_ping_each_other_with_one_identifier_have_two_connections() {
    let lab = Lab::new();
    lab.accept(&message(CLIENT, SERVER, 8, 7));
    assert_eq!(
        lab.state(&message(SERVER, CLIENT, 8, 7)),
        CtState::TRK | CtState::NEW
    );
    lab.accept(&message(SERVER, CLIENT, 8, 7));
    assert_eq!(lab.table.stats().entries, 2);
}

#[test]
fn a_timestamp_reply_belongs_to_its_request() {
    let lab = Lab::new();
    lab.accept(&message(CLIENT, SERVER, 13, 7));
    let reply = message(SERVER, CLIENT, 14, 7);
    assert_eq!(
        lab.state(&reply),
        CtState::TRK | CtState::EST | CtState::RPL
    );
}

#[test]
fn messages_that_are_no_query_start_nothing() {
    let lab = Lab::new();
    assert_eq!(
        lab.state(&message(CLIENT, SERVER, 9, 0)),
        CtState::TRK | CtState::INV
    );
}

#[test]
fn an_error_about_the_original_direction_is_a_related_reply() {
    let lab = Lab::new();
    let datagram = udp(CLIENT, SERVER);
    lab.accept(&datagram);
    let found = lab.lookup(&error_about(&datagram, SERVER, CLIENT));
    assert_eq!(found.state, CtState::TRK | CtState::REL | CtState::RPL);
    assert_eq!(found.direction, Direction::Reply);
    assert!(found.conn.is_some());
}

#[test]
fn an_error_about_the_reply_direction_is_related_and_goes_with_the_original() {
    let lab = Lab::new();
    open(&lab);
    let quoted = s(ACK).seq(5001).ack(1001).data(20).build();
    let found = lab.lookup(&error_about(&quoted, CLIENT, SERVER));
    assert_eq!(found.state, CtState::TRK | CtState::REL);
    assert_eq!(found.direction, Direction::Original);
}

#[test]
fn an_error_from_a_router_on_the_way_is_related() {
    let lab = Lab::new();
    open(&lab);
    let quoted = c(ACK).seq(1001).ack(5001).data(20).build();
    let state = lab.state(&error_about(&quoted, ROUTER, CLIENT));
    assert_eq!(state, CtState::TRK | CtState::REL | CtState::RPL);
}

#[test]
fn an_error_about_an_echo_is_related_to_it() {
    let lab = Lab::new();
    let request = message(CLIENT, SERVER, 8, 7);
    lab.accept(&request);
    let state = lab.state(&error_about(&request, ROUTER, CLIENT));
    assert_eq!(state, CtState::TRK | CtState::REL | CtState::RPL);
}

#[test]
fn an_error_about_an_unknown_connection_is_invalid() {
    let lab = Lab::new();
    let error = error_about(&udp(CLIENT, SERVER), SERVER, CLIENT);
    assert_eq!(lab.state(&error), CtState::TRK | CtState::INV);
}

#[test]
fn an_error_to_somebody_else_than_the_quoted_sender_is_invalid() {
    let lab = Lab::new();
    let datagram = udp(CLIENT, SERVER);
    lab.accept(&datagram);
    let error = error_about(&datagram, SERVER, ROUTER);
    assert_eq!(lab.state(&error), CtState::TRK | CtState::INV);
}

#[test]
fn errors_neither_prolong_a_connection_nor_count_in_it() {
    let mut lab = Lab::new();
    let request = message(CLIENT, SERVER, 8, 7);
    lab.accept(&request);
    lab.wait_secs(10);
    lab.accept(&error_about(&request, ROUTER, CLIENT));
    assert_eq!(lab.remaining_secs(), 20);
    assert_eq!(lab.only_connection().packets_reply, 0);
}

/// An IPv6 frame between `fd00::from` and `fd00::to`.
fn ipv6(from: u8, to: u8, proto: u8, payload: &[u8]) -> Frame {
    let mut bytes = vec![
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0,
    ];
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend([proto, 64]);
    for host in [from, to] {
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    bytes.extend(payload);
    let mut frame = Frame::from_bytes(&bytes);
    frame.vnet.flags = VnetHeader::F_DATA_VALID;
    frame
}

#[test]
fn an_echo_over_ipv6_has_its_reply_and_its_errors() {
    let lab = Lab::new();
    let request = ipv6(1, 2, ip_proto::ICMPV6, &[128, 0, 0, 0, 0, 7, 0, 1]);
    let reply = ipv6(2, 1, ip_proto::ICMPV6, &[129, 0, 0, 0, 0, 7, 0, 1]);
    assert_eq!(lab.state(&reply), CtState::TRK | CtState::INV);
    lab.accept(&request);
    assert_eq!(lab.accept(&reply), "REPLIED");
    let mut too_big = vec![2, 0, 0, 0, 0, 0, 5, 0];
    too_big.extend(request.bytes().iter().skip(14));
    let error = ipv6(9, 1, ip_proto::ICMPV6, &too_big);
    assert_eq!(
        lab.state(&error),
        CtState::TRK | CtState::REL | CtState::RPL
    );
}

#[test]
fn a_packet_too_big_about_a_datagram_is_related() {
    let lab = Lab::new();
    let datagram = ipv6(1, 2, ip_proto::UDP, &udp_payload(CLIENT, SERVER, 10));
    lab.accept(&datagram);
    let mut too_big = vec![2, 0, 0, 0, 0, 0, 5, 0];
    too_big.extend(datagram.bytes().iter().skip(14));
    let error = ipv6(9, 1, ip_proto::ICMPV6, &too_big);
    assert_eq!(
        lab.state(&error),
        CtState::TRK | CtState::REL | CtState::RPL
    );
}

#[test]
fn an_error_cannot_be_committed() {
    let lab = Lab::new();
    let error = error_about(&udp(CLIENT, SERVER), SERVER, CLIENT);
    let pkt = parsed(&error);
    let committed = lab.table.commit(&pkt, &pkt.key, lab.now, lab.options());
    assert_eq!(committed.unwrap_err(), DropReason::CtInvalid);
}
