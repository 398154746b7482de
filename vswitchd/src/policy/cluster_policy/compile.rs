//! From one ClusterNetworkPolicy to its rules.

use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::Priority;
use vswitch_datapath::Action;
use vswitch_datapath::flow::{Match, PortRange, SetName};
use vswitch_datapath::pipeline::{Origin, Rule, TableId};

use super::peer::ClusterPeer;
use super::ports::{ClusterPort, NAMED_PROTOCOLS};
use super::written::{ClusterPolicy, ClusterRule, LAST_PRIORITY, RuleAction, Tier, Traffic};
use crate::config::Deny;
use crate::policy::compiled::{CompiledPolicy, Sources};
use crate::policy::direction::Direction;
use crate::policy::ids::{PolicyId, RosterId};
use crate::policy::peers::PodPeer;
use crate::policy::program::{PolicyProblem, priority};
use crate::policy::roster::{NamedPort, Within};
use crate::rules::{Place, RuleOwner, RuleSet};
use crate::state::{PolicyKey, Selector};

/// Kind of the objects, as the origins of rules name it.
const KIND: &str = "ClusterNetworkPolicy";

/// Returns the name of the set of the pods of this node that a policy selects.
pub(in super::super) fn selection_name(policy: &ClusterPolicy) -> SetName {
    // No namespace can be called so.
    SetName(format!("cluster:{}/selected", policy.name).into())
}

/// Returns the names of the policies among the rules that led to a verdict, each once, in their
/// order. What passes a packet on to those behind it has not decided.
#[must_use]
pub fn deciding_policies<'a>(rules: impl IntoIterator<Item = &'a Arc<Rule>>) -> Vec<String> {
    let pass = format!(" {} ", RuleAction::Pass);
    let mut names: Vec<String> = Vec::new();
    for Origin { kind, name, part } in rules.into_iter().map(|rule| &*rule.origin) {
        let decides = match *kind {
            "NetworkPolicy" => true,
            KIND => !part.contains(&pass),
            _ => false,
        };
        if decides && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Says how policies with these names denied something at one end: those of namespaces by
/// isolating, one of the cluster by a rule.
#[must_use]
pub fn denial(end: &str, policies: &[String]) -> String {
    match policies {
        [one] if !one.contains('/') => format!("ClusterNetworkPolicy {one} denies it"),
        many => format!(
            "the {end} is isolated by {}, and no rule allows it",
            many.join(", ")
        ),
    }
}

/// Compiles a policy whose subject is `roster`; `place` is its place among those of its priority.
pub(in super::super) fn compile(
    id: PolicyId,
    policy: &ClusterPolicy,
    roster: RosterId,
    place: u16,
    deny: Deny,
    sources: &mut Sources<'_, '_>,
) -> CompiledPolicy {
    let mut compiled = CompiledPolicy::default();
    let key = PolicyKey::ClusterNetworkPolicy(policy.name.clone());
    let problems = policy.flaws.iter().map(|(part, problem)| PolicyProblem {
        policy: key.clone(),
        part: part.clone(),
        problem: problem.clone(),
    });
    compiled.problems.extend(problems);
    let mut rules = RuleSet::of(RuleOwner::Policies);
    for direction in Direction::BOTH {
        for (index, rule) in (0..).zip(policy.rules(direction)) {
            let place = Place {
                object: place,
                part: index,
            };
            let mut placed = PlacedRule {
                id,
                policy,
                subject: &selection_name(policy),
                roster,
                direction,
                place,
                action: rule.action,
                deny,
                sources,
                rules: &mut rules,
                compiled: &mut compiled,
            };
            placed.compile(rule);
        }
    }
    compiled.rules = rules.into_list();
    compiled
}

/// One rule at its place.
struct PlacedRule<'a, 's, 'f> {
    id: PolicyId,
    policy: &'a ClusterPolicy,
    subject: &'a SetName,
    roster: RosterId,
    direction: Direction,
    place: Place,
    action: RuleAction,
    deny: Deny,
    sources: &'a mut Sources<'s, 'f>,
    rules: &'a mut RuleSet,
    compiled: &'a mut CompiledPolicy,
}

/// A peer as rules name it.
enum PeerSet<'a> {
    Pods(&'a PodPeer),
    Nodes(&'a Selector),
    /// All networks of a rule.
    Networks(SetName),
}

impl PlacedRule<'_, '_, '_> {
    fn table(&self) -> TableId {
        match (self.policy.tier, self.direction) {
            (Tier::Admin, Direction::Egress) => TableId::EgressAdminTier,
            (Tier::Admin, Direction::Ingress) => TableId::IngressAdminTier,
            (Tier::Baseline, Direction::Egress) => TableId::EgressBaselineTier,
            (Tier::Baseline, Direction::Ingress) => TableId::IngressBaselineTier,
        }
    }

    fn action(&self) -> Action {
        match (self.action, self.policy.tier) {
            (RuleAction::Deny, _) => self.direction.deny(self.deny),
            // Behind Baseline is the default, which allows.
            (RuleAction::Accept, _) | (RuleAction::Pass, Tier::Baseline) => self.direction.allow(),
            (RuleAction::Pass, Tier::Admin) => Action::Goto(self.direction.rule_table()),
        }
    }

    fn add(&mut self, matches: Match, part: &str) {
        let origin = Arc::new(Origin {
            kind: KIND,
            name: self.policy.name.clone(),
            part: format!(
                "{} {} {} {}[{}]{part}",
                self.policy.tier,
                self.policy.priority,
                self.action,
                self.direction.name(),
                self.place.part,
            ),
        });
        let behind = LAST_PRIORITY.saturating_sub(self.policy.priority);
        let priority = Priority(priority::POLICY.0 + behind);
        let action = self.action();
        self.rules.add_at(
            (self.table(), priority),
            self.place,
            matches,
            vec![action],
            &origin,
        );
    }

    fn compile(&mut self, rule: &ClusterRule) {
        match &rule.traffic {
            Traffic::Nothing => {}
            Traffic::Everything => {
                let all = self.direction.addresses(Some(self.subject), None);
                self.add(all, "");
            }
            Traffic::Of { peers, ports } => {
                for (part, peer) in self.peer_sets(peers) {
                    self.compile_peer(&part, &peer, ports.as_deref());
                }
            }
        }
    }

    fn peer_sets<'p>(&mut self, peers: &'p [(String, ClusterPeer)]) -> Vec<(String, PeerSet<'p>)> {
        let prefix = format!("{}[{}]", self.direction.name(), self.place.part);
        let within = |part: &String| part.strip_prefix(&prefix).unwrap_or(part).to_owned();
        let mut sets = Vec::new();
        let mut networks: Vec<IpNet> = Vec::new();
        for (part, peer) in peers {
            match peer {
                ClusterPeer::Pods(pods) => sets.push((within(part), PeerSet::Pods(pods))),
                ClusterPeer::Nodes(nodes) => sets.push((within(part), PeerSet::Nodes(nodes))),
                ClusterPeer::Network(network) => networks.push(*network),
            }
        }
        if !networks.is_empty() {
            // One set for all: a list of 500 partners is one rule.
            let field = self.direction.peers_field();
            let rule = format!("{}/{}/{field}", self.direction.name(), self.place.part);
            let name = SetName(format!("cluster:{}/{rule}", self.policy.name).into());
            let networks = networks.into_iter().collect();
            self.compiled.networks.insert(name.clone(), networks);
            sets.push((format!(".{field}"), PeerSet::Networks(name)));
        }
        sets
    }

    fn compile_peer(
        &mut self,
        part: &str,
        peer: &PeerSet<'_>,
        ports: Option<&[(String, ClusterPort)]>,
    ) {
        let Some(ports) = ports else {
            let set = self.whole(peer);
            let matches = self.direction.addresses(Some(self.subject), Some(&set));
            return self.add(matches, part);
        };
        for (index, (_, port)) in ports.iter().enumerate() {
            let part = format!("{part}.protocols[{index}]");
            match port {
                ClusterPort::Range(proto, range) => {
                    let set = self.whole(peer);
                    let matches = self.direction.addresses(Some(self.subject), Some(&set));
                    self.add(of_ports(matches, *proto, *range), &part);
                }
                ClusterPort::Named(name) => {
                    for proto in NAMED_PROTOCOLS {
                        self.compile_named(&part, peer, proto, name);
                    }
                }
            }
        }
    }

    /// Returns the set of a whole peer.
    fn whole(&mut self, peer: &PeerSet<'_>) -> SetName {
        match peer {
            PeerSet::Networks(name) => name.clone(),
            PeerSet::Pods(pods) => {
                self.group(pods);
                pods.set_name()
            }
            PeerSet::Nodes(nodes) => {
                self.compiled.nodes.push((*nodes).clone());
                let Sources {
                    nodes: groups,
                    state,
                    facts,
                    ..
                } = self.sources;
                groups.acquire(nodes, state, facts.ledger)
            }
        }
    }

    fn group(&mut self, pods: &PodPeer) -> RosterId {
        let group = self.sources.groups.acquire(pods, self.sources.facts);
        self.compiled.groups.push(group);
        group
    }

    /// A named port has a number only at a pod, and not the same at each: one rule for each
    /// number, for the destinations that have it there.
    fn compile_named(&mut self, part: &str, peer: &PeerSet<'_>, proto: u8, name: &str) {
        let (destinations, within) = match (self.direction, peer) {
            (Direction::Ingress, _) => (self.roster, None),
            (Direction::Egress, PeerSet::Pods(pods)) => (self.group(pods), None),
            (Direction::Egress, PeerSet::Networks(set)) => {
                let networks = self.compiled.networks.get(set).cloned();
                let within = networks.map(|networks| Within {
                    name: set.clone(),
                    networks,
                });
                (self.group(&PodPeer::any()), within)
            }
            // A node has no container ports.
            (Direction::Egress, PeerSet::Nodes(_)) => return,
        };
        let port = NamedPort {
            proto,
            name: name.to_owned(),
            within,
        };
        for (number, having_it) in self.watch(destinations, &port) {
            let matches = match self.direction {
                Direction::Ingress => {
                    let set = self.whole(peer);
                    self.direction.addresses(Some(&having_it), Some(&set))
                }
                Direction::Egress => self
                    .direction
                    .addresses(Some(self.subject), Some(&having_it)),
            };
            let range = PortRange {
                first: number,
                last: number,
            };
            self.add(of_ports(matches, proto, range), part);
        }
    }

    fn watch(&mut self, roster: RosterId, port: &NamedPort) -> Vec<(u16, SetName)> {
        self.compiled.watches.push((roster, port.clone()));
        let facts = &mut *self.sources.facts;
        let Some(roster) = self.sources.groups.roster_mut(roster) else {
            return Vec::new();
        };
        roster.watch(port, self.id, facts.pods, facts.ledger)
    }
}

fn of_ports(matches: Match, proto: u8, range: PortRange) -> Match {
    Match {
        ip_proto: Some(proto),
        tp_dst: Some(range),
        ..matches
    }
}
