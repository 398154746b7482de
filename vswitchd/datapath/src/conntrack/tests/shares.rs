//! Ports that share the table, and one of them that floods it.

use super::*;
use crate::conntrack::ConnectionEnd;

const FLOODER: PortNo = PortNo(7);

/// A table with room for so many.
fn small(max_entries: usize) -> Lab {
    Lab::with(ConntrackConfig {
        max_entries,
        ..ConntrackConfig::default()
    })
}

/// The `n`th end of a port's flows.
fn end(port: u8, n: u32) -> End {
    let [_, high, low, host] = n.to_be_bytes();
    ([10, port, high, low], 1_024 + u16::from(host))
}

/// One new flow from a port that nobody answers.
fn question(lab: &mut Lab, port: PortNo, n: u32) -> Result<Arc<Connection>, DropReason> {
    lab.in_port = port;
    let host = u8::try_from(port.0).unwrap();
    lab.send(&udp(end(host, n), SERVER))
}

fn answer(lab: &Lab, port: PortNo, n: u32) {
    let host = u8::try_from(port.0).unwrap();
    lab.accept(&udp(SERVER, end(host, n)));
}

/// Floods from a port, a tenth of a millisecond apart.
fn flood(lab: &mut Lab, flows: std::ops::Range<u32>) {
    for n in flows {
        lab.wait(Duration::from_micros(100));
        question(lab, FLOODER, n).unwrap();
    }
}

#[test]
fn a_flood_displaces_its_own_unanswered_flows_and_no_other_port_s() {
    let mut lab = small(4_096);
    let waiting: Vec<_> = (0..50)
        .map(|n| question(&mut lab, CLIENT_PORT, n).unwrap())
        .collect();
    let answered: Vec<_> = (100..150)
        .map(|n| {
            let conn = question(&mut lab, CLIENT_PORT, n).unwrap();
            answer(&lab, CLIENT_PORT, n);
            conn
        })
        .collect();
    // Others come while the table is full of the flood: each finds room.
    flood(&mut lab, 0..20_000);
    assert_eq!(lab.table.stats().entries, 4_096);
    let late: Vec<_> = (200..400)
        .map(|n| question(&mut lab, CLIENT_PORT, n).unwrap())
        .collect();
    flood(&mut lab, 20_000..40_000);
    let others = waiting.iter().chain(&answered).chain(&late);
    let lost = others.filter(|conn| conn.is_dead()).count();
    assert_eq!(lost, 0, "connections of another port");
}

#[test]
fn a_lone_port_has_the_whole_table() {
    let mut lab = small(4_096);
    flood(&mut lab, 0..4_096);
    assert_eq!(lab.table.stats().entries, 4_096);
    assert_eq!(lab.table.stats().early_dropped, 0);
    assert_eq!(lab.table.port_share(FLOODER).unanswered(), 4_096);
}

#[test]
fn a_flood_against_a_table_of_answered_connections_is_told_why_it_is_refused() {
    let mut lab = small(1_000);
    let answered: Vec<_> = (0..990)
        .map(|n| {
            let conn = question(&mut lab, CLIENT_PORT, n).unwrap();
            answer(&lab, CLIENT_PORT, n);
            conn
        })
        .collect();
    let refused = (0..2_000)
        .filter_map(|n| question(&mut lab, FLOODER, n).err())
        .collect::<Vec<_>>();
    assert!(
        refused.contains(&DropReason::OverShare),
        "{:?}",
        refused.first()
    );
    assert!(lab.table.port_share(FLOODER).is_over(lab.now));
    assert!(!lab.table.port_share(CLIENT_PORT).is_over(lab.now));
    // What it takes before it is over its share.
    let lost = answered.iter().filter(|conn| conn.is_dead()).count();
    assert!(lost <= 64, "{lost} answered ones displaced");
}

#[test]
fn a_flood_displaces_no_ended_connection_of_others_once_it_is_over_its_share() {
    let mut lab = small(1_000);
    let ended: Vec<_> = (0..990)
        .map(|n| {
            lab.in_port = CLIENT_PORT;
            open_and_close(&lab, end(1, n))
        })
        .collect();
    for n in 0..2_000 {
        // Refused or not.
        let _ = question(&mut lab, FLOODER, n);
    }
    let lost = ended.iter().filter(|conn| conn.is_dead()).count();
    assert!(lost <= 64, "{lost} ended ones displaced");
}

#[test]
fn unanswered_flows_of_a_port_over_its_share_go_after_two_seconds_if_the_table_fills() {
    let mut lab = small(4_096);
    let other = question(&mut lab, CLIENT_PORT, 1).unwrap();
    for n in 0..2_000 {
        question(&mut lab, FLOODER, n).unwrap();
    }
    lab.wait(Duration::from_millis(1_900));
    assert_eq!(lab.table.expire(lab.now), 0);
    lab.wait(Duration::from_millis(200));
    // Down to where nobody lacks the room.
    lab.table.expire(lab.now);
    let left = lab.table.port_share(FLOODER).unanswered();
    assert!(left < 1_024, "{left} left");
    assert!(!other.is_dead(), "the other port keeps its thirty seconds");
}

#[test]
fn unanswered_flows_keep_their_time_in_a_table_with_room() {
    let mut lab = small(65_536);
    for n in 0..2_000 {
        question(&mut lab, FLOODER, n).unwrap();
    }
    lab.wait_secs(20);
    assert_eq!(lab.table.expire(lab.now), 0);
}

#[test]
fn what_waits_for_an_answer_is_counted_until_it_has_one_or_ends() {
    let mut lab = small(100);
    let share = lab.table.port_share(CLIENT_PORT);
    let udp_conn = question(&mut lab, CLIENT_PORT, 1).unwrap();
    lab.accept(&c(SYN).seq(1000).build());
    assert_eq!((share.unanswered(), share.answered()), (2, 0));
    answer(&lab, CLIENT_PORT, 1);
    answer(&lab, CLIENT_PORT, 1);
    lab.accept(&s(SYN | ACK).seq(5000).ack(1001).build());
    assert_eq!((share.unanswered(), share.answered()), (1, 1));
    lab.accept(&c(ACK).seq(1001).ack(5001).build());
    assert_eq!((share.unanswered(), share.answered()), (0, 2));
    lab.table.remove(&udp_conn, ConnectionEnd::Cut);
    lab.table.flush(|_| Some(ConnectionEnd::Cut));
    drop(udp_conn);
    assert_eq!((share.unanswered(), share.answered()), (0, 2));
    question(&mut lab, CLIENT_PORT, 2).unwrap();
    lab.table.flush(|_| Some(ConnectionEnd::Cut));
    assert_eq!((share.unanswered(), share.answered()), (0, 2));
}

#[test]
fn a_port_that_refuses_connections_answers_none() {
    let lab = small(100);
    let share = lab.table.port_share(CLIENT_PORT);
    lab.accept(&c(SYN).seq(1000).build());
    lab.accept(&s(RST | ACK).seq(0).ack(1001).build());
    assert_eq!((share.unanswered(), share.answered()), (1, 0));
}

#[test]
fn a_table_gives_back_the_room_of_a_flood() {
    let mut lab = small(65_536);
    let kept = question(&mut lab, CLIENT_PORT, 1).unwrap();
    for n in 0..60_000 {
        question(&mut lab, FLOODER, n).unwrap();
    }
    let full = lab.table.slots();
    lab.wait_secs(15);
    answer(&lab, CLIENT_PORT, 1);
    lab.wait_secs(16);
    for _ in 0..40 {
        lab.table.expire(lab.now);
    }
    assert_eq!(lab.table.stats().entries, 1);
    assert!(
        lab.table.slots() * 3 < full,
        "{} of {full}",
        lab.table.slots()
    );
    // What is left is found where it went.
    assert!(!kept.is_dead());
    let found = lab.lookup(&udp(SERVER, end(1, 1)));
    assert!(Arc::ptr_eq(&found.conn.unwrap(), &kept));
}

#[test]
fn an_echo_reply_ends_the_wait_and_makes_no_client() {
    let lab = small(100);
    let share = lab.table.port_share(CLIENT_PORT);
    let echo = |from: End, to: End, icmp_type| {
        let payload = [icmp_type, 0, 0, 0, 0, 7, 0, 1];
        ipv4(from.0, to.0, ip_proto::ICMP, 1, 0, &payload)
    };
    lab.accept(&echo(CLIENT, SERVER, 8));
    assert_eq!((share.unanswered(), share.answered()), (1, 0));
    lab.accept(&echo(SERVER, CLIENT, 0));
    assert_eq!((share.unanswered(), share.answered()), (0, 0));
}
