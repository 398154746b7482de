//! Label selectors with the semantics of `metav1.LabelSelector`.
//!
//! A selector is parsed once into sorted requirements; its text is canonical, so that two
//! selectors that say the same share a name. Used by the policy compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// One demand on an object's labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// The key is there and has one of these values.
    In(String, BTreeSet<String>),
    /// The key is missing or has none of these values.
    NotIn(String, BTreeSet<String>),
    /// The key is there.
    Exists(String),
    /// The key is missing.
    DoesNotExist(String),
}

/// A label selector: all requirements hold. Without requirements it matches every object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Selector {
    requirements: BTreeSet<Requirement>,
}

/// Why a requirement means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectorError {
    /// An operator other than In, NotIn, Exists and DoesNotExist.
    #[error("label key {key:?} has the unknown operator {operator:?}")]
    UnknownOperator {
        /// Label key.
        key: String,
        /// Operator as written.
        operator: String,
    },
    /// In and NotIn need values.
    #[error("label key {key:?} has operator {operator} without values")]
    ValuesMissing {
        /// Label key.
        key: String,
        /// Operator as written.
        operator: String,
    },
    /// Exists and DoesNotExist take no values.
    #[error("label key {key:?} has operator {operator} with values")]
    ValuesForbidden {
        /// Label key.
        key: String,
        /// Operator as written.
        operator: String,
    },
}

impl Requirement {
    /// Returns the label key that it speaks of.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::In(key, _)
            | Self::NotIn(key, _)
            | Self::Exists(key)
            | Self::DoesNotExist(key) => key,
        }
    }

    fn parse(written: &LabelSelectorRequirement) -> Result<Self, SelectorError> {
        let key = written.key.clone();
        let operator = written.operator.clone();
        let values: BTreeSet<String> = written.values.iter().flatten().cloned().collect();
        match (operator.as_str(), values.is_empty()) {
            ("In" | "NotIn", true) => Err(SelectorError::ValuesMissing { key, operator }),
            ("Exists" | "DoesNotExist", false) => {
                Err(SelectorError::ValuesForbidden { key, operator })
            }
            ("In", false) => Ok(Self::In(key, values)),
            ("NotIn", false) => Ok(Self::NotIn(key, values)),
            ("Exists", true) => Ok(Self::Exists(key)),
            ("DoesNotExist", true) => Ok(Self::DoesNotExist(key)),
            _ => Err(SelectorError::UnknownOperator { key, operator }),
        }
    }

    /// Returns whether labels satisfy it.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// The first requirement that means nothing.
    pub fn parse(written: &LabelSelector) -> Result<Self, SelectorError> {
        let mut selector = Self::of_labels(written);
        for expression in written.match_expressions.iter().flatten() {
            selector
                .requirements
                .insert(Requirement::parse(expression)?);
        }
        Ok(selector)
    }

    /// Returns a selector of the requirements that mean something: it matches every object
    /// that the written one could be meant to match.
    #[must_use]
    pub fn widest(written: &LabelSelector) -> Self {
        let mut selector = Self::of_labels(written);
        let expressions = written.match_expressions.iter().flatten();
        selector
            .requirements
            .extend(expressions.filter_map(|e| Requirement::parse(e).ok()));
        selector
    }

    fn of_labels(written: &LabelSelector) -> Self {
        let labels = written.match_labels.iter().flatten();
        let one = |(key, value): (&String, &String)| {
            Requirement::In(key.clone(), BTreeSet::from([value.clone()]))
        };
        Self {
            requirements: labels.map(one).collect(),
        }
    }

    /// Returns the requirements.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter()
    }

    /// Returns whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<T: IntoIterator<Item = Requirement>>(requirements: T) -> Self {
        Self {
            requirements: requirements.into_iter().collect(),
        }
    }
}

/// Text inside a name: everything but what labels are made of is escaped, so that no label
/// can forge the text of another selector, and match syntax (`,`, blanks) stays readable.
#[derive(Debug)]
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_./".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

fn write_values(f: &mut fmt::Formatter<'_>, values: &BTreeSet<String>) -> fmt::Result {
    for (index, value) in values.iter().enumerate() {
        write!(f, "{}{}", if index == 0 { "" } else { "|" }, Escaped(value))?;
    }
    Ok(())
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(key, values) => {
                write!(f, "{}=", Escaped(key))?;
                write_values(f, values)
            }
            Self::NotIn(key, values) => {
                write!(f, "{}!=", Escaped(key))?;
                write_values(f, values)
            }
            Self::Exists(key) => write!(f, "{}", Escaped(key)),
            Self::DoesNotExist(key) => write!(f, "!{}", Escaped(key)),
        }
    }
}

/// `*` for everything, else requirements joined by `&`: `role=client&tier!=a|b&!canary`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("*");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if index == 0 { "" } else { "&" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(value: Value) -> LabelSelector {
        serde_json::from_value(value).unwrap()
    }

    fn selector(value: Value) -> Selector {
        Selector::parse(&written(value)).unwrap()
    }

    fn expression(key: &str, operator: &str, values: Value) -> Value {
        json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] })
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn an_empty_value_in_match_labels_needs_the_key_with_an_empty_value() {
        let s = selector(json!({ "matchLabels": { "k": "" } }));
        assert!(s.matches(&labels(&[("k", "")])));
        assert!(!s.matches(&labels(&[("k", "v")])));
        assert!(!s.matches(&labels(&[])));
    }

    #[test]
    fn not_in_and_does_not_exist_match_an_object_without_the_key() {
        assert!(selector(expression("k", "NotIn", json!(["a"]))).matches(&labels(&[])));
        assert!(!selector(expression("k", "NotIn", json!(["a"]))).matches(&labels(&[("k", "a")])));
        assert!(selector(expression("k", "DoesNotExist", json!([]))).matches(&labels(&[])));
        assert!(
            !selector(expression("k", "DoesNotExist", json!([]))).matches(&labels(&[("k", "")]))
        );
    }

    #[test]
    fn in_needs_the_key_and_exists_takes_any_value() {
        let s = selector(expression("k", "In", json!(["a", "b"])));
        assert!(s.matches(&labels(&[("k", "b")])));
        assert!(!s.matches(&labels(&[("k", "c")])));
        assert!(!s.matches(&labels(&[])));
        assert!(selector(expression("k", "Exists", json!(null))).matches(&labels(&[("k", "")])));
        assert!(!selector(expression("k", "Exists", json!(null))).matches(&labels(&[])));
    }

    #[test]
    fn labels_and_expressions_must_all_hold() {
        let s = selector(json!({
            "matchLabels": { "a": "1" },
            "matchExpressions": [{ "key": "b", "operator": "Exists" }]
        }));
        assert!(s.matches(&labels(&[("a", "1"), ("b", "x")])));
        assert!(!s.matches(&labels(&[("a", "1")])));
        assert!(!s.matches(&labels(&[("b", "x")])));
    }

    #[test]
    fn requirements_that_mean_nothing_are_refused() {
        let parse = |value| Selector::parse(&written(value));
        for (operator, values) in [
            ("In", json!([])),
            ("NotIn", json!(null)),
            ("Exists", json!(["a"])),
            ("Gt", json!(["1"])),
        ] {
            assert!(
                parse(expression("k", operator, values)).is_err(),
                "{operator}"
            );
        }
    }

    #[test]
    fn the_widest_reading_keeps_only_what_means_something() {
        let s = Selector::widest(&written(json!({
            "matchLabels": { "a": "1" },
            "matchExpressions": [{ "key": "b", "operator": "Gt", "values": ["1"] }]
        })));
        assert!(s.matches(&labels(&[("a", "1")])));
        assert!(!s.matches(&labels(&[("b", "2")])));
    }

    #[test]
    fn equal_selectors_have_equal_text_and_others_cannot_forge_it() {
        let a = selector(json!({ "matchLabels": { "role": "client", "app": "x" } }));
        let b = selector(json!({
            "matchLabels": { "app": "x" },
            "matchExpressions": [{ "key": "role", "operator": "In", "values": ["client"] }]
        }));
        assert_eq!(a.to_string(), b.to_string());
        assert_eq!(a.to_string(), "app=x&role=client");
        let forged = selector(json!({ "matchLabels": { "app": "x&role=client" } }));
        assert_ne!(forged.to_string(), a.to_string());
        assert_eq!(Selector::default().to_string(), "*");
    }
}
