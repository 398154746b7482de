//! Changes of labels that would make a selector match.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::state::{Requirement, Selector};

/// One label of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    /// Give the key this value.
    Set {
        /// Label key.
        key: String,
        /// New value.
        value: String,
    },
    /// Remove the key.
    Remove {
        /// Label key.
        key: String,
    },
}

/// Labels that a selector does not match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LabelMiss {
    /// What is wrong, e.g. `lacks label role=db`.
    pub(super) text: String,
    /// What would make the selector match; `None` if it contradicts itself.
    pub(super) changes: Option<Vec<LabelChange>>,
}

/// Returns what is wrong with labels, or `None` if the selector matches them.
pub(super) fn miss(selector: &Selector, labels: &BTreeMap<String, String>) -> Option<LabelMiss> {
    let unmet: Vec<&Requirement> = selector
        .requirements()
        .filter(|requirement| !requirement.matches(labels))
        .collect();
    if unmet.is_empty() {
        return None;
    }
    let complaints: Vec<String> = unmet.iter().map(|r| complaint(r, labels)).collect();
    let keys: BTreeSet<&str> = unmet.iter().map(|r| r.key()).collect();
    let changes = keys.into_iter().map(|key| change(selector, key));
    Some(LabelMiss {
        text: complaints.join(" and "),
        changes: changes.collect(),
    })
}

/// Makes the changes.
pub(super) fn apply(labels: &mut BTreeMap<String, String>, changes: &[LabelChange]) {
    for change in changes {
        match change {
            LabelChange::Set { key, value } => labels.insert(key.clone(), value.clone()),
            LabelChange::Remove { key } => labels.remove(key),
        };
    }
}

fn complaint(unmet: &Requirement, labels: &BTreeMap<String, String>) -> String {
    let key = unmet.key();
    let label = match labels.get(key) {
        Some(value) => format!("{key}={value}"),
        None => key.to_owned(),
    };
    match unmet {
        Requirement::In(_, values) => {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let wanted = format!("{key}={}", values.join("|"));
            if labels.contains_key(key) {
                format!("has label {label}, not {wanted}")
            } else {
                format!("lacks label {wanted}")
            }
        }
        Requirement::Exists(_) => format!("lacks label {key}"),
        Requirement::NotIn(..) | Requirement::DoesNotExist(_) => {
            format!("has label {label}, which is excluded")
        }
    }
}

/// Returns a change of the key that meets everything the selector demands of it.
fn change(selector: &Selector, key: &str) -> Option<LabelChange> {
    let demands: Vec<&Requirement> = selector.requirements().filter(|r| r.key() == key).collect();
    let meets = |value: Option<&str>| {
        let label = value.map(|value| (key.to_owned(), value.to_owned()));
        let labels: BTreeMap<String, String> = label.into_iter().collect();
        demands.iter().all(|demand| demand.matches(&labels))
    };
    if meets(None) {
        return Some(LabelChange::Remove {
            key: key.to_owned(),
        });
    }
    let value = candidates(&demands).into_iter().find(|v| meets(Some(v)))?;
    let key = key.to_owned();
    Some(LabelChange::Set { key, value })
}

/// Returns values of which one meets the demands on a key, if any value does: those that are
/// asked for, then one more made-up value than demands could exclude.
fn candidates(demands: &[&Requirement]) -> Vec<String> {
    let mut asked = Vec::new();
    let mut excluded = 0;
    for demand in demands {
        match demand {
            Requirement::In(_, values) => asked.extend(values.iter().cloned()),
            Requirement::NotIn(_, values) => excluded += values.len(),
            Requirement::Exists(_) | Requirement::DoesNotExist(_) => {}
        }
    }
    asked.push("true".to_owned());
    asked.extend((0..excluded).map(|number| format!("other-{number}")));
    asked
}

impl fmt::Display for LabelChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { key, value } => write!(f, "label {key}={value}"),
            Self::Remove { key } => write!(f, "no label {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn selector(expressions: Value) -> Selector {
        let written = serde_json::from_value(json!({ "matchExpressions": expressions }));
        Selector::parse(&written.unwrap()).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        owned.collect()
    }

    fn on(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({ "key": key, "operator": operator, "values": values })
    }

    /// Checks text and change, and that the change makes the selector match.
    fn check(expressions: Value, have: &[(&str, &str)], text: &str, change: &str) {
        let selector = selector(expressions);
        let mut labels = labels(have);
        let miss = miss(&selector, &labels).unwrap();
        let changes = miss.changes.unwrap();
        let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(miss.text, text);
        assert_eq!(texts.join(", "), change);
        apply(&mut labels, &changes);
        assert!(selector.matches(&labels), "{labels:?}");
    }

    #[test]
    fn a_label_that_is_asked_for_is_set() {
        let role = || json!([on("role", "In", &["db"])]);
        check(role(), &[], "lacks label role=db", "label role=db");
        let text = "has label role=web, not role=db";
        check(role(), &[("role", "web")], text, "label role=db");
        let either = json!([on("role", "In", &["cache", "db"])]);
        let text = "lacks label role=cache|db";
        check(either, &[], text, "label role=cache");
        let any = json!([on("role", "Exists", &[])]);
        check(any, &[], "lacks label role", "label role=true");
    }

    #[test]
    fn a_label_that_is_excluded_is_removed() {
        let text = "has label tier=a, which is excluded";
        let not = json!([on("tier", "NotIn", &["a", "b"])]);
        check(not, &[("tier", "a")], text, "no label tier");
        let none = json!([on("tier", "DoesNotExist", &[])]);
        check(none, &[("tier", "a")], text, "no label tier");
    }

    #[test]
    fn one_change_meets_all_demands_on_its_key() {
        let both = json!([
            on("k", "Exists", &[]),
            on("k", "NotIn", &["true", "other-0"])
        ]);
        check(both, &[], "lacks label k", "label k=other-1");
        let both = json!([on("k", "In", &["a", "b"]), on("k", "NotIn", &["a"])]);
        check(both, &[], "lacks label k=a|b", "label k=b");
    }

    #[test]
    fn every_key_gets_its_change() {
        let two = json!([on("a", "In", &["1"]), on("b", "DoesNotExist", &[])]);
        let text = "lacks label a=1 and has label b=2, which is excluded";
        check(two, &[("b", "2")], text, "label a=1, no label b");
    }

    #[test]
    fn a_selector_that_contradicts_itself_gets_no_change() {
        let never = selector(json!([
            on("k", "Exists", &[]),
            on("k", "DoesNotExist", &[])
        ]));
        assert_eq!(miss(&never, &labels(&[])).unwrap().changes, None);
    }

    #[test]
    fn labels_that_match_miss_nothing() {
        let role = selector(json!([on("role", "In", &["db"])]));
        assert_eq!(miss(&role, &labels(&[("role", "db")])), None);
    }
}
