//! Ports used again: the last segments of a connection among the first of the next one.
//!
//! The reference is the kernel's tracker (net/netfilter/nf_conntrack_proto_tcp.c): what its
//! transition table does not call invalid must pass here as well, and beyond that, what both
//! ends of the new connection need. The kernel marks such segments as invalid at worst; we drop
//! what is.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A server that closed first is in TIME_WAIT; the client, whose FIN is not acknowledged yet,
/// is gone and opens the next connection from the same port.
#[test]
fn a_syn_that_overtakes_the_last_acknowledgement_opens_the_next_connection() {
    let lab = Lab::new();
    open(&lab);
    lab.accept(&s(FIN | ACK).seq(5001).ack(1001).build());
    assert_eq!(
        lab.accept(&c(FIN | ACK).seq(1001).ack(5002).build()),
        "LAST_ACK"
    );
    lab.accept(&c(SYN).seq(9000).build());
    lab.accept(&s(ACK).seq(5002).ack(1002).build());
    lab.accept(&c(RST).seq(1002).build());
    assert_eq!(
        lab.accept(&s(SYN | ACK).seq(70_537).ack(9001).build()),
        "SYN_RECV"
    );
    assert_eq!(
        lab.accept(&c(ACK).seq(9001).ack(70_538).build()),
        "ESTABLISHED"
    );
    assert_eq!(
        lab.accept(&c(FIN | ACK).seq(9001).ack(70_538).build()),
        "FIN_WAIT"
    );
}

#[test]
fn a_late_fin_of_the_connection_before_reaches_the_client_that_will_reset_it() {
    let lab = Lab::new();
    lab.accept(&c(SYN).seq(9000).build());
    assert_eq!(
        lab.accept(&s(FIN | ACK).seq(5001).ack(1001).build()),
        "SYN_SENT"
    );
    assert_eq!(lab.accept(&c(RST).seq(1001).build()), "SYN_SENT");
    assert_eq!(
        lab.accept(&s(SYN | ACK).seq(7000).ack(9001).build()),
        "SYN_RECV"
    );
}

/// States of nf_conntrack, in the order of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    None,
    SynSent,
    SynRecv,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
    SynSent2,
}

impl Kernel {
    /// `tcp_conntracks` of the kernel, by direction: rows are SYN, SYN|ACK, FIN, ACK and RST,
    /// columns the states as above. `i` is what it calls invalid (sIV).
    const TABLE: [[&'static str; 5]; 2] = [
        [
            "..........",
            "ii.iiiiii.",
            "ii.......i",
            ".i.......i",
            "i.........",
        ],
        [
            "i.iiiii.i.",
            "i.........",
            "ii.......i",
            "i.........",
            "i.........",
        ],
    ];

    fn of_name(name: &str) -> Self {
        match name {
            "SYN_SENT" => Self::SynSent,
            "SYN_RECV" => Self::SynRecv,
            "ESTABLISHED" => Self::Established,
            "FIN_WAIT" => Self::FinWait,
            "CLOSE_WAIT" => Self::CloseWait,
            "LAST_ACK" => Self::LastAck,
            "TIME_WAIT" => Self::TimeWait,
            "CLOSE" => Self::Close,
            "SYN_SENT2" => Self::SynSent2,
            _ => Self::None,
        }
    }

    /// Returns whether the table lets a segment of this kind pass in this state.
    fn passes(self, is_reply: bool, flags: u8) -> bool {
        let row = match flags & (SYN | ACK | FIN | RST) {
            SYN => 0,
            f if f == SYN | ACK => 1,
            f if f == FIN | ACK => 2,
            ACK => 3,
            _ => 4,
        };
        let cell = Self::TABLE[usize::from(is_reply)][row].as_bytes()[self as usize];
        cell != b'i'
    }
}

/// How the connection before ends.
#[derive(Debug, Clone)]
struct Ending {
    /// What went by already.
    before: Vec<Tcp>,
    /// What its client still sends.
    client: VecDeque<Tcp>,
    /// What its server sends without having heard that.
    server: VecDeque<Tcp>,
}

fn any_ending() -> impl Strategy<Value = Ending> {
    let ending = |before: &[Tcp], client: &[Tcp], server: &[Tcp]| Ending {
        before: before.to_vec(),
        client: client.to_vec().into(),
        server: server.to_vec().into(),
    };
    let (client_fin, server_fin) = (c(FIN | ACK).seq(1001), s(FIN | ACK).seq(5001));
    let data = s(ACK).seq(5001).ack(1001).data(6);
    prop::sample::select(vec![
        // The server closes first: it will be in TIME_WAIT, the client is gone with its FIN.
        ending(
            &[server_fin.ack(1001), client_fin.ack(5002)],
            &[],
            &[s(ACK).seq(5002).ack(1002)],
        ),
        // Both close at once.
        ending(
            &[client_fin.ack(5001), server_fin.ack(1001)],
            &[c(ACK).seq(1002).ack(5002)],
            &[s(ACK).seq(5002).ack(1002)],
        ),
        // The client closes, and resets before the server's FIN comes.
        ending(
            &[client_fin.ack(5001)],
            &[c(RST | ACK).seq(1002).ack(5001)],
            &[s(ACK).seq(5001).ack(1002), server_fin.ack(1002)],
        ),
        // The client resets while the server sends.
        ending(
            &[],
            &[c(RST | ACK).seq(1001).ack(5001)],
            &[data, server_fin.seq(5007).ack(1001)],
        ),
    ])
}

/// Segments of the next connection.
const NEXT: usize = 7;

/// The next connection on the same ports; each of its segments needs the one before it.
fn next() -> VecDeque<(bool, Tcp)> {
    VecDeque::from([
        (false, c(SYN).seq(900_000)),
        (true, s(SYN | ACK).seq(70_537).ack(900_001)),
        (false, c(ACK).seq(900_001).ack(70_538)),
        (true, s(ACK).seq(70_538).ack(900_001).data(6)),
        (false, c(FIN | ACK).seq(900_001).ack(70_544)),
        (true, s(FIN | ACK).seq(70_544).ack(900_002)),
        (false, c(ACK).seq(900_002).ack(70_545)),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..Default::default() })]

    /// The client's segments come in order; the server's last ones may be as late as its answer
    /// to the SYN, and the client resets each that it gets after its SYN (RFC 9293 3.10.7.3).
    #[test]
    fn the_next_connection_passes_however_late_the_end_of_the_last_one_is(
        ending in any_ending(),
        picks in proptest::collection::vec(0u8..3, 40),
    ) {
        let lab = Lab::new();
        open(&lab);
        for segment in &ending.before {
            lab.accept(&segment.build());
        }
        let (mut client, mut late) = (ending.client, ending.server);
        let mut next = next();
        let mut state = lab.only_connection().state;
        for pick in picks {
            // The client opens anew when it has sent all it had to; the server answers the SYN
            // after what it sent before.
            let may_answer = next.front().is_some_and(|(is_reply, _)| !is_reply || late.is_empty());
            let (is_reply, segment, is_needed) = match pick {
                0 if !client.is_empty() => (false, client.pop_front().unwrap(), false),
                1 if !late.is_empty() => (true, late.pop_front().unwrap(), false),
                2 if client.is_empty() && may_answer => {
                    let (is_reply, segment) = next.pop_front().unwrap();
                    (is_reply, segment, true)
                }
                _ => continue,
            };
            let before = Kernel::of_name(state);
            let sent = lab.send(&segment.build());
            let kernel = before.passes(is_reply, segment.flags);
            let has_opened = next.len() < NEXT;
            // After the SYN the kernel, too, finds the last connection's numbers out of place.
            let is_due = is_needed || (kernel && !has_opened);
            prop_assert!(sent.is_ok() || !is_due, "{segment:?} in {before:?}");
            let Ok(conn) = sent else { continue };
            state = conn.state_name();
            if is_reply && !is_needed && has_opened {
                let reset = c(RST).seq(segment.ack);
                if let Ok(conn) = lab.send(&reset.build()) {
                    state = conn.state_name();
                }
            }
        }
        prop_assume!(next.is_empty());
        prop_assert_eq!(state, "TIME_WAIT");
    }
}
