//! All rosters of a compiler: the groups that rules name as peers, and what each policy selects.
//!
//! A group is there as long as a compiled rule names it, once for all policies that mean the
//! same pods. Which rosters a pod belongs to is found by its own and its namespace's labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slab::Slab;
use vswitch_datapath::flow::SetName;

use super::ids::{PolicyId, RosterId};
use super::namespaces::Namespaces;
use super::peers::{PodPeer, Scope};
use super::pods::{Pod, PodId, Pods};
use super::roster::Roster;
use super::selector_index::SelectorIndex;
use crate::rules::Ledger;
use crate::state::Selector;

/// Whose roster it is.
#[derive(Debug)]
enum Owner {
    /// Rules name it; so many of them.
    Group { peer: PodPeer, users: usize },
    /// The local pods that a policy selects.
    Selection { peer: PodPeer, policy: PolicyId },
}

#[derive(Debug)]
struct OwnedRoster {
    roster: Roster,
    owner: Owner,
}

impl OwnedRoster {
    fn selector(&self) -> &Selector {
        match &self.owner {
            Owner::Group { peer, .. } | Owner::Selection { peer, .. } => &peer.selector,
        }
    }
}

/// The rosters, and the ways to find those of a pod.
#[derive(Debug, Default)]
pub(super) struct Groups {
    slab: Slab<OwnedRoster>,
    by_name: HashMap<SetName, RosterId>,
    groups: ScopedIndex,
    selections: ScopedIndex,
}

/// What a change of rosters works on.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) pods: &'a mut Pods,
    pub(super) namespaces: &'a Namespaces,
    pub(super) ledger: &'a mut Ledger,
    /// Policies that have to be compiled anew.
    pub(super) outdated: &'a mut BTreeSet<PolicyId>,
}

impl Groups {
    pub(super) fn roster(&self, id: RosterId) -> Option<&Roster> {
        self.slab.get(id.0).map(|entry| &entry.roster)
    }

    pub(super) fn roster_mut(&mut self, id: RosterId) -> Option<&mut Roster> {
        self.slab.get_mut(id.0).map(|entry| &mut entry.roster)
    }

    /// Returns the policy whose selection it is.
    pub(super) fn selecting(&self, id: RosterId) -> Option<PolicyId> {
        match self.slab.get(id.0)?.owner {
            Owner::Selection { policy, .. } => Some(policy),
            Owner::Group { .. } => None,
        }
    }

    /// Returns every roster that the pod belongs to.
    pub(super) fn rosters_of(&self, pod: &Pod, namespaces: &Namespaces) -> BTreeSet<RosterId> {
        let labels = &pod.record.labels;
        let mut indexes = self.groups.indexes_for(pod, namespaces);
        if pod.is_local {
            indexes.extend(self.selections.indexes_for(pod, namespaces));
        }
        let candidates = indexes
            .into_iter()
            .flat_map(|index| index.candidates(labels));
        let matches = |id: &RosterId| {
            self.slab
                .get(id.0)
                .is_some_and(|entry| entry.selector().matches(labels))
        };
        candidates.filter(matches).collect()
    }

    /// Takes the group of a peer into use.
    pub(super) fn acquire(&mut self, peer: &PodPeer, facts: &mut Facts<'_>) -> RosterId {
        let name = peer.set_name();
        if let Some(id) = self.by_name.get(&name) {
            if let Some(Owner::Group { users, .. }) =
                self.slab.get_mut(id.0).map(|entry| &mut entry.owner)
            {
                *users += 1;
            }
            return *id;
        }
        let owner = Owner::Group {
            peer: peer.clone(),
            users: 1,
        };
        let id = self.insert(Roster::new(name.clone()), owner);
        self.by_name.insert(name, id);
        self.groups.insert(peer, id);
        self.fill(id, members(peer, facts), facts);
        if let Some(roster) = self.roster_mut(id) {
            roster.publish(true, facts.pods, facts.ledger);
        }
        id
    }

    /// Gives a group back; it goes when nobody uses it any more.
    pub(super) fn release(&mut self, id: RosterId, facts: &mut Facts<'_>) {
        let Some(Owner::Group { users, .. }) =
            self.slab.get_mut(id.0).map(|entry| &mut entry.owner)
        else {
            return;
        };
        *users -= 1;
        if *users > 0 {
            return;
        }
        let Some(entry) = self.remove(id, facts) else {
            return;
        };
        self.by_name.remove(&entry.roster.name);
        if let Owner::Group { peer, .. } = entry.owner {
            self.groups.remove(&peer, id);
        }
    }

    /// Starts to follow what a policy selects.
    pub(super) fn select(
        &mut self,
        policy: PolicyId,
        name: SetName,
        peer: &PodPeer,
        facts: &mut Facts<'_>,
    ) -> RosterId {
        let owner = Owner::Selection {
            peer: peer.clone(),
            policy,
        };
        let id = self.insert(Roster::new(name), owner);
        self.selections.insert(peer, id);
        self.fill(id, local_members(peer, facts), facts);
        id
    }

    /// Ends that.
    pub(super) fn unselect(&mut self, id: RosterId, facts: &mut Facts<'_>) {
        let Some(entry) = self.remove(id, facts) else {
            return;
        };
        if let Owner::Selection { peer, .. } = entry.owner {
            self.selections.remove(&peer, id);
        }
    }

    fn insert(&mut self, roster: Roster, owner: Owner) -> RosterId {
        RosterId(self.slab.insert(OwnedRoster { roster, owner }))
    }

    fn fill(&mut self, id: RosterId, members: Vec<PodId>, facts: &mut Facts<'_>) {
        let Some(entry) = self.slab.get_mut(id.0) else {
            return;
        };
        for member in members {
            if let Some(pod) = facts.pods.get_mut(member) {
                entry.roster.join(member, pod, facts.ledger, facts.outdated);
                pod.rosters.push(id);
            }
        }
    }

    fn remove(&mut self, id: RosterId, facts: &mut Facts<'_>) -> Option<OwnedRoster> {
        let mut entry = self.slab.try_remove(id.0)?;
        entry.roster.publish(false, facts.pods, facts.ledger);
        for member in entry.roster.pods() {
            if let Some(pod) = facts.pods.get_mut(member) {
                pod.rosters.retain(|roster| *roster != id);
            }
        }
        Some(entry)
    }
}

/// Rosters that share a namespaceSelector.
#[derive(Debug, Default)]
struct Class {
    number: usize,
    rosters: SelectorIndex<RosterId>,
}

/// Rosters by the namespaces, and then the labels, of the pods that they may have.
#[derive(Debug, Default)]
struct ScopedIndex {
    everywhere: SelectorIndex<RosterId>,
    by_namespace: HashMap<String, SelectorIndex<RosterId>>,
    classes: BTreeMap<Selector, Class>,
    class_selectors: Slab<Selector>,
    class_index: SelectorIndex<usize>,
}

impl ScopedIndex {
    fn insert(&mut self, peer: &PodPeer, id: RosterId) {
        self.index_of(&peer.scope).insert(&peer.selector, id);
    }

    fn remove(&mut self, peer: &PodPeer, id: RosterId) {
        self.index_of(&peer.scope).remove(&peer.selector, id);
        self.forget_index(&peer.scope);
    }

    /// Returns the indexes that have every roster the pod may belong to.
    fn indexes_for(&self, pod: &Pod, namespaces: &Namespaces) -> Vec<&SelectorIndex<RosterId>> {
        let namespace = pod.record.key.namespace.as_str();
        let mut indexes = vec![&self.everywhere];
        indexes.extend(self.by_namespace.get(namespace));
        // A namespace that has not been heard of has no labels that a selector could be held
        // against; its pods are found only from within.
        if let Some(of_namespace) = namespaces.labels(namespace) {
            let candidates = self.class_index.candidates(of_namespace);
            let selectors = candidates.filter_map(|number| self.class_selectors.get(number));
            let matching = selectors.filter(|selector| selector.matches(of_namespace));
            let classes = matching.filter_map(|selector| self.classes.get(selector));
            indexes.extend(classes.map(|class| &class.rosters));
        }
        indexes
    }

    fn index_of(&mut self, scope: &Scope) -> &mut SelectorIndex<RosterId> {
        match scope {
            Scope::Everywhere => &mut self.everywhere,
            Scope::Namespace(name) => self.by_namespace.entry(name.clone()).or_default(),
            Scope::Namespaces(selector) => {
                let Self {
                    classes,
                    class_selectors,
                    class_index,
                    ..
                } = self;
                let class = classes.entry(selector.clone()).or_insert_with(|| {
                    let number = class_selectors.insert(selector.clone());
                    class_index.insert(selector, number);
                    Class {
                        number,
                        rosters: SelectorIndex::default(),
                    }
                });
                &mut class.rosters
            }
        }
    }

    /// Removes the index of a scope if nothing is in it.
    fn forget_index(&mut self, scope: &Scope) {
        match scope {
            Scope::Everywhere => {}
            Scope::Namespace(name) => {
                if self
                    .by_namespace
                    .get(name)
                    .is_some_and(SelectorIndex::is_empty)
                {
                    self.by_namespace.remove(name);
                }
            }
            Scope::Namespaces(selector) => {
                if let Some(class) = self.classes.get(selector)
                    && class.rosters.is_empty()
                {
                    self.class_index.remove(selector, class.number);
                    self.class_selectors.try_remove(class.number);
                    self.classes.remove(selector);
                }
            }
        }
    }
}

/// Finds the pods of this node that a policy selects.
fn local_members(peer: &PodPeer, facts: &Facts<'_>) -> Vec<PodId> {
    let is_in = |pod: &Pod| {
        let namespace = pod.record.key.namespace.as_str();
        match &peer.scope {
            Scope::Everywhere | Scope::Namespace(_) => true,
            Scope::Namespaces(wanted) => {
                let labels = facts.namespaces.labels(namespace);
                labels.is_some_and(|labels| wanted.matches(labels))
            }
        }
    };
    let selected = |(id, pod): (PodId, &Pod)| {
        (peer.selector.matches(&pod.record.labels) && is_in(pod)).then_some(id)
    };
    match &peer.scope {
        Scope::Namespace(name) => facts.pods.local_in(name).filter_map(selected).collect(),
        _ => facts.pods.local().filter_map(selected).collect(),
    }
}

/// Finds the pods of a peer.
fn members(peer: &PodPeer, facts: &Facts<'_>) -> Vec<PodId> {
    let pods = &*facts.pods;
    let selected = |id: &PodId| {
        pods.get(*id)
            .is_some_and(|pod| peer.selector.matches(&pod.record.labels))
    };
    let of = |namespace: &str| -> Vec<PodId> {
        pods.in_namespace(namespace).map(|(id, _)| id).collect()
    };
    match &peer.scope {
        Scope::Namespace(name) => of(name).into_iter().filter(selected).collect(),
        Scope::Everywhere => pods.ids().filter(selected).collect(),
        Scope::Namespaces(wanted) => {
            let namespaces = facts.namespaces.matching(wanted);
            let by_label = pods.candidates(&peer.selector);
            match by_label {
                Some(few) => {
                    let names: BTreeSet<&str> = namespaces.into_iter().collect();
                    let is_in = |id: &PodId| {
                        pods.get(*id)
                            .is_some_and(|pod| names.contains(pod.record.key.namespace.as_str()))
                    };
                    few.into_iter().filter(selected).filter(is_in).collect()
                }
                None => namespaces
                    .into_iter()
                    .flat_map(of)
                    .filter(selected)
                    .collect(),
            }
        }
    }
}
