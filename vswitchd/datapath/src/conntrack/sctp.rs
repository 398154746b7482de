//! SCTP (RFC 9260): the association's handshake, shutdown and verification tags.
//!
//! ```text
//!  INIT ─► COOKIE_WAIT ─COOKIE ECHO─► COOKIE_ECHOED ─COOKIE ACK─► ESTABLISHED
//!                                                                     │ SHUTDOWN
//!  CLOSED ◄─SHUTDOWN COMPLETE─ SHUTDOWN_ACK_SENT ◄─SHUTDOWN ACK─ SHUTDOWN_SENT/_RECD
//! ```
//!
//! Only the first chunk of a packet is looked at; control chunks come first (section 6.10).
//! The tag that packets of one direction carry is learnt from the first of them.

use std::time::Duration;

use super::end::ConnectionEnd;
use super::step::{Progress, Start, Step};
use super::{ConntrackConfig, Direction};
use crate::drop_reason::DropReason;

/// Chunk types, RFC 9260 section 3.2.
mod chunk {
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const ABORT: u8 = 6;
    pub(super) const SHUTDOWN: u8 = 7;
    pub(super) const SHUTDOWN_ACK: u8 = 8;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
    pub(super) const SHUTDOWN_COMPLETE: u8 = 14;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum SctpState {
    #[default]
    None,
    CookieWait,
    CookieEchoed,
    Established,
    /// The original direction asked to end.
    ShutdownSent,
    /// The reply direction asked to end.
    ShutdownRecd,
    ShutdownAckSent,
    Closed,
}

/// A host that lost the association starts it anew (section 5.2): tags seen in that handshake
/// count only once it is complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Restart {
    echo: Option<(Direction, u32)>,
}

/// State of an SCTP association.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SctpTrack {
    state: SctpState,
    tag_original: Option<u32>,
    tag_reply: Option<u32>,
    restart: Option<Restart>,
}

impl SctpTrack {
    /// Returns what a packet of an unknown association may start.
    pub(super) const fn start_of((tag, chunk): (u32, u8)) -> Start {
        match chunk {
            // Section 8.5.1: an INIT's own tag is zero, and no other chunk's is.
            chunk::INIT if tag == 0 => Start::New,
            _ if tag == 0 => Start::Invalid,
            chunk::INIT
            | chunk::INIT_ACK
            | chunk::ABORT
            | chunk::SHUTDOWN_ACK
            | chunk::COOKIE_ECHO
            | chunk::COOKIE_ACK
            | chunk::SHUTDOWN_COMPLETE => Start::Invalid,
            _ => Start::Midstream,
        }
    }

    /// Returns whether the association was shut down or aborted.
    pub(super) fn is_finished(&self) -> bool {
        self.state == SctpState::Closed
    }

    /// Returns how its own ends have ended it.
    pub(super) fn own_end(&self) -> Option<ConnectionEnd> {
        self.is_finished().then_some(ConnectionEnd::Fin)
    }

    /// Returns whether the association is over and the chunk asks for another one.
    pub(super) fn is_reopened_by(&self, chunk: u8) -> bool {
        self.is_finished() && chunk == chunk::INIT
    }

    /// Takes a packet in.
    pub(super) fn advance(
        &mut self,
        tag: u32,
        chunk: u8,
        step: Step<'_>,
    ) -> Result<Progress, DropReason> {
        if self.is_restart_chunk(chunk) {
            return self.advance_restart(tag, chunk, step);
        }
        if !self.is_tag_right(tag, chunk, step.direction) {
            return Err(DropReason::CtInvalid);
        }
        let state = self
            .state
            .next(chunk, step.direction)
            .ok_or(DropReason::CtInvalid)?;
        self.learn_tag(tag, chunk, step.direction);
        Ok(self.enter(state, step))
    }

    fn enter(&mut self, state: SctpState, step: Step<'_>) -> Progress {
        self.state = state;
        let assured = state == SctpState::Established && step.replied;
        Progress::keep(state.timeout(step.config), assured)
    }

    fn is_restart_chunk(&self, chunk: u8) -> bool {
        let is_open = !matches!(
            self.state,
            SctpState::None | SctpState::CookieWait | SctpState::CookieEchoed | SctpState::Closed
        );
        let is_later = matches!(
            chunk,
            chunk::INIT_ACK | chunk::COOKIE_ECHO | chunk::COOKIE_ACK
        );
        is_open && (chunk == chunk::INIT || (self.restart.is_some() && is_later))
    }

    fn advance_restart(
        &mut self,
        tag: u32,
        chunk: u8,
        step: Step<'_>,
    ) -> Result<Progress, DropReason> {
        if (tag == 0) != (chunk == chunk::INIT) {
            return Err(DropReason::CtInvalid);
        }
        match (chunk, self.restart.and_then(|restart| restart.echo)) {
            (chunk::COOKIE_ECHO, _) => {
                self.restart = Some(Restart {
                    echo: Some((step.direction, tag)),
                });
            }
            (chunk::COOKIE_ACK, Some((echoed, echo_tag))) if echoed != step.direction => {
                self.restart = None;
                *self.tag_mut(echoed) = Some(echo_tag);
                *self.tag_mut(step.direction) = Some(tag);
                return Ok(self.enter(SctpState::Established, step));
            }
            (chunk::INIT, _) => self.restart = Some(Restart::default()),
            _ => {}
        }
        Ok(Progress::UNCHANGED)
    }

    const fn tag_mut(&mut self, direction: Direction) -> &mut Option<u32> {
        match direction {
            Direction::Original => &mut self.tag_original,
            Direction::Reply => &mut self.tag_reply,
        }
    }

    fn is_tag_right(&self, tag: u32, chunk: u8, direction: Direction) -> bool {
        let (own, other) = match direction {
            Direction::Original => (self.tag_original, self.tag_reply),
            Direction::Reply => (self.tag_reply, self.tag_original),
        };
        match chunk {
            chunk::INIT => tag == 0,
            // Section 8.5.1: whoever does not know the association reflects the tag.
            chunk::ABORT | chunk::SHUTDOWN_COMPLETE => {
                own.is_none_or(|own| own == tag) || other == Some(tag)
            }
            _ => tag != 0 && own.is_none_or(|own| own == tag),
        }
    }

    fn learn_tag(&mut self, tag: u32, chunk: u8, direction: Direction) {
        if !matches!(chunk, chunk::INIT | chunk::ABORT | chunk::SHUTDOWN_COMPLETE) {
            self.tag_mut(direction).get_or_insert(tag);
        }
    }

    pub(super) const fn state_name(&self) -> &'static str {
        match self.state {
            SctpState::None => "NONE",
            SctpState::CookieWait => "COOKIE_WAIT",
            SctpState::CookieEchoed => "COOKIE_ECHOED",
            SctpState::Established => "ESTABLISHED",
            SctpState::ShutdownSent => "SHUTDOWN_SENT",
            SctpState::ShutdownRecd => "SHUTDOWN_RECD",
            SctpState::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            SctpState::Closed => "CLOSED",
        }
    }
}

impl SctpState {
    /// Returns the state after a chunk, `None` if it cannot come now.
    fn next(self, chunk: u8, direction: Direction) -> Option<Self> {
        use SctpState::{
            Closed, CookieEchoed, CookieWait, Established, None as Nothing, ShutdownAckSent,
            ShutdownRecd, ShutdownSent,
        };
        let next = match (chunk, self) {
            (chunk::INIT, Nothing | CookieWait) => CookieWait,
            (chunk::INIT | chunk::INIT_ACK, CookieEchoed) => CookieEchoed,
            (chunk::INIT_ACK, CookieWait) if direction == Direction::Reply => CookieWait,
            (chunk::COOKIE_ECHO, CookieWait | CookieEchoed) => CookieEchoed,
            (chunk::COOKIE_ECHO, Established) => Established,
            (chunk::COOKIE_ACK, CookieEchoed | Established) => Established,
            (chunk::SHUTDOWN, Established) => match direction {
                Direction::Original => ShutdownSent,
                Direction::Reply => ShutdownRecd,
            },
            (chunk::SHUTDOWN, ShutdownSent | ShutdownRecd | ShutdownAckSent) => self,
            (chunk::SHUTDOWN_ACK, ShutdownSent | ShutdownRecd | ShutdownAckSent) => ShutdownAckSent,
            (chunk::SHUTDOWN_COMPLETE, ShutdownAckSent | Closed) => Closed,
            (chunk::ABORT, CookieWait | CookieEchoed | Established | ShutdownSent) => Closed,
            (chunk::ABORT, ShutdownRecd | ShutdownAckSent | Closed) => Closed,
            (_, _) if is_handshake(chunk) => return None,
            // Data and the rest need an association.
            (_, Nothing) => Established,
            (_, CookieWait | Closed) => return None,
            _ => self,
        };
        Some(next)
    }

    const fn timeout(self, config: &ConntrackConfig) -> Duration {
        match self {
            Self::None | Self::CookieWait | Self::CookieEchoed => config.sctp_init,
            Self::Established => config.sctp_established,
            Self::ShutdownSent | Self::ShutdownRecd | Self::ShutdownAckSent | Self::Closed => {
                config.sctp_shutdown
            }
        }
    }
}

const fn is_handshake(chunk: u8) -> bool {
    matches!(
        chunk,
        chunk::INIT
            | chunk::INIT_ACK
            | chunk::ABORT
            | chunk::SHUTDOWN
            | chunk::SHUTDOWN_ACK
            | chunk::COOKIE_ECHO
            | chunk::COOKIE_ACK
            | chunk::SHUTDOWN_COMPLETE
    )
}
