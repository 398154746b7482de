//! The writer's side of the rules: what is installed, and the classifiers to publish.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::walk::{InstalledRule, RuleCounters, Table};
use super::{Meter, Rule, RuleId, RuleStats, TableId};
use crate::action::Action;
use crate::address_set::AddressSets;
use crate::classifier::{Classifier, CompiledMatch, PreferredAnchor};
use crate::flow::{AddressMatch, SetName};

/// All installed rules. Owned by the one writer of a datapath.
///
/// A publication files the rules of those tables again that changed; the others are shared
/// with the version before.
#[derive(Debug, Default)]
pub(crate) struct RuleStore {
    table_of: HashMap<RuleId, TableId>,
    tables: BTreeMap<TableId, BTreeMap<RuleId, Arc<InstalledRule>>>,
    touched: BTreeSet<TableId>,
}

impl RuleStore {
    /// Adds a rule, or replaces the one with its id and keeps its counters.
    pub(crate) fn add(&mut self, rule: Rule, sets: &mut AddressSets) {
        let old = self.take(rule.id);
        let matches = CompiledMatch::compile(&rule.matches, |name| sets.acquire(name));
        let counters = old
            .as_ref()
            .map_or_else(Arc::default, |old| Arc::clone(&old.counters));
        let meter = meter_of(&rule, old.as_deref());
        if let Some(old) = old {
            // After the new rule took its sets, so that a set that both name keeps its number.
            release(&old.rule, sets);
        }
        let (id, table) = (rule.id, rule.table);
        let installed = InstalledRule {
            rule: Arc::new(rule),
            matches,
            counters,
            meter,
        };
        self.table_of.insert(id, table);
        self.tables
            .entry(table)
            .or_default()
            .insert(id, Arc::new(installed));
        self.touched.insert(table);
    }

    /// Removes a rule if it is installed.
    pub(crate) fn remove(&mut self, id: RuleId, sets: &mut AddressSets) {
        if let Some(old) = self.take(id) {
            release(&old.rule, sets);
        }
    }

    fn take(&mut self, id: RuleId) -> Option<Arc<InstalledRule>> {
        let table = self.table_of.remove(&id)?;
        self.touched.insert(table);
        self.tables.get_mut(&table)?.remove(&id)
    }

    /// Files the rules of every table that changed since the last call into `tables`.
    pub(crate) fn publish(&mut self, tables: &mut [Arc<Table>; TableId::ALL.len()]) {
        for table in std::mem::take(&mut self.touched) {
            if let Some(slot) = tables.get_mut(table.index()) {
                *slot = Arc::new(self.classifier(table));
            }
        }
    }

    fn classifier(&self, table: TableId) -> Table {
        // The sender's set selects the policy's pods in egress tables, the receiver's elsewhere.
        let prefer = match table {
            TableId::EgressRule | TableId::EgressDefault => PreferredAnchor::Source,
            _ => PreferredAnchor::Destination,
        };
        let rules = self
            .tables
            .get(&table)
            .into_iter()
            .flat_map(BTreeMap::values);
        Classifier::build(
            prefer,
            rules.filter_map(|installed| {
                let rank = (installed.rule.priority, Reverse(installed.rule.id.0));
                Some((rank, installed.matches.clone()?, Arc::clone(installed)))
            }),
        )
    }

    /// Returns every rule with its counters, in pipeline order, best first.
    pub(crate) fn list(&self) -> Vec<RuleStats> {
        let mut list: Vec<_> = self
            .tables
            .values()
            .flat_map(BTreeMap::values)
            .map(|rule| rule.stats())
            .collect();
        list.sort_by_key(|stats| {
            let rule = &stats.rule;
            (rule.table, Reverse(rule.priority), rule.id)
        });
        list
    }
}

fn release(rule: &Rule, sets: &mut AddressSets) {
    set_names(rule).for_each(|name| sets.release(name));
}

fn set_names(rule: &Rule) -> impl Iterator<Item = &SetName> {
    [&rule.matches.ip_src, &rule.matches.ip_dst]
        .into_iter()
        .filter_map(|address| match address {
            Some(AddressMatch::Set(name)) => Some(name),
            _ => None,
        })
}

/// Returns the rule's meter; an unchanged limit keeps its fill.
fn meter_of(rule: &Rule, old: Option<&InstalledRule>) -> Option<Arc<Meter>> {
    let limit = |rule: &Rule| {
        rule.actions.iter().find_map(|action| match *action {
            Action::RateLimit { rate_pps, burst } => Some((rate_pps, burst)),
            _ => None,
        })
    };
    let (rate_pps, burst) = limit(rule)?;
    old.filter(|old| limit(&old.rule) == Some((rate_pps, burst)))
        .and_then(|old| old.meter.clone())
        .or_else(|| Some(Arc::new(Meter::new(rate_pps, burst))))
}

impl RuleCounters {
    fn read(&self) -> (u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

impl InstalledRule {
    fn stats(&self) -> RuleStats {
        let (packets, bytes) = self.counters.read();
        RuleStats {
            rule: Arc::clone(&self.rule),
            packets,
            bytes,
        }
    }
}
