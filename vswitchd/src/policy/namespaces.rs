//! Namespaces by their labels.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use slab::Slab;

use super::selector_index::LabelIndex;
use crate::state::{NamespaceRecord, Selector};

/// Namespaces that have been heard of.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    slab: Slab<Arc<NamespaceRecord>>,
    ids: HashMap<String, usize>,
    by_label: LabelIndex<usize>,
}

impl Namespaces {
    /// Sets or removes a namespace.
    pub(super) fn set(&mut self, name: &str, record: Option<&Arc<NamespaceRecord>>) {
        if let Some(id) = self.ids.remove(name)
            && let Some(old) = self.slab.try_remove(id)
        {
            self.by_label.remove(&old.labels, id);
        }
        if let Some(record) = record {
            let id = self.slab.insert(Arc::clone(record));
            self.by_label.insert(&record.labels, id);
            self.ids.insert(name.to_owned(), id);
        }
    }

    /// Returns the labels of a namespace, if it has been heard of.
    pub(super) fn labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        let id = self.ids.get(name)?;
        self.slab.get(*id).map(|record| &record.labels)
    }

    /// Returns the namespaces that a selector finds.
    pub(super) fn matching(&self, selector: &Selector) -> Vec<&str> {
        let candidates: Vec<&Arc<NamespaceRecord>> = match self.by_label.candidates(selector) {
            Some(ids) => ids.iter().filter_map(|id| self.slab.get(*id)).collect(),
            None => self.slab.iter().map(|(_, record)| record).collect(),
        };
        let matching = candidates
            .into_iter()
            .filter(|record| selector.matches(&record.labels));
        matching.map(|record| record.name.as_str()).collect()
    }
}
