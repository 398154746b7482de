//! The state of a TCP connection as the kernel tracks it, and back.
//!
//! The kernel keeps no state but the facts that it follows from, each of which stays once it is
//! so. What has other states (both ends sent a SYN, a SYN for an open connection) stays with the
//! engine.

use super::{LastSegment, TcpState, TcpTrack};
use crate::conntrack::Direction;
use crate::conntrack::kernel_state::KernelTcp;
use crate::conntrack::tcp_window::flag;

impl TcpTrack {
    /// Returns whether the kernel can track the connection from here on: it is not over, and
    /// there is nothing to it that the kernel does not know of.
    pub(in crate::conntrack) fn may_enter_kernel(&self) -> bool {
        use TcpState::{
            Close, CloseWait, Established, FinWait, LastAck, None, SynRecv, SynSent, SynSent2,
            TimeWait,
        };
        let [original, reply] = [Direction::Original, Direction::Reply].map(|direction| {
            let end = self.windows.endpoint(direction);
            (end.is(flag::KNOWN), end.is(flag::ACKED))
        });
        let is_known = match self.state {
            SynSent => original.0,
            SynRecv => original.0 && reply == (true, true) && !self.is_simultaneous,
            Established | FinWait | CloseWait | LastAck => [original, reply] == [(true, true); 2],
            None | SynSent2 | TimeWait | Close => false,
        };
        is_known && self.stray_syn.is_none()
    }

    /// Returns what the kernel has to know.
    pub(in crate::conntrack) fn for_kernel(&self) -> KernelTcp {
        let window = |direction| {
            let is_its = self.last.is_reply == (direction == Direction::Reply);
            u16::from(!(is_its && self.last.has_zero_window))
        };
        let end = |direction| self.windows.for_kernel(direction, window(direction));
        KernelTcp {
            is_open: self.state == TcpState::Established,
            is_reset: self.state == TcpState::Close,
            ends: [Direction::Original, Direction::Reply].map(end),
        }
    }

    /// Puts what the kernel knows in place of what was known before.
    pub(in crate::conntrack) fn learn_from_kernel(&mut self, tcp: &KernelTcp) {
        self.windows.learn_from_kernel(&tcp.ends);
        self.state = self.state_of(tcp);
        let [original, reply] = &tcp.ends;
        self.last = LastSegment {
            has_zero_window: original.window == 0 || reply.window == 0,
            ..LastSegment::default()
        };
    }

    fn state_of(&self, tcp: &KernelTcp) -> TcpState {
        let [original, reply] = &tcp.ends;
        match (original.has_sent_fin, reply.has_sent_fin) {
            _ if tcp.is_reset => TcpState::Close,
            _ if !reply.has_acked => TcpState::SynSent,
            (false, false) if !tcp.is_open => TcpState::SynRecv,
            // As FINs and their acknowledgements amount to.
            _ => self.state_of_fins(),
        }
    }
}
