//! A collection of rules under construction, which gives each rule its id.
//!
//! The id is a hash of what makes the rule that rule (table, priority, match, origin), so a
//! rule that is compiled again keeps its id and with it its counters.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use vswitch_api::{Cookie, Priority};
use vswitch_datapath::Action;
use vswitch_datapath::flow::Match;
use vswitch_datapath::pipeline::{Origin, Rule, RuleId, TableId};

/// Who gives out the ids of a collection: ids of different owners, which know nothing of each
/// other, never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuleOwner {
    /// What the node itself needs, and flows of operators.
    #[default]
    Node,
    /// NetworkPolicies.
    Policies,
    /// Services.
    Services,
}

impl RuleOwner {
    /// Returns the bits that all of its ids have.
    const fn tag(self) -> u64 {
        match self {
            Self::Node => 0,
            Self::Policies => 1 << 61,
            Self::Services => 2 << 61,
        }
    }
}

/// Bits of an id that tell the owner. Above lie the ids of the datapath's own rules.
const OWNER: u64 = 3 << 61;
/// Bits of an id that its owner chooses.
const IDS: u64 = (1 << 61) - 1;
/// Bits of an id below its [`Place`].
const HASH_BESIDE_PLACE: u64 = (1 << 33) - 1;

/// Place of a rule among those of one table and priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Place of the object that it comes from.
    pub object: u16,
    /// Place in the object, below [`Place::PARTS`].
    pub part: u16,
}

impl Place {
    /// How many parts of an object have places.
    pub const PARTS: u16 = 1 << 12;

    /// Returns the bits above the hash of an id.
    fn bits(self) -> u64 {
        let part = self.part.min(Self::PARTS - 1);
        (u64::from(self.object) << 12 | u64::from(part)) << 33
    }
}

/// Rules by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleSet {
    rules: BTreeMap<RuleId, Rule>,
    owner: RuleOwner,
}

impl RuleSet {
    /// Returns an empty collection.
    #[must_use]
    pub fn of(owner: RuleOwner) -> Self {
        Self {
            owner,
            ..Self::default()
        }
    }

    /// Adds a rule; a rule that is there already stays once.
    pub fn add(
        &mut self,
        (table, priority): (TableId, Priority),
        matches: Match,
        actions: Vec<Action>,
        origin: &Arc<Origin>,
    ) {
        self.add_with_cookie(
            (table, priority),
            matches,
            actions,
            origin,
            cookie_of(origin),
        );
    }

    /// Adds a rule that, among those of its table and priority, comes at this place: the lowest
    /// wins. Rules of one place do the same, so that their order does not matter.
    pub fn add_at(
        &mut self,
        (table, priority): (TableId, Priority),
        place: Place,
        matches: Match,
        actions: Vec<Action>,
        origin: &Arc<Origin>,
    ) {
        let hash = rule_hash(table, priority, &matches, origin) & HASH_BESIDE_PLACE;
        let origin = Arc::clone(origin);
        self.insert(Rule {
            id: RuleId(place.bits() | hash | self.owner.tag()),
            table,
            priority,
            matches,
            actions,
            cookie: cookie_of(&origin),
            origin,
        });
    }

    /// Adds a rule whose owner chose the cookie.
    pub fn add_with_cookie(
        &mut self,
        (table, priority): (TableId, Priority),
        matches: Match,
        actions: Vec<Action>,
        origin: &Arc<Origin>,
        cookie: Cookie,
    ) {
        let origin = Arc::clone(origin);
        let hash = rule_hash(table, priority, &matches, &origin);
        let id = RuleId(hash & IDS | self.owner.tag());
        self.insert(Rule {
            id,
            table,
            priority,
            matches,
            actions,
            cookie,
            origin,
        });
    }

    /// Adds a finished rule. If its id is taken by another rule, it gets the next free one:
    /// a collision of hashes must not replace a rule.
    pub fn insert(&mut self, mut rule: Rule) {
        while let Some(taken) = self.rules.get(&rule.id) {
            if *taken == rule {
                return;
            }
            rule.id = next_id(rule.id);
        }
        self.rules.insert(rule.id, rule);
    }

    /// Returns the rules by id.
    #[must_use]
    pub fn into_rules(self) -> BTreeMap<RuleId, Rule> {
        self.rules
    }

    /// Returns the rules in the order of their ids.
    #[must_use]
    pub fn into_list(self) -> Vec<Rule> {
        self.rules.into_values().collect()
    }
}

/// Returns the id to try when one is taken; it stays its owner's.
pub(super) fn next_id(RuleId(id): RuleId) -> RuleId {
    RuleId((id & OWNER) | (id.wrapping_add(1) & IDS))
}

fn rule_hash(table: TableId, priority: Priority, matches: &Match, origin: &Origin) -> u64 {
    // Keys are fixed, so that the same rule has the same id in every run of one build.
    let mut hasher = DefaultHasher::new();
    (table, priority, matches, origin).hash(&mut hasher);
    hasher.finish()
}

/// Returns the cookie that all rules of one object share.
fn cookie_of(origin: &Origin) -> Cookie {
    let mut hasher = DefaultHasher::new();
    (origin.kind, &origin.name).hash(&mut hasher);
    Cookie(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: u64, table: TableId) -> Rule {
        let origin = Arc::new(Origin {
            kind: "Builtin",
            name: String::new(),
            part: String::new(),
        });
        Rule {
            id: RuleId(id),
            table,
            priority: Priority(1),
            matches: Match::default(),
            actions: Vec::new(),
            cookie: Cookie(0),
            origin,
        }
    }

    #[test]
    fn two_rules_with_one_hash_both_stay() {
        let mut rules = RuleSet::default();
        let last = IDS;
        rules.insert(rule(last, TableId::Admin));
        rules.insert(rule(last, TableId::Forward));
        rules.insert(rule(last, TableId::Admin));
        let ids: Vec<_> = rules.into_rules().into_keys().collect();
        assert_eq!(ids, [RuleId(0), RuleId(last)]);
        let tag = RuleOwner::Services.tag();
        assert_eq!(next_id(RuleId(tag | last)), RuleId(tag));
    }

    #[test]
    fn rules_with_places_have_ids_in_their_order() {
        let origin = rule(0, TableId::Admin).origin;
        let at = (TableId::EgressAdminTier, Priority(5));
        let last = Place::PARTS - 1;
        let places = [(0, 0), (0, 1), (0, last), (1, 0), (u16::MAX, last)];
        let ids = places.map(|(object, part)| {
            let mut rules = RuleSet::of(RuleOwner::Policies);
            let place = Place { object, part };
            rules.add_at(at, place, Match::default(), Vec::new(), &origin);
            let RuleId(id) = *rules.into_rules().keys().next().unwrap();
            assert_eq!(id & OWNER, RuleOwner::Policies.tag());
            id
        });
        assert!(ids.is_sorted(), "{ids:?}");
    }

    #[test]
    fn the_id_of_a_rule_depends_on_what_it_is_and_not_on_its_neighbours() {
        let origin = rule(0, TableId::Admin).origin;
        let at = (TableId::EgressRule, Priority(5));
        let mut alone = RuleSet::default();
        alone.add(at, Match::default(), Vec::new(), &origin);
        let mut among = RuleSet::default();
        among.add(
            (TableId::IngressRule, Priority(5)),
            Match::default(),
            Vec::new(),
            &origin,
        );
        among.add(at, Match::default(), Vec::new(), &origin);
        let id = *alone.into_rules().keys().next().unwrap();
        let rules = among.into_rules();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[&id].table, TableId::EgressRule);
    }
}
