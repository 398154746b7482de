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

/// Rules by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleSet {
    rules: BTreeMap<RuleId, Rule>,
}

impl RuleSet {
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
        let id = rule_id(table, priority, &matches, &origin);
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
            rule.id = RuleId(rule.id.0.wrapping_add(1));
        }
        self.rules.insert(rule.id, rule);
    }

    /// Returns the rules by id.
    #[must_use]
    pub fn into_rules(self) -> BTreeMap<RuleId, Rule> {
        self.rules
    }
}

fn rule_id(table: TableId, priority: Priority, matches: &Match, origin: &Origin) -> RuleId {
    // Keys are fixed, so that the same rule has the same id in every run of one build.
    let mut hasher = DefaultHasher::new();
    (table, priority, matches, origin).hash(&mut hasher);
    RuleId(hasher.finish())
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
        rules.insert(rule(u64::MAX, TableId::Admin));
        rules.insert(rule(u64::MAX, TableId::Forward));
        rules.insert(rule(u64::MAX, TableId::Admin));
        let ids: Vec<_> = rules.into_rules().into_keys().collect();
        assert_eq!(ids, [RuleId(0), RuleId(u64::MAX)]);
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
