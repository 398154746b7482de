//! Net changes of a round: rules and set members that came and went. One that came back the same
//! is no change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use vswitch_datapath::flow::SetName;
use vswitch_datapath::pipeline::{Rule, RuleId, SetUpdate};

/// What turns the rules and sets that are installed into those that ought to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleDelta {
    /// Rules that are gone.
    pub remove_rules: Vec<RuleId>,
    /// Rules that are new, or differ under the same id.
    pub add_rules: Vec<Rule>,
    /// Sets that are new, gone or have other members, by name.
    pub sets: Vec<(SetName, SetUpdate)>,
}

/// The changes of one set.
#[derive(Debug, Default)]
struct SetChange {
    /// It was not there before the round, or was dropped in it: only what came after counts.
    is_fresh: bool,
    members: BTreeMap<IpNet, i32>,
}

/// Collects the changes of a round.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Ids in use, before and after.
    ids: BTreeSet<RuleId>,
    removed: BTreeMap<RuleId, Rule>,
    added: BTreeMap<RuleId, Rule>,
    /// Sets that are there now.
    live: BTreeSet<SetName>,
    /// Sets touched in this round, with whether they were there before it.
    changes: HashMap<SetName, SetChange>,
    existed: HashMap<SetName, bool>,
}

impl Ledger {
    /// Adds a rule. If its id is taken by another rule, it gets the next free one: a collision
    /// of hashes must not replace a rule. The caller keeps the rule as it is afterwards.
    pub fn add_rule(&mut self, rule: &mut Rule) {
        while !self.ids.insert(rule.id) {
            rule.id = super::rule_set::next_id(rule.id);
        }
        if self.removed.get(&rule.id) == Some(rule) {
            self.removed.remove(&rule.id);
        } else {
            self.added.insert(rule.id, rule.clone());
        }
    }

    /// Puts rules in the place of others; the caller keeps what `rules` holds afterwards.
    pub fn replace_rules(&mut self, rules: &mut Vec<Rule>, with: Vec<Rule>) {
        rules.iter().for_each(|rule| self.remove_rule(rule));
        *rules = with;
        rules.iter_mut().for_each(|rule| self.add_rule(rule));
    }

    /// Removes a rule that was added.
    pub fn remove_rule(&mut self, rule: &Rule) {
        self.ids.remove(&rule.id);
        // What this round added was never installed; what it replaced still is.
        if self.added.remove(&rule.id).is_none() {
            self.removed.insert(rule.id, rule.clone());
        }
    }

    fn touch(&mut self, name: &SetName) -> &mut SetChange {
        let Self {
            live,
            changes,
            existed,
            ..
        } = self;
        existed
            .entry(name.clone())
            .or_insert_with(|| live.contains(name));
        changes.entry(name.clone()).or_default()
    }

    /// Creates a set without members.
    pub fn create_set(&mut self, name: &SetName) {
        self.touch(name).is_fresh = true;
        self.live.insert(name.clone());
    }

    /// Drops a set with all its members.
    pub fn drop_set(&mut self, name: &SetName) {
        self.touch(name).members.clear();
        self.live.remove(name);
    }

    /// Adds a member to a set; what is added twice has to be removed twice.
    pub fn add_member(&mut self, name: &SetName, net: IpNet) {
        *self.touch(name).members.entry(net).or_default() += 1;
    }

    /// Removes a member from a set.
    pub fn remove_member(&mut self, name: &SetName, net: IpNet) {
        *self.touch(name).members.entry(net).or_default() -= 1;
    }

    /// Returns the changes since the last call.
    #[must_use]
    pub fn take(&mut self) -> RuleDelta {
        let added = std::mem::take(&mut self.added);
        let removed = std::mem::take(&mut self.removed).into_keys();
        let mut sets = Vec::new();
        let existed = std::mem::take(&mut self.existed);
        for (name, change) in std::mem::take(&mut self.changes) {
            let before = existed.get(&name).copied().unwrap_or_default();
            let after = self.live.contains(&name);
            set_updates(&name, change, before, after, &mut sets);
        }
        sets.sort_by(|(a, _), (b, _)| a.cmp(b));
        RuleDelta {
            remove_rules: removed.filter(|id| !added.contains_key(id)).collect(),
            add_rules: added.into_values().collect(),
            sets,
        }
    }
}

fn set_updates(
    name: &SetName,
    change: SetChange,
    before: bool,
    after: bool,
    into: &mut Vec<(SetName, SetUpdate)>,
) {
    let with = |wanted: fn(i32) -> bool| -> Vec<IpNet> {
        let members = change.members.iter().filter(|(_, sum)| wanted(**sum));
        members.map(|(net, _)| *net).collect()
    };
    let came = with(|sum| sum > 0);
    match (before, after) {
        (true, false) => into.push((name.clone(), SetUpdate::Delete)),
        (false, false) => {}
        (_, true) if change.is_fresh => into.push((name.clone(), SetUpdate::Replace(came))),
        (_, true) => {
            let went = with(|sum| sum < 0);
            if !went.is_empty() {
                into.push((name.clone(), SetUpdate::Remove(went)));
            }
            if !came.is_empty() {
                into.push((name.clone(), SetUpdate::Add(came)));
            }
        }
    }
}
