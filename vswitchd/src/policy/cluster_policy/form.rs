//! What the kinds of policies of the cluster write each in its own way.

use serde_json::Value;

use super::super::json::{self, PartError};
use super::super::tiers::{ADMIN, BASELINE, Flaw, Order, RuleAction, TierPlace, Transport};
use super::noted;
use super::ports;
use crate::state::ClusterPolicyKind;

/// The highest priority that the API has.
const LAST_PRIORITY: u16 = 1_000;

/// How a kind writes what all of them mean.
#[derive(Debug)]
pub(super) struct Form {
    /// Fields of the spec.
    pub(super) fields: &'static [&'static str],
    /// Reads where a policy stands; `None` if that is not understood.
    pub(super) level: fn(&Value, &mut Vec<Flaw>) -> Option<Level>,
    /// What it calls [`RuleAction::Accept`].
    pub(super) accept: &'static str,
    /// Actions of rules, for people.
    actions: &'static str,
    has_pass: bool,
    /// Field of a rule that lists protocols and ports.
    pub(super) transports: &'static str,
    /// Reads one of them.
    pub(super) transport: fn(&Value) -> Result<Transport, PartError>,
    pub(super) egress_peers: &'static [&'static str],
    /// Whether a selector of namespaces has to stand beside one of pods.
    pub(super) names_namespaces: bool,
}

/// Where a policy stands.
#[derive(Debug)]
pub(super) struct Level {
    /// Name of the tier for people.
    pub(super) tier: &'static str,
    pub(super) place: TierPlace,
    pub(super) order: Order,
    /// The order for people.
    pub(super) order_text: String,
}

static CLUSTER_NETWORK_POLICY: Form = Form {
    fields: &["tier", "priority", "subject", "ingress", "egress"],
    level: of_tier_and_priority,
    accept: "Accept",
    actions: "Accept, Deny, Pass",
    has_pass: true,
    transports: "protocols",
    transport: ports::of_protocol,
    egress_peers: &["namespaces", "pods", "nodes", "networks", "domainNames"],
    names_namespaces: false,
};

static ADMIN_NETWORK_POLICY: Form = Form {
    fields: &["priority", "subject", "ingress", "egress"],
    level: |spec, flaws| in_tier(Tier::Admin, spec, flaws),
    accept: "Allow",
    actions: "Allow, Deny, Pass",
    has_pass: true,
    transports: "ports",
    transport: ports::of_port,
    egress_peers: &["namespaces", "pods", "nodes", "networks", "domainNames"],
    names_namespaces: true,
};

static BASELINE_ADMIN_NETWORK_POLICY: Form = Form {
    fields: &["subject", "ingress", "egress"],
    level: |_, _| Some(last_of_baseline()),
    accept: "Allow",
    actions: "Allow, Deny",
    has_pass: false,
    transports: "ports",
    transport: ports::of_port,
    egress_peers: &["namespaces", "pods", "nodes", "networks"],
    names_namespaces: true,
};

impl Form {
    /// Returns how a kind is written.
    pub(super) fn of(kind: ClusterPolicyKind) -> &'static Self {
        match kind {
            ClusterPolicyKind::ClusterNetworkPolicy => &CLUSTER_NETWORK_POLICY,
            ClusterPolicyKind::AdminNetworkPolicy => &ADMIN_NETWORK_POLICY,
            ClusterPolicyKind::BaselineAdminNetworkPolicy => &BASELINE_ADMIN_NETWORK_POLICY,
        }
    }

    /// Reads the action of a rule.
    pub(super) fn action(&self, value: &Value) -> Result<RuleAction, PartError> {
        match value.as_str() {
            Some("Deny") => Ok(RuleAction::Deny),
            Some("Pass") if self.has_pass => Ok(RuleAction::Pass),
            Some(action) if action == self.accept => Ok(RuleAction::Accept),
            _ => Err(PartError::unknown(value, self.actions)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Tier {
    Admin,
    Baseline,
}

impl Tier {
    fn named(value: &Value) -> Result<Self, PartError> {
        match value.as_str() {
            Some("Admin") => Ok(Self::Admin),
            Some("Baseline") => Ok(Self::Baseline),
            _ => Err(PartError::unknown(value, "Admin, Baseline")),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        }
    }

    fn place(self) -> TierPlace {
        TierPlace::built_in(match self {
            Self::Admin => ADMIN,
            Self::Baseline => BASELINE,
        })
    }
}

fn of_tier_and_priority(spec: &Value, flaws: &mut Vec<Flaw>) -> Option<Level> {
    let tier = noted(Tier::named(&spec["tier"]), "tier", flaws);
    // Both are looked at: each that is not understood is said.
    let priority = priority(spec, flaws);
    Some(Level::new(tier?, priority?))
}

fn in_tier(tier: Tier, spec: &Value, flaws: &mut Vec<Flaw>) -> Option<Level> {
    Some(Level::new(tier, priority(spec, flaws)?))
}

fn priority(spec: &Value, flaws: &mut Vec<Flaw>) -> Option<u16> {
    let priority = json::number(&spec["priority"], 0, LAST_PRIORITY);
    noted(priority, "priority", flaws)
}

/// Without a priority it stands behind whatever has one.
fn last_of_baseline() -> Level {
    Level {
        tier: Tier::Baseline.name(),
        place: Tier::Baseline.place(),
        order: Order::LAST,
        order_text: "last".to_owned(),
    }
}

impl Level {
    fn new(tier: Tier, priority: u16) -> Self {
        Self {
            tier: tier.name(),
            place: tier.place(),
            order: Order::new(f64::from(priority)),
            order_text: priority.to_string(),
        }
    }
}
