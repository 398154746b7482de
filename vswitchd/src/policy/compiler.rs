//! The policy compiler: turns changes of the cluster into changes of rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use slab::Slab;
use vswitch_api::PortNo;
use vswitch_datapath::flow::SetName;
use vswitch_datapath::pipeline::Rule;

use super::compiled::{self, Subject};
use super::endpoints;
use super::groups::{Facts, Groups};
use super::ids::{PolicyId, RosterId};
use super::namespaces::Namespaces;
use super::nodes::NodeGroups;
use super::output::{CompiledPolicy, Sources};
use super::peers::{Members, PodPeer, Scope};
use super::pods::{Locals, MemberKey, Pod, PodId, Pods, is_addressable};
use super::program::{NodeFacts, PolicyProblem, node_set};
use super::tiered::tiered;
use super::tiers::{self, Position, Rank, Ranking, TieredPolicy};
use crate::config::Deny;
use crate::rules::{Ledger, RuleDelta};
use crate::state::{
    Changed, ClusterState, LocalEndpoint, NodeRecord, ObjectKey, PodRecord, PolicyKey, PolicyRecord,
};

/// A policy, whether it selects a pod of this node or not.
#[derive(Debug)]
struct Policy {
    body: Body,
    selection: RosterId,
    /// What it came to, if it selects a pod of this node.
    compiled: Option<CompiledPolicy>,
    /// Where its rules were put.
    rank: Option<Rank>,
}

/// What a policy says.
#[derive(Debug)]
enum Body {
    Namespaced {
        record: Arc<PolicyRecord>,
        subject: Subject,
    },
    Tiered(Box<TieredPolicy>),
}

impl Body {
    fn key(&self) -> PolicyKey {
        match self {
            Self::Namespaced { record, .. } => PolicyKey::NetworkPolicy(record.key.clone()),
            Self::Tiered(policy) => policy.key.clone(),
        }
    }

    /// Returns whom it selects.
    fn selected(&self) -> Members {
        match self {
            Self::Namespaced { record, subject } => Members::Pods(PodPeer {
                scope: Scope::Namespace(record.key.namespace.clone()),
                selector: subject.selector.clone(),
            }),
            Self::Tiered(policy) => policy.subject.clone(),
        }
    }

    fn selection_name(&self) -> SetName {
        match self {
            Self::Namespaced { record, .. } => compiled::selection_name(record),
            Self::Tiered(policy) => policy.selection_name(),
        }
    }

    /// Returns where it stands among policies of tiers, and whether it passes packets on.
    fn standing(&self) -> Option<(&Position, bool)> {
        match self {
            Self::Namespaced { .. } => None,
            Self::Tiered(policy) => Some((&policy.position, policy.passes())),
        }
    }
}

/// What has to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    pods: BTreeSet<ObjectKey>,
    network_sets: BTreeSet<ObjectKey>,
    policies: BTreeSet<PolicyKey>,
    endpoints: BTreeSet<PortNo>,
    node: bool,
}

/// The rules of the node itself.
#[derive(Debug, Default)]
struct NodeRules {
    rules: Vec<Rule>,
    /// With those in the tables of tiers that come before NetworkPolicies.
    has_tiers: bool,
}

/// Keeps the rules of all policies that concern this node up to date.
///
/// The cluster is the caller's, who gives each change of it to [`Compiler::changed`] at once.
/// That costs little; [`Compiler::flush`] works out what all changes since the last flush come
/// to. Its cost depends on what they touch: pods whose labels or addresses changed, the groups
/// those enter or leave, the policies that changed or came to select another local pod.
/// Policies and pods that are not touched cost nothing.
#[derive(Debug, Default)]
pub struct Compiler {
    node: NodeFacts,
    locals: Locals,
    namespaces: Namespaces,
    pods: Pods,
    groups: Groups,
    nodes: NodeGroups,
    policies: Slab<Policy>,
    policy_ids: HashMap<PolicyKey, PolicyId>,
    /// Policies of tiers in their order.
    ranking: Ranking,
    /// How many of them have rules in tables before those of NetworkPolicies.
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

    /// Returns what of the policies that concern this node was not understood.
    #[must_use]
    pub fn problems(&self) -> Vec<PolicyProblem> {
        self.problems.values().flatten().cloned().collect()
    }

    /// Notes what is different in the cluster now.
    pub fn changed(&mut self, changed: &Changed, cluster: &ClusterState) {
        match changed {
            Changed::Namespace { name, policies } => {
                self.dirty.policies.extend(policies.iter().cloned());
                self.namespace_changed(name, cluster);
            }
            Changed::Pod { key, before } => self.pod_changed(key, before.as_deref(), cluster),
            Changed::Policy(key) => {
                self.dirty.policies.insert(key.clone());
            }
            Changed::NetworkSet(key) => {
                self.dirty.network_sets.insert(key.clone());
            }
            Changed::ServiceAccount(key) => self.account_changed(key, cluster),
            Changed::Tier(name) => self.tier_changed(name, cluster),
            Changed::Node { name, before } => self.node_changed(name, before.as_deref(), cluster),
            // What policies judge is the endpoint, whatever Service led there.
            Changed::Service(_) | Changed::EndpointSlice { .. } => {}
        }
    }

    /// Its pods are selected by its labels, too.
    fn account_changed(&mut self, account: &ObjectKey, cluster: &ClusterState) {
        let of_namespace = cluster.pods_of(&account.namespace);
        let its = of_namespace.filter(|pod| pod.service_account == account.name);
        self.dirty.pods.extend(its.map(|pod| pod.key.clone()));
    }

    fn tier_changed(&mut self, name: &str, cluster: &ClusterState) {
        let policies = cluster.calico_policies();
        let of_tier = policies.filter(|policy| policy.spec["tier"] == name);
        let keys = of_tier.map(|policy| PolicyKey::of_calico(&policy.key));
        self.dirty.policies.extend(keys);
    }

    fn node_changed(&mut self, name: &str, before: Option<&NodeRecord>, cluster: &ClusterState) {
        let after = cluster.node(name).map(AsRef::as_ref);
        self.nodes.changed(before, after, &mut self.ledger);
    }

    fn namespace_changed(&mut self, name: &str, cluster: &ClusterState) {
        self.namespaces.set(name, cluster.namespace(name));
        let of_namespace = cluster.pods_of(name).map(|pod| pod.key.clone());
        self.dirty.pods.extend(of_namespace);
        let sets = cluster.network_sets().map(|set| &set.key);
        let of_namespace = sets.filter(|key| key.namespace == name).cloned();
        self.dirty.network_sets.extend(of_namespace);
    }

    /// A pod that takes or leaves an address changes what others that claim it have.
    fn pod_changed(&mut self, key: &ObjectKey, before: Option<&PodRecord>, cluster: &ClusterState) {
        self.dirty.pods.insert(key.clone());
        let after = cluster.pod(key).map(AsRef::as_ref);
        for pod in [before, after].into_iter().flatten() {
            self.dirty_claimants(&pod.ips, cluster);
        }
    }

    fn dirty_claimants<'a>(
        &mut self,
        ips: impl IntoIterator<Item = &'a IpAddr>,
        cluster: &ClusterState,
    ) {
        for ip in ips {
            let claimants = cluster.claimants(*ip).cloned();
            self.dirty.pods.extend(claimants);
        }
    }

    /// Sets the ports of this node and what is known of the node.
    pub fn set_node(
        &mut self,
        endpoints: BTreeMap<PortNo, LocalEndpoint>,
        node: NodeFacts,
        cluster: &ClusterState,
    ) {
        let before = std::mem::take(&mut self.locals.endpoints);
        for (port, endpoint) in before.iter().chain(&endpoints) {
            if before.get(port) != endpoints.get(port) {
                self.dirty.endpoints.insert(*port);
                self.dirty.pods.insert(endpoint.pod.clone());
                self.dirty_claimants(&endpoint.addresses, cluster);
            }
        }
        if self.node != node {
            let (old, new) = (&self.node.addresses, &node.addresses);
            let changed: Vec<IpAddr> = old.symmetric_difference(new).copied().collect();
            self.dirty_claimants(&changed, cluster);
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
    pub fn flush(&mut self, cluster: &ClusterState) -> RuleDelta {
        let dirty = std::mem::take(&mut self.dirty);
        let mut outdated = BTreeSet::new();
        let (here, gone): (Vec<_>, Vec<_>) = dirty
            .policies
            .iter()
            .partition(|key| cluster.has_policy(key));
        for key in gone {
            self.retire(key, cluster, &mut outdated);
        }
        let pods = dirty.pods.iter().cloned().map(MemberKey::Pod);
        let sets = dirty.network_sets.into_iter().map(MemberKey::NetworkSet);
        self.refresh_members(pods.chain(sets), cluster, &mut outdated);
        here.into_iter()
            .for_each(|key| self.learn(key, cluster, &mut outdated));
        if self.ranking.take_changed() {
            outdated.extend(self.misplaced());
        }
        while let Some(id) = outdated.pop_first() {
            self.compile(id, cluster, &mut outdated);
        }
        let mut ports = dirty.endpoints;
        for key in &dirty.pods {
            ports.extend(self.locals.ports_of(key));
        }
        ports
            .into_iter()
            .for_each(|port| self.refresh_endpoint(port, cluster));
        self.refresh_node(dirty.node);
        self.ledger.take()
    }

    /// Returns the policies whose rules have to go elsewhere.
    fn misplaced(&self) -> impl Iterator<Item = PolicyId> {
        let compiled = self.policies.iter();
        let misplaced = compiled.filter(|(_, policy)| {
            let standing = policy.body.standing().zip(policy.rank.as_ref());
            standing.is_some_and(|((position, _), rank)| self.ranking.rank(position) != *rank)
        });
        misplaced.map(|(id, _)| PolicyId(id))
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

    /// Places pods and network sets anew. Where addresses moved, all that lost them are gone from
    /// every roster before those that gained them come.
    fn refresh_members(
        &mut self,
        dirty: impl Iterator<Item = MemberKey>,
        cluster: &ClusterState,
        outdated: &mut BTreeSet<PolicyId>,
    ) {
        let mut selections = BTreeSet::new();
        let mut moved = Vec::new();
        for key in dirty {
            let placed = self.locals.place(cluster, &key);
            match (self.pods.id_of(&key), placed) {
                (Some(id), Some(pod)) if self.pods.get(id).is_some_and(|old| old.stays(&pod)) => {
                    self.relabel(id, pod, cluster, outdated, &mut selections);
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
            let rosters = self.groups.rosters_of(&pod, &self.namespaces, cluster);
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
        cluster: &ClusterState,
        outdated: &mut BTreeSet<PolicyId>,
        selections: &mut BTreeSet<PolicyId>,
    ) {
        let wanted = self.groups.rosters_of(&pod, &self.namespaces, cluster);
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
    fn read(key: &PolicyKey, cluster: &ClusterState) -> Result<Body, Vec<PolicyProblem>> {
        let parsed = match key {
            PolicyKey::NetworkPolicy(key) => {
                let record = Arc::clone(cluster.policy(key).ok_or_else(Vec::new)?);
                let subject = Subject::of(&record);
                return Ok(Body::Namespaced { record, subject });
            }
            key => tiered(cluster, key).ok_or_else(Vec::new)?,
        };
        let problem = |(part, problem)| PolicyProblem {
            policy: key.clone(),
            part,
            problem,
        };
        parsed
            .map(|policy| Body::Tiered(Box::new(policy)))
            .map_err(|flaws| flaws.into_iter().map(problem).collect())
    }

    /// Takes in a policy that is new or changed.
    fn learn(
        &mut self,
        key: &PolicyKey,
        cluster: &ClusterState,
        outdated: &mut BTreeSet<PolicyId>,
    ) {
        let body = match Self::read(key, cluster) {
            Ok(body) => body,
            Err(problems) => {
                self.retire(key, cluster, outdated);
                self.problems.insert(key.clone(), problems);
                return;
            }
        };
        let selected = body.selected();
        if let Some(id) = self.policy_ids.get(key).copied()
            && let Some(policy) = self.policies.get_mut(id.0)
            && policy.body.standing() == body.standing()
            && policy.body.selected() == selected
        {
            policy.body = body;
            if policy.compiled.is_some() {
                outdated.insert(id);
            }
            return;
        }
        self.retire(key, cluster, outdated);
        let id = PolicyId(self.policies.vacant_key());
        let mut facts = Facts {
            pods: &mut self.pods,
            namespaces: &self.namespaces,
            cluster,
            ledger: &mut self.ledger,
            outdated,
        };
        let name = body.selection_name();
        let selection = self.groups.select(id, name, &selected, &mut facts);
        if let Some((position, passes)) = body.standing() {
            self.ranking.join(position, passes);
        }
        self.policies.insert(Policy {
            body,
            selection,
            compiled: None,
            rank: None,
        });
        self.policy_ids.insert(key.clone(), id);
        if self.groups.roster(selection).is_some_and(|r| !r.is_empty()) {
            outdated.insert(id);
        }
    }

    /// Forgets a policy with all it came to.
    fn retire(
        &mut self,
        key: &PolicyKey,
        cluster: &ClusterState,
        outdated: &mut BTreeSet<PolicyId>,
    ) {
        self.problems.remove(key);
        let Some(id) = self.policy_ids.remove(key) else {
            return;
        };
        let Some(policy) = self.policies.try_remove(id.0) else {
            return;
        };
        outdated.remove(&id);
        if let Some((position, passes)) = policy.body.standing() {
            self.ranking.leave(position, passes);
        }
        let mut nothing = BTreeSet::new();
        let mut facts = Facts {
            pods: &mut self.pods,
            namespaces: &self.namespaces,
            cluster,
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
    fn compile(&mut self, id: PolicyId, cluster: &ClusterState, outdated: &mut BTreeSet<PolicyId>) {
        let Some(policy) = self.policies.get_mut(id.0) else {
            return;
        };
        let mut facts = Facts {
            pods: &mut self.pods,
            namespaces: &self.namespaces,
            cluster,
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
        policy.rank = None;
        if is_active {
            let mut sources = Sources {
                groups: &mut self.groups,
                nodes: &mut self.nodes,
                facts: &mut facts,
            };
            let (roster, deny) = (policy.selection, self.deny);
            after = match &policy.body {
                Body::Namespaced { record, subject } => {
                    compiled::compile(id, record, (subject, roster), deny, &mut sources)
                }
                Body::Tiered(body) => {
                    let rank = self.ranking.rank(&body.position);
                    let rank = &*policy.rank.insert(rank);
                    tiers::compile(id, body, (roster, rank), deny, &mut sources)
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

    fn refresh_endpoint(&mut self, port: PortNo, cluster: &ClusterState) {
        let rules = self.locals.endpoints.get(&port).map(|endpoint| {
            let pod = cluster.pod(&endpoint.pod);
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

fn has_rules_in_tiers(policy: &Policy) -> bool {
    let has_rules = |compiled: &CompiledPolicy| !compiled.rules.is_empty();
    let is_before = |rank: &Rank| rank.is_before_network_policies();
    policy.rank.as_ref().is_some_and(is_before) && policy.compiled.as_ref().is_some_and(has_rules)
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
    for (roster, name) in &compiled.outsides {
        if let Some(roster) = groups.roster_mut(*roster) {
            roster.end_surroundings(name, facts.ledger);
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
