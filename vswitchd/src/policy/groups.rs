//! All rosters of a compiler: the groups that rules name as peers, and what each policy selects.
//!
//! A group is there as long as a compiled rule names it, once for all policies that mean the
//! same pods. Which rosters a pod belongs to is found by its own and its namespace's labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slab::Slab;
use vswitch_datapath::flow::SetName;

use super::calico_labels::{is_added, labels_of};
use super::expression::Expression;
use super::ids::{PolicyId, RosterId};
use super::namespaces::Namespaces;
use super::peers::{Members, PodPeer, Scope};
use super::pods::{Pod, PodId, Pods};
use super::roster::Roster;
use super::selector_index::SelectorIndex;
use crate::rules::Ledger;
use crate::state::{ClusterState, Requirement, Selector};

/// Whose roster it is.
#[derive(Debug)]
enum Owner {
    /// Rules name it; so many of them.
    Group { members: Members, users: usize },
    /// The local pods that a policy selects.
    Selection { members: Members, policy: PolicyId },
}

#[derive(Debug)]
struct OwnedRoster {
    roster: Roster,
    owner: Owner,
}

impl OwnedRoster {
    fn members(&self) -> &Members {
        match &self.owner {
            Owner::Group { members, .. } | Owner::Selection { members, .. } => members,
        }
    }
}

/// The rosters, and the ways to find those of a pod.
#[derive(Debug, Default)]
pub(super) struct Groups {
    slab: Slab<OwnedRoster>,
    by_name: HashMap<SetName, RosterId>,
    /// Those that any pod may be in.
    everywhere: MemberIndex,
    /// Those that only pods of this node may be in.
    here: MemberIndex,
}

/// What a change of rosters works on.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) pods: &'a mut Pods,
    pub(super) namespaces: &'a Namespaces,
    pub(super) cluster: &'a ClusterState,
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
    pub(super) fn rosters_of(
        &self,
        pod: &Pod,
        namespaces: &Namespaces,
        cluster: &ClusterState,
    ) -> BTreeSet<RosterId> {
        let indexes = [Some(&self.everywhere), pod.is_local.then_some(&self.here)];
        let indexes = || indexes.into_iter().flatten();
        let mut found = BTreeSet::new();
        if !pod.is_network_set {
            let labels = &pod.record.labels;
            let indexes = indexes().flat_map(|index| index.pods.indexes_for(pod, namespaces));
            let candidates = indexes.flat_map(|index| index.candidates(labels));
            found.extend(candidates.filter(|id| match self.members_of(*id) {
                Some(Members::Pods(peer)) => peer.selector.matches(labels),
                _ => false,
            }));
        }
        if indexes().any(|index| !index.selected.is_empty()) {
            let labels = labels_of(pod, cluster);
            let candidates = indexes().flat_map(|index| index.selected.candidates(&labels));
            found.extend(candidates.filter(|id| match self.members_of(*id) {
                Some(Members::Selected { expression, .. }) => expression.matches(&labels),
                _ => false,
            }));
        }
        found
    }

    fn members_of(&self, id: RosterId) -> Option<&Members> {
        self.slab.get(id.0).map(OwnedRoster::members)
    }

    /// Takes the group of some members into use.
    pub(super) fn acquire(&mut self, members: &Members, facts: &mut Facts<'_>) -> RosterId {
        let name = members.set_name();
        if let Some(id) = self.by_name.get(&name) {
            if let Some(Owner::Group { users, .. }) =
                self.slab.get_mut(id.0).map(|entry| &mut entry.owner)
            {
                *users += 1;
            }
            return *id;
        }
        let owner = Owner::Group {
            members: members.clone(),
            users: 1,
        };
        let id = self.insert(name.clone(), owner);
        self.by_name.insert(name, id);
        self.index_of(members).insert(members, id);
        self.fill(id, find(members, facts), facts);
        if let Some(roster) = self.roster_mut(id) {
            roster.publish(true, facts.pods, facts.ledger);
        }
        id
    }

    /// Returns the index of a group.
    fn index_of(&mut self, members: &Members) -> &mut MemberIndex {
        match members {
            Members::Selected { is_here: true, .. } => &mut self.here,
            _ => &mut self.everywhere,
        }
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
        if let Owner::Group { members, .. } = entry.owner {
            self.index_of(&members).remove(&members, id);
        }
    }

    /// Starts to follow what a policy selects.
    pub(super) fn select(
        &mut self,
        policy: PolicyId,
        name: SetName,
        members: &Members,
        facts: &mut Facts<'_>,
    ) -> RosterId {
        let owner = Owner::Selection {
            members: members.clone(),
            policy,
        };
        let id = self.insert(name, owner);
        self.here.insert(members, id);
        self.fill(id, find_here(members, facts), facts);
        id
    }

    /// Ends that.
    pub(super) fn unselect(&mut self, id: RosterId, facts: &mut Facts<'_>) {
        let Some(entry) = self.remove(id, facts) else {
            return;
        };
        if let Owner::Selection { members, .. } = entry.owner {
            self.here.remove(&members, id);
        }
    }

    fn insert(&mut self, name: SetName, owner: Owner) -> RosterId {
        let members = match &owner {
            Owner::Group { members, .. } | Owner::Selection { members, .. } => members,
        };
        let may_share = matches!(members, Members::Selected { .. });
        let roster = Roster::new(name, may_share);
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

/// Rosters by the labels of what they may have.
#[derive(Debug, Default)]
struct MemberIndex {
    pods: ScopedIndex,
    /// Those of Calico's selectors, by all labels that Calico knows.
    selected: SelectorIndex<RosterId>,
}

impl MemberIndex {
    fn insert(&mut self, members: &Members, id: RosterId) {
        match members {
            Members::Pods(peer) => self.pods.insert(peer, id),
            Members::Selected { expression, .. } => {
                self.selected.insert(&expression.necessary(), id);
            }
        }
    }

    fn remove(&mut self, members: &Members, id: RosterId) {
        match members {
            Members::Pods(peer) => self.pods.remove(peer, id),
            Members::Selected { expression, .. } => {
                self.selected.remove(&expression.necessary(), id);
            }
        }
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

/// Finds the members that are pods of this node.
fn find_here(members: &Members, facts: &Facts<'_>) -> Vec<PodId> {
    match members {
        Members::Pods(peer) => local_members(peer, facts),
        Members::Selected { expression, .. } => {
            let local = facts.pods.local();
            let selected = local.filter(|(_, pod)| {
                let labels = labels_of(pod, facts.cluster);
                expression.matches(&labels)
            });
            selected.map(|(id, _)| id).collect()
        }
    }
}

/// Finds all members.
fn find(members: &Members, facts: &Facts<'_>) -> Vec<PodId> {
    match members {
        Members::Pods(peer) => members_of(peer, facts),
        Members::Selected { is_here: true, .. } => find_here(members, facts),
        Members::Selected { expression, .. } => {
            let is_selected = |id: &PodId| {
                let pod = facts.pods.get(*id);
                pod.is_some_and(|pod| expression.matches(&labels_of(pod, facts.cluster)))
            };
            let candidates = facts.pods.candidates(&own_labels(expression));
            let candidates = candidates.unwrap_or_else(|| facts.pods.ids().collect());
            candidates.into_iter().filter(is_selected).collect()
        }
    }
}

/// Returns what an expression demands of the labels that objects have themselves.
fn own_labels(expression: &Expression) -> Selector {
    let necessary = expression.necessary();
    let is_own = |demand: &&Requirement| !is_added(demand.key());
    necessary.requirements().filter(is_own).cloned().collect()
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
fn members_of(peer: &PodPeer, facts: &Facts<'_>) -> Vec<PodId> {
    let pods = &*facts.pods;
    let selected = |id: &PodId| {
        pods.get(*id)
            .is_some_and(|pod| !pod.is_network_set && peer.selector.matches(&pod.record.labels))
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
