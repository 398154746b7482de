//! From policies to rules, one policy after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use vswitch_api::PortNo;
use vswitch_datapath::flow::{Match, PortRange, SetName};
use vswitch_datapath::pipeline::Origin;

use super::direction::Direction;
use super::endpoints;
use super::members::{Member, Members, single};
use super::peers::{Peer, PodPeer, by_number};
use super::ports::PortDemand;
use super::program::{NodeFacts, PolicyProblem, PolicyProgram, node_set, priority};
use super::rule_set::RuleSet;
use crate::state::{ClusterState, Escaped, LocalEndpoint, ObjectKey, PolicyRecord, Selector};

/// Compiles every policy that selects a pod of this node.
#[must_use]
pub fn compile(
    state: &ClusterState,
    locals: &BTreeMap<PortNo, LocalEndpoint>,
    node: &NodeFacts,
) -> PolicyProgram {
    let members = Members::new(state, locals, node);
    let mut out = Output::default();
    out.sets
        .insert(node_set(), single(&node.addresses).collect());
    endpoints::allow_node(&mut out.rules);
    endpoints::isolate_unknown(&mut out.rules, state, locals, node);
    endpoints::allow_own(&mut out.rules, locals);
    for policy in state.policies() {
        compile_policy(policy, &members, &mut out);
    }
    PolicyProgram {
        rules: out.rules.into_rules().into_values().collect(),
        sets: out.sets,
        problems: out.problems,
    }
}

/// What has been compiled so far. Sets are filled once per name.
#[derive(Debug, Default)]
struct Output {
    rules: RuleSet,
    sets: BTreeMap<SetName, BTreeSet<IpNet>>,
    problems: Vec<PolicyProblem>,
}

impl Output {
    fn set(&mut self, name: SetName, fill: impl FnOnce() -> BTreeSet<IpNet>) -> SetName {
        self.sets.entry(name.clone()).or_insert_with(fill);
        name
    }

    fn problem(&mut self, policy: &ObjectKey, part: String, problem: impl ToString) {
        let problem = problem.to_string();
        self.problems.push(PolicyProblem {
            policy: policy.clone(),
            part,
            problem,
        });
    }
}

fn compile_policy(policy: &PolicyRecord, members: &Members<'_>, out: &mut Output) {
    let (selector, is_understood) = subject_selector(policy, out);
    let selected: Vec<&Member<'_>> = members.subjects(&policy.key.namespace, &selector).collect();
    if selected.is_empty() {
        return;
    }
    let subject = out.set(SetName(format!("{}/selected", policy.key).into()), || {
        selected
            .iter()
            .flat_map(|member| single(&member.addresses))
            .collect()
    });
    for direction in isolated_directions(policy, out) {
        let side = Side {
            policy,
            members,
            selected: &selected,
            subject: &subject,
            direction,
        };
        side.isolate(out);
        if is_understood {
            side.allow_rules(out);
        }
    }
}

/// Returns what the policy selects. If that cannot be understood, the policy isolates all
/// pods it could mean and allows none of them anything.
fn subject_selector(policy: &PolicyRecord, out: &mut Output) -> (Selector, bool) {
    let written = policy.spec.pod_selector.clone().unwrap_or_default();
    match Selector::parse(&written) {
        Ok(selector) => (selector, true),
        Err(error) => {
            out.problem(&policy.key, "podSelector".to_owned(), error);
            (Selector::widest(&written), false)
        }
    }
}

/// Returns the directions in which the policy isolates. An unknown type isolates both.
fn isolated_directions(policy: &PolicyRecord, out: &mut Output) -> Vec<Direction> {
    let types = policy.spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return default_directions(&policy.spec);
    }
    let is_known = |name: &String| Direction::BOTH.iter().any(|d| d.policy_type() == name);
    if let Some(unknown) = types.iter().find(|name| !is_known(name)) {
        let problem = format!("policy type {unknown:?} is neither Ingress nor Egress");
        out.problem(&policy.key, "policyTypes".to_owned(), problem);
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
    /// Networks, under this name. Named ports mean nothing there.
    Networks(SetName),
}

/// One policy in one direction.
#[derive(Clone, Copy)]
struct Side<'a> {
    policy: &'a PolicyRecord,
    members: &'a Members<'a>,
    selected: &'a [&'a Member<'a>],
    subject: &'a SetName,
    direction: Direction,
}

impl Side<'_> {
    fn origin(&self, part: String) -> Arc<Origin> {
        Arc::new(Origin {
            kind: "NetworkPolicy",
            name: self.policy.key.to_string(),
            part,
        })
    }

    fn isolate(&self, out: &mut Output) {
        let matches = self.direction.addresses(Some(self.subject), None);
        let at = (self.direction.default_table(), priority::POLICY);
        let origin = self.origin(self.direction.name().to_owned());
        out.rules
            .add(at, matches, vec![self.direction.drop()], &origin);
    }

    fn allow_rules(&self, out: &mut Output) {
        for (index, rule) in self.written_rules().into_iter().enumerate() {
            let part = format!("{}[{index}]", self.direction.name());
            let demands = self.port_demands(&rule, &part, out);
            for (part, peer) in self.peer_sets(&rule, index, &part, out) {
                self.allow_peer(&part, &peer, &demands, out);
            }
        }
    }

    fn written_rules(&self) -> Vec<WrittenRule<'_>> {
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
        &self,
        rule: &WrittenRule<'_>,
        part: &str,
        out: &mut Output,
    ) -> Vec<(String, Option<PortDemand>)> {
        if rule.ports.is_empty() {
            return vec![(String::new(), None)];
        }
        let mut demands = Vec::new();
        for (index, port) in rule.ports.iter().enumerate() {
            match PortDemand::parse(port) {
                Ok(demand) => demands.push((format!(".ports[{index}]"), Some(demand))),
                Err(e) => out.problem(&self.policy.key, format!("{part}.ports[{index}]"), e),
            }
        }
        demands
    }

    fn peer_sets(
        &self,
        rule: &WrittenRule<'_>,
        rule_index: usize,
        part: &str,
        out: &mut Output,
    ) -> Vec<(String, PeerSet)> {
        if rule.peers.is_empty() {
            return vec![(part.to_owned(), PeerSet::Anyone)];
        }
        let field = self.direction.peers_field();
        let mut peers = Vec::new();
        for (index, peer) in rule.peers.iter().enumerate() {
            let part = format!("{part}.{field}[{index}]");
            match Peer::parse(peer, &self.policy.key.namespace) {
                Ok(Peer::Pods(pods)) => peers.push((part, PeerSet::Pods(pods))),
                Ok(Peer::Networks(networks)) => {
                    let name = self.set_name(&format!("{rule_index}/{field}/{index}"));
                    out.sets
                        .insert(name.clone(), networks.into_iter().collect());
                    peers.push((part, PeerSet::Networks(name)));
                }
                Err(error) => out.problem(&self.policy.key, part, error),
            }
        }
        peers
    }

    fn set_name(&self, rest: &str) -> SetName {
        SetName(format!("{}/{}/{rest}", self.policy.key, self.direction.name()).into())
    }

    fn allow_peer(
        &self,
        part: &str,
        peer: &PeerSet,
        demands: &[(String, Option<PortDemand>)],
        out: &mut Output,
    ) {
        for (port_part, demand) in demands {
            let origin = self.origin(format!("{part}{port_part}"));
            let (proto, ports) = match demand {
                None => (None, None),
                Some(PortDemand::Protocol(proto)) => (Some(*proto), None),
                Some(PortDemand::Range(proto, range)) => (Some(*proto), Some(*range)),
                Some(PortDemand::Named(proto, name)) => {
                    self.allow_named(peer, (*proto, name), &origin, out);
                    continue;
                }
            };
            let peer = self.whole_peer(peer, out);
            let matches = self.direction.addresses(Some(self.subject), peer.as_ref());
            let matches = Match {
                ip_proto: proto,
                tp_dst: ports,
                ..matches
            };
            self.allow(matches, &origin, out);
        }
    }

    fn allow(&self, matches: Match, origin: &Arc<Origin>, out: &mut Output) {
        let at = (self.direction.rule_table(), priority::POLICY);
        out.rules
            .add(at, matches, vec![self.direction.allow()], origin);
    }

    fn whole_peer(&self, peer: &PeerSet, out: &mut Output) -> Option<SetName> {
        match peer {
            PeerSet::Anyone => None,
            PeerSet::Networks(name) => Some(name.clone()),
            PeerSet::Pods(pods) => Some(out.set(pods.set_name(), || pods.addresses(self.members))),
        }
    }

    /// A named port has a number only at a pod, and not the same at each: one rule for each
    /// number, for the destinations that have it there.
    fn allow_named(
        &self,
        peer: &PeerSet,
        (proto, name): (u8, &str),
        origin: &Arc<Origin>,
        out: &mut Output,
    ) {
        let (owner, numbers) = match (self.direction, peer) {
            (Direction::Ingress, _) => {
                let numbers = by_number(self.selected.iter().copied(), proto, name);
                (self.subject.clone(), numbers)
            }
            (Direction::Egress, PeerSet::Networks(_)) => return,
            (Direction::Egress, PeerSet::Pods(pods)) => {
                (pods.set_name(), pods.by_number(self.members, proto, name))
            }
            (Direction::Egress, PeerSet::Anyone) => {
                let pods = PodPeer::any();
                (pods.set_name(), pods.by_number(self.members, proto, name))
            }
        };
        for (number, addresses) in numbers {
            let set = named_port_set(&owner, proto, name, number);
            let having_it = out.set(set, || addresses);
            let matches = match self.direction {
                Direction::Ingress => {
                    let peer = self.whole_peer(peer, out);
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
            self.allow(
                Match {
                    ip_proto: Some(proto),
                    tp_dst,
                    ..matches
                },
                origin,
                out,
            );
        }
    }
}

fn named_port_set(owner: &SetName, proto: u8, name: &str, number: u16) -> SetName {
    SetName(format!("{}:port/{proto}/{}/{number}", owner.0, Escaped(name)).into())
}

fn list<T>(written: &Option<Vec<T>>) -> &[T] {
    written.as_deref().unwrap_or_default()
}
