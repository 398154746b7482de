//! Input and result of the protocols' state machines for one packet.

use std::time::Duration;

use super::{ConntrackConfig, Direction};
use crate::time::Timestamp;

/// What an accepted packet means for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// How long the connection is kept from here on; `None` leaves its time as it is, because
    /// the packet proves nothing (it may be out of place and is for the endpoints to judge).
    pub(super) timeout: Option<Duration>,
    /// Both sides took part: not to be sacrificed when the table is full.
    pub(super) assured: bool,
}

impl Progress {
    /// The packet changes nothing.
    pub(super) const UNCHANGED: Self = Self {
        timeout: None,
        assured: false,
    };

    pub(super) const fn keep(timeout: Duration, assured: bool) -> Self {
        Self {
            timeout: Some(timeout),
            assured,
        }
    }
}

/// What a packet of an unknown connection may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// A connection.
    New,
    /// One that is under way already.
    Midstream,
    /// None.
    Invalid,
}

/// Facts about the connection and the packet that every state machine gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) config: &'a ConntrackConfig,
    pub(super) direction: Direction,
    /// Whether packets went in both directions, this one included.
    pub(super) replied: bool,
    /// When the first packet came.
    pub(super) created: Timestamp,
    pub(super) now: Timestamp,
}
