//! Calico's selector language: `role == 'db' && !has(canary) || tier in {'a', 'b'}`.
//!
//! `&&` binds stronger than `||`, `!` strongest. On a missing label every comparison is false but
//! `!=` and `not in`, which are true.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::state::{Escaped, Requirement, Selector};

/// Longest selector, bytes (maxLength of the CRDs).
const MAX_BYTES: usize = 1_024;
/// Most parentheses around a comparison: reading, and comparing, goes as deep.
const MAX_DEPTH: usize = 64;
/// Longest label name, bytes.
const MAX_LABEL_BYTES: usize = 512;

/// Label that everything in a namespace has: the namespace's name.
pub(super) const NAMESPACE: &str = "projectcalico.org/namespace";
/// Label of a pod: the name of its service account.
pub(super) const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
/// Label of a pod: who made it.
pub(super) const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
/// Label of a namespace or service account: its name.
pub(super) const NAME: &str = "projectcalico.org/name";
/// What the labels of a namespace are called on what is in it.
pub(super) const OF_NAMESPACE: &str = "pcns.";
/// What the labels of a service account are called on its pods.
pub(super) const OF_ACCOUNT: &str = "pcsa.";

/// A selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expression {
    All,
    /// What is in no namespace.
    Global,
    Has(String),
    Compare(String, Comparison, String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

/// How a label is compared with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Comparison {
    Is,
    IsNot,
    Contains,
    StartsWith,
    EndsWith,
}

/// A text that is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SelectorSyntaxError {
    #[error("selector is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("selector has more than {MAX_DEPTH} parentheses around each other")]
    TooDeep,
    #[error("selector has {found} at byte {at} instead of {expected}")]
    Unexpected {
        found: String,
        at: usize,
        expected: &'static str,
    },
}

impl Expression {
    /// Reads a selector; nothing means everything.
    pub(super) fn parse(text: &str) -> Result<Self, SelectorSyntaxError> {
        if text.len() > MAX_BYTES {
            return Err(SelectorSyntaxError::TooLong);
        }
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        parser.skip_blanks();
        if parser.rest().is_empty() {
            return Ok(Self::All);
        }
        let expression = parser.any_of()?;
        if !parser.rest().is_empty() {
            return Err(parser.unexpected("&&, || or the end"));
        }
        Ok(expression)
    }

    /// Selects what is in a namespace.
    pub(super) fn in_namespace(name: &str) -> Self {
        Self::Compare(NAMESPACE.to_owned(), Comparison::Is, name.to_owned())
    }

    /// Returns what holds where all of these do.
    pub(super) fn all_of(parts: Vec<Self>) -> Self {
        let mut parts: Vec<Self> = parts
            .into_iter()
            .filter(|part| *part != Self::All)
            .collect();
        match parts.len() {
            0 => Self::All,
            1 => parts.remove(0),
            _ => Self::And(parts),
        }
    }

    /// Returns the same about labels that are called otherwise. `all()` of the namespaces means
    /// whatever has the label `whole`.
    pub(super) fn renamed(self, prefix: &str, whole: &str) -> Self {
        let name = |label: String| format!("{prefix}{label}");
        let each = |parts: Vec<Self>| -> Vec<Self> {
            let parts = parts.into_iter();
            parts.map(|part| part.renamed(prefix, whole)).collect()
        };
        match self {
            Self::All => Self::Has(whole.to_owned()),
            Self::Global => Self::Global,
            Self::Has(label) => Self::Has(name(label)),
            Self::Compare(label, how, text) => Self::Compare(name(label), how, text),
            Self::In(label, values) => Self::In(name(label), values),
            Self::NotIn(label, values) => Self::NotIn(name(label), values),
            Self::Not(part) => Self::Not(Box::new(part.renamed(prefix, whole))),
            Self::And(parts) => Self::And(each(parts)),
            Self::Or(parts) => Self::Or(each(parts)),
        }
    }

    /// Returns whether something with these labels is selected.
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Global => !labels.contains_key(NAMESPACE),
            Self::Has(label) => labels.contains_key(label),
            Self::Compare(label, how, text) => {
                let value = labels.get(label);
                match how {
                    Comparison::Is => value == Some(text),
                    Comparison::IsNot => value != Some(text),
                    Comparison::Contains => value.is_some_and(|v| v.contains(text.as_str())),
                    Comparison::StartsWith => value.is_some_and(|v| v.starts_with(text.as_str())),
                    Comparison::EndsWith => value.is_some_and(|v| v.ends_with(text.as_str())),
                }
            }
            Self::In(label, values) => labels.get(label).is_some_and(|v| values.contains(v)),
            Self::NotIn(label, values) => labels.get(label).is_none_or(|v| !values.contains(v)),
            Self::Not(part) => !part.matches(labels),
            Self::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }

    /// Returns demands that everything selected meets: where to look for it.
    pub(super) fn necessary(&self) -> Selector {
        let mut demands = Vec::new();
        self.demands(&mut demands);
        demands.into_iter().collect()
    }

    fn demands(&self, into: &mut Vec<Requirement>) {
        match self {
            Self::Has(label) => into.push(Requirement::Exists(label.clone())),
            Self::Compare(label, Comparison::Is, text) => {
                into.push(Requirement::In(
                    label.clone(),
                    BTreeSet::from([text.clone()]),
                ));
            }
            Self::Compare(_, Comparison::IsNot, _) => {}
            Self::Compare(label, ..) => into.push(Requirement::Exists(label.clone())),
            Self::In(label, values) => {
                into.push(Requirement::In(label.clone(), values.clone()));
            }
            Self::And(parts) => parts.iter().for_each(|part| part.demands(into)),
            Self::All | Self::Global | Self::NotIn(..) | Self::Not(_) | Self::Or(_) => {}
        }
    }
}

/// Returns what is wrong with a selector of Calico's, if anything is.
#[must_use]
pub fn calico_selector_error(text: &str) -> Option<String> {
    let error = Expression::parse(text).err();
    error.map(|error| error.to_string())
}

/// Canonical, without blanks or quotes: it names address sets.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = |f: &mut fmt::Formatter<'_>, values: &BTreeSet<String>| {
            for (index, value) in values.iter().enumerate() {
                write!(f, "{}{}", if index == 0 { "" } else { "|" }, Escaped(value))?;
            }
            f.write_str("}")
        };
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], sign: &str| {
            f.write_str("(")?;
            for (index, part) in parts.iter().enumerate() {
                write!(f, "{}{part}", if index == 0 { "" } else { sign })?;
            }
            f.write_str(")")
        };
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(label) => write!(f, "has({})", Escaped(label)),
            Self::Compare(label, how, text) => {
                let sign = match how {
                    Comparison::Is => "==",
                    Comparison::IsNot => "!=",
                    Comparison::Contains => ":contains:",
                    Comparison::StartsWith => ":starts:",
                    Comparison::EndsWith => ":ends:",
                };
                write!(f, "{}{sign}{}", Escaped(label), Escaped(text))
            }
            Self::In(label, list) => {
                write!(f, "{}:in{{", Escaped(label))?;
                values(f, list)
            }
            Self::NotIn(label, list) => {
                write!(f, "{}:notin{{", Escaped(label))?;
                values(f, list)
            }
            Self::Not(part) => write!(f, "!{part}"),
            Self::And(parts) => joined(f, parts, "&&"),
            Self::Or(parts) => joined(f, parts, "||"),
        }
    }
}

/// Reads by descent.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Open parentheses.
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// Takes a sign, and the blanks behind it.
    fn takes(&mut self, sign: &str) -> bool {
        let is_there = self.rest().starts_with(sign);
        if is_there {
            self.at += sign.len();
            self.skip_blanks();
        }
        is_there
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), SelectorSyntaxError> {
        if self.takes(sign) {
            Ok(())
        } else {
            Err(self.unexpected(sign))
        }
    }

    fn unexpected(&self, expected: &'static str) -> SelectorSyntaxError {
        let found = self.rest().chars().next();
        SelectorSyntaxError::Unexpected {
            found: found.map_or_else(|| "the end".to_owned(), |found| format!("{found:?}")),
            at: self.at,
            expected,
        }
    }

    fn any_of(&mut self) -> Result<Expression, SelectorSyntaxError> {
        let mut parts = vec![self.all_of()?];
        while self.takes("||") {
            parts.push(self.all_of()?);
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Ok(Expression::Or(parts)),
        }
    }

    fn all_of(&mut self) -> Result<Expression, SelectorSyntaxError> {
        let mut parts = vec![self.operand()?];
        while self.takes("&&") {
            parts.push(self.operand()?);
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Ok(Expression::And(parts)),
        }
    }

    fn operand(&mut self) -> Result<Expression, SelectorSyntaxError> {
        let mut is_negated = false;
        while self.takes("!") {
            is_negated = !is_negated;
        }
        let operand = if self.takes("(") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(SelectorSyntaxError::TooDeep);
            }
            let inner = self.any_of()?;
            self.expect(")")?;
            self.depth -= 1;
            inner
        } else {
            self.comparison()?
        };
        Ok(if is_negated {
            Expression::Not(Box::new(operand))
        } else {
            operand
        })
    }

    fn comparison(&mut self) -> Result<Expression, SelectorSyntaxError> {
        let label = self.label()?;
        if self.rest().starts_with('(') {
            return self.call(&label);
        }
        self.skip_blanks();
        let how = if self.takes("==") {
            Comparison::Is
        } else if self.takes("!=") {
            Comparison::IsNot
        } else {
            return self.worded(label);
        };
        Ok(Expression::Compare(label, how, self.text_value()?))
    }

    /// `has(l)`, `all()`, `global()`.
    fn call(&mut self, function: &str) -> Result<Expression, SelectorSyntaxError> {
        self.expect("(")?;
        let expression = match function {
            "all" => Expression::All,
            "global" => Expression::Global,
            "has" => {
                let label = self.label()?;
                self.skip_blanks();
                Expression::Has(label)
            }
            _ => return Err(self.unexpected("has(, all( or global(")),
        };
        self.expect(")")?;
        Ok(expression)
    }

    /// An operator of letters; in two words or in one.
    fn worded(&mut self, label: String) -> Result<Expression, SelectorSyntaxError> {
        const EXPECTED: &str = "==, !=, in, not in, contains, starts with or ends with";
        let word = self.word();
        let how = match word {
            "contains" => Comparison::Contains,
            "startswith" => Comparison::StartsWith,
            "endswith" => Comparison::EndsWith,
            "starts" | "ends" => {
                if self.word() != "with" {
                    return Err(self.unexpected(EXPECTED));
                }
                if word == "starts" {
                    Comparison::StartsWith
                } else {
                    Comparison::EndsWith
                }
            }
            "in" => return Ok(Expression::In(label, self.values()?)),
            "notin" => return Ok(Expression::NotIn(label, self.values()?)),
            "not" if self.word() == "in" => return Ok(Expression::NotIn(label, self.values()?)),
            _ => return Err(self.unexpected(EXPECTED)),
        };
        Ok(Expression::Compare(label, how, self.text_value()?))
    }

    /// Takes lower-case letters, and the blanks behind them.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_lowercase());
        let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at += word.len();
        self.skip_blanks();
        word
    }

    fn label(&mut self) -> Result<String, SelectorSyntaxError> {
        let rest = self.rest();
        let is_of_label = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let end = rest.find(|c| !is_of_label(c)).unwrap_or(rest.len());
        if end == 0 || end > MAX_LABEL_BYTES {
            return Err(self.unexpected("a label's name"));
        }
        self.at += end;
        Ok(rest.get(..end).unwrap_or_default().to_owned())
    }

    /// A text between quotes of one kind, without escapes.
    fn text_value(&mut self) -> Result<String, SelectorSyntaxError> {
        const EXPECTED: &str = "a text in quotes";
        let quote = self.rest().chars().next().filter(|c| "'\"".contains(*c));
        let quote = quote.ok_or_else(|| self.unexpected(EXPECTED))?;
        let inner = self.rest().get(1..).unwrap_or_default();
        let end = inner.find(quote).ok_or_else(|| self.unexpected(EXPECTED))?;
        self.at += end + 2;
        self.skip_blanks();
        Ok(inner.get(..end).unwrap_or_default().to_owned())
    }

    /// `{'a', 'b'}`; a comma may stand behind the last one.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorSyntaxError> {
        self.expect("{")?;
        let mut values = BTreeSet::new();
        while !self.takes("}") {
            values.insert(self.text_value()?);
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Labels = BTreeMap<String, String>;

    fn labels() -> impl Strategy<Value = Labels> {
        let value = prop::sample::select(vec!["x", "xy", "yx", ""]);
        prop::collection::btree_map(prop::sample::select(vec!["a", "b.c/d", "in"]), value, 0..3)
            .prop_map(|labels| {
                labels
                    .into_iter()
                    .map(|(k, v)| (k.into(), v.into()))
                    .collect()
            })
    }

    /// A selector's text, with what it means, put together side by side.
    #[derive(Clone)]
    struct Sample {
        text: String,
        means: std::sync::Arc<dyn Fn(&Labels) -> bool>,
    }

    impl std::fmt::Debug for Sample {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.text)
        }
    }

    fn sample(text: String, means: impl Fn(&Labels) -> bool + 'static) -> Sample {
        Sample {
            text,
            means: std::sync::Arc::new(means),
        }
    }

    fn comparison() -> BoxedStrategy<Sample> {
        let label = prop::sample::select(vec!["a", "b.c/d", "in"]);
        let value = prop::sample::select(vec!["x", "y", "xy", ""]);
        let blank = prop::sample::select(vec!["", " ", "\t "]);
        (label, value, 0..9, blank)
            .prop_map(|(label, value, operator, blank)| {
                let of = move |labels: &Labels| labels.get(label).cloned();
                match operator {
                    0 => sample(format!("{label}{blank}=={blank}'{value}'"), move |l| {
                        of(l).as_deref() == Some(value)
                    }),
                    1 => sample(format!("{label} !={blank}\"{value}\""), move |l| {
                        of(l).as_deref() != Some(value)
                    }),
                    2 => sample(format!("{label} contains{blank}'{value}'"), move |l| {
                        of(l).is_some_and(|v| v.contains(value))
                    }),
                    3 => sample(format!("{label} starts with '{value}'"), move |l| {
                        of(l).is_some_and(|v| v.starts_with(value))
                    }),
                    4 => sample(format!("{label} endswith '{value}'"), move |l| {
                        of(l).is_some_and(|v| v.ends_with(value))
                    }),
                    5 => sample(format!("{label} in {{'{value}',{blank}\"q\"}}"), move |l| {
                        of(l).as_deref() == Some(value)
                    }),
                    6 => sample(
                        format!("{label} not in{blank}{{'{value}'{blank},}}"),
                        move |l| of(l).as_deref() != Some(value),
                    ),
                    7 => sample(format!("has({blank}{label}{blank})"), move |l| {
                        of(l).is_some()
                    }),
                    _ => sample(format!("all({blank})"), |_| true),
                }
            })
            .boxed()
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        comparison().prop_recursive(4, 12, 3, |inner| {
            let pair = (inner.clone(), inner.clone());
            prop_oneof![
                inner.prop_map(|of| {
                    let means = of.means;
                    sample(format!("! ({})", of.text), move |l| !means(l))
                }),
                pair.clone().prop_map(|(a, b)| {
                    let (left, right) = (a.means, b.means);
                    let text = format!("({}) &&({})", a.text, b.text);
                    sample(text, move |l| left(l) && right(l))
                }),
                pair.prop_map(|(a, b)| {
                    let (left, right) = (a.means, b.means);
                    sample(format!("({} )|| ({})", a.text, b.text), move |l| {
                        left(l) || right(l)
                    })
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_selector_means_what_it_was_put_together_from(
            of in any_sample(),
            labels in prop::collection::vec(labels(), 8),
        ) {
            let parsed = Expression::parse(&of.text).unwrap();
            for labels in labels {
                prop_assert_eq!(parsed.matches(&labels), (of.means)(&labels), "{:?}", labels);
                let necessary = parsed.necessary().matches(&labels);
                prop_assert!(necessary || !parsed.matches(&labels), "{:?}", labels);
            }
        }

        #[test]
        fn no_text_is_too_odd(text in "[ab!()&|='\"{},. \thasinolcte]{0,40}|.{0,20}") {
            let _ = Expression::parse(&text);
        }
    }

    fn matches(text: &str, pairs: &[(&str, &str)]) -> bool {
        let labels = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        Expression::parse(text).unwrap().matches(&labels.collect())
    }

    #[test]
    fn and_binds_stronger_than_or_and_not_strongest() {
        let text = "a == '1' || b == '1' && c == '1'";
        assert!(matches(text, &[("a", "1")]));
        assert!(!matches(text, &[("b", "1")]));
        assert!(matches(text, &[("b", "1"), ("c", "1")]));
        assert!(matches("!a == '1' && has(b)", &[("b", "1")]));
        assert!(!matches("!a == '1'", &[("a", "1")]));
        assert!(matches("!!has(a)", &[("a", "")]));
    }

    #[test]
    fn nothing_means_everything_and_a_missing_label_differs() {
        assert!(matches(" ", &[]));
        assert!(matches("a != 'x'", &[]) && matches("a not in {'x'}", &[]));
        assert!(!matches("a contains ''", &[]) && !matches("a in {}", &[("a", "")]));
    }

    #[test]
    fn errors_say_where_and_what_is_expected() {
        let error = |text: &str| Expression::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("a = 'b'"),
            "selector has '=' at byte 2 instead of ==, !=, in, not in, contains, starts with or ends with"
        );
        assert_eq!(
            error("has(a"),
            "selector has the end at byte 5 instead of )"
        );
        assert_eq!(
            error("a == b"),
            "selector has 'b' at byte 5 instead of a text in quotes"
        );
        assert_eq!(
            error("a == 'b' c"),
            "selector has 'c' at byte 9 instead of &&, || or the end"
        );
        assert_eq!(
            error(&"(".repeat(1_025)),
            "selector is longer than 1024 bytes"
        );
        let deep = |depth| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
        assert!(Expression::parse(&deep(64)).is_ok());
        assert_eq!(
            error(&deep(65)),
            "selector has more than 64 parentheses around each other"
        );
        assert_eq!(
            Expression::parse(&deep(500)),
            Err(SelectorSyntaxError::TooDeep)
        );
    }
}
