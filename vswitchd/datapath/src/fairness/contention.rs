//! Contention: whether ports of a worker compete for its time.

use std::time::Duration;

use crate::time::Timestamp;

/// Length of the windows in which demand is counted.
const WINDOW: Duration = Duration::from_millis(100);
/// Frames of others in the last two windows that make contention: a probe now and then does not.
const LEAST_DEMAND: u32 = 8;
/// How long a worker that had to wait for its processor assumes that it would have to again: a
/// flooder that is held back no longer shows the pressure that it made.
const PRESSURE_HOLD: Duration = Duration::from_secs(1);
/// Share of the time for which a worker that has work may be kept off the processor before that
/// counts as pressure, as its inverse.
const PRESSURE_SHARE: u32 = 10;

/// Frames in the current and in the last window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    window: u64,
    current: u32,
    last: u32,
}

impl Demand {
    fn turn_to(&mut self, now: Timestamp) {
        let window = window_of(now);
        match window.saturating_sub(self.window) {
            0 => return,
            1 => self.last = self.current,
            _ => self.last = 0,
        }
        (self.window, self.current) = (window, 0);
    }

    pub(super) fn add(&mut self, frames: u32, now: Timestamp) {
        self.turn_to(now);
        self.current = self.current.saturating_add(frames);
    }

    pub(super) fn recent(mut self, now: Timestamp) -> u32 {
        self.turn_to(now);
        self.current.saturating_add(self.last)
    }
}

fn window_of(now: Timestamp) -> u64 {
    // A hundred milliseconds fit by far.
    now.as_nanos() / u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX)
}

/// What a worker knows of who else wants it, and of who else wants its processor.
#[derive(Debug, Default)]
pub struct Contention {
    demand: Demand,
    pressed_until: Timestamp,
}

impl Contention {
    /// Counts frames of some port.
    pub(super) fn add(&mut self, frames: u32, now: Timestamp) {
        self.demand.add(frames, now);
    }

    /// Takes note of how long the worker, having work, waited for its processor within a time.
    pub fn note_wait(&mut self, waited: Duration, within: Duration, now: Timestamp) {
        if waited * PRESSURE_SHARE > within {
            self.pressed_until = now + PRESSURE_HOLD;
        }
    }

    /// Returns whether others than the port with this demand want the worker or its processor.
    pub(super) fn is_felt(&self, own: Demand, now: Timestamp) -> bool {
        let others = self.demand.recent(now).saturating_sub(own.recent(now));
        others >= LEAST_DEMAND || now < self.pressed_until
    }
}
