//! Windows: what the receiver offered passes, injections do not.

use super::*;

fn open_scaled(lab: &Lab, client: Option<u8>, server: Option<u8>) {
    let with = |tcp: Tcp, scale: Option<u8>| scale.map_or(tcp, |scale| tcp.scale(scale));
    lab.accept(&with(c(SYN).seq(1000), client).build());
    lab.accept(&with(s(SYN | ACK).seq(5000).ack(1001), server).build());
    lab.accept(&c(ACK).seq(1001).ack(5001).window(1000).build());
}

#[test]
fn data_inside_of_the_offered_window_passes() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(ACK).seq(1001).ack(5001).data(1400).build());
    lab.accept(&c(ACK).seq(11_001).ack(5001).data(1).build());
}

#[test]
fn data_beyond_the_offered_window_is_invalid() {
    let lab = Lab::new();
    open(&lab);
    lab.refuse(&c(ACK).seq(11_002).ack(5001).data(1).build());
    lab.refuse(&c(ACK).seq(1001 + (1 << 30)).ack(5001).data(1).build());
}

#[test]
fn data_from_long_before_the_window_is_invalid() {
    let lab = Lab::new();
    open(&lab);
    lab.refuse(
        &c(ACK)
            .seq(1001_u32.wrapping_sub(10_002))
            .ack(5001)
            .data(1)
            .build(),
    );
}

#[test]
fn data_that_may_have_to_be_repeated_passes() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(ACK).seq(1001).ack(5001).data(1400).build());
    lab.accept(&s(ACK).seq(5001).ack(2401).build());
    lab.accept(&c(ACK).seq(1001).ack(5001).data(1400).build());
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_invalid() {
    let lab = Lab::new();
    open(&lab);
    lab.refuse(&c(ACK).seq(1001).ack(5002).build());
    lab.refuse(&s(ACK).seq(5001).ack(1002).build());
}

#[test]
fn acknowledgements_of_ages_ago_are_invalid() {
    let lab = Lab::new();
    open(&lab);
    lab.refuse(&c(ACK).seq(1001).ack(5001_u32.wrapping_sub(66_001)).build());
    lab.accept(&c(ACK).seq(1001).ack(5001_u32.wrapping_sub(65_999)).build());
}

#[test]
fn out_of_window_segments_leave_no_trace() {
    let lab = Lab::new();
    open(&lab);
    let before = lab.only_connection();
    lab.refuse(&c(ACK).seq(500_000).ack(5001).data(1).build());
    assert_eq!(lab.only_connection(), before);
}

#[test]
fn a_liberal_table_lets_data_outside_of_the_window_pass_but_no_reset() {
    let lab = Lab::with(ConntrackConfig {
        tcp_be_liberal: true,
        ..ConntrackConfig::default()
    });
    open(&lab);
    assert_eq!(
        lab.accept(&c(ACK).seq(500_000).ack(5001).data(1).build()),
        "ESTABLISHED"
    );
    lab.refuse(&s(RST).seq(500_000).build());
}

#[test]
fn windows_scale_where_both_sides_offer_it() {
    let lab = Lab::new();
    open_scaled(&lab, Some(7), Some(2));
    // 1000 << 7 from the client.
    lab.accept(&s(ACK).seq(5001 + 128_000).ack(1001).data(1).build());
    lab.refuse(&s(ACK).seq(5001 + 128_001).ack(1001).data(1).build());
}

#[test]
fn windows_do_not_scale_where_only_one_side_offers_it() {
    let lab = Lab::new();
    open_scaled(&lab, Some(7), None);
    lab.refuse(&s(ACK).seq(5001 + 128_000).ack(1001).data(1).build());
}

#[test]
fn an_impossible_scale_counts_as_the_largest_possible() {
    let lab = Lab::new();
    open_scaled(&lab, Some(255), Some(2));
    lab.accept(&s(ACK).seq(5001 + (1000 << 14)).ack(1001).data(1).build());
    lab.refuse(
        &s(ACK)
            .seq(5001 + (1000 << 14) + 1)
            .ack(1001)
            .data(1)
            .build(),
    );
}

#[test]
fn acknowledgements_move_the_window() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(ACK).seq(1001).ack(5001).data(5000).build());
    lab.accept(&s(ACK).seq(5001).ack(6001).build());
    lab.accept(&c(ACK).seq(16_001).ack(5001).data(1).build());
}

#[test]
fn a_closed_window_lets_the_probe_pass() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&c(ACK).seq(1001).ack(5001).data(10_000).build());
    lab.accept(&s(ACK).seq(5001).ack(11_001).window(0).build());
    assert_eq!(lab.remaining_secs(), 300);
    lab.accept(&c(ACK).seq(11_001).ack(5001).data(1).build());
    lab.accept(&s(ACK).seq(5001).ack(11_001).window(0).build());
    lab.accept(&s(ACK).seq(5001).ack(11_002).window(8000).build());
    lab.accept(&c(ACK).seq(11_002).ack(5001).data(8000).build());
}

#[test]
fn keep_alives_pass_with_and_without_a_byte() {
    let lab = Lab::new();
    open(&lab);
    for len in [0, 1] {
        lab.accept(&c(ACK).seq(1000).ack(5001).data(len).build());
        lab.accept(&s(ACK).seq(5001).ack(1001).build());
    }
}

#[test]
fn a_super_frame_is_one_long_segment() {
    let lab = Lab::new();
    open_scaled(&lab, Some(7), Some(7));
    lab.accept(&s(ACK).seq(5001).ack(1001).data(64_000).build());
    lab.accept(&c(ACK).seq(1001).ack(69_001).window(1000).build());
    lab.accept(&s(ACK).seq(69_001).ack(1001).data(64_000).build());
}

#[test]
fn numbers_may_wrap_around() {
    let lab = Lab::new();
    let isn = u32::MAX - 50;
    lab.accept(&c(SYN).seq(isn).build());
    lab.accept(&s(SYN | ACK).seq(u32::MAX).ack(isn + 1).build());
    lab.accept(&c(ACK).seq(isn + 1).ack(0).data(200).build());
    lab.accept(&s(ACK).seq(0).ack(150).build());
    lab.accept(&c(ACK).seq(150).ack(0).data(200).build());
    assert_eq!(lab.only_connection().state, "ESTABLISHED");
}
