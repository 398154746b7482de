//! TCP.

use super::protocol::{Progress, Start, Step};
use crate::drop_reason::DropReason;
use crate::packet::{TcpSegment, tcp_flags};

/// State of a TCP connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TcpTrack {}

impl TcpTrack {
    pub(super) fn start_of(segment: &TcpSegment) -> Start {
        match segment.flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN) {
            tcp_flags::SYN => Start::New,
            tcp_flags::ACK => Start::Midstream,
            _ => Start::Invalid,
        }
    }
    pub(super) fn advance(
        &mut self,
        _segment: &TcpSegment,
        step: Step<'_>,
    ) -> Result<Progress, DropReason> {
        Ok(Progress::keep(step.config.tcp_established, step.replied))
    }
    pub(super) fn is_reopened_by(&self, _segment: &TcpSegment) -> bool {
        false
    }
    pub(super) fn state_name(&self) -> &'static str {
        "ESTABLISHED"
    }
}
