//! Opening: handshakes, retransmissions, mid-stream, reopening.

use super::*;
use crate::conntrack::Direction;

#[test]
fn handshake_goes_through_its_states() {
    let lab = Lab::new();
    assert_eq!(lab.accept(&c(SYN).seq(1000).build()), "SYN_SENT");
    assert_eq!(
        lab.accept(&s(SYN | ACK).seq(5000).ack(1001).build()),
        "SYN_RECV"
    );
    assert!(!lab.only_connection().assured);
    assert_eq!(
        lab.accept(&c(ACK).seq(1001).ack(5001).build()),
        "ESTABLISHED"
    );
    assert!(lab.only_connection().assured);
}

#[test]
fn each_state_of_the_handshake_has_its_timeout() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    assert_eq!(lab.remaining_secs(), 120);
    lab.accept(&s(SYN | ACK).seq(5000).ack(1001).build());
    assert_eq!(lab.remaining_secs(), 60);
    lab.accept(&c(ACK).seq(1001).ack(5001).build());
    assert_eq!(lab.remaining_secs(), 432_000);
}

#[test]
fn unacknowledged_data_shortens_the_timeout_until_it_is_acknowledged() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(ACK).seq(1001).ack(5001).data(100).build());
    assert_eq!(lab.remaining_secs(), 300);
    lab.accept(&s(ACK).seq(5001).ack(1101).build());
    assert_eq!(lab.remaining_secs(), 432_000);
}

#[test]
fn a_segment_repeated_over_and_over_shortens_the_timeout() {
    let lab = Lab::new();
    open(&lab);
    for _ in 0..4 {
        lab.accept(&s(ACK).seq(5000).ack(1001).build());
    }
    assert_eq!(lab.remaining_secs(), 300);
}

#[test]
fn packets_are_new_then_est_then_reply() {
    let lab = Lab::new();
    let syn = c(SYN).seq(1000).build();
    assert_eq!(lab.state(&syn), CtState::TRK | CtState::NEW);
    lab.accept(&syn);
    assert_eq!(lab.state(&syn), CtState::TRK | CtState::EST);
    let answer = lab.lookup(&s(SYN | ACK).seq(5000).ack(1001).build());
    assert_eq!(answer.state, CtState::TRK | CtState::EST | CtState::RPL);
    assert_eq!(answer.direction, Direction::Reply);
}

#[test]
fn looking_up_a_new_connection_does_not_create_it() {
    let lab = Lab::new();
    lab.lookup(&c(SYN).seq(1000).build());
    assert_eq!(lab.table.stats().entries, 0);
}

#[test]
fn traffic_is_counted_by_direction() {
    let lab = Lab::new();
    let conn = open(&lab);
    lab.accept(&s(ACK).seq(5001).ack(1001).data(100).build());
    assert_eq!(conn.traffic(Direction::Original), (2, 80));
    assert_eq!(conn.traffic(Direction::Reply), (2, 180));
}

#[test]
fn impossible_flag_combinations_are_invalid_with_and_without_a_connection() {
    let impossible = [
        0,
        SYN | FIN,
        SYN | RST,
        FIN,
        FIN | RST,
        SYN | ACK | FIN,
        0x3f,
    ];
    let lab = Lab::new();
    for flags in impossible {
        assert_eq!(
            lab.state(&c(flags).seq(1).build()),
            CtState::TRK | CtState::INV,
            "{flags:#x}"
        );
    }
    open(&lab);
    for flags in impossible {
        let frame = c(flags).seq(1001).ack(5001).build();
        assert_eq!(lab.state(&frame), CtState::TRK | CtState::INV, "{flags:#x}");
    }
}

#[test]
fn answers_and_resets_of_unknown_connections_are_invalid() {
    let lab = Lab::new();
    for flags in [SYN | ACK, RST, RST | ACK] {
        assert_eq!(
            lab.state(&s(flags).seq(1).ack(1).build()),
            CtState::TRK | CtState::INV
        );
    }
}

#[test]
fn a_repeated_syn_keeps_the_connection_half_open() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    assert_eq!(lab.accept(&c(SYN).seq(1000).build()), "SYN_SENT");
    assert_eq!(
        lab.accept(&s(SYN | ACK).seq(5000).ack(1001).build()),
        "SYN_RECV"
    );
    assert_eq!(lab.accept(&c(SYN).seq(1000).build()), "SYN_RECV");
    assert_eq!(
        lab.accept(&s(SYN | ACK).seq(5000).ack(1001).build()),
        "SYN_RECV"
    );
}

#[test]
fn a_syn_ack_for_another_syn_is_invalid() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    lab.refuse(&s(SYN | ACK).seq(5000).ack(1000).build());
    lab.refuse(&s(SYN | ACK).seq(5000).ack(1002).build());
    assert_eq!(lab.only_connection().state, "SYN_SENT");
}

#[test]
fn a_syn_ack_from_the_side_that_sent_the_syn_is_invalid() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    lab.refuse(&c(SYN | ACK).seq(1000).ack(5001).build());
}

#[test]
fn a_syn_ack_may_acknowledge_the_data_of_a_fast_open() {
    for acknowledged in [1001, 1101] {
        let lab = Lab::new();
        lab.accept(&c(SYN).seq(1000).data(100).build());
        let answer = s(SYN | ACK).seq(5000).ack(acknowledged).data(50).build();
        assert_eq!(lab.accept(&answer), "SYN_RECV");
        assert_eq!(
            lab.accept(&c(ACK).seq(1101).ack(5051).build()),
            "ESTABLISHED"
        );
    }
}

#[test]
fn data_before_the_answer_is_invalid() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    lab.refuse(&c(ACK).seq(1001).ack(5001).data(10).build());
}

#[test]
fn both_sides_may_open_at_once() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    assert_eq!(lab.accept(&s(SYN).seq(5000).build()), "SYN_SENT2");
    assert_eq!(
        lab.accept(&c(SYN | ACK).seq(1000).ack(5001).build()),
        "SYN_RECV"
    );
    assert_eq!(
        lab.accept(&s(SYN | ACK).seq(5000).ack(1001).build()),
        "ESTABLISHED"
    );
    assert_eq!(
        lab.accept(&c(ACK).seq(1001).ack(5001).data(10).build()),
        "ESTABLISHED"
    );
    assert_eq!(
        lab.accept(&s(ACK).seq(5001).ack(1011).build()),
        "ESTABLISHED"
    );
}

#[test]
fn midstream_segments_are_new_and_say_so() {
    let lab = Lab::new();
    let found = lab.lookup(&c(ACK).seq(77).ack(99).data(10).build());
    assert_eq!(found.state, CtState::TRK | CtState::NEW);
    assert!(found.midstream && found.conn.is_none());
    assert!(!lab.lookup(&c(SYN).seq(77).build()).midstream);
}

#[test]
fn midstream_segments_are_committed_only_with_pickup() {
    let mut lab = Lab::new();
    let frame = c(ACK).seq(77).ack(99).data(10).build();
    lab.refuse(&frame);
    lab.midstream_pickup = true;
    assert_eq!(lab.accept(&frame), "ESTABLISHED");
}

#[test]
fn a_connection_picked_up_midstream_goes_on_and_closes() {
    let mut lab = Lab::new();
    lab.midstream_pickup = true;
    lab.accept(&c(ACK).seq(700).ack(900).data(10).build());
    assert_eq!(lab.remaining_secs(), 300);
    lab.accept(&s(ACK).seq(900).ack(710).data(60_000).build());
    lab.accept(&c(ACK).seq(710).ack(60_900).window(1).build());
    assert_eq!(lab.remaining_secs(), 432_000);
    lab.refuse(&s(ACK).seq(60_900).ack(712).build());
    lab.accept(&s(FIN | ACK).seq(60_900).ack(710).build());
    lab.accept(&c(FIN | ACK).seq(710).ack(60_901).build());
    assert_eq!(
        lab.accept(&s(ACK).seq(60_901).ack(711).build()),
        "TIME_WAIT"
    );
}

#[test]
fn a_server_segment_picks_its_connection_up_in_the_reply_direction() {
    let mut lab = Lab::new();
    (lab.midstream_pickup, lab.swapped) = (true, true);
    let conn = lab
        .send(&s(ACK).seq(900).ack(700).data(10).build())
        .unwrap();
    assert_eq!(conn.original().src.to_string(), "10.0.0.1");
    assert_eq!(conn.traffic(Direction::Reply).0, 1);
    let answer = lab.lookup(&c(ACK).seq(700).ack(910).build());
    assert_eq!(answer.state, CtState::TRK | CtState::EST);
    assert_eq!(lab.accept(&c(ACK).seq(700).ack(910).build()), "ESTABLISHED");
}

#[test]
fn an_old_segment_first_seen_from_the_other_side_does_not_break_a_pickup() {
    let mut lab = Lab::new();
    lab.midstream_pickup = true;
    lab.accept(&c(ACK).seq(700).ack(900).build());
    lab.accept(&s(ACK).seq(800).ack(700).data(50).build());
    lab.accept(&c(ACK).seq(700).ack(900).build());
}

#[test]
fn a_host_that_forgot_the_connection_can_open_it_again() {
    let lab = Lab::new();
    open(&lab);
    assert_eq!(lab.accept(&c(SYN).seq(9000).build()), "ESTABLISHED");
    assert_eq!(
        lab.accept(&s(SYN | ACK).seq(7000).ack(9001).build()),
        "SYN_RECV"
    );
    assert_eq!(
        lab.accept(&c(ACK).seq(9001).ack(7001).data(5).build()),
        "ESTABLISHED"
    );
}

#[test]
fn a_challenged_syn_lets_its_sender_reset_the_old_connection() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(SYN).seq(900_000).build());
    assert_eq!(
        lab.accept(&s(ACK).seq(5001).ack(1001).build()),
        "ESTABLISHED"
    );
    assert_eq!(lab.accept(&c(RST).seq(1001).build()), "CLOSE");
    assert_eq!(lab.accept(&c(SYN).seq(900_000).build()), "SYN_SENT");
}

#[test]
fn a_syn_that_was_refused_does_not_open_the_door_for_an_answer_later() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(SYN).seq(900_000).build());
    lab.accept(&s(ACK).seq(5001).ack(1001).build());
    let answer = s(SYN | ACK).seq(7000).ack(900_001).build();
    assert_eq!(lab.accept(&answer), "ESTABLISHED");
    assert_eq!(
        lab.accept(&c(ACK).seq(1001).ack(5001).data(10).build()),
        "ESTABLISHED"
    );
}

#[test]
fn a_late_copy_of_the_handshake_does_not_disturb_the_connection() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(ACK).seq(1001).ack(5001).data(500).build());
    lab.accept(&c(SYN).seq(1000).build());
    assert_eq!(
        lab.accept(&s(SYN | ACK).seq(5000).ack(1001).build()),
        "ESTABLISHED"
    );
    assert_eq!(
        lab.accept(&s(ACK).seq(5001).ack(1501).build()),
        "ESTABLISHED"
    );
}
