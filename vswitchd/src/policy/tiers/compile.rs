//! From a policy of a tier to its rules, and from a case of any policy to what rules match.

use std::sync::Arc;

use vswitch_datapath::flow::{Match, PortRange, SetName};
use vswitch_datapath::pipeline::Origin;

use super::model::{
    Case, Demand, END_OF_TIER, RuleAction, TieredPolicy, TieredRule, Traffic, Transport,
};
use super::ranking::Rank;
use crate::config::Deny;
use crate::policy::direction::Direction;
use crate::policy::ids::{PolicyId, RosterId};
use crate::policy::output::{CompiledPolicy, Sources};
use crate::policy::peers::{Members, PodPeer};
use crate::policy::program::PolicyProblem;
use crate::policy::roster::{Facet, Within};
use crate::rules::{Place, RuleOwner, RuleSet};

/// Compiles a policy whose subject is `roster`.
pub(in super::super) fn compile(
    id: PolicyId,
    policy: &TieredPolicy,
    (roster, rank): (RosterId, &Rank),
    deny: Deny,
    sources: &mut Sources<'_, '_>,
) -> CompiledPolicy {
    let mut compiled = CompiledPolicy::default();
    for (part, problem) in &policy.flaws {
        compiled.problems.push(PolicyProblem {
            policy: policy.key.clone(),
            part: part.clone(),
            problem: problem.clone(),
        });
    }
    let subject = policy.selection_name();
    let mut rules = RuleSet::of(RuleOwner::Policies);
    for direction in Direction::BOTH {
        let Some(written) = policy.rules(direction) else {
            continue;
        };
        let mut side = TieredSide {
            policy,
            rank,
            direction,
            deny,
            subject: &subject,
            rules: &mut rules,
        };
        for (index, rule) in (0..).zip(written) {
            let mut cases = CaseCompiler {
                id,
                subject: &subject,
                roster,
                direction,
                sources,
                compiled: &mut compiled,
            };
            side.compile(index, rule, &mut cases);
        }
        side.end();
    }
    compiled.rules = rules.into_list();
    compiled
}

/// A policy of a tier in one direction.
struct TieredSide<'a> {
    policy: &'a TieredPolicy,
    rank: &'a Rank,
    direction: Direction,
    deny: Deny,
    subject: &'a SetName,
    rules: &'a mut RuleSet,
}

impl TieredSide<'_> {
    fn compile(&mut self, index: u16, rule: &TieredRule, cases: &mut CaseCompiler<'_, '_, '_>) {
        let mut action = rule.action;
        if action == RuleAction::Pass && !self.rank.can_pass {
            action = RuleAction::Deny;
            cases.compiled.problems.push(PolicyProblem {
                policy: self.policy.key.clone(),
                part: format!("{}[{index}].action", self.direction.name()),
                problem: "so many tiers have rules with action Pass that there is no table left \
                          for the next tier: the rule denies"
                    .to_owned(),
            });
        }
        match &rule.traffic {
            Traffic::Nothing => {}
            Traffic::Everything => {
                let all = self.direction.addresses(Some(self.subject), None);
                self.add(index, action, all, "");
            }
            Traffic::In(list) => {
                for case in list {
                    for (part, matches) in cases.matches(case) {
                        self.add(index, action, matches, &part);
                    }
                }
            }
        }
    }

    fn add(&mut self, index: u16, action: RuleAction, matches: Match, part: &str) {
        let direction = self.direction;
        let origin = self.origin(action, &format!("{}[{index}]{part}", direction.name()));
        let does = match action {
            RuleAction::Accept => direction.allow(),
            RuleAction::Deny => direction.deny(self.deny),
            RuleAction::Pass => self.rank.pass(direction),
        };
        let at = (self.rank.table(direction), self.rank.priority);
        let place = Place {
            object: self.rank.object,
            part: index,
        };
        self.rules.add_at(at, place, matches, vec![does], &origin);
    }

    /// What no policy of the tier decides on.
    fn end(&mut self) {
        if self.policy.tier_denies {
            let direction = self.direction;
            let origin = self.origin(
                RuleAction::Deny,
                &format!("{END_OF_TIER} {}", direction.name()),
            );
            let all = direction.addresses(Some(self.subject), None);
            let deny = vec![direction.deny(self.deny)];
            // Policies of namespaces that stand last in the tier have the priority of its end.
            let last = Place {
                object: u16::MAX,
                part: Place::PARTS - 1,
            };
            self.rules
                .add_at(self.rank.end(direction), last, all, deny, &origin);
        }
    }

    fn origin(&self, action: RuleAction, part: &str) -> Arc<Origin> {
        Arc::new(Origin {
            kind: self.policy.key.kind(),
            name: self.policy.key.name(),
            part: self.policy.part(action, part),
        })
    }
}

/// Finds what rules match in the cases of a policy's rules.
pub(in super::super) struct CaseCompiler<'a, 's, 'f> {
    pub(in super::super) id: PolicyId,
    /// The set of the pods that the policy selects, and their roster.
    pub(in super::super) subject: &'a SetName,
    pub(in super::super) roster: RosterId,
    pub(in super::super) direction: Direction,
    pub(in super::super) sources: &'a mut Sources<'s, 'f>,
    pub(in super::super) compiled: &'a mut CompiledPolicy,
}

/// What an end comes to: `None` inside means every address.
type EndSet = Option<SetName>;

impl CaseCompiler<'_, '_, '_> {
    /// Returns what rules match in a case, each with its part below the rule. No rule: nothing
    /// meets the demands as things are.
    pub(in super::super) fn matches(&mut self, case: &Case) -> Vec<(String, Match)> {
        let mut found = Vec::new();
        for (part, transport) in &case.transports {
            let part = format!("{}{part}", case.part);
            match transport {
                Transport::Numbers {
                    eth_type,
                    proto,
                    source,
                    destination,
                } => {
                    let Some(addresses) = self.addresses(case) else {
                        continue;
                    };
                    let matches = Match {
                        eth_type: *eth_type,
                        ip_proto: *proto,
                        tp_src: *source,
                        tp_dst: *destination,
                        ..addresses
                    };
                    found.push((part, matches));
                }
                Transport::Named {
                    eth_type,
                    protos,
                    name,
                    source,
                } => {
                    for proto in protos {
                        for matches in self.named(case, *proto, name) {
                            let matches = Match {
                                eth_type: *eth_type,
                                tp_src: *source,
                                ..matches
                            };
                            found.push((part.clone(), matches));
                        }
                    }
                }
            }
        }
        found
    }

    /// Returns the addresses of both ends; `None` if nobody has them.
    fn addresses(&mut self, case: &Case) -> Option<Match> {
        let subject = self.subject_set(&case.subject)?;
        let peer = self.peer_set(&case.peer)?;
        Some(self.direction.addresses(subject.as_ref(), peer.as_ref()))
    }

    fn subject_set(&mut self, demand: &Demand) -> Option<EndSet> {
        match demand {
            Demand::Anyone => Some(Some(self.subject.clone())),
            Demand::Networks(within) => self.part_of(self.roster, within).map(Some),
            demand => self.peer_set(demand),
        }
    }

    /// Returns the set of an end; `None` if it has no member, and never will without this policy
    /// being compiled anew.
    fn peer_set(&mut self, demand: &Demand) -> Option<EndSet> {
        Some(match demand {
            Demand::Anyone => None,
            Demand::Members(members) => {
                self.group(members);
                Some(members.set_name())
            }
            Demand::MembersWithin(members, within) => {
                let roster = self.group(members);
                Some(self.part_of(roster, within)?)
            }
            Demand::Nodes(selector) => {
                self.compiled.nodes.push(selector.clone());
                let Sources { nodes, facts, .. } = self.sources;
                Some(nodes.acquire(selector, facts.cluster, facts.ledger))
            }
            Demand::Networks(Within { name, networks }) => {
                let named = self.compiled.networks.entry(name.clone());
                named.or_insert_with(|| networks.clone());
                Some(name.clone())
            }
            Demand::Outside(members, within) => Some(self.outside(members, within)),
        })
    }

    fn group(&mut self, members: &Members) -> RosterId {
        let group = self.sources.groups.acquire(members, self.sources.facts);
        self.compiled.groups.push(group);
        group
    }

    /// Returns the set of the members that are in networks, if there are any.
    fn part_of(&mut self, roster: RosterId, within: &Within) -> Option<SetName> {
        let facet = Facet {
            port: None,
            within: Some(within.clone()),
        };
        let found = self.watch(roster, &facet).into_iter().next();
        found.map(|(_, set)| set)
    }

    fn outside(&mut self, members: &Members, within: &Within) -> SetName {
        let Within { name, networks } = within;
        if self
            .compiled
            .outsides
            .iter()
            .any(|(_, there)| there == name)
        {
            return name.clone();
        }
        let id = self.group(members);
        self.compiled.outsides.push((id, name.clone()));
        let facts = &mut *self.sources.facts;
        if let Some(roster) = self.sources.groups.roster_mut(id) {
            roster.surround(name, networks, facts.pods, facts.ledger);
        }
        name.clone()
    }

    /// A named port has a number only at a pod, and not the same at each: one match for each
    /// number, for the destinations that have it there.
    fn named(&mut self, case: &Case, proto: u8, name: &str) -> Vec<Match> {
        let destination = match self.direction {
            Direction::Ingress => &case.subject,
            Direction::Egress => &case.peer,
        };
        let (roster, within) = match (self.direction, destination) {
            (Direction::Ingress, Demand::Anyone) => (self.roster, None),
            (Direction::Ingress, Demand::Networks(within)) => (self.roster, Some(within.clone())),
            (Direction::Egress, Demand::Anyone) => (self.group(&PodPeer::any().into()), None),
            (Direction::Egress, Demand::Networks(within)) => {
                (self.group(&PodPeer::any().into()), Some(within.clone()))
            }
            (_, Demand::Members(members)) => (self.group(members), None),
            (_, Demand::MembersWithin(members, within)) => {
                (self.group(members), Some(within.clone()))
            }
            // Neither a node nor an address that no pod has has container ports.
            (_, Demand::Nodes(_) | Demand::Outside(..)) => return Vec::new(),
        };
        let facet = Facet {
            port: Some((proto, name.to_owned())),
            within,
        };
        let mut found = Vec::new();
        for (number, having_it) in self.watch(roster, &facet) {
            let addresses = match self.direction {
                Direction::Ingress => {
                    let peer = self.peer_set(&case.peer);
                    peer.map(|peer| self.direction.addresses(Some(&having_it), peer.as_ref()))
                }
                Direction::Egress => {
                    let subject = self.subject_set(&case.subject);
                    subject.map(|of| self.direction.addresses(of.as_ref(), Some(&having_it)))
                }
            };
            found.extend(addresses.map(|addresses| Match {
                ip_proto: Some(proto),
                tp_dst: Some(PortRange {
                    first: number,
                    last: number,
                }),
                ..addresses
            }));
        }
        found
    }

    fn watch(&mut self, roster: RosterId, facet: &Facet) -> Vec<(u16, SetName)> {
        self.compiled.watches.push((roster, facet.clone()));
        let facts = &mut *self.sources.facts;
        let Some(roster) = self.sources.groups.roster_mut(roster) else {
            return Vec::new();
        };
        roster.watch(facet, self.id, facts.pods, facts.ledger)
    }
}
