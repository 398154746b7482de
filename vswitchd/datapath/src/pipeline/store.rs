//! The writer's side of the rules: what is installed, and the classifiers to publish.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::rule_counters::CounterSlots;
use super::table::{InstalledRule, Table};
use super::{CounterSlot, Counts, Meter, Rule, RuleId, RuleStats, TableId};
use crate::action::Action;
use crate::address_set::AddressSets;
use crate::classifier::{CompiledMatch, Rank};
use crate::flow::{AddressMatch, SetName};

/// All installed rules. Owned by the one writer of a datapath.
///
/// The tables are kept as they are to be published: a version shares with the one before what
/// no change touched.
#[derive(Debug)]
pub(crate) struct RuleStore {
    /// By table, so that whoever asks for some tables' rules does not hold up the writer with all.
    rules: [HashMap<RuleId, Arc<InstalledRule>>; TableId::ALL.len()],
    table_of: HashMap<RuleId, TableId>,
    tables: [Arc<Table>; TableId::ALL.len()],
    counters: CounterSlots,
}

impl Default for RuleStore {
    fn default() -> Self {
        Self {
            rules: TableId::ALL.map(|_| HashMap::new()),
            table_of: HashMap::new(),
            tables: TableId::ALL.map(|table| Arc::new(Table::empty(table))),
            counters: CounterSlots::default(),
        }
    }
}

impl RuleStore {
    /// Adds a rule, or replaces the one with its id and keeps its counters. `counts` tells what
    /// all engines have counted.
    pub(crate) fn add(
        &mut self,
        rule: Rule,
        sets: &mut AddressSets,
        counts: impl Fn(CounterSlot) -> Counts,
    ) {
        let old = self.take(rule.id);
        let matches = CompiledMatch::compile(&rule.matches, |name| sets.acquire(name));
        let matches = matches.map(Box::new);
        let (counters, counted_before) = match &old {
            Some(old) => (old.counters, old.counted_before),
            None => match self.counters.take() {
                (slot, true) => (slot, counts(slot)),
                (slot, false) => (slot, Counts::default()),
            },
        };
        let meter = meter_of(&rule, old.as_deref());
        if let Some(old) = old {
            // After the new rule took its sets, so that a set that both name keeps its number.
            release(&old.rule, sets);
        }
        let (id, table) = (rule.id, rule.table);
        let installed = Arc::new(InstalledRule {
            decision: rule.decision(),
            actions: rule.actions.iter().copied().collect(),
            rule: Arc::new(rule),
            matches,
            counters,
            counted_before,
            meter,
        });
        if let Some(matches) = &installed.matches
            && let Some(table) = self.table_mut(table)
        {
            table.insert(rank(&installed.rule), matches, Arc::clone(&installed));
        }
        if let Some(rules) = self.rules.get_mut(table.index()) {
            rules.insert(id, installed);
            self.table_of.insert(id, table);
        }
    }

    /// Removes a rule if it is installed.
    pub(crate) fn remove(&mut self, id: RuleId, sets: &mut AddressSets) {
        if let Some(old) = self.take(id) {
            self.counters.give_back(old.counters);
            release(&old.rule, sets);
        }
    }

    fn take(&mut self, id: RuleId) -> Option<Arc<InstalledRule>> {
        let table = self.table_of.remove(&id)?;
        let old = self.rules.get_mut(table.index())?.remove(&id)?;
        if let Some(matches) = &old.matches
            && let Some(table) = self.table_mut(old.rule.table)
        {
            table.remove(rank(&old.rule), matches);
        }
        Some(old)
    }

    fn table_mut(&mut self, table: TableId) -> Option<&mut Table> {
        self.tables.get_mut(table.index()).map(Arc::make_mut)
    }

    /// Returns the tables as they are now.
    pub(crate) fn tables(&self) -> [Arc<Table>; TableId::ALL.len()] {
        self.tables.clone()
    }

    /// Returns how many rules there are.
    pub(crate) fn len(&self) -> usize {
        self.table_of.len()
    }

    /// Returns the rules of the tables that are wanted with their counters, in pipeline order, best
    /// first. `counts` tells what all engines have counted.
    pub(crate) fn list(
        &self,
        wanted: impl Fn(TableId) -> bool,
        counts: impl Fn(CounterSlot) -> Counts,
    ) -> Vec<RuleStats> {
        let stats = |rule: &Arc<InstalledRule>| {
            let counts = counts(rule.counters).minus(rule.counted_before);
            RuleStats {
                rule: Arc::clone(&rule.rule),
                packets: counts.packets,
                bytes: counts.bytes,
                connections: counts.connections,
            }
        };
        let tables = TableId::ALL.into_iter().zip(&self.rules);
        let wanted = tables.filter(|(table, _)| wanted(*table));
        let rules = wanted.flat_map(|(_, rules)| rules.values());
        let mut list: Vec<_> = rules.map(stats).collect();
        list.sort_by_key(|stats| {
            let rule = &stats.rule;
            (rule.table, Reverse(rule.priority), rule.id)
        });
        list
    }
}

fn rank(rule: &Rule) -> Rank {
    Rank::new(rule.priority, rule.id.0)
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
