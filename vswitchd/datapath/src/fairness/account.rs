//! A worker's account of one port: its turns, and the time wasted on it.

use std::time::Duration;

use super::contention::{Contention, Demand};
use super::port_share::PortShare;
use crate::time::Timestamp;

/// What a port is given each time it is its turn: about one batch of super-frames, or of packets
/// that walk the tables.
const QUANTUM: i64 = 100_000;
/// The longest debt, so that a worker that lost its processor in the middle of a batch does not
/// keep the port in hand from its turns for long.
const MOST_DEBT: i64 = 4 * QUANTUM;

/// One part in so many of a worker's time that a port's waste may take while others contend.
pub const WASTE_SHARE: u32 = 64;
/// Waste that a port may make at once, in time of a worker: some thousand packets.
const BURST: Duration = Duration::from_millis(16);
/// What a port that refuses may still take to have it so, on top.
const REFUSING: Duration = Duration::from_micros(500);
/// What has to leak before a paused port is heard again.
const RESUME: Duration = Duration::from_micros(300);
/// The most that one packet is charged: what is beyond, others took the processor for.
const MOST_EACH: Duration = Duration::from_micros(30);

/// What a batch of frames was to the datapath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Frames in the batch.
    pub frames: u32,
    /// Those that came to nothing so far: refused, dropped, answered by the switch itself, or
    /// the first packet of a flow.
    pub wasted: u32,
    /// Those of the above that nothing was done for: they are no demand.
    pub refused: u32,
    /// Frames of connections that others opened and that walked the tables: the demand for them
    /// is of those who opened them.
    pub answers: u32,
    /// Frames that no flow cache knew and that walked the tables: first packets of flows.
    pub walked: u32,
}

/// How a port stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Within its share, or alone.
    Within,
    /// Over its share: what is of no known connection is refused.
    Refusing,
    /// Far over it: not to be heard before this time.
    Paused(Timestamp),
}

/// The account of one port.
#[derive(Debug, Default)]
pub struct Account {
    /// Deficit counter, nanoseconds.
    credit: i64,
    /// Until when the waste so far takes to leak: a bucket as the generic cell rate algorithm
    /// states it (ITU-T I.371).
    leaks_until: Timestamp,
    /// What a wasted packet took lately, nanoseconds.
    each: u64,
    /// Answered connections that are taken into account.
    answered: u64,
    demand: Demand,
}

impl Account {
    /// Begins a turn; returns whether the port may be served. `is_alone` says that no other port
    /// waits.
    pub fn begin_turn(&mut self, is_alone: bool) -> bool {
        let next = self.credit.saturating_add(QUANTUM).min(QUANTUM);
        self.credit = if is_alone { QUANTUM } else { next };
        self.credit > 0
    }

    /// Returns whether the turn goes on.
    #[must_use]
    pub const fn has_credit(&self) -> bool {
        self.credit > 0
    }

    /// Takes a batch into account that took so long and ended now.
    pub fn charge(
        &mut self,
        work: Work,
        took: Duration,
        (share, contention): (&PortShare, &mut Contention),
        now: Timestamp,
    ) {
        let nanos = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_sub(nanos).max(-MOST_DEBT);
        let demand = work.frames.saturating_sub(work.answers + work.refused);
        self.demand.add(demand, now);
        contention.add(demand, now);
        if work.wasted > 0 {
            let waste = took * work.wasted / work.frames.max(1);
            self.add_waste(waste.min(MOST_EACH * work.wasted), work, now);
        }
        self.take_answers(share, now);
    }

    fn add_waste(&mut self, waste: Duration, work: Work, now: Timestamp) {
        let walked = work.wasted.saturating_sub(work.refused);
        if work.refused == 0 && walked > 0 {
            let each = u64::try_from((waste / walked).as_nanos()).unwrap_or(u64::MAX);
            // An eighth of the new, seven of the old.
            self.each = if self.each == 0 {
                each
            } else {
                self.each - self.each / 8 + each / 8
            };
        }
        let most = now + (BURST + REFUSING + RESUME) * WASTE_SHARE;
        let full = self.leaks_until.max(now) + waste * WASTE_SHARE;
        self.leaks_until = full.min(most);
    }

    /// Takes the cost of flows that were answered out again.
    fn take_answers(&mut self, share: &PortShare, now: Timestamp) {
        let answered = share.answered();
        let new = answered.saturating_sub(self.answered);
        self.answered = answered;
        let nanos = self
            .each
            .saturating_mul(new)
            .saturating_mul(u64::from(WASTE_SHARE));
        let left = self.leaks_until.as_nanos().saturating_sub(nanos);
        self.leaks_until = Timestamp::from_nanos(left.max(now.as_nanos()));
    }

    /// Returns what is in the bucket, in time of the worker.
    fn waste(&self, now: Timestamp) -> Duration {
        self.leaks_until.since(now) / WASTE_SHARE
    }

    /// Returns whether the port has made more waste than its share, whether or not others mind.
    #[must_use]
    pub fn is_wasteful(&self, now: Timestamp) -> bool {
        self.waste(now) > BURST
    }

    /// Returns how the port stands.
    #[must_use]
    pub fn standing(&self, contention: &Contention, now: Timestamp) -> Standing {
        let waste = self.waste(now);
        if waste <= BURST || !contention.is_felt(self.demand, now) {
            return Standing::Within;
        }
        if waste <= BURST + REFUSING {
            return Standing::Refusing;
        }
        Standing::Paused(now + (waste - (BURST - RESUME)) * WASTE_SHARE)
    }
}
