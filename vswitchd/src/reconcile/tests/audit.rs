//! Policies in audit: nothing of them is in force, all of them is in the program beside.

use std::collections::BTreeSet;

use vswitch_api::Epoch;
use vswitch_datapath::pipeline::{AuditUpdate, Rule};

use super::*;
use crate::reconcile::PolicySince;
use crate::state::{PolicyKey, PolicyMode, PolicyRecord};

/// A pod isolated in both directions, or tried out so.
fn deny(mode: Option<PolicyMode>) -> ClusterChange {
    let ClusterChange::Policy(record) = deny_all() else {
        panic!("it is a policy");
    };
    ClusterChange::Policy(PolicyRecord { mode, ..record })
}

/// A switch of which the program in audit is recorded, too.
struct Audited {
    switch: RecordedModel,
    audit: Option<Program>,
}

impl Audited {
    fn new() -> Self {
        Self {
            switch: two_pods(),
            audit: None,
        }
    }

    /// Brings changes into force; returns what they change in force.
    fn apply(&mut self, changes: Vec<ClusterChange>) -> usize {
        let changes = self.switch.apply(changes).flush();
        match changes.audit {
            AuditUpdate::Nothing => {}
            AuditUpdate::Off => self.audit = None,
            AuditUpdate::Change {
                remove_rules,
                add_rules,
                sets,
            } => self.audit.get_or_insert_default().apply(RuleDelta {
                remove_rules,
                add_rules,
                sets,
            }),
        }
        changes.add_rules.len() + changes.remove_rules.len()
    }
}

/// Rules of policies without the numbers that they have in one program.
fn meaning(program: &Program) -> BTreeSet<String> {
    let of_policies = |rule: &&Rule| rule.origin.kind == "NetworkPolicy";
    let rules = program.rules.values().filter(of_policies);
    rules
        .map(|rule| {
            let (table, priority, origin) = (rule.table, rule.priority, &rule.origin);
            format!(
                "{table} {priority:?} {} {:?} {origin:?}",
                rule.matches, rule.actions
            )
        })
        .collect()
}

#[test]
fn a_policy_in_audit_is_in_the_program_beside_as_it_would_be_in_force() {
    let mut enforced = Audited::new();
    enforced.apply(vec![deny(None)]);
    let wanted = meaning(&enforced.switch.policies);
    assert!(!wanted.is_empty() && enforced.audit.is_none());

    let mut audited = Audited::new();
    let in_force = audited.apply(vec![deny(Some(PolicyMode::Audit))]);
    assert_eq!(in_force, 0);
    let program = audited.audit.as_ref().unwrap();
    assert_eq!(meaning(program), wanted);
    for (name, members) in &enforced.switch.policies.sets {
        let is_of_policies = program.sets.contains_key(name);
        assert!(
            !is_of_policies || program.sets[name] == *members,
            "{name:?}"
        );
    }

    audited.apply(vec![deny(None)]);
    assert_eq!(meaning(&audited.switch.policies), wanted);
    assert!(audited.audit.is_none(), "nothing is in audit any more");
}

#[test]
fn what_changes_meanwhile_changes_the_program_beside() {
    let labels = |text: &str| {
        let ClusterChange::Pod(mut record) = pod("a", &[]) else {
            panic!("it is a pod");
        };
        record.labels.insert("app".to_owned(), text.to_owned());
        ClusterChange::Pod(record)
    };
    let spec = serde_json::json!({ "podSelector": { "matchLabels": { "app": "x" } } });
    let policy = ClusterChange::Policy(PolicyRecord {
        key: key("of-x"),
        spec: serde_json::from_value(spec).unwrap(),
        mode: Some(PolicyMode::Audit),
    });
    let mut audited = Audited::new();
    audited.apply(vec![policy]);
    let rules = |audited: &Audited| audited.audit.as_ref().map(|of| meaning(of).len());
    assert_eq!(rules(&audited), Some(0), "it selects nobody");
    assert_eq!(audited.apply(vec![labels("x")]), 0);
    assert_eq!(rules(&audited), Some(1));
    audited.apply(vec![labels("y")]);
    assert_eq!(rules(&audited), Some(0));
}

#[test]
fn of_each_policy_it_is_known_since_when_it_is_as_it_is() {
    let since = |time| PolicySince {
        time,
        epoch: Epoch(time),
    };
    let mut switch = two_pods();
    let policy = PolicyKey::NetworkPolicy(key("deny"));
    let mut publish = |changes: Vec<ClusterChange>, time| {
        switch.apply(changes).flush();
        switch.model.published(since(time));
        switch.model.policy_times().get(&policy).copied()
    };
    assert_eq!(publish(vec![deny(None)], 1), Some(since(1)));
    assert_eq!(publish(vec![pod("c", &["10.0.9.9"])], 2), Some(since(1)));
    assert_eq!(
        publish(vec![deny(Some(PolicyMode::Audit))], 3),
        Some(since(3))
    );
    assert_eq!(
        publish(vec![deny(Some(PolicyMode::Audit))], 4),
        Some(since(3))
    );
    assert_eq!(publish(vec![deny(None)], 5), Some(since(5)));
    let gone = ClusterChange::PolicyGone(key("deny"));
    assert_eq!(publish(vec![gone], 6), None);
}
