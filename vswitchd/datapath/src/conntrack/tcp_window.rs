//! TCP windows: which sequence and acknowledgement numbers an endpoint can have sent.
//!
//! "Real Stateful TCP Packet Filtering in IP Filter" (G. van Rooij, 2000) as nf_conntrack uses
//! it: data must lie in what the receiver offered or in what it may have to see again,
//! acknowledgements must be of data that went by. [`super::tcp`] calls it for each segment.

use super::Direction;
use super::kernel_state::KernelTcpEnd;
use crate::packet::{TcpSegment, tcp_flags};

/// Acknowledgements may be this old at least; van Rooij's figure for unscaled windows.
const MAX_ACK_WINDOW: u32 = 66_000;
/// Largest window scale (RFC 7323 section 2.3), taken where the SYNs were not seen.
const MAX_SCALE: u8 = 14;
/// Largest window there is; keeps every comparison below half of the sequence space.
const MAX_WINDOW: u32 = 1 << 30;

/// Whether `a` comes before `b` in sequence space (RFC 9293 section 3.4).
pub(super) const fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > u32::MAX / 2
}

const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

/// What is known of one end from what it sent and what the other one answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TcpEnd {
    /// Sequence number of its SYN.
    isn: u32,
    /// End of the highest segment it sent.
    end: u32,
    /// End of what the other end lets it send.
    max_end: u32,
    /// Largest window it offered.
    max_win: u32,
    /// Highest acknowledgement it sent; means nothing before [`flag::ACKED`].
    max_ack: u32,
    scale: u8,
    /// See [`flag`].
    flags: u8,
}

/// Facts about an endpoint; bits, since a million connections have two each.
pub(super) mod flag {
    /// Offered window scaling.
    pub(in super::super) const OFFERS_SCALE: u8 = 0x01;
    /// Was seen to send something.
    pub(in super::super) const KNOWN: u8 = 0x02;
    /// Acknowledged something.
    pub(in super::super) const ACKED: u8 = 0x04;
    /// Sent something that is not acknowledged up to its end.
    pub(in super::super) const UNACKNOWLEDGED: u8 = 0x08;
    pub(in super::super) const SENT_FIN: u8 = 0x10;
    pub(in super::super) const SENT_SYN_ACK: u8 = 0x20;
}

/// A segment in terms of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) seq: u32,
    pub(super) end: u32,
    pub(super) ack: u32,
    /// Highest number acknowledged, selectively or not.
    sack: u32,
    /// Offered window, scaled.
    pub(super) win: u32,
    has_ack: bool,
}

/// Both ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Windows {
    original: TcpEnd,
    reply: TcpEnd,
}

impl Windows {
    /// Returns the windows of a connection whose SYNs were not seen.
    pub(super) fn midstream() -> Self {
        let end = TcpEnd {
            scale: MAX_SCALE,
            ..TcpEnd::default()
        };
        Self {
            original: end,
            reply: end,
        }
    }

    pub(super) const fn endpoint(&self, direction: Direction) -> &TcpEnd {
        match direction {
            Direction::Original => &self.original,
            Direction::Reply => &self.reply,
        }
    }

    /// Returns the sender and the receiver of packets in this direction.
    pub(super) const fn ends_mut(&mut self, direction: Direction) -> (&mut TcpEnd, &mut TcpEnd) {
        match direction {
            Direction::Original => (&mut self.original, &mut self.reply),
            Direction::Reply => (&mut self.reply, &mut self.original),
        }
    }

    /// Takes in a SYN or SYN|ACK: its sender starts anew.
    pub(super) fn open(&mut self, segment: &TcpSegment, direction: Direction) {
        let (sender, receiver) = self.ends_mut(direction);
        let end = segment
            .seq
            .wrapping_add(segment.payload_len)
            .wrapping_add(1);
        let win = u32::from(segment.window);
        *sender = TcpEnd {
            isn: segment.seq,
            end,
            max_end: end,
            max_win: win.max(1),
            scale: segment.window_scale.unwrap_or(0).min(MAX_SCALE),
            flags: flag::KNOWN | flag::UNACKNOWLEDGED,
            ..TcpEnd::default()
        };
        if segment.window_scale.is_some() {
            sender.set(flag::OFFERS_SCALE);
        }
        if receiver.is(flag::KNOWN) {
            // RFC 7323 section 2.2: scaling is on only if both SYNs offer it.
            if !(sender.is(flag::OFFERS_SCALE) && receiver.is(flag::OFFERS_SCALE)) {
                (sender.scale, receiver.scale) = (0, 0);
            }
            sender.max_end = sender.max_end.max_seq(end.wrapping_add(receiver.max_win));
        }
        if segment.flags & tcp_flags::ACK != 0 {
            sender.set(flag::SENT_SYN_ACK);
            sender.acknowledge(segment.ack, receiver);
            receiver.max_end = receiver.max_end.max_seq(segment.ack.wrapping_add(win));
        }
    }

    /// Returns whether the segment acknowledges the SYN of its receiver, or data that came with
    /// it (RFC 7413), and nothing that was not sent.
    pub(super) fn acknowledges_syn(&self, segment: &TcpSegment, direction: Direction) -> bool {
        let receiver = self.endpoint(direction.opposite());
        segment.flags & tcp_flags::ACK != 0
            && after(segment.ack, receiver.isn)
            && !after(segment.ack, receiver.end)
    }

    /// Returns the end of what was sent in this direction.
    pub(super) const fn next_seq(&self, direction: Direction) -> u32 {
        self.endpoint(direction).end
    }

    pub(super) const fn has_isn(&self, direction: Direction, isn: u32) -> bool {
        self.endpoint(direction).isn == isn
    }

    /// Returns the segment in terms of the connection.
    pub(super) fn span(&self, segment: &TcpSegment, direction: Direction) -> Span {
        let flags = segment.flags;
        let bit = |flag: u8| u32::from(flags & flag != 0);
        let virtual_len = bit(tcp_flags::SYN) + bit(tcp_flags::FIN);
        // Some stacks send RST|ACK with a zero acknowledgement: it says nothing.
        let is_void_rst = flags & tcp_flags::RST != 0 && segment.ack == 0;
        let has_ack = flags & tcp_flags::ACK != 0 && !is_void_rst;
        let ack = if has_ack {
            segment.ack
        } else {
            self.endpoint(direction.opposite()).end
        };
        let edge = segment.sack_right_edge.filter(|_| has_ack).unwrap_or(ack);
        let scale = if flags & tcp_flags::SYN != 0 {
            0
        } else {
            self.endpoint(direction).scale
        };
        Span {
            seq: segment.seq,
            end: segment
                .seq
                .wrapping_add(segment.payload_len)
                .wrapping_add(virtual_len),
            ack,
            sack: ack.max_seq(edge),
            win: u32::from(segment.window) << scale,
            has_ack,
        }
    }

    /// Returns whether the sender can have sent this, as far as both ends are known.
    pub(super) fn contain(&self, span: &Span, direction: Direction) -> bool {
        let (sender, receiver) = (
            self.endpoint(direction),
            self.endpoint(direction.opposite()),
        );
        if !receiver.is(flag::KNOWN) {
            return true;
        }
        let oldest_ack = receiver
            .end
            .wrapping_sub(MAX_ACK_WINDOW.max(sender.max_win));
        let is_ack_possible = !after(span.sack, receiver.end) && !before(span.sack, oldest_ack);
        if !sender.is(flag::KNOWN) {
            return is_ack_possible;
        }
        // One more than the window: keep-alives repeat the last byte (RFC 1122 4.2.3.6).
        let oldest_end = sender.end.wrapping_sub(receiver.max_win).wrapping_sub(1);
        // Starting right at the window's end is the probe of a closed one (section 3.8.6.1).
        is_ack_possible && !after(span.seq, sender.max_end) && after(span.end, oldest_end)
    }

    /// Takes in what a segment says of both ends.
    pub(super) fn update(&mut self, span: &Span, direction: Direction) {
        let (sender, receiver) = self.ends_mut(direction);
        if !sender.is(flag::KNOWN) {
            sender.meet(span, receiver.is(flag::KNOWN));
        }
        if !receiver.is(flag::KNOWN) && span.has_ack {
            (receiver.end, receiver.max_end) = (span.sack, span.sack);
        }
        let offered = span
            .win
            .saturating_add(span.sack.wrapping_sub(span.ack))
            .max(1);
        sender.max_win = sender.max_win.max(offered).min(MAX_WINDOW);
        if after(span.end, sender.end) {
            sender.end = span.end;
            sender.set(flag::UNACKNOWLEDGED);
        }
        // More than was offered came by: the receiver must have offered it unseen.
        if receiver.is(flag::KNOWN) && after(span.end, sender.max_end) {
            let excess = span.end.wrapping_sub(sender.max_end);
            receiver.max_win = receiver.max_win.saturating_add(excess).min(MAX_WINDOW);
        }
        receiver.max_end = receiver.max_end.max_seq(span.sack.wrapping_add(span.win));
        if span.has_ack {
            sender.acknowledge(span.ack, receiver);
        }
    }

    /// Returns what the kernel has to know of an end.
    pub(super) fn for_kernel(&self, direction: Direction, window: u16) -> KernelTcpEnd {
        let (own, other) = (
            self.endpoint(direction),
            self.endpoint(direction.opposite()),
        );
        KernelTcpEnd {
            has_acked: own.is(flag::ACKED),
            has_sent_fin: own.is(flag::SENT_FIN),
            isn: own.isn,
            end: own.end,
            max_end: own.max_end,
            max_win: own.max_win,
            // What it acknowledges first is more than that.
            max_ack: own.acknowledged().unwrap_or(other.isn),
            scale: own.is(flag::OFFERS_SCALE).then_some(own.scale),
            window,
        }
    }

    /// Puts what the kernel knows of both ends in place of what was known before.
    pub(super) fn learn_from_kernel(&mut self, [original, reply]: &[KernelTcpEnd; 2]) {
        self.original = TcpEnd::from_kernel(original, reply);
        // Who answers is unknown until it has.
        if reply.has_acked {
            self.reply = TcpEnd::from_kernel(reply, original);
            self.reply.set(flag::SENT_SYN_ACK);
        }
    }

    /// Takes in a segment without SYN and FIN that goes on where the sender was, if both ends
    /// are known and it fits: what [`contain`](Self::contain) and [`update`](Self::update) do
    /// for it. Returns `false` and does nothing for all others.
    #[inline(always)]
    pub(super) fn advance_predicted(&mut self, segment: &TcpSegment, direction: Direction) -> bool {
        const LOOKED_AT: u8 = flag::KNOWN | flag::ACKED | flag::SENT_FIN;
        const OPEN: u8 = flag::KNOWN | flag::ACKED;
        let (sender, receiver) = self.ends_mut(direction);
        let (ack, end) = (segment.ack, segment.seq.wrapping_add(segment.payload_len));
        let win = u32::from(segment.window) << sender.scale;
        let fits = sender.flags & LOOKED_AT == OPEN
            && receiver.flags & LOOKED_AT == OPEN
            && !after(ack, receiver.end)
            && receiver.end.wrapping_sub(ack) <= MAX_ACK_WINDOW
            && !before(segment.seq, sender.end)
            && !after(end, sender.max_end)
            && !after(segment.seq, sender.max_end)
            && win != 0
            && win <= sender.max_win;
        if !fits {
            return false;
        }
        if end != sender.end {
            sender.end = end;
            sender.set(flag::UNACKNOWLEDGED);
        }
        receiver.max_end = receiver.max_end.max_seq(ack.wrapping_add(win));
        sender.max_ack = sender.max_ack.max_seq(ack);
        if ack == receiver.end {
            receiver.clear(flag::UNACKNOWLEDGED);
        }
        true
    }

    /// Returns where a reset in this direction stands to what its receiver expects next
    /// (RFC 5961 section 3.2).
    pub(super) fn judge_reset(&self, span: &Span, direction: Direction) -> ResetPlace {
        let (sender, receiver) = (
            self.endpoint(direction),
            self.endpoint(direction.opposite()),
        );
        if !self.contain(span, direction) {
            return ResetPlace::Outside;
        }
        if !receiver.is(flag::ACKED) {
            return ResetPlace::Exact;
        }
        if before(span.seq, receiver.max_ack) {
            return ResetPlace::Outside;
        }
        // The end of what went by counts too: its acknowledgement may be on the way.
        if span.seq == receiver.max_ack || span.seq == sender.end {
            ResetPlace::Exact
        } else {
            ResetPlace::Inside
        }
    }

    pub(super) const fn have_unacknowledged(&self) -> bool {
        (self.original.flags | self.reply.flags) & flag::UNACKNOWLEDGED != 0
    }
}

/// Where a reset stands in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResetPlace {
    /// Its receiver will act on it.
    Exact,
    /// Its receiver will ask back with a challenge ACK.
    Inside,
    /// Forged or very late.
    Outside,
}

impl TcpEnd {
    /// Returns whether the [`flag`] is set.
    pub(super) const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Returns the sequence number of its SYN.
    pub(super) const fn isn(&self) -> u32 {
        self.isn
    }

    /// Returns the end of the highest segment it sent.
    pub(super) const fn end(&self) -> u32 {
        self.end
    }

    /// Returns the highest acknowledgement it sent, if it sent any.
    pub(super) fn acknowledged(&self) -> Option<u32> {
        self.is(flag::ACKED).then_some(self.max_ack)
    }

    pub(super) const fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    const fn clear(&mut self, flag: u8) {
        self.flags &= !flag;
    }

    /// Starts from the first segment that this end is seen to send, mid-stream. What the other
    /// end had acknowledged before it, where `is_expected`, was sent as well.
    fn meet(&mut self, span: &Span, is_expected: bool) {
        self.set(flag::KNOWN);
        let before = if is_expected { self.end } else { span.seq };
        if after(span.end, before) {
            self.set(flag::UNACKNOWLEDGED);
        } else {
            self.clear(flag::UNACKNOWLEDGED);
        }
        self.end = before.max_seq(span.end);
        self.max_end = if is_expected {
            self.max_end.max_seq(span.end)
        } else {
            span.end
        };
    }

    fn from_kernel(own: &KernelTcpEnd, other: &KernelTcpEnd) -> Self {
        let is_acknowledged = other.has_acked && other.max_ack == own.end;
        let mut end = Self {
            isn: own.isn,
            end: own.end,
            max_end: own.max_end,
            max_win: own.max_win,
            max_ack: if own.has_acked { own.max_ack } else { 0 },
            scale: own.scale.unwrap_or(0),
            flags: flag::KNOWN,
        };
        let facts = [
            (own.scale.is_some(), flag::OFFERS_SCALE),
            (own.has_acked, flag::ACKED),
            (own.has_sent_fin, flag::SENT_FIN),
            (!is_acknowledged, flag::UNACKNOWLEDGED),
        ];
        let facts = facts.into_iter().filter(|(is_so, _)| *is_so);
        facts.for_each(|(_, flag)| end.set(flag));
        end
    }

    fn acknowledge(&mut self, ack: u32, receiver: &mut Self) {
        if !self.is(flag::ACKED) {
            // Nobody acknowledges less than the SYN that is being answered.
            let least = receiver.is(flag::SENT_SYN_ACK).then_some(receiver.isn);
            self.max_ack = least.map_or(ack, |isn| ack.max_seq(isn));
            self.set(flag::ACKED);
        } else if after(ack, self.max_ack) {
            self.max_ack = ack;
        }
        if ack == receiver.end {
            receiver.clear(flag::UNACKNOWLEDGED);
        }
    }
}

/// The later of two numbers in sequence space.
trait MaxSeq {
    fn max_seq(self, other: Self) -> Self;
}

impl MaxSeq for u32 {
    fn max_seq(self, other: Self) -> Self {
        if after(other, self) { other } else { self }
    }
}
