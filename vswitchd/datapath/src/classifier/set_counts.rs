//! Counts by set number, with a bit for each that is not 0. Versions share what did not change.

use std::sync::Arc;

use crate::address_set::SetId;

/// How many rules are filed under each set; set numbers are dense.
#[derive(Debug, Clone, Default)]
pub(super) struct SetCounts {
    /// One bit a set, for lookups.
    bits: Arc<[u64]>,
    /// In pages, so that a change copies one of them.
    counts: Vec<Arc<[u32; PAGE]>>,
}

const PAGE: usize = 256;

impl SetCounts {
    pub(super) fn add(&mut self, id: SetId) {
        if let Some(count) = self.count_mut(id) {
            *count += 1;
            if *count == 1 {
                self.flip(id);
            }
        }
    }

    pub(super) fn remove(&mut self, id: SetId) {
        if let Some(count) = self.count_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.flip(id);
            }
        }
    }

    fn count_mut(&mut self, SetId(id): SetId) -> Option<&mut u32> {
        let id = id as usize;
        let page = id / PAGE;
        while self.counts.len() <= page {
            self.counts.push(Arc::new([0; PAGE]));
        }
        Arc::make_mut(self.counts.get_mut(page)?).get_mut(id % PAGE)
    }

    fn flip(&mut self, id: SetId) {
        let (word, bit) = Self::place(id);
        if self.bits.len() <= word {
            let more = std::iter::repeat_n(0, word + 1 - self.bits.len());
            self.bits = self.bits.iter().copied().chain(more).collect();
        }
        if let Some(word) = Arc::make_mut(&mut self.bits).get_mut(word) {
            *word ^= bit;
        }
    }

    pub(super) fn contains(&self, id: SetId) -> bool {
        let (word, bit) = Self::place(id);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    const fn place(SetId(id): SetId) -> (usize, u64) {
        ((id / 64) as usize, 1 << (id % 64))
    }
}
