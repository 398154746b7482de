//! The policy compiler: turns changes of the cluster into changes of rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use slab::Slab;
use vswitch_api::PortNo;
use vswitch_datapath::flow::SetName;
use vswitch_datapath::pipeline::Rule;

use super::cluster_policy::{self, ClusterPolicy, Tier};
use super::compiled::{self, CompiledPolicy, Sources, Subject};
use super::endpoints;
use super::groups::{Facts, Groups};
use super::ids::{PolicyId, RosterId};
use super::namespaces::Namespaces;
use super::nodes::NodeGroups;
use super::peers::{PodPeer, Scope};
use super::pods::{Locals, Pod, PodId, Pods, is_addressable};
use super::program::{NodeFacts, PolicyProblem, node_set};
use crate::config::Deny;
use crate::rules::{Ledger, RuleDelta};
use crate::state::{
    ClusterChange, ClusterPolicyRecord, ClusterState, LocalEndpoint, NodeRecord, ObjectKey,
    PolicyKey, PolicyRecord,
};

/// A policy, whether it selects a pod of this node or not.
#[derive(Debug)]
struct Policy {
    body: Body,
    selection: RosterId,
    /// What it came to, if it selects a pod of this node.
    compiled: Option<CompiledPolicy>,
}

/// What a policy says.
#[derive(Debug)]
enum Body {
    Namespaced {
        record: Arc<PolicyRecord>,
        subject: Subject,
    },
    Cluster(ClusterPolicy),
}

impl Body {
    fn key(&self) -> PolicyKey {
        match self {
            Self::Namespaced { record, .. } => PolicyKey::NetworkPolicy(record.key.clone()),
            Self::Cluster(policy) => PolicyKey::ClusterNetworkPolicy(policy.name.clone()),
        }
    }

    /// Returns the pods that it selects.
    fn selected(&self) -> PodPeer {
        match self {
            Self::Namespaced { record, subject } => PodPeer {
                scope: Scope::Namespace(record.key.namespace.clone()),
                selector: subject.selector.clone(),
            },
            Self::Cluster(policy) => policy.subject.clone(),
        }
    }

    fn selection_name(&self) -> SetName {
        match self {
            Self::Namespaced { record, .. } => compiled::selection_name(record),
            Self::Cluster(policy) => cluster_policy::selection_name(policy),
        }
    }
}

/// Where a policy of the cluster stands: policies of one place are told apart by their names.
type Level = (Tier, u16);

/// What has to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    pods: BTreeSet<ObjectKey>,
    policies: BTreeSet<PolicyKey>,
    endpoints: BTreeSet<PortNo>,
    node: bool,
}

/// The rules of the node itself.
#[derive(Debug, Default)]
struct NodeRules {
    rules: Vec<Rule>,
    /// With those in the tables of tiers.
    has_tiers: bool,
}

/// Keeps the rules of all policies that concern this node up to date.
///
/// A change is taken in at once and costs little; [`Compiler::flush`] works out what all
/// changes since the last flush come to. Its cost depends on what they touch: pods whose
/// labels or addresses changed, the groups those enter or leave, the policies that changed or
/// came to select another local pod. Policies and pods that are not touched cost nothing.
#[derive(Debug, Default)]
pub struct Compiler {
    state: ClusterState,
    node: NodeFacts,
    locals: Locals,
    namespaces: Namespaces,
    pods: Pods,
    groups: Groups,
    nodes: NodeGroups,
    policies: Slab<Policy>,
    policy_ids: HashMap<PolicyKey, PolicyId>,
    /// Policies of the cluster by their place, then by name.
    levels: BTreeMap<Level, BTreeSet<String>>,
    /// How many of them have rules.
    active_in_tiers: usize,
    endpoint_rules: BTreeMap<PortNo, Vec<Rule>>,
    node_rules: NodeRules,
    problems: BTreeMap<PolicyKey, Vec<PolicyProblem>>,
    ledger: Ledger,
    dirty: Dirty,
    deny: Deny,
}

impl Compiler {
    /// Returns a compiler that knows of nothing; `deny` is what becomes of packets that a
    /// policy denies.
    #[must_use]
    pub fn new(deny: Deny) -> Self {
        let mut compiler = Self {
            deny,
            ..Self::default()
        };
        compiler.dirty.node = true;
        compiler.ledger.create_set(&node_set());
        compiler
    }

    /// Returns the facts that it works on.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Returns what of the policies that concern this node was not understood.
    #[must_use]
    pub fn problems(&self) -> Vec<PolicyProblem> {
        self.problems.values().flatten().cloned().collect()
    }

    /// Takes in a change of the cluster.
    pub fn cluster(&mut self, change: ClusterChange) {
        match &change {
            ClusterChange::Namespace(record) => {
                self.namespace_changes(&record.name.clone(), change)
            }
            ClusterChange::NamespaceGone(name) => self.namespace_changes(&name.clone(), change),
            ClusterChange::Pod(record) => {
                let (key, ips) = (record.key.clone(), record.ips.clone());
                self.pod_changes(&key, ips, change);
            }
            ClusterChange::PodGone(key) => self.pod_changes(&key.clone(), Vec::new(), change),
            ClusterChange::Policy(PolicyRecord { key, .. }) | ClusterChange::PolicyGone(key) => {
                self.policy_changes(PolicyKey::NetworkPolicy(key.clone()), change);
            }
            ClusterChange::ClusterPolicy(ClusterPolicyRecord { name, .. })
            | ClusterChange::ClusterPolicyGone(name) => {
                self.policy_changes(PolicyKey::ClusterNetworkPolicy(name.clone()), change);
            }
            ClusterChange::Node(NodeRecord { name, .. }) | ClusterChange::NodeGone(name) => {
                self.node_changes(&name.clone(), change);
            }
            // What policies judge is the endpoint, whatever Service led there.
            ClusterChange::Service(_)
            | ClusterChange::ServiceGone(_)
            | ClusterChange::EndpointSlice(_)
            | ClusterChange::EndpointSliceGone(_) => {
                self.state.apply(change);
            }
        }
    }

    fn policy_changes(&mut self, key: PolicyKey, change: ClusterChange) {
        if self.state.apply(change) {
            self.dirty.policies.insert(key);
        }
    }

    fn node_changes(&mut self, name: &str, change: ClusterChange) {
        let before = self.state.node(name).cloned();
        if self.state.apply(change) {
            let after = self.state.node(name).map(AsRef::as_ref);
            self.nodes
                .changed(before.as_deref(), after, &mut self.ledger);
        }
    }

    fn namespace_changes(&mut self, name: &str, change: ClusterChange) {
        if self.state.apply(change) {
            self.namespaces.set(name, self.state.namespace(name));
            let of_namespace = self.state.pods_of(name).map(|pod| pod.key.clone());
            self.dirty.pods.extend(of_namespace);
        }
    }

    /// A pod that takes or leaves an address changes what others that claim it have.
    fn pod_changes(&mut self, key: &ObjectKey, mut ips: Vec<IpAddr>, change: ClusterChange) {
        ips.extend(self.state.pod(key).iter().flat_map(|pod| &pod.ips));
        if self.state.apply(change) {
            self.dirty.pods.insert(key.clone());
            self.dirty_claimants(&ips);
        }
    }

    fn dirty_claimants<'a>(&mut self, ips: impl IntoIterator<Item = &'a IpAddr>) {
        for ip in ips {
            let claimants = self.state.claimants(*ip).cloned();
            self.dirty.pods.extend(claimants);
        }
    }

    /// Sets the ports of this node and what is known of the node.
    pub fn set_node(&mut self, endpoints: BTreeMap<PortNo, LocalEndpoint>, node: NodeFacts) {
        let before = std::mem::take(&mut self.locals.endpoints);
        for (port, endpoint) in before.iter().chain(&endpoints) {
            if before.get(port) != endpoints.get(port) {
                self.dirty.endpoints.insert(*port);
                self.dirty.pods.insert(endpoint.pod.clone());
                self.dirty_claimants(&endpoint.addresses);
            }
        }
        if self.node != node {
            let (old, new) = (&self.node.addresses, &node.addresses);
            let changed: Vec<IpAddr> = old.symmetric_difference(new).copied().collect();
            self.dirty_claimants(&changed);
            if self.node.is_synced != node.is_synced {
                self.dirty.endpoints.extend(endpoints.keys());
            }
            self.dirty.node = true;
        }
        self.replace_node_addresses(&node);
        self.locals.set(endpoints, &node);
        self.node = node;
    }

    fn replace_node_addresses(&mut self, node: &NodeFacts) {
        let set = node_set();
        for gone in self.node.addresses.difference(&node.addresses) {
            self.ledger.remove_member(&set, IpNet::from(*gone));
        }
        for new in node.addresses.difference(&self.node.addresses) {
            self.ledger.add_member(&set, IpNet::from(*new));
        }
    }

    /// Works out what the changes since the last call come to.
    pub fn flush(&mut self) -> RuleDelta {
        let dirty = std::mem::take(&mut self.dirty);
        let mut outdated = BTreeSet::new();
        let (here, gone): (Vec<_>, Vec<_>) = dirty
            .policies
            .iter()
            .partition(|key| self.state.has_policy(key));
        for key in gone {
            self.retire(key, &mut outdated);
        }
        self.refresh_pods(&dirty.pods, &mut outdated);
        here.into_iter()
            .for_each(|key| self.learn(key, &mut outdated));
        while let Some(id) = outdated.pop_first() {
            self.compile(id, &mut outdated);
        }
        let mut ports = dirty.endpoints;
        for key in &dirty.pods {
            ports.extend(self.locals.ports_of(key));
        }
        ports
            .into_iter()
            .for_each(|port| self.refresh_endpoint(port));
        self.refresh_node(dirty.node);
        self.ledger.take()
    }

    /// The node's way in, before the tiers too while they have rules.
    fn refresh_node(&mut self, is_dirty: bool) {
        let has_tiers = self.active_in_tiers > 0 || !self.node.is_synced;
        if is_dirty || has_tiers != self.node_rules.has_tiers {
            let rules = endpoints::node_rules(has_tiers);
            self.ledger.replace_rules(&mut self.node_rules.rules, rules);
            self.node_rules.has_tiers = has_tiers;
        }
    }

    /// Places pods anew. Where addresses moved, all that lost them are gone from every roster
    /// before those that gained them come.
    fn refresh_pods(&mut self, dirty: &BTreeSet<ObjectKey>, outdated: &mut BTreeSet<PolicyId>) {
        let mut selections = BTreeSet::new();
        let mut moved = Vec::new();
        for key in dirty {
            let placed = self.locals.place(&self.state, key);
            match (self.pods.id_of(key), placed) {
                (Some(id), Some(pod)) if self.pods.get(id).is_some_and(|old| old.stays(&pod)) => {
                    self.relabel(id, pod, outdated, &mut selections);
                }
                (old, placed) => {
                    if let Some(id) = old {
                        self.remove_pod(id, outdated, &mut selections);
                    }
                    moved.extend(placed);
                }
            }
        }
        for pod in moved {
            let rosters = self.groups.rosters_of(&pod, &self.namespaces);
            let id = self.pods.insert(pod);
            self.join(id, rosters, outdated, &mut selections);
        }
        let is_off = |id: &PolicyId| {
            self.policies.get(id.0).is_some_and(|policy| {
                let roster = self.groups.roster(policy.selection);
                policy.compiled.is_some() == roster.is_none_or(super::roster::Roster::is_empty)
            })
        };
        outdated.extend(selections.into_iter().filter(is_off));
    }

    /// Changes what a pod is called; its addresses and ports are as before.
    fn relabel(
        &mut self,
        id: PodId,
        pod: Pod,
        outdated: &mut BTreeSet<PolicyId>,
        selections: &mut BTreeSet<PolicyId>,
    ) {
        let wanted = self.groups.rosters_of(&pod, &self.namespaces);
        let before = self.pods.relabel(id, pod.record);
        let (kept, left): (Vec<_>, Vec<_>) = before.into_iter().partition(|r| wanted.contains(r));
        self.leave(id, &left, outdated, selections);
        let came = wanted
            .into_iter()
            .filter(|roster| !kept.contains(roster))
            .collect();
        if let Some(pod) = self.pods.get_mut(id) {
            pod.rosters = kept;
        }
        self.join(id, came, outdated, selections);
    }

    fn remove_pod(
        &mut self,
        id: PodId,
        outdated: &mut BTreeSet<PolicyId>,
        selections: &mut BTreeSet<PolicyId>,
    ) {
        let rosters = self.pods.get(id).map(|pod| pod.rosters.clone());
        self.leave(id, &rosters.unwrap_or_default(), outdated, selections);
        self.pods.remove(id);
    }

    fn leave(
        &mut self,
        id: PodId,
        rosters: &[RosterId],
        outdated: &mut BTreeSet<PolicyId>,
        selections: &mut BTreeSet<PolicyId>,
    ) {
        let Some(pod) = self.pods.get(id) else {
            return;
        };
        for roster in rosters {
            selections.extend(self.groups.selecting(*roster));
            if let Some(roster) = self.groups.roster_mut(*roster) {
                roster.leave(id, pod, &mut self.ledger, outdated);
            }
        }
    }

    fn join(
        &mut self,
        id: PodId,
        rosters: BTreeSet<RosterId>,
        outdated: &mut BTreeSet<PolicyId>,
        selections: &mut BTreeSet<PolicyId>,
    ) {
        let Some(pod) = self.pods.get_mut(id) else {
            return;
        };
        for roster in rosters {
            selections.extend(self.groups.selecting(roster));
            if let Some(entry) = self.groups.roster_mut(roster) {
                entry.join(id, pod, &mut self.ledger, outdated);
                pod.rosters.push(roster);
            }
        }
    }

    /// Returns what the policy says.
    ///
    /// # Errors
    /// Why nobody knows whom it concerns, or when.
    fn read(&self, key: &PolicyKey) -> Result<Body, Vec<PolicyProblem>> {
        match key {
            PolicyKey::NetworkPolicy(key) => {
                let record = Arc::clone(self.state.policy(key).ok_or_else(Vec::new)?);
                let subject = Subject::of(&record);
                Ok(Body::Namespaced { record, subject })
            }
            PolicyKey::ClusterNetworkPolicy(name) => {
                let record = self.state.cluster_policy(name).ok_or_else(Vec::new)?;
                let problem = |(part, problem)| PolicyProblem {
                    policy: key.clone(),
                    part,
                    problem,
                };
                ClusterPolicy::parse(record)
                    .map(Body::Cluster)
                    .map_err(|flaws| flaws.into_iter().map(problem).collect())
            }
        }
    }

    /// Takes in a policy that is new or changed.
    fn learn(&mut self, key: &PolicyKey, outdated: &mut BTreeSet<PolicyId>) {
        let body = match self.read(key) {
            Ok(body) => body,
            Err(problems) => {
                self.retire(key, outdated);
                self.problems.insert(key.clone(), problems);
                return;
            }
        };
        let (level, selected) = (level(&body), body.selected());
        if let Some(id) = self.policy_ids.get(key).copied()
            && let Some(policy) = self.policies.get_mut(id.0)
            && self::level(&policy.body) == level
            && policy.body.selected() == selected
        {
            policy.body = body;
            if policy.compiled.is_some() {
                outdated.insert(id);
            }
            return;
        }
        self.retire(key, outdated);
        let id = PolicyId(self.policies.vacant_key());
        let mut facts = Facts {
            pods: &mut self.pods,
            namespaces: &self.namespaces,
            ledger: &mut self.ledger,
            outdated,
        };
        let name = body.selection_name();
        let selection = self.groups.select(id, name, &selected, &mut facts);
        self.policies.insert(Policy {
            body,
            selection,
            compiled: None,
        });
        self.policy_ids.insert(key.clone(), id);
        if self.groups.roster(selection).is_some_and(|r| !r.is_empty()) {
            outdated.insert(id);
        }
        self.join_level(level, key, outdated);
    }

    /// Takes a policy of the cluster in among those of its place; the places of others move.
    fn join_level(
        &mut self,
        level: Option<Level>,
        key: &PolicyKey,
        outdated: &mut BTreeSet<PolicyId>,
    ) {
        let (Some(level), PolicyKey::ClusterNetworkPolicy(name)) = (level, key) else {
            return;
        };
        self.levels.entry(level).or_default().insert(name.clone());
        self.outdate_behind(level, name, outdated);
    }

    fn leave_level(
        &mut self,
        level: Option<Level>,
        key: &PolicyKey,
        outdated: &mut BTreeSet<PolicyId>,
    ) {
        let (Some(level), PolicyKey::ClusterNetworkPolicy(name)) = (level, key) else {
            return;
        };
        self.outdate_behind(level, name, outdated);
        if let Some(names) = self.levels.get_mut(&level) {
            names.remove(name);
            if names.is_empty() {
                self.levels.remove(&level);
            }
        }
    }

    fn outdate_behind(&self, level: Level, name: &str, outdated: &mut BTreeSet<PolicyId>) {
        let names = self.levels.get(&level).into_iter().flatten();
        let behind = names.filter(|other| other.as_str() > name);
        let keys = behind.map(|other| PolicyKey::ClusterNetworkPolicy(other.clone()));
        let ids = keys.filter_map(|key| self.policy_ids.get(&key).copied());
        let is_compiled = |id: &PolicyId| {
            let policy = self.policies.get(id.0);
            policy.is_some_and(|policy| policy.compiled.is_some())
        };
        outdated.extend(ids.filter(is_compiled));
    }

    /// Returns the place of a policy among those of its tier and priority.
    fn place(&self, policy: &ClusterPolicy) -> u16 {
        let names = self.levels.get(&(policy.tier, policy.priority));
        let before = names.map_or(0, |names| {
            names.iter().take_while(|name| **name < policy.name).count()
        });
        u16::try_from(before).unwrap_or(u16::MAX)
    }

    /// Forgets a policy with all it came to.
    fn retire(&mut self, key: &PolicyKey, outdated: &mut BTreeSet<PolicyId>) {
        self.problems.remove(key);
        let Some(id) = self.policy_ids.remove(key) else {
            return;
        };
        let Some(policy) = self.policies.try_remove(id.0) else {
            return;
        };
        outdated.remove(&id);
        self.leave_level(level(&policy.body), key, outdated);
        let mut nothing = BTreeSet::new();
        let mut facts = Facts {
            pods: &mut self.pods,
            namespaces: &self.namespaces,
            ledger: &mut self.ledger,
            outdated: &mut nothing,
        };
        self.active_in_tiers -= usize::from(has_rules_in_tiers(&policy));
        let compiled = policy.compiled.unwrap_or_default();
        withdraw(id, &compiled, &mut self.groups, &mut facts);
        replace_networks(&compiled, &CompiledPolicy::default(), facts.ledger);
        release(compiled, &mut self.groups, &mut self.nodes, &mut facts);
        self.groups.unselect(policy.selection, &mut facts);
    }

    /// Compiles a policy, or undoes it where it selects no pod of this node. The groups of the
    /// version before are given back last, so that those still in use stay as they are.
    fn compile(&mut self, id: PolicyId, outdated: &mut BTreeSet<PolicyId>) {
        let place = match self.policies.get(id.0).map(|policy| &policy.body) {
            Some(Body::Cluster(policy)) => self.place(policy),
            _ => 0,
        };
        let Some(policy) = self.policies.get_mut(id.0) else {
            return;
        };
        let mut facts = Facts {
            pods: &mut self.pods,
            namespaces: &self.namespaces,
            ledger: &mut self.ledger,
            outdated,
        };
        self.active_in_tiers -= usize::from(has_rules_in_tiers(policy));
        let before = policy.compiled.take().unwrap_or_default();
        withdraw(id, &before, &mut self.groups, &mut facts);
        let mut is_active = false;
        if let Some(roster) = self.groups.roster_mut(policy.selection) {
            is_active = !roster.is_empty();
            roster.publish(is_active, facts.pods, facts.ledger);
        }
        let mut after = CompiledPolicy::default();
        if is_active {
            let mut sources = Sources {
                groups: &mut self.groups,
                nodes: &mut self.nodes,
                state: &self.state,
                facts: &mut facts,
            };
            let (roster, deny) = (policy.selection, self.deny);
            after = match &policy.body {
                Body::Namespaced { record, subject } => {
                    compiled::compile(id, record, (subject, roster), deny, &mut sources)
                }
                Body::Cluster(policy) => {
                    cluster_policy::compile(id, policy, roster, place, deny, &mut sources)
                }
            };
        }
        for rule in &mut after.rules {
            facts.ledger.add_rule(rule);
        }
        replace_networks(&before, &after, facts.ledger);
        release(before, &mut self.groups, &mut self.nodes, &mut facts);
        let key = policy.body.key();
        if after.problems.is_empty() {
            self.problems.remove(&key);
        } else {
            self.problems.insert(key, after.problems.clone());
        }
        policy.compiled = is_active.then_some(after);
        self.active_in_tiers += usize::from(has_rules_in_tiers(policy));
    }

    fn refresh_endpoint(&mut self, port: PortNo) {
        let rules = self.locals.endpoints.get(&port).map(|endpoint| {
            let pod = self.state.pod(&endpoint.pod);
            let is_known = pod.is_some_and(|pod| is_addressable(pod));
            endpoints::port_rules(endpoint, is_known, self.node.is_synced)
        });
        let mut before = self.endpoint_rules.remove(&port).unwrap_or_default();
        let is_gone = rules.is_none();
        self.ledger
            .replace_rules(&mut before, rules.unwrap_or_default());
        if !is_gone {
            self.endpoint_rules.insert(port, before);
        }
    }
}

fn level(body: &Body) -> Option<Level> {
    match body {
        Body::Namespaced { .. } => None,
        Body::Cluster(policy) => Some((policy.tier, policy.priority)),
    }
}

fn has_rules_in_tiers(policy: &Policy) -> bool {
    let has_rules = |compiled: &CompiledPolicy| !compiled.rules.is_empty();
    matches!(policy.body, Body::Cluster(_)) && policy.compiled.as_ref().is_some_and(has_rules)
}

/// Gives back what a policy held of others.
fn release(
    compiled: CompiledPolicy,
    groups: &mut Groups,
    nodes: &mut NodeGroups,
    facts: &mut Facts<'_>,
) {
    for group in compiled.groups {
        groups.release(group, facts);
    }
    for selector in &compiled.nodes {
        nodes.release(selector, facts.ledger);
    }
}

/// Takes back rules and the named ports that were followed.
fn withdraw(id: PolicyId, compiled: &CompiledPolicy, groups: &mut Groups, facts: &mut Facts<'_>) {
    for rule in &compiled.rules {
        facts.ledger.remove_rule(rule);
    }
    for (roster, port) in &compiled.watches {
        if let Some(roster) = groups.roster_mut(*roster) {
            roster.unwatch(port, id, facts.ledger);
        }
    }
}

fn replace_networks(before: &CompiledPolicy, after: &CompiledPolicy, ledger: &mut Ledger) {
    for (name, members) in &before.networks {
        if after.networks.get(name) != Some(members) {
            ledger.drop_set(name);
        }
    }
    for (name, members) in &after.networks {
        if before.networks.get(name) != Some(members) {
            ledger.create_set(name);
            members.iter().for_each(|net| ledger.add_member(name, *net));
        }
    }
}
