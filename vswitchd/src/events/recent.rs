//! A map that keeps what was used last.

use std::collections::HashMap;
use std::hash::Hash;

/// Events, and objects that have some, that are remembered, as client-go's caches of them have it.
pub(super) const MAX_REMEMBERED: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    max_entries: usize,
    /// With when each was used, in uses.
    entries: HashMap<K, (u64, V)>,
    uses: u64,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    /// Returns a map that keeps so many entries.
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            max_entries,
            entries: HashMap::new(),
            uses: 0,
        }
    }

    /// Goes through all entries.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let entries = self.entries.iter_mut();
        entries.map(|(key, (_, value))| (key, value))
    }

    /// Returns the entry of a key, which is made if there is none. Beyond the bound the one goes
    /// that was not used for longest.
    pub(super) fn entry(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        if !self.entries.contains_key(key) && self.entries.len() >= self.max_entries {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.entries.remove(&oldest);
            }
        }
        let uses = self.uses;
        let (used, value) = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| (uses, make()));
        *used = uses;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut recent = Recent::new(100);
        for number in 0..100 {
            recent.entry(&number, || 1);
        }
        *recent.entry(&0, || 1) += 1;
        recent.entry(&100, || 1);
        assert_eq!(recent.entries.len(), 100);
        assert_eq!(*recent.entry(&0, || 7), 2, "it was used since");
        assert_eq!(*recent.entry(&1, || 7), 7, "it is made anew");
    }
}
