//! A roster: pods under a name that rules know, kept as an address set, and by the numbers
//! that named ports have at them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use vswitch_datapath::flow::SetName;

use super::ids::PolicyId;
use super::pods::{Pod, PodId, Pods};
use super::surroundings::Surroundings;
use crate::rules::Ledger;
use crate::state::Escaped;

/// A part of a roster that some policy asks for.
#[derive(Debug)]
struct Watch {
    /// How many rules of each policy ask.
    askers: BTreeMap<PolicyId, usize>,
    /// The numbers that the port has, with the pods that have each there; one number if no port is
    /// asked for.
    numbers: BTreeMap<u16, Having>,
    may_share: bool,
}

/// The members of a roster that have a number.
#[derive(Debug)]
struct Having {
    members: usize,
    addresses: CountedSet,
}

/// Some of a roster: those in networks, those that have a named port, or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Facet {
    /// Protocol and name.
    pub(super) port: Option<(u8, String)>,
    pub(super) within: Option<Within>,
}

/// Networks that an address has to be in, under the name of their set. A set of one name has
/// one content at a time: who replaces it ends the watches of the version before first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Within {
    pub(super) name: SetName,
    pub(super) networks: BTreeSet<IpNet>,
}

impl Facet {
    /// Returns the addresses of a member that are asked for.
    fn nets(&self, pod: &Pod) -> BTreeSet<IpNet> {
        let Some(within) = &self.within else {
            return pod.nets().collect();
        };
        let both = |net: IpNet| {
            let blocks = within.networks.iter();
            blocks.filter_map(move |block| intersection(net, *block))
        };
        pod.nets().flat_map(both).collect()
    }

    /// Returns the numbers under which a member belongs to it.
    fn numbers(&self, pod: &Pod) -> BTreeSet<u16> {
        match &self.port {
            None => BTreeSet::from([0]),
            Some((proto, name)) => pod.resolve(*proto, name),
        }
    }

    /// Returns the name of the set of addresses at which the port has a number.
    fn set(&self, roster: &SetName, number: u16) -> SetName {
        let of = self.within.as_ref().map_or(roster, |within| &within.name);
        SetName(match &self.port {
            None => format!("{}:members", of.0).into(),
            Some((proto, name)) => {
                format!("{}:port/{proto}/{}/{number}", of.0, Escaped(name)).into()
            }
        })
    }
}

/// Returns what two networks have in common: the smaller one, if it is in the other.
fn intersection(a: IpNet, b: IpNet) -> Option<IpNet> {
    if a.contains(&b) {
        Some(b)
    } else {
        b.contains(&a).then_some(a)
    }
}

/// Addresses of members as a set.
#[derive(Debug)]
struct CountedSet {
    /// How many members have each, where several can: a network set may hold what a pod, or
    /// another one, has. No two pods have one address.
    counts: Option<BTreeMap<IpNet, usize>>,
}

impl CountedSet {
    fn new(may_share: bool) -> Self {
        Self {
            counts: may_share.then(BTreeMap::new),
        }
    }

    fn add(&mut self, set: &SetName, net: IpNet, ledger: &mut Ledger) {
        if let Some(counts) = &mut self.counts {
            let count = counts.entry(net).or_default();
            *count += 1;
            if *count > 1 {
                return;
            }
        }
        ledger.add_member(set, net);
    }

    fn remove(&mut self, set: &SetName, net: IpNet, ledger: &mut Ledger) {
        if let Some(counts) = &mut self.counts {
            let Some(count) = counts.get_mut(&net) else {
                return;
            };
            *count -= 1;
            if *count > 0 {
                return;
            }
            counts.remove(&net);
        }
        ledger.remove_member(set, net);
    }
}

/// Pods under a name.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) name: SetName,
    pods: BTreeSet<PodId>,
    watches: BTreeMap<Facet, Watch>,
    /// Sets of what is around its members, by name.
    surroundings: BTreeMap<SetName, Surroundings>,
    /// Its addresses, while a rule names it, so that the datapath has to know them.
    published: Option<CountedSet>,
    /// Several members may have one address.
    may_share: bool,
}

impl Roster {
    pub(super) fn new(name: SetName, may_share: bool) -> Self {
        Self {
            name,
            pods: BTreeSet::new(),
            watches: BTreeMap::new(),
            surroundings: BTreeMap::new(),
            published: None,
            may_share,
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
        if self.published.is_some() == wanted {
            return;
        }
        if !wanted {
            self.published = None;
            return ledger.drop_set(&self.name);
        }
        ledger.create_set(&self.name);
        let mut published = CountedSet::new(self.may_share);
        for pod in self.pods.iter().filter_map(|id| pods.get(*id)) {
            pod.nets()
                .for_each(|net| published.add(&self.name, net, ledger));
        }
        self.published = Some(published);
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
        if let Some(published) = &mut self.published {
            pod.nets()
                .for_each(|net| published.add(&self.name, net, ledger));
        }
        for (name, around) in &mut self.surroundings {
            around.join(name, pod, ledger);
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
        if let Some(published) = &mut self.published {
            pod.nets()
                .for_each(|net| published.remove(&self.name, net, ledger));
        }
        for (name, around) in &mut self.surroundings {
            around.leave(name, pod, ledger);
        }
        for (key, watch) in &mut self.watches {
            if watch.remove(&self.name, key, pod, ledger) {
                outdated.extend(watch.askers.keys());
            }
        }
    }

    /// Returns the numbers that a facet's port has at the members, each with the set of those
    /// that have it; keeps them until [`Roster::unwatch`].
    pub(super) fn watch(
        &mut self,
        key: &Facet,
        asker: PolicyId,
        pods: &Pods,
        ledger: &mut Ledger,
    ) -> Vec<(u16, SetName)> {
        if !self.watches.contains_key(key) {
            let mut watch = Watch {
                askers: BTreeMap::new(),
                numbers: BTreeMap::new(),
                may_share: self.may_share,
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

    pub(super) fn unwatch(&mut self, key: &Facet, asker: PolicyId, ledger: &mut Ledger) {
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

    /// Keeps the set of the addresses in some networks that none of its members has, until
    /// [`Roster::end_surroundings`].
    pub(super) fn surround(
        &mut self,
        name: &SetName,
        networks: &BTreeSet<IpNet>,
        pods: &Pods,
        ledger: &mut Ledger,
    ) {
        let mut around = Surroundings::new(name, networks, ledger);
        for pod in self.pods.iter().filter_map(|id| pods.get(*id)) {
            around.join(name, pod, ledger);
        }
        self.surroundings.insert(name.clone(), around);
    }

    pub(super) fn end_surroundings(&mut self, name: &SetName, ledger: &mut Ledger) {
        if self.surroundings.remove(name).is_some() {
            ledger.drop_set(name);
        }
    }
}

impl Watch {
    /// Returns whether a number is there that was not.
    fn add(&mut self, of: &SetName, key: &Facet, pod: &Pod, ledger: &mut Ledger) -> bool {
        let mut is_new = false;
        let nets = key.nets(pod);
        if key.within.is_some() && nets.is_empty() {
            return false;
        }
        for number in key.numbers(pod) {
            let set = key.set(of, number);
            let may_share = self.may_share;
            let having = self.numbers.entry(number).or_insert_with(|| Having {
                members: 0,
                addresses: CountedSet::new(may_share),
            });
            if having.members == 0 {
                ledger.create_set(&set);
                is_new = true;
            }
            having.members += 1;
            for net in &nets {
                having.addresses.add(&set, *net, ledger);
            }
        }
        is_new
    }

    /// Returns whether a number is gone.
    fn remove(&mut self, of: &SetName, key: &Facet, pod: &Pod, ledger: &mut Ledger) -> bool {
        let mut is_gone = false;
        let nets = key.nets(pod);
        if key.within.is_some() && nets.is_empty() {
            return false;
        }
        for number in key.numbers(pod) {
            let set = key.set(of, number);
            let Some(having) = self.numbers.get_mut(&number) else {
                continue;
            };
            for net in &nets {
                having.addresses.remove(&set, *net, ledger);
            }
            having.members -= 1;
            if having.members == 0 {
                self.numbers.remove(&number);
                ledger.drop_set(&set);
                is_gone = true;
            }
        }
        is_gone
    }
}
