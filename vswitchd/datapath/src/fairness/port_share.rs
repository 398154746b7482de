//! A port's part of the connection table, as all threads count it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use vswitch_api::PortNo;

use crate::time::Timestamp;

/// How long a port counts as over its share after something of it was refused.
const REMEMBERED: Duration = Duration::from_secs(5);

/// What the connections count that came in through one port.
// Relaxed: each figure stands alone, and a packet too late or too early changes no verdict.
#[derive(Debug)]
pub struct PortShare {
    port: PortNo,
    /// Connections in the table that nobody answered.
    unanswered: AtomicUsize,
    /// Connections that were answered, ever.
    answered: AtomicU64,
    /// When something was last refused, nanoseconds; 0 is never.
    refused_at: AtomicU64,
}

impl PortShare {
    /// Returns the share of a port that has opened nothing yet.
    #[must_use]
    pub const fn new(port: PortNo) -> Self {
        Self {
            port,
            unanswered: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            refused_at: AtomicU64::new(0),
        }
    }

    /// Returns whose it is.
    #[must_use]
    pub const fn port(&self) -> PortNo {
        self.port
    }

    /// Counts a new connection.
    pub(crate) fn open(&self) {
        self.unanswered.fetch_add(1, Relaxed);
    }

    /// Counts the answer to a connection.
    pub(crate) fn answer(&self) {
        self.unanswered.fetch_sub(1, Relaxed);
        self.answered.fetch_add(1, Relaxed);
    }

    /// Counts the end of a connection that nobody answered.
    pub(crate) fn give_up(&self) {
        self.unanswered.fetch_sub(1, Relaxed);
    }

    /// Returns how many connections of the port wait for an answer.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Relaxed)
    }

    /// Returns how many connections of the port were answered, ever.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Notes that something of the port was refused because it is over its share.
    pub fn note_refusal(&self, now: Timestamp) {
        self.refused_at.store(now.as_nanos().max(1), Relaxed);
    }

    /// Returns whether the port is, or was until a few seconds ago, over its share.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        let at = self.refused_at.load(Relaxed);
        at != 0 && now.since(Timestamp::from_nanos(at)) < REMEMBERED
    }
}
