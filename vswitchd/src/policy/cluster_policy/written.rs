//! A ClusterNetworkPolicy read from its JSON, with what of it is not understood.

use std::fmt;

use serde_json::Value;

use super::super::direction::Direction;
use super::super::peers::PodPeer;
use super::json::{self, PartError};
use super::peer::{self, ClusterPeer};
use super::ports::ClusterPort;
use crate::rules::Place;
use crate::state::ClusterPolicyRecord;

/// spec.tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// After them, for pods that none isolates.
    Baseline,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum RuleAction {
    Accept,
    Deny,
    /// The rest of the tier is left out.
    Pass,
}

/// What a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Traffic {
    /// Nothing: an Accept that is not understood.
    Nothing,
    /// All of the subject's in this direction: any other rule that is not understood denies it.
    Everything,
    /// Any of these peers, each with its part of the rule, over any of these ports; `None`
    /// demands no protocol.
    Of {
        peers: Vec<(String, ClusterPeer)>,
        ports: Option<Vec<(String, ClusterPort)>>,
    },
}

/// A rule of either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ClusterRule {
    pub(in super::super) action: RuleAction,
    pub(in super::super) traffic: Traffic,
}

/// A part that is not understood: where, and why.
pub type Flaw = (String, String);

/// Returns what of a policy's spec is not understood, and therefore fails closed.
#[must_use]
pub fn flaws(spec: &Value) -> Vec<Flaw> {
    let record = ClusterPolicyRecord {
        name: String::new(),
        spec: spec.clone(),
    };
    ClusterPolicy::parse(&record).map_or_else(|flaws| flaws, |policy| policy.flaws)
}

/// A policy of which tier, priority and subject are understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ClusterPolicy {
    pub(in super::super) name: String,
    pub(in super::super) tier: Tier,
    /// Lower ones come first.
    pub(in super::super) priority: u16,
    pub(in super::super) subject: PodPeer,
    pub(in super::super) ingress: Vec<ClusterRule>,
    pub(in super::super) egress: Vec<ClusterRule>,
    pub(in super::super) flaws: Vec<Flaw>,
}

/// The highest priority that the API has.
pub(in super::super) const LAST_PRIORITY: u16 = 1_000;

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        })
    }
}

impl fmt::Display for RuleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        })
    }
}

impl ClusterPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// What makes that nobody knows whom it concerns, or when: such a policy does nothing.
    pub(in super::super) fn parse(record: &ClusterPolicyRecord) -> Result<Self, Vec<Flaw>> {
        let spec = &record.spec;
        let mut flaws = Vec::new();
        let tier = noted(tier(&spec["tier"]), "tier", &mut flaws);
        let priority = json::number(&spec["priority"], 0, LAST_PRIORITY);
        let priority = noted(priority, "priority", &mut flaws);
        let subject = noted(peer::pods(&spec["subject"]), "subject", &mut flaws);
        let (Some(tier), Some(priority), Some(subject)) = (tier, priority, subject) else {
            return Err(flaws);
        };
        let known = ["tier", "priority", "subject", "ingress", "egress"];
        // What a field means that stands beside the rules is beyond guessing.
        if let Err(error) = json::object(spec, &known) {
            flaws.push(("spec".to_owned(), error.to_string()));
        }
        let mut rules = |direction: Direction| {
            let written = &spec[direction.name()];
            rules(written, direction, &mut flaws)
        };
        let (ingress, egress) = (rules(Direction::Ingress), rules(Direction::Egress));
        Ok(Self {
            name: record.name.clone(),
            tier,
            priority,
            subject,
            ingress,
            egress,
            flaws,
        })
    }

    pub(in super::super) fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

fn noted<T>(read: Result<T, PartError>, part: &str, flaws: &mut Vec<Flaw>) -> Option<T> {
    read.map_err(|error| flaws.push((part.to_owned(), error.to_string())))
        .ok()
}

fn tier(value: &Value) -> Result<Tier, PartError> {
    match value.as_str() {
        Some("Admin") => Ok(Tier::Admin),
        Some("Baseline") => Ok(Tier::Baseline),
        _ => Err(unknown(value, "Admin, Baseline")),
    }
}

fn action(value: &Value) -> Result<RuleAction, PartError> {
    match value.as_str() {
        Some("Accept") => Ok(RuleAction::Accept),
        Some("Deny") => Ok(RuleAction::Deny),
        Some("Pass") => Ok(RuleAction::Pass),
        _ => Err(unknown(value, "Accept, Deny, Pass")),
    }
}

fn unknown(value: &Value, known: &'static str) -> PartError {
    let value = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    PartError::UnknownValue { value, known }
}

/// Denies everything: what stands for a rule of which nobody knows what it does.
const DENY_ALL: ClusterRule = ClusterRule {
    action: RuleAction::Deny,
    traffic: Traffic::Everything,
};

fn rules(written: &Value, direction: Direction, flaws: &mut Vec<Flaw>) -> Vec<ClusterRule> {
    let list = match written {
        Value::Null => return Vec::new(),
        Value::Array(list) => list,
        _ => {
            let expected = "a list";
            let error = PartError::Type { expected };
            flaws.push((direction.name().to_owned(), error.to_string()));
            return vec![DENY_ALL];
        }
    };
    // Only so many have places. The API has 25 at most.
    let placed = usize::from(Place::PARTS) - 1;
    let mut rules: Vec<ClusterRule> = list
        .iter()
        .take(placed)
        .enumerate()
        .map(|(index, written)| {
            let part = format!("{}[{index}]", direction.name());
            rule(written, &part, direction, flaws)
        })
        .collect();
    if list.len() > placed {
        let text = format!("more than {placed} rules");
        flaws.push((direction.name().to_owned(), text));
        rules.push(DENY_ALL);
    }
    rules
}

fn rule(written: &Value, part: &str, direction: Direction, flaws: &mut Vec<Flaw>) -> ClusterRule {
    let action = match action(&written["action"]) {
        Ok(action) => action,
        Err(error) => {
            flaws.push((format!("{part}.action"), error.to_string()));
            return DENY_ALL;
        }
    };
    let before = flaws.len();
    let field = direction.peers_field();
    if let Err(error) = json::object(written, &["name", "action", field, "protocols"]) {
        flaws.push((part.to_owned(), error.to_string()));
    }
    let peers = listed(
        &written[field],
        &format!("{part}.{field}"),
        flaws,
        |value| peer::peers(value, direction),
    );
    let ports = match &written["protocols"] {
        Value::Null => None,
        list => Some(listed(list, &format!("{part}.protocols"), flaws, |value| {
            ClusterPort::parse(value).map(|port| vec![port])
        })),
    };
    match action {
        _ if flaws.len() == before => ClusterRule {
            action,
            traffic: Traffic::Of { peers, ports },
        },
        RuleAction::Accept => ClusterRule {
            action,
            traffic: Traffic::Nothing,
        },
        RuleAction::Deny | RuleAction::Pass => DENY_ALL,
    }
}

/// Reads the items of a list, each into some values under its part of the policy.
fn listed<T>(
    list: &Value,
    part: &str,
    flaws: &mut Vec<Flaw>,
    read: impl Fn(&Value) -> Result<Vec<T>, PartError>,
) -> Vec<(String, T)> {
    let items = match json::items(list) {
        Ok(items) => items,
        Err(error) => {
            flaws.push((part.to_owned(), error.to_string()));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let part = format!("{part}[{index}]");
        match read(item) {
            Ok(values) => found.extend(values.into_iter().map(|value| (part.clone(), value))),
            Err(error) => flaws.push((part, error.to_string())),
        }
    }
    found
}
