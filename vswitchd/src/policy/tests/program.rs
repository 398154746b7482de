//! What is installed, as a reader of the compiler's changes sees it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use vswitch_datapath::flow::SetName;
use vswitch_datapath::pipeline::{Rule, RuleId, SetUpdate};

use crate::policy::PolicyProblem;
use crate::rules::RuleDelta;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Program {
    pub(crate) rules: BTreeMap<RuleId, Rule>,
    pub(crate) sets: BTreeMap<SetName, BTreeSet<IpNet>>,
    pub(crate) problems: Vec<PolicyProblem>,
}

impl Program {
    pub(crate) fn apply(&mut self, delta: RuleDelta) {
        for id in delta.remove_rules {
            assert!(self.rules.remove(&id).is_some(), "{id:?} was not there");
        }
        for rule in delta.add_rules {
            self.rules.insert(rule.id, rule);
        }
        for (name, update) in delta.sets {
            self.update(name, update);
        }
    }

    fn update(&mut self, name: SetName, update: SetUpdate) {
        match update {
            SetUpdate::Delete => assert!(self.sets.remove(&name).is_some(), "{name:?}"),
            SetUpdate::Replace(members) => {
                self.sets.insert(name, members.into_iter().collect());
            }
            SetUpdate::Add(members) => {
                let set = self.sets.get_mut(&name).expect("a set that was made");
                for net in members {
                    assert!(set.insert(net), "{net} was in {name:?} already");
                }
            }
            SetUpdate::Remove(members) => {
                let set = self.sets.get_mut(&name).expect("a set that was made");
                for net in members {
                    assert!(set.remove(&net), "{net} was not in {name:?}");
                }
            }
        }
    }
}
