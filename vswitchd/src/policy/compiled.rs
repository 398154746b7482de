//! From one policy to its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use vswitch_datapath::flow::{Match, PortRange, SetName};
use vswitch_datapath::pipeline::{Origin, Rule};

use super::direction::Direction;
use super::groups::{Facts, Groups};
use super::ids::{PolicyId, RosterId};
use super::nodes::NodeGroups;
use super::peers::{Peer, PodPeer};
use super::ports::PortDemand;
use super::program::{PolicyProblem, priority};
use super::roster::{NamedPort, Within};
use crate::config::Deny;
use crate::rules::{RuleOwner, RuleSet};
use crate::state::{ClusterState, PolicyKey, PolicyRecord, Selector};

/// What a policy selects. If that cannot be understood, it isolates all pods it could mean and
/// allows none of them anything.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) selector: Selector,
    problem: Option<PolicyProblem>,
}

impl Subject {
    pub(super) fn of(policy: &PolicyRecord) -> Self {
        let written = policy.spec.pod_selector.clone().unwrap_or_default();
        match Selector::parse(&written) {
            Ok(selector) => Self {
                selector,
                problem: None,
            },
            Err(error) => Self {
                selector: Selector::widest(&written),
                problem: Some(problem(policy, "podSelector".to_owned(), error)),
            },
        }
    }
}

fn problem(policy: &PolicyRecord, part: String, problem: impl ToString) -> PolicyProblem {
    PolicyProblem {
        policy: PolicyKey::NetworkPolicy(policy.key.clone()),
        part,
        problem: problem.to_string(),
    }
}

/// What one policy came to, and what it holds of others.
#[derive(Debug, Default)]
pub(super) struct CompiledPolicy {
    pub(super) rules: Vec<Rule>,
    /// Groups it uses, each as often as it does.
    pub(super) groups: Vec<RosterId>,
    /// Named ports it follows.
    pub(super) watches: Vec<(RosterId, NamedPort)>,
    /// Nodes that it names, each selector as often as it does.
    pub(super) nodes: Vec<Selector>,
    /// Its own sets: the networks of its peers.
    pub(super) networks: BTreeMap<SetName, BTreeSet<IpNet>>,
    pub(super) problems: Vec<PolicyProblem>,
}

/// What peers are found in.
#[derive(Debug)]
pub(super) struct Sources<'a, 'f> {
    pub(super) groups: &'a mut Groups,
    pub(super) nodes: &'a mut NodeGroups,
    pub(super) state: &'a ClusterState,
    pub(super) facts: &'a mut Facts<'f>,
}

/// Compiles a policy that selects `subject`.
pub(super) fn compile(
    id: PolicyId,
    policy: &PolicyRecord,
    (subject, roster): (&Subject, RosterId),
    deny: Deny,
    sources: &mut Sources<'_, '_>,
) -> CompiledPolicy {
    let mut compiled = CompiledPolicy::default();
    compiled.problems.extend(subject.problem.clone());
    let mut rules = RuleSet::of(RuleOwner::Policies);
    for direction in isolated_directions(policy, &mut compiled) {
        let mut side = Side {
            id,
            policy,
            subject: &selection_name(policy),
            roster,
            direction,
            deny,
            groups: sources.groups,
            facts: sources.facts,
            rules: &mut rules,
            compiled: &mut compiled,
        };
        side.isolate();
        if subject.problem.is_none() {
            side.allow_rules();
        }
    }
    compiled.rules = rules.into_list();
    compiled
}

/// Returns the name of the set of the pods that a policy selects.
pub(super) fn selection_name(policy: &PolicyRecord) -> SetName {
    SetName(format!("{}/selected", policy.key).into())
}

/// Returns the directions in which the policy isolates. An unknown type isolates both.
fn isolated_directions(policy: &PolicyRecord, compiled: &mut CompiledPolicy) -> Vec<Direction> {
    let types = policy.spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return default_directions(&policy.spec);
    }
    let is_known = |name: &String| Direction::BOTH.iter().any(|d| d.policy_type() == name);
    if let Some(unknown) = types.iter().find(|name| !is_known(name)) {
        let text = format!("policy type {unknown:?} is neither Ingress nor Egress");
        compiled
            .problems
            .push(problem(policy, "policyTypes".to_owned(), text));
        return Direction::BOTH.to_vec();
    }
    let is_named = |d: &Direction| types.iter().any(|name| name == d.policy_type());
    Direction::BOTH.into_iter().filter(is_named).collect()
}

/// Without policyTypes a policy concerns ingress, and egress if it has an egress rule.
fn default_directions(spec: &NetworkPolicySpec) -> Vec<Direction> {
    match spec.egress.as_deref() {
        None | Some([]) => vec![Direction::Ingress],
        Some(_) => Direction::BOTH.to_vec(),
    }
}

/// A rule of either direction.
struct WrittenRule<'a> {
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

/// The peer part of an allow rule.
enum PeerSet {
    /// No demand.
    Anyone,
    /// Pods; named ports resolve there.
    Pods(PodPeer),
    /// Networks, under this name. Named ports resolve at the pods in them.
    Networks(SetName),
}

/// One policy in one direction.
struct Side<'a, 'f> {
    id: PolicyId,
    policy: &'a PolicyRecord,
    subject: &'a SetName,
    roster: RosterId,
    direction: Direction,
    deny: Deny,
    groups: &'a mut Groups,
    facts: &'a mut Facts<'f>,
    rules: &'a mut RuleSet,
    compiled: &'a mut CompiledPolicy,
}

impl<'a> Side<'a, '_> {
    fn origin(&self, part: String) -> Arc<Origin> {
        Arc::new(Origin {
            kind: "NetworkPolicy",
            name: self.policy.key.to_string(),
            part,
        })
    }

    fn problem(&mut self, part: String, error: impl ToString) {
        self.compiled
            .problems
            .push(problem(self.policy, part, error));
    }

    fn isolate(&mut self) {
        let matches = self.direction.addresses(Some(self.subject), None);
        let at = (self.direction.default_table(), priority::POLICY);
        let origin = self.origin(self.direction.name().to_owned());
        let deny = self.direction.deny(self.deny);
        self.rules.add(at, matches, vec![deny], &origin);
    }

    fn allow_rules(&mut self) {
        for (index, rule) in self.written_rules().into_iter().enumerate() {
            let part = format!("{}[{index}]", self.direction.name());
            let demands = self.port_demands(&rule, &part);
            for (part, peer) in self.peer_sets(&rule, index, &part) {
                self.allow_peer(&part, &peer, &demands);
            }
        }
    }

    fn written_rules(&self) -> Vec<WrittenRule<'a>> {
        let spec = &self.policy.spec;
        match self.direction {
            Direction::Ingress => {
                let rules = spec.ingress.iter().flatten();
                rules
                    .map(|r| WrittenRule {
                        peers: list(&r.from),
                        ports: list(&r.ports),
                    })
                    .collect()
            }
            Direction::Egress => {
                let rules = spec.egress.iter().flatten();
                rules
                    .map(|r| WrittenRule {
                        peers: list(&r.to),
                        ports: list(&r.ports),
                    })
                    .collect()
            }
        }
    }

    /// Returns the demands on ports with the part of the policy each came from. `None`
    /// demands nothing, any protocol.
    fn port_demands(
        &mut self,
        rule: &WrittenRule<'_>,
        part: &str,
    ) -> Vec<(String, Option<PortDemand>)> {
        if rule.ports.is_empty() {
            return vec![(String::new(), None)];
        }
        let mut demands = Vec::new();
        for (index, port) in rule.ports.iter().enumerate() {
            match PortDemand::parse(port) {
                Ok(demand) => demands.push((format!(".ports[{index}]"), Some(demand))),
                Err(error) => self.problem(format!("{part}.ports[{index}]"), error),
            }
        }
        demands
    }

    fn peer_sets(
        &mut self,
        rule: &WrittenRule<'_>,
        rule_index: usize,
        part: &str,
    ) -> Vec<(String, PeerSet)> {
        if rule.peers.is_empty() {
            return vec![(part.to_owned(), PeerSet::Anyone)];
        }
        let field = self.direction.peers_field();
        let mut peers = Vec::new();
        let mut blocks = Vec::new();
        for (index, peer) in rule.peers.iter().enumerate() {
            let part = format!("{part}.{field}[{index}]");
            match Peer::parse(peer, &self.policy.key.namespace) {
                Ok(Peer::Pods(pods)) => peers.push((part, PeerSet::Pods(pods))),
                Ok(Peer::Networks(networks)) => blocks.push((part, networks)),
                Err(error) => self.problem(part, error),
            }
        }
        if !blocks.is_empty() {
            // One set for all: a list of 500 partners is one rule.
            let whole = format!("{part}.{field}");
            let of_one = blocks.first().filter(|_| blocks.len() == 1);
            let part = of_one.map_or(whole, |(part, _)| part.clone());
            let rest = format!("{}/{rule_index}/{field}", self.direction.name());
            let name = SetName(format!("{}/{rest}", self.policy.key).into());
            let networks = blocks.into_iter().flat_map(|(_, networks)| networks);
            self.compiled
                .networks
                .insert(name.clone(), networks.collect());
            peers.push((part, PeerSet::Networks(name)));
        }
        peers
    }

    fn allow_peer(&mut self, part: &str, peer: &PeerSet, demands: &[(String, Option<PortDemand>)]) {
        for (port_part, demand) in demands {
            let origin = self.origin(format!("{part}{port_part}"));
            let (proto, ports) = match demand {
                None => (None, None),
                Some(PortDemand::Protocol(proto)) => (Some(*proto), None),
                Some(PortDemand::Range(proto, range)) => (Some(*proto), Some(*range)),
                Some(PortDemand::Named(proto, name)) => {
                    self.allow_named(peer, (*proto, name), &origin);
                    continue;
                }
            };
            let peer = self.whole_peer(peer);
            let matches = self.direction.addresses(Some(self.subject), peer.as_ref());
            let matches = Match {
                ip_proto: proto,
                tp_dst: ports,
                ..matches
            };
            self.allow(matches, &origin);
        }
    }

    fn allow(&mut self, matches: Match, origin: &Arc<Origin>) {
        let at = (self.direction.rule_table(), priority::POLICY);
        self.rules
            .add(at, matches, vec![self.direction.allow()], origin);
    }

    fn group(&mut self, peer: &PodPeer) -> RosterId {
        let id = self.groups.acquire(peer, self.facts);
        self.compiled.groups.push(id);
        id
    }

    fn whole_peer(&mut self, peer: &PeerSet) -> Option<SetName> {
        match peer {
            PeerSet::Anyone => None,
            PeerSet::Networks(name) => Some(name.clone()),
            PeerSet::Pods(pods) => {
                self.group(pods);
                Some(pods.set_name())
            }
        }
    }

    /// A named port has a number only at a pod, and not the same at each: one rule for each
    /// number, for the destinations that have it there.
    fn allow_named(&mut self, peer: &PeerSet, (proto, name): (u8, &str), origin: &Arc<Origin>) {
        let (destinations, within) = match (self.direction, peer) {
            (Direction::Ingress, _) => (self.roster, None),
            (Direction::Egress, PeerSet::Networks(name)) => {
                (self.group(&PodPeer::any()), self.within(name))
            }
            (Direction::Egress, PeerSet::Pods(pods)) => (self.group(pods), None),
            (Direction::Egress, PeerSet::Anyone) => (self.group(&PodPeer::any()), None),
        };
        let port = NamedPort {
            proto,
            name: name.to_owned(),
            within,
        };
        for (number, having_it) in self.watch(destinations, &port) {
            let matches = match self.direction {
                Direction::Ingress => {
                    let peer = self.whole_peer(peer);
                    self.direction.addresses(Some(&having_it), peer.as_ref())
                }
                Direction::Egress => self
                    .direction
                    .addresses(Some(self.subject), Some(&having_it)),
            };
            let tp_dst = Some(PortRange {
                first: number,
                last: number,
            });
            let matches = Match {
                ip_proto: Some(port.proto),
                tp_dst,
                ..matches
            };
            self.allow(matches, origin);
        }
    }

    fn within(&self, name: &SetName) -> Option<Within> {
        let networks = self.compiled.networks.get(name)?;
        Some(Within {
            name: name.clone(),
            networks: networks.clone(),
        })
    }

    fn watch(&mut self, roster: RosterId, port: &NamedPort) -> Vec<(u16, SetName)> {
        self.compiled.watches.push((roster, port.clone()));
        let Some(roster) = self.groups.roster_mut(roster) else {
            return Vec::new();
        };
        roster.watch(port, self.id, self.facts.pods, self.facts.ledger)
    }
}

fn list<T>(written: &Option<Vec<T>>) -> &[T] {
    written.as_deref().unwrap_or_default()
}
