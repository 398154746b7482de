//! Index of selectors by label and of objects by label: candidates are found without comparing
//! each.
//!
//! A selector that demands a value of a key (or the key) can match only objects that have it,
//! so it is filed there. A change of one pod then costs what its own labels lead to, whatever
//! the number of selectors, and a new selector what its rarest value leads to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::state::{Requirement, Selector};

type Labels = BTreeMap<String, String>;

/// Values by label: key, value, what is filed there.
type ByLabel<T> = HashMap<String, HashMap<String, BTreeSet<T>>>;

/// Selectors, each under a label that an object must have to be selected.
#[derive(Debug, Clone)]
pub(super) struct SelectorIndex<T> {
    by_value: ByLabel<T>,
    by_key: HashMap<String, BTreeSet<T>>,
    /// Those that an object without labels may match.
    elsewhere: BTreeSet<T>,
}

/// Where a selector is filed.
enum Anchor<'a> {
    Values(&'a str, &'a BTreeSet<String>),
    Key(&'a str),
    Elsewhere,
}

fn anchor(selector: &Selector) -> Anchor<'_> {
    let values = selector.requirements().find_map(|r| match r {
        Requirement::In(key, values) => Some(Anchor::Values(key, values)),
        _ => None,
    });
    let key = || {
        selector.requirements().find_map(|r| match r {
            Requirement::Exists(key) => Some(Anchor::Key(key)),
            _ => None,
        })
    };
    values.or_else(key).unwrap_or(Anchor::Elsewhere)
}

impl<T> Default for SelectorIndex<T> {
    fn default() -> Self {
        Self {
            by_value: HashMap::new(),
            by_key: HashMap::new(),
            elsewhere: BTreeSet::new(),
        }
    }
}

impl<T: Copy + Ord> SelectorIndex<T> {
    pub(super) fn insert(&mut self, selector: &Selector, id: T) {
        match anchor(selector) {
            Anchor::Values(key, values) => {
                for value in values {
                    file(&mut self.by_value, key, value, id);
                }
            }
            Anchor::Key(key) => {
                self.by_key.entry(key.to_owned()).or_default().insert(id);
            }
            Anchor::Elsewhere => {
                self.elsewhere.insert(id);
            }
        }
    }

    pub(super) fn remove(&mut self, selector: &Selector, id: T) {
        match anchor(selector) {
            Anchor::Values(key, values) => {
                for value in values {
                    unfile(&mut self.by_value, key, value, id);
                }
            }
            Anchor::Key(key) => {
                if let Some(ids) = self.by_key.get_mut(key) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.by_key.remove(key);
                    }
                }
            }
            Anchor::Elsewhere => {
                self.elsewhere.remove(&id);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_value.is_empty() && self.by_key.is_empty() && self.elsewhere.is_empty()
    }

    /// Returns every selector that may match, each once.
    pub(super) fn candidates<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = T> + 'a {
        let by_value = labels
            .iter()
            .filter_map(|(key, value)| self.by_value.get(key)?.get(value));
        let by_key = labels.keys().filter_map(|key| self.by_key.get(key));
        by_value
            .chain(by_key)
            .chain([&self.elsewhere])
            .flatten()
            .copied()
    }
}

/// Objects by the labels they have.
#[derive(Debug, Clone)]
pub(super) struct LabelIndex<T> {
    by_label: ByLabel<T>,
}

impl<T> Default for LabelIndex<T> {
    fn default() -> Self {
        Self {
            by_label: HashMap::new(),
        }
    }
}

impl<T: Copy + Ord> LabelIndex<T> {
    pub(super) fn insert(&mut self, labels: &Labels, id: T) {
        for (key, value) in labels {
            file(&mut self.by_label, key, value, id);
        }
    }

    pub(super) fn remove(&mut self, labels: &Labels, id: T) {
        for (key, value) in labels {
            unfile(&mut self.by_label, key, value, id);
        }
    }

    /// Returns a small collection that holds every object the selector matches, `None` if
    /// nothing narrows it down.
    pub(super) fn candidates(&self, selector: &Selector) -> Option<Vec<T>> {
        let demanded = selector.requirements().filter_map(|r| match r {
            Requirement::In(key, values) => Some((key, values)),
            _ => None,
        });
        let found = demanded.map(|(key, values)| {
            let values = values
                .iter()
                .filter_map(|value| self.by_label.get(key)?.get(value));
            values.collect::<Vec<_>>()
        });
        let smallest = found.min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>())?;
        Some(smallest.into_iter().flatten().copied().collect())
    }
}

fn file<T: Ord>(index: &mut ByLabel<T>, key: &str, value: &str, id: T) {
    let of_key = index.entry(key.to_owned()).or_default();
    of_key.entry(value.to_owned()).or_default().insert(id);
}

fn unfile<T: Ord>(index: &mut ByLabel<T>, key: &str, value: &str, id: T) {
    let Some(of_key) = index.get_mut(key) else {
        return;
    };
    if let Some(ids) = of_key.get_mut(value) {
        ids.remove(&id);
        if ids.is_empty() {
            of_key.remove(value);
        }
    }
    if of_key.is_empty() {
        index.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn selector(value: Value) -> Selector {
        Selector::parse(&serde_json::from_value(value).unwrap()).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    fn selectors() -> Vec<Selector> {
        [
            json!({}),
            json!({ "matchLabels": { "a": "1" } }),
            json!({ "matchLabels": { "a": "1", "b": "" } }),
            json!({ "matchExpressions": [{ "key": "a", "operator": "In", "values": ["1", "2"] }] }),
            json!({ "matchExpressions": [{ "key": "a", "operator": "NotIn", "values": ["1"] }] }),
            json!({ "matchExpressions": [{ "key": "b", "operator": "Exists" }] }),
            json!({ "matchExpressions": [{ "key": "b", "operator": "DoesNotExist" }] }),
        ]
        .map(selector)
        .to_vec()
    }

    fn objects() -> Vec<Labels> {
        vec![
            labels(&[]),
            labels(&[("a", "1")]),
            labels(&[("a", "2"), ("b", "")]),
            labels(&[("a", "1"), ("b", "")]),
            labels(&[("b", "3")]),
        ]
    }

    #[test]
    fn every_selector_that_matches_is_among_the_candidates_and_each_once() {
        let mut index = SelectorIndex::default();
        for (id, selector) in selectors().iter().enumerate() {
            index.insert(selector, id);
        }
        for object in objects() {
            let mut found: Vec<_> = index.candidates(&object).collect();
            found.sort_unstable();
            for (id, selector) in selectors().iter().enumerate() {
                assert!(
                    !selector.matches(&object) || found.contains(&id),
                    "{selector} {object:?}"
                );
            }
            let before = found.len();
            found.dedup();
            assert_eq!(found.len(), before, "{object:?}");
        }
        assert!(
            !index.candidates(&labels(&[])).any(|id| id == 1),
            "a label narrows down"
        );
    }

    #[test]
    fn every_object_that_matches_is_among_the_candidates() {
        let mut index = LabelIndex::default();
        for (id, object) in objects().iter().enumerate() {
            index.insert(object, id);
        }
        for selector in selectors() {
            let Some(found) = index.candidates(&selector) else {
                continue;
            };
            for (id, object) in objects().iter().enumerate() {
                assert!(
                    !selector.matches(object) || found.contains(&id),
                    "{selector} {object:?}"
                );
            }
        }
        assert_eq!(
            index.candidates(&selectors()[1]).map(|found| found.len()),
            Some(2)
        );
    }

    #[test]
    fn what_was_removed_leaves_nothing_behind() {
        let (mut by_selector, mut by_label) = (SelectorIndex::default(), LabelIndex::default());
        for (id, selector) in selectors().iter().enumerate() {
            by_selector.insert(selector, id);
            by_selector.remove(selector, id);
        }
        for (id, object) in objects().iter().enumerate() {
            by_label.insert(object, id);
            by_label.remove(object, id);
        }
        assert!(by_selector.is_empty());
        assert!(by_label.by_label.is_empty());
    }
}
