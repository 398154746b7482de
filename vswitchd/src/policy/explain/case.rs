//! Judges one question: finds the rule that decides, near misses, and changes that would help.

use std::cmp::Ordering;
use std::rc::Rc;

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;

use super::super::direction::Direction;
use super::party::{Party, PeerFit, PeerMiss, Standing};
use super::ports::{self, Asked, NamesAt, PortMiss};
use super::rules::{Isolating, WrittenRule, isolating, written};
use super::tiers::{Decision, Tiers, View};
use super::{
    Advice, Explanation, Ground, Judgement, Miss, MissCause, PortAdvice, Question, Relabel,
    RulePart,
};
use crate::state::{ClusterState, ObjectKey, PodRecord, PolicyKey};

/// Judges a connection by the policies of both ends.
#[must_use]
pub fn explain(cluster: &ClusterState, question: &Question) -> Explanation {
    let case = Case::new(cluster, question);
    let egress = case.judge(Direction::Egress);
    let ingress = case.judge(Direction::Ingress);
    Explanation {
        allowed: egress.allowed && ingress.allowed,
        egress,
        ingress,
    }
}

/// A question with its objects.
#[derive(Debug, Clone)]
pub(super) struct Case<'a> {
    cluster: &'a ClusterState,
    from: Party<'a>,
    to: Party<'a>,
    asked: Asked,
    /// Policies of tiers, in order.
    tiers: Rc<Tiers>,
}

/// A rule, or one of its peers, held against the connection.
#[derive(Debug)]
struct Attempt {
    rule: RulePart,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Allows,
    NoRule,
    NotUnderstood(String),
    /// At least one of the two is there.
    Mismatch(Option<PeerMiss>, Option<PortMiss>),
}

impl<'a> Case<'a> {
    pub(super) fn new(cluster: &'a ClusterState, question: &'a Question) -> Self {
        Self {
            cluster,
            from: Party::new(cluster, &question.from),
            to: Party::new(cluster, &question.to),
            asked: Asked {
                protocol: question.protocol,
                port: question.port,
            },
            tiers: Rc::new(Tiers::of(cluster)),
        }
    }

    /// Judges one end.
    pub(super) fn judge(&self, direction: Direction) -> Judgement {
        let isolated_by = self.isolated_by(direction);
        let ground = self.ground(direction);
        let mut misses = Vec::new();
        if let Ground::NothingAllows { .. } = ground {
            misses = self.misses(direction);
        }
        Judgement {
            allowed: ground.allows(),
            is_here: self.subject(direction).end.is_local,
            ground,
            isolated_by,
            misses,
        }
    }

    /// Returns whose policies judge.
    fn subject(&self, direction: Direction) -> &Party<'a> {
        match direction {
            Direction::Ingress => &self.to,
            Direction::Egress => &self.from,
        }
    }

    fn peer(&self, direction: Direction) -> &Party<'a> {
        match direction {
            Direction::Ingress => &self.from,
            Direction::Egress => &self.to,
        }
    }

    fn isolated_by(&self, direction: Direction) -> Vec<ObjectKey> {
        let policies = self.isolating(direction).into_iter();
        policies.map(|of| of.policy.key.clone()).collect()
    }

    fn isolating(&self, direction: Direction) -> Vec<Isolating<'a>> {
        match self.subject(direction).standing() {
            Standing::Pod(pod) => isolating(self.cluster, pod, direction),
            _ => Vec::new(),
        }
    }

    /// Returns what decides, exceptions first, as the tables have it.
    fn ground(&self, direction: Direction) -> Ground {
        let (subject, peer) = (self.subject(direction), self.peer(direction));
        let is_attached = subject.end.is_local;
        if direction == Direction::Ingress && peer.end.is_node && is_attached {
            return Ground::Node;
        }
        if subject.end.pod.is_some() && subject.end.pod == peer.end.pod {
            return Ground::Itself;
        }
        match subject.standing() {
            Standing::Pod(pod) => self.ground_of_pod(direction, pod),
            Standing::Address => Ground::NoPod {
                end: subject.name(),
                direction: direction.name(),
            },
            Standing::HostNetwork(key) if !is_attached => Ground::HostNetwork(key.clone()),
            Standing::Finished(key) if !is_attached => Ground::Finished(key.clone()),
            // The object is not that of the pod behind the port: of one before or after it.
            Standing::HostNetwork(key) | Standing::Finished(key) | Standing::Unknown(key) => {
                Ground::Unknown(key.clone())
            }
        }
    }

    fn ground_of_pod(&self, direction: Direction, pod: &PodRecord) -> Ground {
        let pod = pod.key.clone();
        let direction_name = direction.name();
        let view = self.view(direction);
        let of = |side: Ordering| {
            let policies = self.tiers.policies.iter();
            policies.filter(move |policy| policy.position.tier.to_default() == side)
        };
        if let Some(decided) = view.of_tiers(of(Ordering::Less)) {
            return ground_of(decided);
        }
        let of_default = |is_early| {
            let policies = of(Ordering::Equal);
            policies.filter(move |policy| policy.position.is_early() == is_early)
        };
        let attempts = self.attempts(direction);
        let is_isolated = !attempts.is_empty();
        let allowing = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Allows);
        let of_networkpolicies = || {
            let allowing = attempts.into_iter().find(allowing);
            allowing.map(|attempt| (None, Ground::Allowed(attempt.rule)))
        };
        let decided = |policies| {
            let (decision, rule) = view.of_policies(policies)?;
            Some((Some(decision), ground_of((decision, rule))))
        };
        let decision = decided(of_default(true))
            .or_else(of_networkpolicies)
            .or_else(|| decided(of_default(false)));
        match decision {
            Some((Some(Decision::Pass), _)) => {}
            Some((_, ground)) => return ground,
            None if is_isolated => {
                return Ground::NothingAllows {
                    pod,
                    direction: direction_name,
                };
            }
            None => {
                if let Some(ended) = view.end_of(of(Ordering::Equal)) {
                    return ground_of(ended);
                }
            }
        }
        let behind = view.of_tiers(of(Ordering::Greater));
        behind.map_or(
            Ground::NotIsolated {
                pod,
                direction: direction_name,
            },
            ground_of,
        )
    }

    fn view(&self, direction: Direction) -> View<'_> {
        View {
            cluster: self.cluster,
            tiers: &self.tiers,
            direction,
            subject: self.subject(direction),
            peer: self.peer(direction),
            asked: self.asked,
            names: self.names(),
        }
    }

    /// Holds all rules of the isolating policies against the connection; at least one attempt
    /// for each policy.
    fn attempts(&self, direction: Direction) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for isolating in self.isolating(direction) {
            let policy = isolating.policy;
            let at = |part: String, outcome| Attempt {
                rule: RulePart {
                    policy: PolicyKey::NetworkPolicy(policy.key.clone()),
                    part,
                },
                outcome,
            };
            if let Some(flaw) = isolating.flaw {
                attempts.push(at("podSelector".to_owned(), Outcome::NotUnderstood(flaw)));
                continue;
            }
            let rules = written(&policy.spec, direction);
            if rules.is_empty() {
                attempts.push(at(direction.name().to_owned(), Outcome::NoRule));
            }
            for (index, rule) in rules.iter().enumerate() {
                for (part, outcome) in self.try_rule(direction, &policy.key.namespace, rule) {
                    let part = format!("{}[{index}]{part}", direction.name());
                    attempts.push(at(part, outcome));
                }
            }
        }
        attempts
    }

    /// Tries a rule peer by peer; a rule without peers is tried once.
    fn try_rule(
        &self,
        direction: Direction,
        own: &str,
        rule: &WrittenRule<'_>,
    ) -> Vec<(String, Outcome)> {
        if rule.peers.is_empty() {
            let ports = ports::fit(rule.ports, self.asked, self.names());
            return vec![outcome(String::new(), PeerFit::Matches, ports)];
        }
        let try_peer = |(index, written): (usize, &NetworkPolicyPeer)| {
            let part = format!(".{}[{index}]", direction.peers_field());
            let peer = self.peer(direction).fits(written, own);
            outcome(part, peer, ports::fit(rule.ports, self.asked, self.names()))
        };
        rule.peers.iter().enumerate().map(try_peer).collect()
    }

    /// Named ports resolve at the receiver, if that is a pod.
    fn names(&self) -> NamesAt<'_> {
        match self.to.standing() {
            Standing::Pod(pod) => NamesAt::Pod(pod),
            _ => NamesAt::Nowhere,
        }
    }

    fn misses(&self, direction: Direction) -> Vec<Miss> {
        let attempts = self.attempts(direction).into_iter();
        let mut misses: Vec<Miss> = attempts
            .filter_map(|attempt| self.miss(direction, attempt))
            .collect();
        misses.sort_by_key(distance);
        misses
    }

    fn miss(&self, direction: Direction, attempt: Attempt) -> Option<Miss> {
        let (cause, advice) = match attempt.outcome {
            Outcome::Allows => return None,
            Outcome::NoRule => (MissCause::NoRule, None),
            Outcome::NotUnderstood(problem) => (MissCause::NotUnderstood(problem), None),
            Outcome::Mismatch(peer, port) => {
                let advice = self.advice(direction, peer.as_ref(), port.as_ref());
                let peer = peer.map(|miss| miss.text);
                let port = port.map(|miss| miss.mismatch);
                (MissCause::Mismatch { peer, port }, advice)
            }
        };
        Some(Miss {
            rule: attempt.rule,
            cause,
            advice,
        })
    }

    /// Returns a change that suffices: it is tried out before it is given.
    fn advice(
        &self,
        direction: Direction,
        peer: Option<&PeerMiss>,
        port: Option<&PortMiss>,
    ) -> Option<Advice> {
        match (peer, port) {
            (Some(peer), None) => {
                let relabels = peer.relabels.as_ref()?;
                let helps = self.is_better(direction, &self.relabelled(relabels));
                helps.then(|| Advice::Labels(relabels.clone()))
            }
            (None, Some(port)) => {
                let helps = |choice: &PortAdvice| self.is_better(direction, &self.to_port(*choice));
                let choices: Vec<PortAdvice> = port.wanted.iter().copied().filter(helps).collect();
                (!choices.is_empty()).then_some(Advice::Ports(choices))
            }
            _ => None,
        }
    }

    /// Returns whether another case passes at this end, and at the other unless this one
    /// does not pass there either. A label may also bring a pod under another policy.
    fn is_better(&self, direction: Direction, changed: &Case<'_>) -> bool {
        let other = match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let passes = |case: &Case<'_>, direction| case.ground(direction).allows();
        passes(changed, direction) && (passes(changed, other) || !passes(self, other))
    }

    fn relabelled(&self, relabels: &[Relabel]) -> Self {
        Self {
            from: self.from.relabelled(relabels),
            to: self.to.relabelled(relabels),
            ..self.clone()
        }
    }

    fn to_port(&self, choice: PortAdvice) -> Self {
        Self {
            asked: choice.taken(self.asked),
            ..self.clone()
        }
    }
}

fn ground_of((decision, rule): (Decision, RulePart)) -> Ground {
    match decision {
        Decision::Deny => Ground::Denied(rule),
        Decision::NoTableLeft => Ground::NoTableLeft(rule),
        Decision::Accept | Decision::Pass => Ground::Accepted(rule),
    }
}

/// Puts together what peer and ports say.
fn outcome(part: String, peer: PeerFit, ports: Result<String, PortMiss>) -> (String, Outcome) {
    match (peer, ports) {
        (PeerFit::Flawed(problem), _) => (part, Outcome::NotUnderstood(problem)),
        (PeerFit::Matches, Ok(ports)) => (part + &ports, Outcome::Allows),
        (PeerFit::Matches, Err(port)) => (part, Outcome::Mismatch(None, Some(port))),
        (PeerFit::Misses(peer), ports) => (part, Outcome::Mismatch(Some(peer), ports.err())),
    }
}

/// Orders misses: what advice helps with little effort, then what matches by half.
fn distance(miss: &Miss) -> (u8, usize) {
    let effort = match &miss.advice {
        Some(Advice::Labels(relabels)) => relabels.iter().map(|r| r.changes.len()).sum(),
        Some(Advice::Ports(_)) => 1,
        None => 0,
    };
    let class = match &miss.cause {
        _ if miss.advice.is_some() => 0,
        MissCause::Mismatch {
            peer: Some(_),
            port: Some(_),
        } => 2,
        MissCause::Mismatch { .. } => 1,
        MissCause::NotUnderstood(_) => 3,
        MissCause::NoRule => 4,
    };
    (class, effort)
}
