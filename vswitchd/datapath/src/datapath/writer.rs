//! State of the writer, from which the next snapshot is built.

use std::sync::Arc;

use vswitch_api::Epoch;

use super::counters::AllCounters;
use crate::address_set::AddressSets;
use crate::flow::SetName;
use crate::pipeline::{
    AuditUpdate, AuditedProgram, CounterSlot, Counts, Port, PortUpdate, Ports, Rule, RuleId,
    RuleStore, SetUpdate, Transaction, builtin_rules, is_builtin,
};

/// The writer's side of what is published.
#[derive(Debug)]
pub(super) struct Writer {
    /// What is in force.
    pub(super) program: Program,
    /// What would be, with the policies in audit, and since which publication there are some.
    audit: Option<(Program, Epoch)>,
}

/// Rules with the address sets that they name.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) rules: RuleStore,
    pub(super) sets: AddressSets,
}

impl Program {
    /// Returns the built-in rules.
    fn new(counts: impl Fn(CounterSlot) -> Counts) -> Self {
        let (mut rules, mut sets) = (RuleStore::default(), AddressSets::default());
        for rule in builtin_rules() {
            rules.add(rule, &mut sets, &counts);
        }
        Self { rules, sets }
    }

    fn change(
        &mut self,
        remove_rules: Vec<RuleId>,
        add_rules: Vec<Rule>,
        sets: &[(SetName, SetUpdate)],
        counts: impl Fn(CounterSlot) -> Counts,
    ) {
        for (name, update) in sets {
            self.sets.update(name, update);
        }
        for id in remove_rules.into_iter().filter(|id| !is_builtin(*id)) {
            self.rules.remove(id, &mut self.sets);
        }
        for rule in add_rules.into_iter().filter(|rule| !is_builtin(rule.id)) {
            self.rules.add(rule, &mut self.sets, &counts);
        }
    }
}

impl Writer {
    pub(super) fn new(counters: &AllCounters) -> Self {
        Self {
            program: Program::new(counters.of_rules()),
            audit: None,
        }
    }

    /// Changes what is in force.
    pub(super) fn change(&mut self, changes: Transaction, counters: &AllCounters) {
        let (remove, add) = (changes.remove_rules, changes.add_rules);
        self.program
            .change(remove, add, &changes.sets, counters.of_rules());
    }

    /// Changes what would be in force with the policies in audit, and returns it as it is then.
    pub(super) fn change_audit(
        &mut self,
        update: AuditUpdate,
        before: Option<Arc<AuditedProgram>>,
        epoch: Epoch,
    ) -> Option<Arc<AuditedProgram>> {
        // What its rules meet is noted by connection, not by rule.
        let uncounted = |_| Counts::default();
        match update {
            AuditUpdate::Nothing => return before,
            AuditUpdate::Off => self.audit = None,
            AuditUpdate::Change {
                remove_rules,
                add_rules,
                sets,
            } => {
                let new = || (Program::new(uncounted), epoch);
                let (audit, _) = self.audit.get_or_insert_with(new);
                audit.change(remove_rules, add_rules, &sets, uncounted);
            }
        }
        let (audit, began) = self.audit.as_ref()?;
        let (tables, addresses) = (audit.rules.tables(), audit.sets.index());
        Some(Arc::new(AuditedProgram::new(
            tables,
            addresses,
            (epoch, *began),
        )))
    }
}

pub(super) fn update_ports(ports: Arc<Ports>, updates: Vec<PortUpdate>) -> Arc<Ports> {
    if updates.is_empty() {
        return ports;
    }
    let mut ports = Ports::clone(&ports);
    for update in updates {
        match update {
            PortUpdate::Remove(no) => {
                ports.remove(&no);
            }
            PortUpdate::Upsert(spec) => {
                let old = ports.get(&spec.no);
                let drops = old.map_or_else(Arc::default, |port| Arc::clone(&port.drops));
                let limits = old.map(|port| port.limits.clone()).unwrap_or_default();
                let (no, port) = (
                    spec.no,
                    Port {
                        spec,
                        drops,
                        limits,
                    },
                );
                ports.insert(no, Arc::new(port));
            }
            PortUpdate::Limit(no, bandwidth) => {
                if let Some(port) = ports.get_mut(&no) {
                    *port = Arc::new(Port {
                        spec: port.spec.clone(),
                        drops: Arc::clone(&port.drops),
                        limits: port.limits.set_to(bandwidth),
                    });
                }
            }
        }
    }
    Arc::new(ports)
}
