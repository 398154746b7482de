//! What policies are lowered to: rules with actions, and the cases in which a rule matches.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use serde_json::Value;
use vswitch_datapath::flow::{PortRange, SetName};

use super::ranking::Position;
use crate::policy::direction::Direction;
use crate::policy::json::PartError;
use crate::policy::peers::Members;
use crate::policy::roster::Within;
use crate::rules::Place;
use crate::state::{ClusterPolicyKey, ClusterPolicyKind, PolicyKey, Selector};

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum RuleAction {
    Accept,
    Deny,
    /// The rest of the tier is left out.
    Pass,
}

/// What the origin of a rule says that denies because no policy of a tier decided.
pub(in super::super) const END_OF_TIER: &str = "end of tier";

/// A part that is not understood, or not served: where, and why.
pub type Flaw = (String, String);

/// A policy of which it is known whom it concerns, and when.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct TieredPolicy {
    pub(in super::super) key: PolicyKey,
    pub(in super::super) position: Position,
    /// Tier, and order in it, for people.
    pub(in super::super) tier: String,
    pub(in super::super) order: String,
    /// What its API calls [`RuleAction::Accept`].
    pub(in super::super) accept: &'static str,
    /// What becomes of traffic of the subject that no policy of the tier decides on: denied, or
    /// passed on to the next tier.
    pub(in super::super) tier_denies: bool,
    pub(in super::super) subject: Members,
    /// `None`: the policy does not concern this direction.
    pub(in super::super) ingress: Option<Vec<TieredRule>>,
    pub(in super::super) egress: Option<Vec<TieredRule>>,
    pub(in super::super) flaws: Vec<Flaw>,
}

/// A rule of either direction.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct TieredRule {
    pub(in super::super) action: RuleAction,
    pub(in super::super) traffic: Traffic,
}

/// What a rule matches.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Traffic {
    /// Nothing.
    Nothing,
    /// All of the subject's in this direction.
    Everything,
    /// What is in any of these cases.
    In(Vec<Case>),
}

/// A conjunction: both ends, and one of the transports.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Case {
    /// The part of the rule that it comes from, below the rule, e.g. `.from[1]`.
    pub(in super::super) part: String,
    /// What is demanded of the subject besides being selected.
    pub(in super::super) subject: Demand,
    pub(in super::super) peer: Demand,
    /// Each with its part of the rule.
    pub(in super::super) transports: Vec<(String, Transport)>,
}

/// A demand on one end.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Demand {
    /// None.
    Anyone,
    /// Pods, and network sets, found by labels.
    Members(Members),
    /// Those, as far as they are in these networks.
    MembersWithin(Members, Within),
    /// Nodes with all that runs in their own network: the addresses of their status.
    Nodes(Selector),
    /// Addresses, whoever has them; the name is that of their set.
    Networks(Within),
    /// Addresses in these networks that no member has.
    Outside(Members, Within),
}

/// A demand on protocol and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Transport {
    /// Numbers; `None` demands nothing. Type and code of ICMP stand for the ports.
    Numbers {
        eth_type: Option<u16>,
        proto: Option<u8>,
        source: Option<PortRange>,
        destination: Option<PortRange>,
    },
    /// A container port's name at the receiver, over one of these protocols.
    Named {
        eth_type: Option<u16>,
        protos: Vec<u8>,
        name: String,
        source: Option<PortRange>,
    },
}

impl Transport {
    /// Demands nothing.
    pub(in super::super) const ANY: Self = Self::Numbers {
        eth_type: None,
        proto: None,
        source: None,
        destination: None,
    };

    /// Demands destination ports of a protocol.
    pub(in super::super) const fn to(proto: u8, destination: Option<PortRange>) -> Self {
        Self::Numbers {
            eth_type: None,
            proto: Some(proto),
            source: None,
            destination,
        }
    }
}

impl TieredRule {
    /// Denies everything: what stands for a rule of which nobody knows what it does.
    pub(in super::super) const DENY_ALL: Self = Self {
        action: RuleAction::Deny,
        traffic: Traffic::Everything,
    };

    /// What a rule comes to of which a part is not understood or not served: it must not let
    /// through what it was not written for.
    pub(in super::super) const fn closed(action: RuleAction) -> Self {
        match action {
            RuleAction::Accept => Self {
                action,
                traffic: Traffic::Nothing,
            },
            RuleAction::Deny | RuleAction::Pass => Self::DENY_ALL,
        }
    }

    /// Reads the rules of a direction as they are written. Only so many have places; the APIs have
    /// fewer.
    pub(in super::super) fn listed(
        written: &Value,
        direction: Direction,
        flaws: &mut Vec<Flaw>,
        read: impl Fn(&Value, &str, &mut Vec<Flaw>) -> Self,
    ) -> Vec<Self> {
        let written = match written {
            Value::Null => return Vec::new(),
            Value::Array(list) => list,
            _ => {
                let error = PartError::Type { expected: "a list" };
                flaws.push((direction.name().to_owned(), error.to_string()));
                return vec![Self::DENY_ALL];
            }
        };
        let placed = usize::from(Place::PARTS) - 1;
        let numbered = written.iter().take(placed).enumerate();
        let mut rules: Vec<Self> = numbered
            .map(|(index, rule)| read(rule, &format!("{}[{index}]", direction.name()), flaws))
            .collect();
        if written.len() > placed {
            let text = format!("more than {placed} rules");
            flaws.push((direction.name().to_owned(), text));
            rules.push(Self::DENY_ALL);
        }
        rules
    }
}

impl TieredPolicy {
    /// Returns the rules of a direction, if the policy concerns it.
    pub(in super::super) fn rules(&self, direction: Direction) -> Option<&[TieredRule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Returns whether a rule passes packets on to the next tier.
    pub(in super::super) fn passes(&self) -> bool {
        let rules = self.ingress.iter().chain(&self.egress).flatten();
        rules
            .into_iter()
            .any(|rule| rule.action == RuleAction::Pass)
    }

    /// Returns how the origin of a rule names its place and action.
    pub(in super::super) fn part(&self, action: RuleAction, part: &str) -> String {
        let action = match action {
            RuleAction::Accept => self.accept,
            RuleAction::Deny => "Deny",
            RuleAction::Pass => "Pass",
        };
        format!("{} {} {action} {part}", self.tier, self.order)
    }

    /// Returns the name of the set of the pods of this node that it selects.
    pub(in super::super) fn selection_name(&self) -> SetName {
        SetName(format!("{}/selected", SetPrefix(&self.key)).into())
    }
}

/// What the names of a policy's own sets begin with; no namespace can be called so.
#[derive(Debug)]
pub(in super::super) struct SetPrefix<'a>(pub(in super::super) &'a PolicyKey);

impl fmt::Display for SetPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PolicyKey::ClusterPolicy(ClusterPolicyKey { kind, name }) => {
                let prefix = match kind {
                    ClusterPolicyKind::ClusterNetworkPolicy => "cluster",
                    ClusterPolicyKind::AdminNetworkPolicy => "admin",
                    ClusterPolicyKind::BaselineAdminNetworkPolicy => "baseline",
                };
                write!(f, "{prefix}:{name}")
            }
            key => key.fmt(f),
        }
    }
}

impl SetPrefix<'_> {
    /// Returns networks under the name that tells where in the policy they stand.
    pub(in super::super) fn networks(
        &self,
        at: impl fmt::Display,
        networks: BTreeSet<IpNet>,
    ) -> Within {
        Within {
            name: SetName(format!("{self}/{at}").into()),
            networks,
        }
    }
}
