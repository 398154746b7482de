//! A roster: pods under a name that rules know, kept as an address set, and by the numbers
//! that named ports have at them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use vswitch_datapath::flow::SetName;

use super::ids::PolicyId;
use super::pods::{Pod, PodId, Pods};
use crate::rules::Ledger;
use crate::state::Escaped;

/// A named port that some policy asks for at the pods of a roster.
#[derive(Debug)]
struct Watch {
    /// How many rules of each policy ask.
    askers: BTreeMap<PolicyId, usize>,
    /// Its numbers, with how many pods have each.
    numbers: BTreeMap<u16, usize>,
}

/// A named port, at all pods of a roster or at those of some networks only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NamedPort {
    pub(super) proto: u8,
    pub(super) name: String,
    pub(super) within: Option<Within>,
}

/// Networks that a pod's address has to be in, under the name of their set. A set of one name has
/// one content at a time: who replaces it ends the watches of the version before first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Within {
    pub(super) name: SetName,
    pub(super) networks: BTreeSet<IpNet>,
}

impl NamedPort {
    /// Returns the addresses of a pod at which the port is asked for.
    fn nets(&self, pod: &Pod) -> Vec<IpNet> {
        let is_meant = |net: &IpNet| {
            let within = self.within.as_ref();
            within.is_none_or(|within| within.networks.iter().any(|block| block.contains(net)))
        };
        pod.nets().filter(is_meant).collect()
    }

    /// Returns the name of the set of addresses at which the port has a number.
    fn set(&self, roster: &SetName, number: u16) -> SetName {
        let of = self.within.as_ref().map_or(roster, |within| &within.name);
        let name = Escaped(&self.name);
        SetName(format!("{}:port/{}/{name}/{number}", of.0, self.proto).into())
    }
}

/// Pods under a name.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) name: SetName,
    pods: BTreeSet<PodId>,
    watches: BTreeMap<NamedPort, Watch>,
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
        key: &NamedPort,
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
            .map(|number| (*number, key.set(&self.name, *number)))
            .collect()
    }

    pub(super) fn unwatch(&mut self, key: &NamedPort, asker: PolicyId, ledger: &mut Ledger) {
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
                ledger.drop_set(&key.set(&self.name, *number));
            }
            self.watches.remove(key);
        }
    }
}

impl Watch {
    /// Returns whether a number is there that was not.
    fn add(&mut self, of: &SetName, key: &NamedPort, pod: &Pod, ledger: &mut Ledger) -> bool {
        let mut is_new = false;
        let nets = key.nets(pod);
        if key.within.is_some() && nets.is_empty() {
            return false;
        }
        for number in pod.resolve(key.proto, &key.name) {
            let set = key.set(of, number);
            let count = self.numbers.entry(number).or_default();
            if *count == 0 {
                ledger.create_set(&set);
                is_new = true;
            }
            *count += 1;
            nets.iter().for_each(|net| ledger.add_member(&set, *net));
        }
        is_new
    }

    /// Returns whether a number is gone.
    fn remove(&mut self, of: &SetName, key: &NamedPort, pod: &Pod, ledger: &mut Ledger) -> bool {
        let mut is_gone = false;
        let nets = key.nets(pod);
        if key.within.is_some() && nets.is_empty() {
            return false;
        }
        for number in pod.resolve(key.proto, &key.name) {
            let set = key.set(of, number);
            nets.iter().for_each(|net| ledger.remove_member(&set, *net));
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
