//! Packet and byte counters of rules.
//!
//! Every packet counts in a dozen rules, so counting has to cost next to nothing. Each engine
//! counts on its own ([`RuleCounters`]): as the only writer it needs no locked instruction, and
//! no engine takes a cache line from another. A rule has a number there ([`CounterSlot`]) for
//! as long as it is installed; its count is the sum over all engines, less what the number
//! counted for rules before it.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Number of a rule's counters; dense, reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CounterSlot(u32);

impl CounterSlot {
    pub(super) const fn number(self) -> u32 {
        self.0
    }
}

/// What went through a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Connections that began, and packets of none that were denied.
    pub(crate) connections: u64,
}

impl Counts {
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
            connections: self.connections.wrapping_add(other.connections),
        }
    }

    pub(crate) const fn minus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(other.packets),
            bytes: self.bytes.wrapping_sub(other.bytes),
            connections: self.connections.wrapping_sub(other.connections),
        }
    }
}

/// Gives out slots. The one that waited longest goes first, so that an engine that still has
/// an old version in hand does not count for the next rule.
#[derive(Debug, Default)]
pub(crate) struct CounterSlots {
    free: VecDeque<CounterSlot>,
    given: u32,
}

/// Slots that stay free before one is used again.
const RESTING: usize = 1_024;

impl CounterSlots {
    /// Returns a slot, and whether a rule had it before.
    pub(crate) fn take(&mut self) -> (CounterSlot, bool) {
        if self.free.len() > RESTING
            && let Some(slot) = self.free.pop_front()
        {
            return (slot, true);
        }
        self.given += 1;
        (CounterSlot(self.given - 1), false)
    }

    pub(crate) fn give_back(&mut self, slot: CounterSlot) {
        self.free.push_back(slot);
    }
}

/// Slots of the first block; each further block is twice as large, so that blocks never move.
const FIRST_BLOCK: u32 = 1 << FIRST_BITS;
const FIRST_BITS: u32 = 9;
const BLOCKS: usize = 23;

#[derive(Debug, Default)]
struct Cell {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// The counters of all rules, as one writer keeps them and anybody may read them. Nothing is
/// ordered by the numbers: relaxed.
#[derive(Debug, Default)]
pub(crate) struct RuleCounters {
    blocks: [OnceLock<Box<[Cell]>>; BLOCKS],
    /// Apart from the others: of the rules that a first packet goes through two at most count here.
    connections: [OnceLock<Box<[AtomicU64]>>; BLOCKS],
}

impl RuleCounters {
    /// Adds packets to what a rule has counted. Only one thread may.
    #[inline]
    pub(crate) fn add(&self, slot: CounterSlot, more: Counts) {
        let (block, at) = place(slot);
        let cells = self
            .blocks
            .get(block)
            .map(|cells| cells.get_or_init(|| new_block(block)));
        if let Some(cell) = cells.and_then(|cells| cells.get(at)) {
            add_alone(&cell.packets, more.packets);
            add_alone(&cell.bytes, more.bytes);
        }
    }

    /// Adds a connection that a rule decided about. Only one thread may.
    #[inline]
    pub(crate) fn add_connection(&self, slot: CounterSlot) {
        self.add_connections(slot, 1);
    }

    fn add_connections(&self, slot: CounterSlot, more: u64) {
        let (block, at) = place(slot);
        let counts = self
            .connections
            .get(block)
            .map(|counts| counts.get_or_init(|| new_block(block)));
        if let Some(count) = counts.and_then(|counts| counts.get(at)) {
            add_alone(count, more);
        }
    }

    /// Adds all that another has counted. Only one thread may.
    pub(crate) fn add_all(&self, other: &Self) {
        for (block, cells) in other.blocks.iter().enumerate() {
            let Some(cells) = cells.get() else { continue };
            for at in (0..).take(cells.len()) {
                let slot = slot_at(block, at);
                let more = other.read(slot);
                if more != Counts::default() {
                    self.add(slot, more);
                    self.add_connections(slot, more.connections);
                }
            }
        }
    }

    /// Returns what was counted.
    pub(crate) fn read(&self, slot: CounterSlot) -> Counts {
        let (block, at) = place(slot);
        let cells = self.blocks.get(block).and_then(OnceLock::get);
        let Some(cell) = cells.and_then(|cells| cells.get(at)) else {
            return Counts::default();
        };
        let counts = self.connections.get(block).and_then(OnceLock::get);
        let connections = counts.and_then(|counts| counts.get(at));
        Counts {
            packets: cell.packets.load(Relaxed),
            bytes: cell.bytes.load(Relaxed),
            connections: connections.map_or(0, |count| count.load(Relaxed)),
        }
    }
}

/// Adds to a counter that nobody else writes: a load and a store instead of a locked
/// instruction.
#[inline]
pub(crate) fn add_alone(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

fn new_block<T: Default>(block: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default)
        .take((FIRST_BLOCK as usize) << block)
        .collect()
}

/// Returns a slot's block and its place there.
#[inline]
fn place(CounterSlot(slot): CounterSlot) -> (usize, usize) {
    let shifted = u64::from(slot) + u64::from(FIRST_BLOCK);
    let bits = shifted.ilog2();
    let at = shifted - (1 << bits);
    (
        (bits - FIRST_BITS) as usize,
        usize::try_from(at).unwrap_or(usize::MAX),
    )
}

fn slot_at(block: usize, at: u32) -> CounterSlot {
    CounterSlot((FIRST_BLOCK << block) - FIRST_BLOCK + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Counts = Counts {
        packets: 1,
        bytes: 60,
        connections: 0,
    };

    #[test]
    fn every_slot_has_a_place_of_its_own() {
        let counters = RuleCounters::default();
        let slots = [0, 1, 511, 512, 1_535, 1_536, 100_000].map(CounterSlot);
        for (times, slot) in (1..).zip(slots) {
            (0..times).for_each(|_| counters.add(slot, ONE));
        }
        for (times, slot) in (1..).zip(slots) {
            let expected = Counts {
                packets: times,
                bytes: 60 * times,
                connections: 0,
            };
            assert_eq!(counters.read(slot), expected, "{slot:?}");
            let (block, at) = place(slot);
            assert_eq!(slot_at(block, u32::try_from(at).unwrap()), slot);
        }
        assert_eq!(counters.read(CounterSlot(2)), Counts::default());
        assert_eq!(counters.read(CounterSlot(u32::MAX)), Counts::default());
    }

    #[test]
    fn what_one_has_counted_can_be_added_to_another() {
        let (kept, gone) = (RuleCounters::default(), RuleCounters::default());
        for slot in [3, 700] {
            gone.add(CounterSlot(slot), ONE);
        }
        for counters in [&gone, &kept, &gone] {
            counters.add_connection(CounterSlot(700));
        }
        kept.add(CounterSlot(700), ONE);
        kept.add_all(&gone);
        let both = Counts {
            connections: 3,
            ..ONE.plus(ONE)
        };
        assert_eq!(kept.read(CounterSlot(700)), both);
        assert_eq!(kept.read(CounterSlot(3)), ONE);
    }

    #[test]
    fn a_slot_rests_before_it_is_used_again() {
        let mut slots = CounterSlots::default();
        let (first, was_used) = slots.take();
        assert!(!was_used);
        slots.give_back(first);
        let taken: Vec<_> = (0..RESTING).map(|_| slots.take()).collect();
        assert!(
            taken
                .iter()
                .all(|(slot, was_used)| *slot != first && !was_used)
        );
        taken
            .into_iter()
            .for_each(|(slot, _)| slots.give_back(slot));
        assert_eq!(slots.take(), (first, true));
    }
}
