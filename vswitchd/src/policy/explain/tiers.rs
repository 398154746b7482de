//! What the tiers of ClusterNetworkPolicies say of one end: the first rule that matches.

use super::super::cluster_policy::{
    ClusterPeer, ClusterPolicy, ClusterPort, ClusterRule, RuleAction, Tier, Traffic,
};
use super::super::direction::Direction;
use super::RulePart;
use super::party::Party;
use super::ports::{Asked, NamesAt};
use crate::state::{ClusterState, PolicyKey};

/// A connection as one end sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) cluster: &'a ClusterState,
    pub(super) direction: Direction,
    pub(super) subject: &'a Party<'a>,
    pub(super) peer: &'a Party<'a>,
    pub(super) asked: Asked,
    /// Where named ports resolve.
    pub(super) names: NamesAt<'a>,
}

/// Returns the policies that are understood, in the order in which they are judged.
pub(super) fn in_order(cluster: &ClusterState) -> Vec<ClusterPolicy> {
    let policies = cluster.cluster_policies();
    let mut policies: Vec<ClusterPolicy> = policies
        .filter_map(|record| ClusterPolicy::parse(record).ok())
        .collect();
    policies.sort_by(|a, b| (a.tier, a.priority, &a.name).cmp(&(b.tier, b.priority, &b.name)));
    policies
}

/// Returns what the first rule of a tier that matches does.
pub(super) fn decide(
    policies: &[ClusterPolicy],
    tier: Tier,
    view: View<'_>,
) -> Option<(RuleAction, RulePart)> {
    let of_tier = policies.iter().filter(|policy| policy.tier == tier);
    of_tier
        .filter(|policy| view.subject.is_among(&policy.subject))
        .find_map(|policy| {
            let rules = policy.rules(view.direction).iter().enumerate();
            rules
                .filter_map(|(index, rule)| Some((index, rule, view.fits(rule)?)))
                .map(|(index, rule, part)| {
                    let (priority, direction) = (policy.priority, view.direction.name());
                    let rule_part = RulePart {
                        policy: PolicyKey::ClusterNetworkPolicy(policy.name.clone()),
                        part: format!(
                            "{tier} {priority} {} {direction}[{index}]{part}",
                            rule.action
                        ),
                    };
                    (rule.action, rule_part)
                })
                .next()
        })
}

impl View<'_> {
    /// Returns the part of a rule that matches, below the rule.
    fn fits(self, rule: &ClusterRule) -> Option<String> {
        let Traffic::Of { peers, ports } = &rule.traffic else {
            return (rule.traffic == Traffic::Everything).then(String::new);
        };
        let (part, _) = peers.iter().find(|(_, peer)| self.means(peer))?;
        let below = part.find("].").and_then(|at| part.get(at + 1..));
        let below = below.unwrap_or_default();
        let Some(ports) = ports else {
            return Some(below.to_owned());
        };
        let index = ports.iter().position(|(_, port)| self.is_to(port))?;
        Some(format!("{below}.protocols[{index}]"))
    }

    fn means(self, peer: &ClusterPeer) -> bool {
        match peer {
            ClusterPeer::Pods(pods) => self.peer.is_among(pods),
            ClusterPeer::Network(network) => {
                let address = self.peer.end.address;
                address.is_some_and(|address| network.contains(&address))
            }
            ClusterPeer::Nodes(selector) => self.peer.end.address.is_some_and(|address| {
                let mut nodes = self.cluster.nodes();
                nodes.any(|node| node.ips.contains(&address) && selector.matches(&node.labels))
            }),
        }
    }

    fn is_to(self, port: &ClusterPort) -> bool {
        let Asked { protocol, port: to } = self.asked;
        match (port, self.names) {
            (ClusterPort::Range(proto, range), _) => {
                *proto == protocol && (range.first..=range.last).contains(&to)
            }
            (ClusterPort::Named(name), NamesAt::Pod(pod)) => pod
                .named_ports
                .iter()
                .any(|port| port.name == *name && port.proto == protocol && port.port == to),
            (ClusterPort::Named(_), NamesAt::Nowhere) => false,
        }
    }
}
