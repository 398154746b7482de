//! What the policies of tiers say of one end: the first rule that matches.

use vswitch_datapath::flow::{PortRange, ether_type, ip_proto};

use super::super::direction::Direction;
use super::super::roster::Within;
use super::super::tiered::{tiered, tiered_keys};
use super::super::tiers::{
    Case, Demand, END_OF_TIER, Ranking, RuleAction, TieredPolicy, TieredRule, Traffic, Transport,
};
use super::RulePart;
use super::party::Party;
use super::ports::{Asked, NamesAt};
use crate::state::ClusterState;

/// What policies of tiers decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Accept,
    Deny,
    /// The next tier is asked.
    Pass,
    /// A Pass that denies, because no table is left for the next tier.
    NoTableLeft,
}

/// The policies that do something, in the order in which they are judged.
#[derive(Debug)]
pub(super) struct Tiers {
    pub(super) policies: Vec<TieredPolicy>,
    ranking: Ranking,
}

impl Tiers {
    pub(super) fn of(cluster: &ClusterState) -> Self {
        let policies = tiered_keys(cluster).filter_map(|key| tiered(cluster, &key)?.ok());
        let mut policies: Vec<TieredPolicy> = policies.collect();
        policies.sort_by(|a, b| a.position.cmp(&b.position));
        let mut ranking = Ranking::default();
        for policy in &policies {
            ranking.join(&policy.position, policy.passes());
        }
        Self { policies, ranking }
    }

    fn decision(&self, policy: &TieredPolicy, action: RuleAction) -> Decision {
        match action {
            RuleAction::Accept => Decision::Accept,
            RuleAction::Deny => Decision::Deny,
            RuleAction::Pass if self.ranking.can_pass(&policy.position.tier) => Decision::Pass,
            RuleAction::Pass => Decision::NoTableLeft,
        }
    }
}

/// A connection as one end sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) cluster: &'a ClusterState,
    pub(super) tiers: &'a Tiers,
    pub(super) direction: Direction,
    pub(super) subject: &'a Party<'a>,
    pub(super) peer: &'a Party<'a>,
    pub(super) asked: Asked,
    /// Where named ports resolve.
    pub(super) names: NamesAt<'a>,
}

impl View<'_> {
    /// Returns what whole tiers say, `None` if they leave it to those behind them.
    pub(super) fn of_tiers<'p>(
        self,
        policies: impl Iterator<Item = &'p TieredPolicy>,
    ) -> Option<(Decision, RulePart)> {
        let policies: Vec<&TieredPolicy> = policies.collect();
        for tier in policies.chunk_by(|a, b| a.position.tier == b.position.tier) {
            let all = || tier.iter().copied();
            match self.of_policies(all()).or_else(|| self.end_of(all())) {
                None | Some((Decision::Pass, _)) => {}
                decided => return decided,
            }
        }
        None
    }

    /// Returns what the first rule says that matches, of policies that stand one after the other.
    pub(super) fn of_policies<'p>(
        self,
        policies: impl Iterator<Item = &'p TieredPolicy>,
    ) -> Option<(Decision, RulePart)> {
        let mut policies = policies.filter(|policy| self.is_concerned(policy));
        policies.find_map(|policy| {
            let rules = policy.rules(self.direction).unwrap_or_default();
            let mut rules = rules.iter().enumerate();
            rules.find_map(|(index, rule)| {
                let part = format!("{}[{index}]{}", self.direction.name(), self.fits(rule)?);
                let decision = self.tiers.decision(policy, rule.action);
                let action = match decision {
                    Decision::NoTableLeft => RuleAction::Deny,
                    _ => rule.action,
                };
                Some((decision, rule_part(policy, action, &part)))
            })
        })
    }

    /// Returns what the end of a tier with these policies says, if any of them selects the pod.
    pub(super) fn end_of<'p>(
        self,
        policies: impl Iterator<Item = &'p TieredPolicy>,
    ) -> Option<(Decision, RulePart)> {
        let concerned = policies.filter(|policy| self.is_concerned(policy));
        let last = concerned.last().filter(|policy| policy.tier_denies)?;
        let part = format!("{END_OF_TIER} {}", self.direction.name());
        Some((Decision::Deny, rule_part(last, RuleAction::Deny, &part)))
    }

    fn is_concerned(self, policy: &TieredPolicy) -> bool {
        policy.rules(self.direction).is_some() && self.subject.is_among(&policy.subject)
    }

    /// Returns the part of a rule that matches, below the rule.
    fn fits(self, rule: &TieredRule) -> Option<String> {
        match &rule.traffic {
            Traffic::Nothing => None,
            Traffic::Everything => Some(String::new()),
            Traffic::In(cases) => cases.iter().find_map(|case| self.fits_case(case)),
        }
    }

    fn fits_case(self, case: &Case) -> Option<String> {
        let is_meant = self.means(self.subject, &case.subject) && self.means(self.peer, &case.peer);
        let mut transports = case.transports.iter().filter(|_| is_meant);
        let (part, _) = transports.find(|(_, transport)| self.is_to(transport))?;
        Some(format!("{}{part}", case.part))
    }

    fn means(self, party: &Party<'_>, demand: &Demand) -> bool {
        let is_in = |within: &Within| party.is_in(&within.networks);
        match demand {
            Demand::Anyone => true,
            Demand::Members(members) => party.is_member(members, self.cluster),
            Demand::MembersWithin(members, within) => {
                is_in(within) && party.is_member(members, self.cluster)
            }
            Demand::Networks(within) => is_in(within),
            Demand::Outside(members, within) => {
                is_in(within) && !party.is_member(members, self.cluster)
            }
            Demand::Nodes(selector) => party.end.address.is_some_and(|address| {
                let mut nodes = self.cluster.nodes();
                nodes.any(|node| node.ips.contains(&address) && selector.matches(&node.labels))
            }),
        }
    }

    fn is_to(self, transport: &Transport) -> bool {
        let Asked { protocol, port: to } = self.asked;
        let is_of_family = |eth_type: &Option<u16>| {
            let address = self.subject.end.address.or(self.peer.end.address);
            let wanted = eth_type.map(|eth_type| eth_type == ether_type::IPV6);
            wanted.is_none_or(|wanted| address.is_some_and(|address| address.is_ipv6() == wanted))
        };
        let is_from = |source: &Option<PortRange>, port: u16| {
            source.is_none_or(|range| (range.first..=range.last).contains(&port))
        };
        match (transport, self.names) {
            // Of ICMP a question means the echo request.
            (
                Transport::Numbers {
                    eth_type,
                    proto,
                    source,
                    destination,
                },
                _,
            ) => {
                let (source_port, to) = match protocol {
                    ip_proto::ICMP => (ECHO_REQUEST, 0),
                    ip_proto::ICMPV6 => (ECHO_REQUEST_V6, 0),
                    _ => (SOME_SOURCE_PORT, to),
                };
                is_of_family(eth_type)
                    && proto.is_none_or(|proto| proto == protocol)
                    && is_from(source, source_port)
                    && destination.is_none_or(|range| (range.first..=range.last).contains(&to))
            }
            (
                Transport::Named {
                    eth_type,
                    protos,
                    name,
                    source,
                },
                NamesAt::Pod(pod),
            ) => {
                let mut ports = pod.named_ports.iter();
                is_of_family(eth_type)
                    && is_from(source, SOME_SOURCE_PORT)
                    && protos.contains(&protocol)
                    && ports
                        .any(|port| port.name == *name && port.proto == protocol && port.port == to)
            }
            (Transport::Named { .. }, NamesAt::Nowhere) => false,
        }
    }
}

/// A question names no source port: one as clients get it (ip_local_port_range of the kernel).
const SOME_SOURCE_PORT: u16 = 40_000;
/// ICMP types (RFC 792, RFC 4443).
const ECHO_REQUEST: u16 = 8;
const ECHO_REQUEST_V6: u16 = 128;

fn rule_part(policy: &TieredPolicy, action: RuleAction, part: &str) -> RulePart {
    RulePart {
        policy: policy.key.clone(),
        part: policy.part(action, part),
    }
}
