//! TCP state machine of a connection, as a middlebox tracks it.
//!
//! ```text
//!            SYN           SYN|ACK          ACK
//!  (none) ────────► SYN_SENT ────► SYN_RECV ───► ESTABLISHED
//!                      │ SYN back     ▲              │ FIN
//!                      ▼              │              ▼
//!                  SYN_SENT2 ─────────┘          FIN_WAIT ──its ACK──► CLOSE_WAIT
//!                                                    │ FIN back            │
//!                                                    └─────► LAST_ACK ◄────┘
//!  RST: CLOSE from everywhere                                   │ both acknowledged
//!                                                               ▼
//!                                                           TIME_WAIT
//! ```
//!
//! States are nf_conntrack's; unlike there, a repeated FIN is not taken for the other side's. A
//! segment that fits the state but says nothing about it passes without a change: the endpoints
//! answer it. What cannot come from an endpoint is invalid.
//!
//! Ports are used again, and the end of one connection crosses the beginning of the next: a SYN
//! overtakes the last ACK, FIN or RST of the connection before it. Such a SYN is remembered until
//! its receiver accepts it, or both go on with the connection that is open.

mod in_kernel;

use std::time::Duration;

use smallvec::SmallVec;

use super::end::ConnectionEnd;
use super::step::{Progress, Start, Step};
use super::tcp_window::{ResetPlace, Span, Windows, flag};
use super::{ConntrackConfig, Direction};
use crate::drop_reason::DropReason;
use crate::packet::emit::BarePacket;
use crate::packet::{TcpSegment, tcp_flags};

/// Repeats of one segment after which the other end is taken for gone (nf_conntrack's
/// tcp_max_retrans).
const MAX_RETRANSMISSIONS: u8 = 3;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum TcpState {
    #[default]
    None,
    SynSent,
    /// Both ends sent a SYN (RFC 9293 section 3.5, simultaneous open).
    SynSent2,
    SynRecv,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

impl Kind {
    /// Returns what a segment is, `None` for combinations that no stack sends.
    const fn of(segment: &TcpSegment) -> Option<Self> {
        use tcp_flags::{ACK, FIN, RST, SYN};
        match segment.flags & (SYN | ACK | FIN | RST) {
            SYN => Some(Self::Syn),
            flags if flags == SYN | ACK => Some(Self::SynAck),
            flags if flags == FIN | ACK => Some(Self::Fin),
            ACK => Some(Self::Ack),
            flags if flags & !ACK == RST => Some(Self::Rst),
            _ => None,
        }
    }
}

/// A SYN that was let through although the connection is open: if its receiver has lost the
/// connection it answers with SYN|ACK, and the tracked state is what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StraySyn {
    seq: u32,
    payload_len: u32,
    window: u16,
    window_scale: Option<u8>,
}

impl StraySyn {
    const fn segment(self) -> TcpSegment {
        TcpSegment {
            seq: self.seq,
            ack: 0,
            window: self.window,
            flags: tcp_flags::SYN,
            payload_len: self.payload_len,
            window_scale: self.window_scale,
            sack_permitted: false,
            sack_right_edge: None,
        }
    }

    const fn end(self) -> u32 {
        self.seq.wrapping_add(self.payload_len).wrapping_add(1)
    }
}

/// The last segment, to notice that it comes again and again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LastSegment {
    seq: u32,
    ack: u32,
    is_reply: bool,
    has_zero_window: bool,
    repeats: u8,
}

/// State of a TCP connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TcpTrack {
    state: TcpState,
    is_simultaneous: bool,
    windows: Windows,
    last: LastSegment,
    /// Behind a pointer: hardly any connection has one.
    stray_syn: Option<Box<StraySyn>>,
}

type Accepted = Result<Progress, DropReason>;

impl TcpTrack {
    /// Returns what a segment of an unknown connection may start.
    pub(super) fn start_of(segment: &TcpSegment) -> Start {
        match Kind::of(segment) {
            Some(Kind::Syn) => Start::New,
            Some(Kind::Ack | Kind::Fin) => Start::Midstream,
            Some(Kind::SynAck | Kind::Rst) | None => Start::Invalid,
        }
    }

    /// Returns whether a stack can have sent these flags.
    pub(super) const fn is_well_formed(segment: &TcpSegment) -> bool {
        Kind::of(segment).is_some()
    }

    /// Returns whether both ends have closed it, or one has reset it.
    pub(super) const fn is_finished(&self) -> bool {
        matches!(self.state, TcpState::TimeWait | TcpState::Close)
    }

    /// Returns how its own ends have ended it. Where both have sent a FIN only the last
    /// acknowledgement may be missing.
    pub(super) const fn own_end(&self) -> Option<ConnectionEnd> {
        match self.state {
            TcpState::LastAck | TcpState::TimeWait => Some(ConnectionEnd::Fin),
            TcpState::Close => Some(ConnectionEnd::Reset),
            _ => None,
        }
    }

    /// Returns whether the connection is over and the segment a SYN for the next one.
    pub(super) fn is_reopened_by(&self, segment: &TcpSegment) -> bool {
        self.is_finished() && Kind::of(segment) == Some(Kind::Syn)
    }

    /// Takes in what nearly all segments are: of an open connection, with nothing that opens or
    /// ends it and no options, the next data or its acknowledgement. `None` for all others, with
    /// nothing done.
    /// Does what [`Self::advance`] would, for a fraction of its price (the idea is Van
    /// Jacobson's header prediction).
    #[inline(always)]
    pub(super) fn advance_predicted(
        &mut self,
        segment: &TcpSegment,
        step: Step<'_>,
    ) -> Option<Progress> {
        use tcp_flags::{ACK, FIN, RST, SYN};
        let is_reply = step.direction == Direction::Reply;
        let is_repeated = (self.last.seq, self.last.ack) == (segment.seq, segment.ack)
            && self.last.is_reply == is_reply;
        let is_usual = self.state == TcpState::Established
            && segment.flags & (SYN | ACK | FIN | RST) == ACK
            && self.stray_syn.is_none()
            && !is_repeated;
        if !is_usual || !self.windows.advance_predicted(segment, step.direction) {
            return None;
        }
        self.last = LastSegment {
            seq: segment.seq,
            ack: segment.ack,
            is_reply,
            has_zero_window: false,
            repeats: 0,
        };
        let established = step.config.tcp_established;
        let timeout = if self.windows.have_unacknowledged() || !step.replied {
            established.min(step.config.tcp_unacknowledged)
        } else {
            established
        };
        Some(Progress::keep(timeout, step.replied))
    }

    /// Takes a segment in.
    pub(super) fn advance(&mut self, segment: &TcpSegment, step: Step<'_>) -> Accepted {
        match Kind::of(segment).ok_or(DropReason::CtInvalid)? {
            Kind::Syn => self.on_syn(segment, step),
            Kind::SynAck => self.on_syn_ack(segment, step),
            Kind::Rst => self.on_rst(segment, step),
            kind @ (Kind::Fin | Kind::Ack) => self.on_ack(segment, kind, step),
        }
    }

    /// Returns what the end that sends in this direction may send next, as far as one can know: in
    /// which order its last acknowledgement and the last data towards it came by says nothing of
    /// what it has by now. Nothing of a connection that is over.
    pub(super) fn next_of(&self, direction: Direction) -> SmallVec<[BarePacket; 2]> {
        let mut next = SmallVec::new();
        if matches!(
            self.state,
            TcpState::None | TcpState::TimeWait | TcpState::Close
        ) {
            return next;
        }
        let sender = self.windows.endpoint(direction);
        let receiver = self.windows.endpoint(direction.opposite());
        let (seq, window) = (sender.end(), 0);
        match sender.acknowledged() {
            Some(ack) => next.push(BarePacket::Ack { seq, ack, window }),
            None if sender.is(flag::KNOWN) => next.push(BarePacket::Syn { seq: sender.isn() }),
            None => {}
        }
        if receiver.is(flag::KNOWN) && sender.acknowledged() != Some(receiver.end()) {
            let ack = receiver.end();
            next.push(BarePacket::Ack { seq, ack, window });
        }
        next
    }

    fn on_syn(&mut self, segment: &TcpSegment, step: Step<'_>) -> Accepted {
        use Direction::{Original, Reply};
        use TcpState::{Close, None, SynSent, SynSent2, TimeWait};
        match (self.state, step.direction) {
            (None | SynSent, Original) => self.open(SynSent, segment, step),
            (SynSent, Reply) => {
                self.is_simultaneous = true;
                self.open(SynSent2, segment, step)
            }
            (SynSent2, _) => self.open(SynSent2, segment, step),
            // The next connection: commit makes it, not this one.
            (TimeWait | Close, _) => Err(DropReason::CtInvalid),
            (_, Original) => {
                self.note_stray_syn(segment);
                Ok(Progress::UNCHANGED)
            }
            (_, Reply) => Err(DropReason::CtInvalid),
        }
    }

    /// A SYN with another number is of a host that forgot the connection, the same number is a
    /// repetition.
    fn note_stray_syn(&mut self, segment: &TcpSegment) {
        let is_repeated = self.windows.has_isn(Direction::Original, segment.seq);
        self.stray_syn = (!is_repeated).then(|| {
            Box::new(StraySyn {
                seq: segment.seq,
                payload_len: segment.payload_len,
                window: segment.window,
                window_scale: segment.window_scale,
            })
        });
    }

    fn on_syn_ack(&mut self, segment: &TcpSegment, step: Step<'_>) -> Accepted {
        use Direction::{Original, Reply};
        use TcpState::{SynRecv, SynSent, SynSent2};
        if self.resynchronize(segment, step.direction) {
            return self.open(SynRecv, segment, step);
        }
        match (self.state, step.direction) {
            (SynSent, Reply) => self.open_answer(segment, step),
            (SynSent2, _) => self.open_answer(segment, step),
            (SynRecv, _) if self.is_simultaneous => self.open_answer(segment, step),
            (TcpState::None | SynSent, _) | (_, Original) => Err(DropReason::CtInvalid),
            // A repetition: its ACK was lost behind us.
            (_, Reply) => Ok(Progress::UNCHANGED),
        }
    }

    fn open_answer(&mut self, segment: &TcpSegment, step: Step<'_>) -> Accepted {
        if !self.windows.acknowledges_syn(segment, step.direction) {
            return Err(DropReason::CtInvalid);
        }
        let other = self.windows.endpoint(step.direction.opposite());
        // RFC 9293 figure 8: the second SYN|ACK of a simultaneous open needs no ACK.
        let is_complete = self.is_simultaneous && other.is(flag::SENT_SYN_ACK);
        let state = if is_complete {
            TcpState::Established
        } else {
            TcpState::SynRecv
        };
        self.open(state, segment, step)
    }

    /// Takes the connection for a new one if the receiver of a stray SYN accepted that.
    fn resynchronize(&mut self, segment: &TcpSegment, direction: Direction) -> bool {
        let Some(syn) = self.stray_syn.as_deref().copied() else {
            return false;
        };
        if direction != Direction::Reply || segment.ack != syn.end() {
            return false;
        }
        *self = Self::default();
        self.windows.open(&syn.segment(), Direction::Original);
        true
    }

    fn open(&mut self, state: TcpState, segment: &TcpSegment, step: Step<'_>) -> Accepted {
        self.windows.open(segment, step.direction);
        Ok(self.enter(state, step))
    }

    fn on_rst(&mut self, segment: &TcpSegment, step: Step<'_>) -> Accepted {
        let span = self.windows.span(segment, step.direction);
        let place = match (self.state, step.direction) {
            (TcpState::None, _) => ResetPlace::Outside,
            // RFC 9293 section 3.10.7.3: must acknowledge the SYN.
            (TcpState::SynSent, Direction::Reply) => {
                let is_answer = self.windows.acknowledges_syn(segment, step.direction);
                if is_answer {
                    ResetPlace::Exact
                } else {
                    ResetPlace::Outside
                }
            }
            // May end an older connection that the other end still has (RFC 9293 figure 9).
            (TcpState::SynSent, Direction::Original)
                if span.seq != self.windows.next_seq(Direction::Original) =>
            {
                ResetPlace::Inside
            }
            (_, Direction::Reply) if self.is_answer_to_stray(&span) => ResetPlace::Exact,
            _ => self.windows.judge_reset(&span, step.direction),
        };
        match place {
            ResetPlace::Exact => Ok(self.enter(TcpState::Close, step)),
            // Outside of an open connection nobody asks back: it is over.
            ResetPlace::Inside if self.is_closing() => Ok(self.enter(TcpState::Close, step)),
            ResetPlace::Inside => Ok(Progress::UNCHANGED),
            ResetPlace::Outside => Err(DropReason::CtInvalid),
        }
    }

    fn is_answer_to_stray(&self, span: &Span) -> bool {
        let syn = self.stray_syn.as_deref();
        syn.is_some_and(|syn| syn.end() == span.ack)
    }

    const fn is_closing(&self) -> bool {
        use TcpState::{Close, CloseWait, FinWait, LastAck, TimeWait};
        matches!(self.state, FinWait | CloseWait | LastAck | TimeWait | Close)
    }

    fn on_ack(&mut self, segment: &TcpSegment, kind: Kind, step: Step<'_>) -> Accepted {
        match (self.state, step.direction) {
            (TcpState::None, _) => self.windows = Windows::midstream(),
            // The other end may have an older connection open, or be about to close it, and say so
            // (RFC 9293 figure 9): the client answers with a reset, which ends it.
            (TcpState::SynSent | TcpState::SynSent2, Direction::Reply) => {
                return Ok(Progress::UNCHANGED);
            }
            (TcpState::SynSent | TcpState::SynSent2, _) => return Err(DropReason::CtInvalid),
            _ => {}
        }
        let span = self.windows.span(segment, step.direction);
        if !self.windows.contain(&span, step.direction) {
            return if step.config.tcp_be_liberal {
                Ok(Progress::UNCHANGED)
            } else {
                Err(DropReason::CtInvalid)
            };
        }
        self.windows.update(&span, step.direction);
        // Both ends go on as before: the SYN was refused. While the connection ends, its last
        // segments may be older than the SYN and say nothing about it.
        if !self.is_closing() {
            self.stray_syn = None;
        }
        if kind == Kind::Fin {
            let (sender, _) = self.windows.ends_mut(step.direction);
            sender.set(flag::SENT_FIN);
        }
        let state = self.state_after_ack(step.direction);
        self.note_repeats(&span, step.direction);
        Ok(self.enter(state, step))
    }

    /// Returns the state after data or an acknowledgement.
    fn state_after_ack(&self, direction: Direction) -> TcpState {
        let is_handshake = self.state == TcpState::SynRecv
            && direction == Direction::Reply
            && !self.is_simultaneous;
        match self.state_of_fins() {
            _ if self.state == TcpState::Close => TcpState::Close,
            // The handshake ends with the ACK of whoever began it.
            TcpState::Established if is_handshake => TcpState::SynRecv,
            state => state,
        }
    }

    /// Returns the state that FINs and their acknowledgements amount to.
    fn state_of_fins(&self) -> TcpState {
        use TcpState::{CloseWait, Established, FinWait, LastAck, TimeWait};
        let original = self.windows.endpoint(Direction::Original);
        let reply = self.windows.endpoint(Direction::Reply);
        match (original.is(flag::SENT_FIN), reply.is(flag::SENT_FIN)) {
            (false, false) => Established,
            (true, false) if original.is(flag::UNACKNOWLEDGED) => FinWait,
            (false, true) if reply.is(flag::UNACKNOWLEDGED) => FinWait,
            (true, false) | (false, true) => CloseWait,
            (true, true) if self.windows.have_unacknowledged() => LastAck,
            (true, true) => TimeWait,
        }
    }

    fn note_repeats(&mut self, span: &Span, direction: Direction) {
        let mut this = LastSegment {
            seq: span.seq,
            ack: span.ack,
            is_reply: direction == Direction::Reply,
            has_zero_window: span.win == 0,
            repeats: self.last.repeats,
        };
        let is_repeated = this
            == LastSegment {
                repeats: this.repeats,
                ..self.last
            };
        this.repeats = if is_repeated {
            this.repeats.saturating_add(1)
        } else {
            0
        };
        self.last = this;
    }

    fn enter(&mut self, state: TcpState, step: Step<'_>) -> Progress {
        let was_open = matches!(self.state, TcpState::SynRecv | TcpState::Established);
        let assured = was_open && state == TcpState::Established && step.replied;
        self.state = state;
        Progress::keep(self.timeout(step), assured)
    }

    pub(super) fn timeout(&self, step: Step<'_>) -> Duration {
        let timeout = self.state.timeout(step.config);
        let is_doubtful = self.last.repeats >= MAX_RETRANSMISSIONS
            || self.last.has_zero_window
            || self.windows.have_unacknowledged()
            || !step.replied;
        if is_doubtful {
            timeout.min(step.config.tcp_unacknowledged)
        } else {
            timeout
        }
    }

    pub(super) const fn state_name(&self) -> &'static str {
        match self.state {
            TcpState::None => "NONE",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynSent2 => "SYN_SENT2",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
        }
    }
}

impl TcpState {
    const fn timeout(self, config: &ConntrackConfig) -> Duration {
        match self {
            Self::None | Self::SynSent | Self::SynSent2 => config.tcp_syn_sent,
            Self::SynRecv => config.tcp_syn_recv,
            Self::Established => config.tcp_established,
            Self::FinWait => config.tcp_fin_wait,
            Self::CloseWait => config.tcp_close_wait,
            Self::LastAck => config.tcp_last_ack,
            Self::TimeWait => config.tcp_time_wait,
            Self::Close => config.tcp_close,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    const START: [u32; 2] = [1_000, u32::MAX - 3_000];

    fn step(config: &ConntrackConfig, direction: Direction) -> Step<'_> {
        Step {
            config,
            direction,
            replied: true,
            created: Timestamp::default(),
            now: Timestamp::default(),
        }
    }

    /// A segment by what it does to where its sender and its receiver are.
    #[derive(Debug, Clone, Copy)]
    struct Move {
        is_reply: bool,
        seq: i32,
        ack: i32,
        payload_len: u32,
        window: u16,
        flags: u8,
        sack: Option<u32>,
    }

    fn any_move() -> impl Strategy<Value = Move> {
        let place =
            prop_oneof![5 => Just(0), 2 => Just(-100), 1 => Just(300), 1 => -80_000..80_000i32];
        let window = prop_oneof![6 => Just(0x2000u16), 1 => Just(0), 1 => any::<u16>()];
        let flags = prop_oneof![12 => Just(tcp_flags::ACK), 1 => any::<u8>()];
        let payload_len = prop_oneof![Just(0u32), Just(100), Just(1_400), 0u32..60_000];
        let sack = prop::option::weighted(0.05, any::<u32>());
        (
            any::<bool>(),
            place.clone(),
            place,
            payload_len,
            window,
            flags,
            sack,
        )
            .prop_map(
                |(is_reply, seq, ack, payload_len, window, flags, sack)| Move {
                    is_reply,
                    seq,
                    ack,
                    payload_len,
                    window,
                    flags,
                    sack,
                },
            )
    }

    /// Plays the moves on an open connection; returns how many segments were predicted.
    fn play(moves: &[Move]) -> usize {
        let config = ConntrackConfig::default();
        let mut reached = START;
        let mut plain = TcpTrack::default();
        let open = |track: &mut TcpTrack, direction, flags, seq, ack| {
            let segment = TcpSegment {
                seq,
                ack,
                flags,
                window: 0x2000,
                window_scale: (flags & tcp_flags::SYN != 0).then_some(2),
                ..TcpSegment::default()
            };
            track.advance(&segment, step(&config, direction)).unwrap();
        };
        let [client, server] = START;
        let (first, second) = (client.wrapping_sub(1), server.wrapping_sub(1));
        open(&mut plain, Direction::Original, tcp_flags::SYN, first, 0);
        open(
            &mut plain,
            Direction::Reply,
            tcp_flags::SYN | tcp_flags::ACK,
            second,
            client,
        );
        open(
            &mut plain,
            Direction::Original,
            tcp_flags::ACK,
            client,
            server,
        );
        open(&mut plain, Direction::Reply, tcp_flags::ACK, server, client);
        let (mut predicting, mut predicted) = (plain.clone(), 0);
        for one in moves {
            let (own, other) = if one.is_reply { (1, 0) } else { (0, 1) };
            let segment = TcpSegment {
                seq: reached[own].wrapping_add_signed(one.seq),
                ack: reached[other].wrapping_add_signed(one.ack),
                window: one.window,
                flags: one.flags,
                payload_len: one.payload_len,
                sack_right_edge: one.sack,
                ..TcpSegment::default()
            };
            let direction = if one.is_reply {
                Direction::Reply
            } else {
                Direction::Original
            };
            let step = step(&config, direction);
            let expected = plain.advance(&segment, step);
            let before = predicting.clone();
            // Only segments without options are offered.
            let found = (one.sack.is_none())
                .then(|| predicting.advance_predicted(&segment, step))
                .flatten();
            if found.is_none() {
                assert_eq!(predicting, before);
            }
            predicted += usize::from(found.is_some());
            let actual = found.map_or_else(|| predicting.advance(&segment, step), Ok);
            assert_eq!((actual, &predicting), (expected, &plain), "{segment:?}");
            if expected.is_ok() && one.seq == 0 {
                reached[own] = segment.seq.wrapping_add(segment.payload_len);
            }
        }
        predicted
    }

    const DATA: Move = Move {
        is_reply: false,
        seq: 0,
        ack: 0,
        payload_len: 1_000,
        window: 0x2000,
        flags: tcp_flags::ACK,
        sack: None,
    };

    #[test]
    fn data_and_its_acknowledgement_are_predicted() {
        let ack = Move {
            is_reply: true,
            payload_len: 0,
            ..DATA
        };
        assert_eq!(play(&[DATA, ack, DATA, ack]), 4);
    }

    #[test]
    fn what_ends_the_connection_or_comes_again_is_not_predicted() {
        let fin = Move {
            flags: tcp_flags::ACK | tcp_flags::FIN,
            ..DATA
        };
        let again = Move {
            seq: -1_000,
            ..DATA
        };
        assert_eq!(play(&[DATA, again, fin]), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..Default::default() })]

        #[test]
        fn a_predicted_segment_does_what_any_segment_does(
            moves in proptest::collection::vec(any_move(), 1..40),
        ) {
            play(&moves);
        }
    }
}
