//! State of the writer, from which the next snapshot is built.

use std::sync::Arc;

use super::counters::AllCounters;
use crate::address_set::AddressSets;
use crate::pipeline::{Port, PortUpdate, Ports, RuleStore, Transaction, is_builtin};

/// The writer's side of what is published.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) rules: RuleStore,
    pub(super) sets: AddressSets,
}

impl Writer {
    pub(super) fn change(&mut self, changes: Transaction, counters: &AllCounters) {
        for (name, update) in &changes.sets {
            self.sets.update(name, update);
        }
        let (remove, add) = (changes.remove_rules, changes.add_rules);
        for id in remove.into_iter().filter(|id| !is_builtin(*id)) {
            self.rules.remove(id, &mut self.sets);
        }
        let counts = counters.of_rules();
        for rule in add.into_iter().filter(|rule| !is_builtin(rule.id)) {
            self.rules.add(rule, &mut self.sets, &counts);
        }
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
