//! Closing: FINs in every order, resets in and out of place, TIME_WAIT.

use super::*;

/// Closes from the client's side up to TIME_WAIT.
fn close(lab: &Lab) {
    lab.accept(&c(FIN | ACK).seq(1001).ack(5001).build());
    lab.accept(&s(FIN | ACK).seq(5001).ack(1002).build());
    assert_eq!(lab.accept(&c(ACK).seq(1002).ack(5002).build()), "TIME_WAIT");
}

#[test]
fn the_client_closes_first() {
    let lab = Lab::new();
    open(&lab);
    assert_eq!(
        lab.accept(&c(FIN | ACK).seq(1001).ack(5001).build()),
        "FIN_WAIT"
    );
    assert_eq!(lab.remaining_secs(), 240);
    assert_eq!(
        lab.accept(&s(ACK).seq(5001).ack(1002).build()),
        "CLOSE_WAIT"
    );
    assert_eq!(lab.remaining_secs(), 7_440);
    assert_eq!(
        lab.accept(&s(FIN | ACK).seq(5001).ack(1002).build()),
        "LAST_ACK"
    );
    assert_eq!(lab.remaining_secs(), 240);
    assert_eq!(lab.accept(&c(ACK).seq(1002).ack(5002).build()), "TIME_WAIT");
    assert_eq!(lab.remaining_secs(), 120);
}

#[test]
fn the_server_closes_first() {
    let lab = Lab::new();
    open(&lab);
    assert_eq!(
        lab.accept(&s(FIN | ACK).seq(5001).ack(1001).build()),
        "FIN_WAIT"
    );
    assert_eq!(
        lab.accept(&c(FIN | ACK).seq(1001).ack(5002).build()),
        "LAST_ACK"
    );
    assert_eq!(lab.accept(&s(ACK).seq(5002).ack(1002).build()), "TIME_WAIT");
}

#[test]
fn both_close_at_once() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(FIN | ACK).seq(1001).ack(5001).build());
    assert_eq!(
        lab.accept(&s(FIN | ACK).seq(5001).ack(1001).build()),
        "LAST_ACK"
    );
    assert_eq!(lab.accept(&c(ACK).seq(1002).ack(5002).build()), "LAST_ACK");
    assert_eq!(lab.accept(&s(ACK).seq(5002).ack(1002).build()), "TIME_WAIT");
}

#[test]
fn a_repeated_fin_is_not_the_other_sides() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(FIN | ACK).seq(1001).ack(5001).build());
    assert_eq!(
        lab.accept(&c(FIN | ACK).seq(1001).ack(5001).build()),
        "FIN_WAIT"
    );
}

#[test]
fn the_open_half_still_carries_data() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(FIN | ACK).seq(1001).ack(5001).build());
    lab.accept(&s(ACK).seq(5001).ack(1002).data(500).build());
    assert_eq!(
        lab.accept(&c(ACK).seq(1002).ack(5501).build()),
        "CLOSE_WAIT"
    );
}

/// RFC 5382 REQ-5: one FIN does not make a connection transitory.
#[test]
fn a_half_closed_connection_may_be_silent_for_two_hours() {
    for client_closes in [true, false] {
        let mut lab = Lab::new();
        open(&lab);
        let (fin, ack, answer) = if client_closes {
            let (fin, ack) = (c(FIN | ACK).seq(1001).ack(5001), s(ACK).seq(5001).ack(1002));
            (fin, ack, s(ACK).seq(5001).ack(1002).data(500))
        } else {
            let (fin, ack) = (s(FIN | ACK).seq(5001).ack(1001), c(ACK).seq(1001).ack(5002));
            (fin, ack, c(ACK).seq(1001).ack(5002).data(500))
        };
        lab.accept(&fin.build());
        assert_eq!(lab.accept(&ack.build()), "CLOSE_WAIT");
        lab.wait_secs(2 * 3_600);
        assert_eq!(lab.accept(&answer.build()), "CLOSE_WAIT");
    }
}

#[test]
fn a_fin_right_after_the_handshake_closes_too() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    lab.accept(&s(SYN | ACK).seq(5000).ack(1001).build());
    assert_eq!(
        lab.accept(&c(FIN | ACK).seq(1001).ack(5001).build()),
        "FIN_WAIT"
    );
}

#[test]
fn a_fin_before_the_handshake_is_over_is_invalid() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    lab.refuse(&c(FIN | ACK).seq(1001).ack(5001).build());
}

#[test]
fn a_reset_with_the_expected_number_closes() {
    for reset in [s(RST).seq(5001), c(RST | ACK).seq(1001).ack(5001)] {
        let lab = Lab::new();
        open(&lab);
        assert_eq!(lab.accept(&reset.build()), "CLOSE");
        assert_eq!(lab.remaining_secs(), 10);
    }
}

#[test]
fn a_reset_behind_data_that_is_not_acknowledged_yet_closes() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&s(ACK).seq(5001).ack(1001).data(300).build());
    assert_eq!(lab.accept(&s(RST).seq(5301).build()), "CLOSE");
}

#[test]
fn a_reset_inside_of_the_window_passes_but_does_not_close() {
    let lab = Lab::new();
    open(&lab);
    assert_eq!(lab.accept(&s(RST).seq(5500).build()), "ESTABLISHED");
    assert_eq!(lab.remaining_secs(), 432_000);
}

#[test]
fn a_reset_inside_of_the_window_closes_what_is_closing() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(FIN | ACK).seq(1001).ack(5001).build());
    assert_eq!(lab.accept(&s(RST).seq(5500).build()), "CLOSE");
}

#[test]
fn a_reset_outside_of_the_window_is_invalid() {
    let lab = Lab::new();
    open(&lab);
    for seq in [5000, 5001 + 10_001, 5001_u32.wrapping_sub(1 << 31), 0] {
        lab.refuse(&s(RST).seq(seq).build());
    }
    assert_eq!(lab.only_connection().state, "ESTABLISHED");
}

#[test]
fn a_refused_connection_is_closed_by_the_reset_that_acknowledges_its_syn() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    lab.refuse(&s(RST).seq(0).build());
    lab.refuse(&s(RST | ACK).seq(0).ack(1000).build());
    assert_eq!(lab.accept(&s(RST | ACK).seq(0).ack(1001).build()), "CLOSE");
}

#[test]
fn a_client_resets_an_old_connection_of_the_server_without_ending_its_own() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(1000).build());
    assert_eq!(lab.accept(&s(ACK).seq(5000).ack(77).build()), "SYN_SENT");
    assert_eq!(lab.accept(&c(RST).seq(77).build()), "SYN_SENT");
    assert_eq!(
        lab.accept(&s(SYN | ACK).seq(6000).ack(1001).build()),
        "SYN_RECV"
    );
}

#[test]
fn a_syn_reopens_a_connection_in_time_wait() {
    let lab = Lab::new();
    let old = open(&lab);
    close(&lab);
    let syn = c(SYN).seq(90_000).build();
    assert_eq!(lab.state(&syn), CtState::TRK | CtState::NEW);
    assert!(!old.is_dead(), "a lookup alone ends nothing");
    let new = lab.send(&syn).unwrap();
    assert!(old.is_dead() && !new.is_dead());
    assert_eq!(lab.only_connection().state, "SYN_SENT");
}

#[test]
fn the_other_side_may_reopen_a_connection_in_time_wait() {
    let lab = Lab::new();
    open(&lab);
    close(&lab);
    let new = lab.send(&s(SYN).seq(90_000).build()).unwrap();
    assert_eq!(new.original().src.to_string(), "10.0.0.2");
    assert_eq!(lab.table.stats().entries, 1);
}

#[test]
fn a_cached_connection_refuses_the_syn_that_reopens_it() {
    let lab = Lab::new();
    let old = open(&lab);
    close(&lab);
    let syn = parsed(&c(SYN).seq(90_000).build());
    assert!(old.is_reopened_by(&syn));
    let tracked = old.track(
        &syn,
        crate::conntrack::Direction::Original,
        lab.now,
        lab.table.config(),
    );
    assert_eq!(tracked, Err(DropReason::CtInvalid));
}

#[test]
fn the_last_ack_may_be_repeated_in_time_wait() {
    let lab = Lab::new();
    open(&lab);
    close(&lab);
    lab.accept(&s(FIN | ACK).seq(5001).ack(1002).build());
    assert_eq!(lab.accept(&c(ACK).seq(1002).ack(5002).build()), "TIME_WAIT");
}
