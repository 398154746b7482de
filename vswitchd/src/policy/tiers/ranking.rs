//! The order in which policies of tiers are judged, and where that puts their rules.
//!
//! Tiers stand by order and name, policies in a tier by order and name; behind the policies of a
//! tier stands its end. What only some pods can be selected by need not have a place among all: a
//! policy of a namespace stands between two of the whole cluster, and there among those of its
//! namespace. So a change in one namespace moves no policy of another.
//!
//! Tiers share a table, until one passes packets on: the next tier begins in the next table.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use vswitch_api::Priority;
use vswitch_datapath::Action;
use vswitch_datapath::pipeline::TableId;

use crate::policy::direction::Direction;
use crate::policy::program::priority;

/// An order; what has none comes last.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Order(f64);

impl Order {
    pub(in super::super) const LAST: Self = Self(f64::INFINITY);

    pub(in super::super) fn new(order: f64) -> Self {
        // Without the sign of zero.
        Self(order + 0.0)
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Where a tier stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct TierPlace {
    /// Policies of tiers that are not there come last.
    pub(in super::super) is_missing: bool,
    pub(in super::super) order: Order,
    pub(in super::super) name: String,
}

/// Tier of the Admin ClusterNetworkPolicies.
pub(in super::super) const ADMIN: (&str, f64) = ("kube-admin", 1_000.0);
/// Tier of NetworkPolicies.
pub(in super::super) const DEFAULT: (&str, f64) = ("default", 1_000_000.0);
/// Tier of the Baseline ClusterNetworkPolicies.
pub(in super::super) const BASELINE: (&str, f64) = ("kube-baseline", 10_000_000.0);
/// Order of NetworkPolicies in their tier.
const OF_NETWORK_POLICIES: f64 = 1_000.0;

impl TierPlace {
    /// Returns the place of a tier that is always there.
    pub(in super::super) fn built_in((name, order): (&str, f64)) -> Self {
        Self {
            is_missing: false,
            order: Order::new(order),
            name: name.to_owned(),
        }
    }

    /// Returns where it stands to the tier of NetworkPolicies.
    pub(in super::super) fn to_default(&self) -> Ordering {
        self.cmp(&Self::built_in(DEFAULT))
    }
}

/// Where a policy stands, or the end of a tier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Position {
    pub(in super::super) tier: TierPlace,
    /// The end of the tier.
    is_end: bool,
    order: Order,
    /// Tells policies of one order apart.
    text: String,
    /// Namespace of a policy that selects in its own namespace only.
    namespace: Option<String>,
}

impl Position {
    pub(in super::super) fn new(
        tier: TierPlace,
        order: Order,
        text: String,
        namespace: Option<String>,
    ) -> Self {
        Self {
            tier,
            is_end: false,
            order,
            text,
            namespace,
        }
    }

    fn end_of(tier: &TierPlace) -> Self {
        Self {
            is_end: true,
            ..Self::new(tier.clone(), Order::LAST, String::new(), None)
        }
    }

    /// Returns whether it comes before the NetworkPolicies, if it is of their tier. They only
    /// allow: among equals what denies comes first.
    pub(in super::super) fn is_early(&self) -> bool {
        self.order <= Order::new(OF_NETWORK_POLICIES)
    }

    /// Returns what of the pipeline it is judged in.
    fn section(&self, stage: u8) -> Section {
        match self.tier.to_default() {
            Ordering::Less => Section::Before(stage),
            Ordering::Equal if self.is_early() => Section::Early,
            Ordering::Equal => Section::Late,
            Ordering::Greater => Section::After(stage),
        }
    }
}

/// A part of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// Tiers before that of NetworkPolicies, in the table of this number.
    Before(u8),
    /// Beside the rules of NetworkPolicies, before them.
    Early,
    /// Behind those, before what isolates.
    Late,
    /// Tiers behind that of NetworkPolicies.
    After(u8),
}

const BEFORE: [(TableId, TableId); 4] = [
    (TableId::EgressAdminTier, TableId::IngressAdminTier),
    (TableId::EgressAdminTier2, TableId::IngressAdminTier2),
    (TableId::EgressAdminTier3, TableId::IngressAdminTier3),
    (TableId::EgressAdminTier4, TableId::IngressAdminTier4),
];
const AFTER: [(TableId, TableId); 2] = [
    (TableId::EgressBaselineTier, TableId::IngressBaselineTier),
    (TableId::EgressBaselineTier2, TableId::IngressBaselineTier2),
];

/// Where rules of a policy go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Rank {
    section: Section,
    /// Of its rules.
    pub(in super::super) priority: Priority,
    /// Of the policy, among those of its priority.
    pub(in super::super) object: u16,
    /// Priority of the end of its tier.
    end: Priority,
    /// A table begins behind its tier, so that packets can be passed on.
    pub(in super::super) can_pass: bool,
}

impl Rank {
    pub(in super::super) fn table(&self, direction: Direction) -> TableId {
        let of = |tables: &[(TableId, TableId)], stage: u8| {
            let pair = tables.get(usize::from(stage)).or(tables.last());
            let (egress, ingress) = pair
                .copied()
                .unwrap_or((direction.default_table(), direction.default_table()));
            match direction {
                Direction::Egress => egress,
                Direction::Ingress => ingress,
            }
        };
        match self.section {
            Section::Before(stage) => of(&BEFORE, stage),
            Section::Early => direction.rule_table(),
            Section::Late => direction.default_table(),
            Section::After(stage) => of(&AFTER, stage),
        }
    }

    /// Returns what passes a packet on to the next tier.
    pub(in super::super) fn pass(&self, direction: Direction) -> Action {
        let beyond_default = match direction {
            Direction::Egress => TableId::EgressBaselineTier,
            Direction::Ingress => TableId::IngressBaselineTier,
        };
        Action::Goto(match self.section {
            Section::Early | Section::Late => beyond_default,
            Section::Before(_) | Section::After(_) => {
                let table = self.table(direction);
                table.beyond_tier().unwrap_or(beyond_default)
            }
        })
    }

    /// Returns where the end of its tier denies.
    pub(in super::super) fn end(&self, direction: Direction) -> (TableId, Priority) {
        match self.section {
            Section::Early | Section::Late => (direction.default_table(), priority::POLICY),
            Section::Before(_) | Section::After(_) => (self.table(direction), self.end),
        }
    }

    /// Returns whether its rules are in a table of tiers.
    pub(in super::super) fn is_before_network_policies(&self) -> bool {
        matches!(self.section, Section::Before(_))
    }
}

/// The policies of a tier.
#[derive(Debug, Default)]
struct TierUse {
    policies: usize,
    /// So many of them pass packets on.
    passing: usize,
}

/// All policies of tiers in their order.
#[derive(Debug, Default)]
pub(in super::super) struct Ranking {
    /// Policies that are of no namespace, and the ends of tiers.
    of_cluster: BTreeSet<Position>,
    of_namespaces: BTreeMap<String, BTreeSet<Position>>,
    tiers: BTreeMap<TierPlace, TierUse>,
    /// Places may have moved.
    is_changed: bool,
}

impl Ranking {
    /// Adds a policy.
    pub(in super::super) fn join(&mut self, position: &Position, passes: bool) {
        self.is_changed = true;
        self.of_cluster.insert(Position::end_of(&position.tier));
        let tier = self.tiers.entry(position.tier.clone()).or_default();
        tier.policies += 1;
        tier.passing += usize::from(passes);
        match &position.namespace {
            None => self.of_cluster.insert(position.clone()),
            Some(namespace) => {
                let of_namespace = self.of_namespaces.entry(namespace.clone()).or_default();
                of_namespace.insert(position.clone())
            }
        };
    }

    /// Removes one that was added so.
    pub(in super::super) fn leave(&mut self, position: &Position, passes: bool) {
        self.is_changed = true;
        if let Some(tier) = self.tiers.get_mut(&position.tier) {
            tier.policies -= 1;
            tier.passing -= usize::from(passes);
            if tier.policies == 0 {
                self.tiers.remove(&position.tier);
                self.of_cluster.remove(&Position::end_of(&position.tier));
            }
        }
        match &position.namespace {
            None => {
                self.of_cluster.remove(position);
            }
            Some(namespace) => {
                if let Some(of_namespace) = self.of_namespaces.get_mut(namespace) {
                    of_namespace.remove(position);
                    if of_namespace.is_empty() {
                        self.of_namespaces.remove(namespace);
                    }
                }
            }
        }
    }

    /// Returns whether ranks may have changed since the last call.
    pub(in super::super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Returns whether rules of a tier with policies can pass packets on to the next one.
    pub(in super::super) fn can_pass(&self, tier: &TierPlace) -> bool {
        self.stage(tier).1
    }

    /// Returns the rank of a policy that was added.
    pub(in super::super) fn rank(&self, position: &Position) -> Rank {
        let (stage, can_pass) = self.stage(&position.tier);
        Rank {
            section: position.section(stage),
            priority: self.priority(position),
            object: match &position.namespace {
                // Behind those of namespaces that stand before it.
                None => u16::MAX,
                Some(namespace) => self.among_its_own(namespace, position),
            },
            end: self.priority(&Position::end_of(&position.tier)),
            can_pass,
        }
    }

    /// The more policies of the cluster are before it, the lower. Beyond the lowest one the order
    /// is that of the tiers no longer, which would take tens of thousands of policies.
    fn priority(&self, position: &Position) -> Priority {
        let before = self.of_cluster.range(..position).count();
        let span = priority::FIRST_IN_TIER.0 - priority::LAST_IN_TIER.0;
        let before = u16::try_from(before).unwrap_or(span).min(span);
        Priority(priority::FIRST_IN_TIER.0 - before)
    }

    fn among_its_own(&self, namespace: &str, position: &Position) -> u16 {
        let before = self.of_cluster.range(..position).next_back();
        let own = self.of_namespaces.get(namespace).into_iter().flatten();
        let between = own.filter(|other| before.is_none_or(|before| *other > before));
        let count = between.take_while(|other| *other < position).count();
        u16::try_from(count)
            .unwrap_or(u16::MAX - 1)
            .min(u16::MAX - 1)
    }

    /// Returns the number of the table of a tier on its side of NetworkPolicies, and whether no
    /// other tier follows in that table.
    fn stage(&self, tier: &TierPlace) -> (u8, bool) {
        let side = tier.to_default();
        let tables = if side == Ordering::Less {
            BEFORE.len()
        } else {
            AFTER.len()
        };
        let last = tables - 1;
        let of_side = self.tiers.iter();
        let of_side = of_side.filter(|(other, _)| other.to_default() == side);
        let (mut passing, mut stage, mut can_pass) = (0, 0, true);
        for (other, of) in of_side {
            let its_stage = passing.min(last);
            match other.cmp(tier) {
                Ordering::Equal => stage = its_stage,
                Ordering::Greater => can_pass &= its_stage != stage,
                Ordering::Less => {}
            }
            passing += usize::from(of.passing > 0);
        }
        (u8::try_from(stage).unwrap_or(u8::MAX), can_pass)
    }
}
