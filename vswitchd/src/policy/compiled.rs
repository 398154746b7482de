//! From one policy to its rules.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use vswitch_datapath::flow::SetName;
use vswitch_datapath::pipeline::Origin;

use super::direction::Direction;
use super::ids::{PolicyId, RosterId};
use super::output::{CompiledPolicy, Sources};
use super::peers::Peer;
use super::ports::PortDemand;
use super::program::{PolicyProblem, priority};
use super::tiers::{Case, CaseCompiler, Demand, SetPrefix, Transport};
use crate::config::Deny;
use crate::rules::{RuleOwner, RuleSet};
use crate::state::{PolicyKey, PolicyRecord, Selector};

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
        let name = selection_name(policy);
        let mut side = Side {
            policy,
            direction,
            deny,
            rules: &mut rules,
            cases: CaseCompiler {
                id,
                subject: &name,
                roster,
                direction,
                sources,
                compiled: &mut compiled,
            },
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

/// One policy in one direction.
struct Side<'a, 's, 'f> {
    policy: &'a PolicyRecord,
    direction: Direction,
    deny: Deny,
    rules: &'a mut RuleSet,
    cases: CaseCompiler<'a, 's, 'f>,
}

impl<'a> Side<'a, '_, '_> {
    fn origin(&self, part: String) -> Arc<Origin> {
        Arc::new(Origin {
            kind: "NetworkPolicy",
            name: self.policy.key.to_string(),
            part,
        })
    }

    fn problem(&mut self, part: String, error: impl ToString) {
        let problems = &mut self.cases.compiled.problems;
        problems.push(problem(self.policy, part, error));
    }

    fn isolate(&mut self) {
        let matches = self.direction.addresses(Some(self.cases.subject), None);
        let at = (self.direction.default_table(), priority::POLICY);
        let origin = self.origin(self.direction.name().to_owned());
        let deny = self.direction.deny(self.deny);
        self.rules.add(at, matches, vec![deny], &origin);
    }

    fn allow_rules(&mut self) {
        let at = (self.direction.rule_table(), priority::POLICY);
        for (index, rule) in self.written_rules().into_iter().enumerate() {
            let part = format!("{}[{index}]", self.direction.name());
            let transports = self.transports(&rule, &part);
            for (below, peer) in self.peers(&rule, index, &part) {
                let case = Case {
                    part: below,
                    subject: Demand::Anyone,
                    peer,
                    transports: transports.clone(),
                };
                for (below, matches) in self.cases.matches(&case) {
                    let origin = self.origin(format!("{part}{below}"));
                    self.rules
                        .add(at, matches, vec![self.direction.allow()], &origin);
                }
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

    /// Returns the demands on ports, each with its part of the rule.
    fn transports(&mut self, rule: &WrittenRule<'_>, part: &str) -> Vec<(String, Transport)> {
        if rule.ports.is_empty() {
            return vec![(String::new(), Transport::ANY)];
        }
        let mut transports = Vec::new();
        for (index, port) in rule.ports.iter().enumerate() {
            let below = format!(".ports[{index}]");
            match PortDemand::parse(port) {
                Ok(demand) => transports.push((below, demand.into())),
                Err(error) => self.problem(format!("{part}{below}"), error),
            }
        }
        transports
    }

    /// Returns the peers, each with its part of the rule.
    fn peers(
        &mut self,
        rule: &WrittenRule<'_>,
        rule_index: usize,
        part: &str,
    ) -> Vec<(String, Demand)> {
        if rule.peers.is_empty() {
            return vec![(String::new(), Demand::Anyone)];
        }
        let field = self.direction.peers_field();
        let mut peers = Vec::new();
        let mut blocks = Vec::new();
        for (index, peer) in rule.peers.iter().enumerate() {
            let below = format!(".{field}[{index}]");
            match Peer::parse(peer, &self.policy.key.namespace) {
                Ok(Peer::Pods(pods)) => peers.push((below, Demand::Members(pods.into()))),
                Ok(Peer::Networks(networks)) => blocks.push((below, networks)),
                Err(error) => self.problem(format!("{part}{below}"), error),
            }
        }
        if !blocks.is_empty() {
            // One set for all: a list of 500 partners is one rule.
            let of_one = blocks.first().filter(|_| blocks.len() == 1);
            let below = of_one.map_or_else(|| format!(".{field}"), |(below, _)| below.clone());
            let networks = blocks.into_iter().flat_map(|(_, networks)| networks);
            let key = PolicyKey::NetworkPolicy(self.policy.key.clone());
            let place = format_args!("{}/{rule_index}/{field}", self.direction.name());
            let within = SetPrefix(&key).networks(place, networks.collect());
            peers.push((below, Demand::Networks(within)));
        }
        peers
    }
}

fn list<T>(written: &Option<Vec<T>>) -> &[T] {
    written.as_deref().unwrap_or_default()
}
