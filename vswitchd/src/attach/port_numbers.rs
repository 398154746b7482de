//! Port numbers: each number once around the range before one comes again,
//! over restarts too, so that a late event of a removed port never meets its successor.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use vswitch_api::PortNo;

use crate::store::{Bucket, Loss, SharedStore, StoreError, Write};

/// The name is that of release 0.1, which numbered only pods here.
const KEY: &[u8] = b"cni/next_port_no";

/// Numbers reserved with one write; a restart skips at most so many.
const BLOCK: u32 = 64;

#[derive(Debug)]
pub(super) struct PortNumbers {
    store: SharedStore,
    range: RangeInclusive<u32>,
    /// Held across the commit: numbers reach the disk in order.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u32,
    /// Numbers that the stored mark covers.
    reserved: u32,
    used: BTreeSet<u32>,
}

impl PortNumbers {
    /// Blocks.
    pub(super) fn load(
        store: SharedStore,
        range: RangeInclusive<u32>,
        used: impl Iterator<Item = PortNo>,
    ) -> Result<Self, StoreError> {
        let stored = store.get(Bucket::Meta, KEY)?;
        let text = stored.and_then(|bytes| String::from_utf8(bytes).ok());
        // An unreadable mark costs the order, never uniqueness: used numbers are skipped.
        let next = text
            .and_then(|text| text.parse().ok())
            .unwrap_or(*range.start());
        let is_behind = store.losses().borrow().iter().any(Loss::is_open_ended);
        let next = if is_behind {
            // Numbers given since are ahead of the mark: they rest until all others were given.
            let half = (range.end() - range.start()) / 2;
            next.checked_add(half)
                .filter(|next| range.contains(next))
                .unwrap_or(*range.start())
        } else {
            next
        };
        let state = State {
            next,
            reserved: 0,
            used: used.map(|port| port.0).collect(),
        };
        Ok(Self {
            store,
            range,
            state: Mutex::new(state),
        })
    }

    /// Returns a number that nobody has; `None` if all are in use. A number that `is_live` is
    /// somebody's, whether or not it was given here. Blocks.
    pub(super) fn allocate(
        &self,
        is_live: impl Fn(PortNo) -> bool,
    ) -> Result<Option<PortNo>, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let size = u64::from(self.range.end() - self.range.start()) + 1;
        for _ in 0..size {
            let number = if self.range.contains(&state.next) {
                state.next
            } else {
                *self.range.start()
            };
            if state.reserved == 0 {
                let mark = self.advance(number, BLOCK).to_string().into_bytes();
                self.store
                    .commit(vec![Write::Put(Bucket::Meta, KEY.to_vec(), mark)])?;
                state.reserved = BLOCK;
            }
            state.reserved -= 1;
            state.next = self.advance(number, 1);
            if !is_live(PortNo(number)) && state.used.insert(number) {
                return Ok(Some(PortNo(number)));
            }
        }
        Ok(None)
    }

    pub(super) fn release(&self, port: PortNo) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .used
            .remove(&port.0);
    }

    fn advance(&self, number: u32, by: u32) -> u32 {
        number
            .checked_add(by)
            .filter(|next| self.range.contains(next))
            .unwrap_or(*self.range.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::memory_store::MemoryStore;
    use crate::store::Store as _;

    fn nobody(_: PortNo) -> bool {
        false
    }

    #[test]
    fn number_that_an_unlisted_port_has_is_not_given() {
        let numbers = PortNumbers::load(MemoryStore::shared(), 10..=12, std::iter::empty());
        let next = numbers.unwrap().allocate(|no| no.0 == 10).unwrap();
        assert_eq!(next, Some(PortNo(11)));
    }

    #[test]
    fn numbers_go_around_before_one_comes_again() {
        let store = MemoryStore::shared();
        let numbers = PortNumbers::load(store.clone(), 10..=12, [PortNo(11)].into_iter()).unwrap();
        let next = || numbers.allocate(nobody).unwrap().map(|port| port.0);
        assert_eq!((next(), next(), next()), (Some(10), Some(12), None));
        numbers.release(PortNo(10));
        assert_eq!(numbers.allocate(nobody).unwrap(), Some(PortNo(10)));
    }

    #[test]
    fn restart_does_not_bring_a_number_back() {
        let store = MemoryStore::shared();
        let load = || PortNumbers::load(store.clone(), 100..=10_000, std::iter::empty()).unwrap();
        let first = load();
        let given: Vec<_> = (0..100)
            .map(|_| first.allocate(nobody).unwrap().unwrap())
            .collect();
        given.iter().for_each(|port| first.release(*port));
        let after = load().allocate(nobody).unwrap().unwrap();
        assert!(!given.contains(&after), "{after}");
    }

    #[test]
    fn a_store_that_lost_its_last_commits_brings_no_number_back() {
        let store = MemoryStore::shared();
        let load = || PortNumbers::load(store.clone(), 100..=10_000, std::iter::empty()).unwrap();
        let give = |numbers: &PortNumbers, count: usize| -> Vec<PortNo> {
            let number = || numbers.allocate(nobody).unwrap().unwrap();
            let given: Vec<_> = std::iter::repeat_with(number).take(count).collect();
            given.iter().for_each(|port| numbers.release(*port));
            given
        };
        let numbers = load();
        give(&numbers, 10);
        let kept = store.get(Bucket::Meta, KEY).unwrap().unwrap();
        let since = give(&numbers, 1_000);
        // The mark of the last copy that is whole is older than what was given.
        let write = Write::Put(Bucket::Meta, KEY.to_vec(), kept);
        store.commit(vec![write]).unwrap();
        store.lose(Loss::Commits { first: 3, last: 20 });
        let after = give(&load(), 1_000);
        assert!(after.iter().all(|port| !since.contains(port)), "{after:?}");
    }
}
