//! A roster: pods under a name that rules know, kept as an address set, and by the numbers
//! that named ports have at them.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_datapath::flow::SetName;

use super::compiler::PolicyId;
use super::pods::{Pod, PodId, Pods};
use crate::rules::Ledger;
use crate::state::Escaped;

/// Number of a roster inside one compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RosterId(pub(super) usize);

/// A named port that some policy asks for at the pods of a roster.
#[derive(Debug)]
struct Watch {
    /// How many rules of each policy ask.
    askers: BTreeMap<PolicyId, usize>,
    /// Its numbers, with how many pods have each.
    numbers: BTreeMap<u16, usize>,
}

/// Protocol and name of a named port.
pub(super) type NamedPortKey = (u8, String);

/// Pods under a name.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) name: SetName,
    pods: BTreeSet<PodId>,
    watches: BTreeMap<NamedPortKey, Watch>,
    /// Whether a rule names it, so that its members have to be told to the datapath.
    is_published: bool,
}

impl Roster {
    pub(super) fn new(name: SetName) -> Self {
        Self {
            name,
            pods: BTreeSet::new(),
            watches: BTreeMap::new(),
            is_published: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = PodId> {
        self.pods.iter().copied()
    }

    /// Tells the datapath of it, or takes it away there.
    pub(super) fn publish(&mut self, wanted: bool, pods: &Pods, ledger: &mut Ledger) {
        if self.is_published == wanted {
            return;
        }
        self.is_published = wanted;
        if !wanted {
            return ledger.drop_set(&self.name);
        }
        ledger.create_set(&self.name);
        for pod in self.pods.iter().filter_map(|id| pods.get(*id)) {
            pod.nets()
                .for_each(|net| ledger.add_member(&self.name, net));
        }
    }

    /// Takes a pod in; policies that have to be compiled anew are added to `outdated`.
    pub(super) fn join(
        &mut self,
        id: PodId,
        pod: &Pod,
        ledger: &mut Ledger,
        outdated: &mut BTreeSet<PolicyId>,
    ) {
        if !self.pods.insert(id) {
            return;
        }
        if self.is_published {
            pod.nets()
                .for_each(|net| ledger.add_member(&self.name, net));
        }
        for (key, watch) in &mut self.watches {
            if watch.add(&self.name, key, pod, ledger) {
                outdated.extend(watch.askers.keys());
            }
        }
    }

    /// Lets a pod go, with the record it joined with.
    pub(super) fn leave(
        &mut self,
        id: PodId,
        pod: &Pod,
        ledger: &mut Ledger,
        outdated: &mut BTreeSet<PolicyId>,
    ) {
        if !self.pods.remove(&id) {
            return;
        }
        if self.is_published {
            pod.nets()
                .for_each(|net| ledger.remove_member(&self.name, net));
        }
        for (key, watch) in &mut self.watches {
            if watch.remove(&self.name, key, pod, ledger) {
                outdated.extend(watch.askers.keys());
            }
        }
    }

    /// Returns the numbers that a named port has at its pods, each with the set of the pods
    /// that have it; keeps them until [`Roster::unwatch`].
    pub(super) fn watch(
        &mut self,
        key: &NamedPortKey,
        asker: PolicyId,
        pods: &Pods,
        ledger: &mut Ledger,
    ) -> Vec<(u16, SetName)> {
        if !self.watches.contains_key(key) {
            let mut watch = Watch {
                askers: BTreeMap::new(),
                numbers: BTreeMap::new(),
            };
            for pod in self.pods.iter().filter_map(|id| pods.get(*id)) {
                watch.add(&self.name, key, pod, ledger);
            }
            self.watches.insert(key.clone(), watch);
        }
        let Some(watch) = self.watches.get_mut(key) else {
            return Vec::new();
        };
        *watch.askers.entry(asker).or_default() += 1;
        let numbers = watch.numbers.keys();
        numbers
            .map(|number| (*number, port_set(&self.name, key, *number)))
            .collect()
    }

    pub(super) fn unwatch(&mut self, key: &NamedPortKey, asker: PolicyId, ledger: &mut Ledger) {
        let Some(watch) = self.watches.get_mut(key) else {
            return;
        };
        if let Some(count) = watch.askers.get_mut(&asker) {
            *count -= 1;
            if *count == 0 {
                watch.askers.remove(&asker);
            }
        }
        if watch.askers.is_empty() {
            for number in watch.numbers.keys() {
                ledger.drop_set(&port_set(&self.name, key, *number));
            }
            self.watches.remove(key);
        }
    }
}

impl Watch {
    /// Returns whether a number is there that was not.
    fn add(&mut self, of: &SetName, key: &NamedPortKey, pod: &Pod, ledger: &mut Ledger) -> bool {
        let mut is_new = false;
        for number in pod.resolve(key.0, &key.1) {
            let set = port_set(of, key, number);
            let count = self.numbers.entry(number).or_default();
            if *count == 0 {
                ledger.create_set(&set);
                is_new = true;
            }
            *count += 1;
            pod.nets().for_each(|net| ledger.add_member(&set, net));
        }
        is_new
    }

    /// Returns whether a number is gone.
    fn remove(&mut self, of: &SetName, key: &NamedPortKey, pod: &Pod, ledger: &mut Ledger) -> bool {
        let mut is_gone = false;
        for number in pod.resolve(key.0, &key.1) {
            let set = port_set(of, key, number);
            pod.nets().for_each(|net| ledger.remove_member(&set, net));
            let Some(count) = self.numbers.get_mut(&number) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.numbers.remove(&number);
                ledger.drop_set(&set);
                is_gone = true;
            }
        }
        is_gone
    }
}

fn port_set(of: &SetName, (proto, name): &NamedPortKey, number: u16) -> SetName {
    SetName(format!("{}:port/{proto}/{}/{number}", of.0, Escaped(name)).into())
}
