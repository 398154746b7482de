//! Sets of fields, and their form in `managedFields` (`fieldsV1`).
//!
//! A field is named by the steps that lead to it: `f:NAME` of an object, `k:{"KEY":VALUE}` of a
//! list whose elements have keys, `v:VALUE` of a set, `i:INDEX` of any other list. A set is a
//! tree; `.` in a node says that the field itself is a member, beside what is below it.

use std::collections::BTreeMap;

use serde_json::{Map as Object, Value};

/// A step to a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A field of an object.
    Field(String),
    /// The element of a list that has these values under its keys, as JSON, by name of the key.
    Key(BTreeMap<String, String>),
    /// The element of a set that is this value, as JSON.
    Value(String),
    /// The element of a list at this place.
    Index(usize),
}

/// Deepest field that is decoded: deeper ones are in no kind that is served.
const MAX_DEPTH: usize = 64;

impl Step {
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let pairs = keys
                    .iter()
                    .map(|(key, value)| format!("{}:{value}", quoted(key)));
                format!("k:{{{}}}", pairs.collect::<Vec<_>>().join(","))
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Result<Self, String> {
        let odd = || format!("{text:?} names no field");
        let (kind, rest) = text.split_once(':').ok_or_else(odd)?;
        match kind {
            "f" => Ok(Self::Field(rest.to_owned())),
            "k" => {
                let keys: BTreeMap<String, Value> =
                    serde_json::from_str(rest).map_err(|_| odd())?;
                let keys = keys
                    .into_iter()
                    .map(|(key, value)| (key, value.to_string()));
                Ok(Self::Key(keys.collect()))
            }
            "v" => {
                let value: Value = serde_json::from_str(rest).map_err(|_| odd())?;
                Ok(Self::Value(value.to_string()))
            }
            "i" => Ok(Self::Index(rest.parse().map_err(|_| odd())?)),
            _ => Err(odd()),
        }
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// As the API server writes steps in messages.
impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let pairs = keys.iter().map(|(key, value)| format!("{key}={value}"));
                write!(f, "[{}]", pairs.collect::<Vec<_>>().join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the field that this node stands for is a member.
    pub(super) is_member: bool,
    /// What is below it; no node is empty.
    pub(super) below: BTreeMap<Step, FieldSet>,
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }

    /// Returns the set that has just the field itself.
    pub(super) fn member() -> Self {
        Self {
            is_member: true,
            ..Self::default()
        }
    }

    /// Puts a set below a step.
    pub(super) fn put(&mut self, step: Step, set: Self) {
        if !set.is_empty() {
            let old = self.below.remove(&step).unwrap_or_default();
            self.below.insert(step, old.union(&set));
        }
    }

    /// Returns what is below a step; empty if nothing is.
    pub(super) fn under(&self, step: &Step) -> &Self {
        const NOTHING: &FieldSet = &FieldSet {
            is_member: false,
            below: BTreeMap::new(),
        };
        self.below.get(step).unwrap_or(NOTHING)
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        self.combined(other, |a, b| a || b)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combined(other, |a, b| a && b)
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combined(other, |a, b| a && !b)
    }

    fn combined(&self, other: &Self, rule: fn(bool, bool) -> bool) -> Self {
        let mut set = Self {
            is_member: rule(self.is_member, other.is_member),
            below: BTreeMap::new(),
        };
        let only_theirs = other
            .below
            .keys()
            .filter(|step| !self.below.contains_key(step));
        for step in self.below.keys().chain(only_theirs) {
            let below = self.under(step).combined(other.under(step), rule);
            if !below.is_empty() {
                set.below.insert(step.clone(), below);
            }
        }
        set
    }

    /// Returns the members that have no members below them.
    pub(super) fn leaves(&self) -> Self {
        let below = self.below.iter();
        Self {
            is_member: self.is_member && self.below.is_empty(),
            below: below
                .map(|(step, set)| (step.clone(), set.leaves()))
                .collect(),
        }
    }

    /// Returns the paths of the members as the API server writes them.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, paths: &mut Vec<String>) {
        if self.is_member {
            paths.push(path.to_owned());
        }
        for (step, set) in &self.below {
            set.collect_paths(&format!("{path}{step}"), paths);
        }
    }

    /// Returns the value of `fieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let mut object = Object::new();
        // A leaf is a member by being there.
        if self.is_member && !self.below.is_empty() {
            object.insert(".".to_owned(), Value::Object(Object::new()));
        }
        let below = self.below.iter();
        object.extend(below.map(|(step, set)| (step.encode(), set.encode())));
        Value::Object(object)
    }

    /// Reads the value of `fieldsV1`.
    ///
    /// # Errors
    /// The step that is none.
    pub(super) fn decode(value: &Value) -> Result<Self, String> {
        let mut set = Self::decode_node(value, 0)?;
        set.is_member = false;
        Ok(set)
    }

    fn decode_node(value: &Value, depth: usize) -> Result<Self, String> {
        let object = value.as_object().ok_or("a field is no object")?;
        if depth > MAX_DEPTH {
            return Err(format!("a field is deeper than {MAX_DEPTH} steps"));
        }
        let mut set = Self {
            is_member: object.is_empty(),
            below: BTreeMap::new(),
        };
        for (step, below) in object {
            if step == "." {
                set.is_member = true;
            } else {
                set.put(Step::decode(step)?, Self::decode_node(below, depth + 1)?);
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_are_written_as_the_api_server_writes_them() {
        let value = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"a/b\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}}},
                "f:x": {"i:3": {}}},
        });
        let set = FieldSet::decode(&value).unwrap();
        assert_eq!(set.encode(), value);
        let paths = [
            ".metadata.finalizers[=\"a/b\"]",
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec.ports[port=53,protocol=\"UDP\"]",
            ".spec.ports[port=53,protocol=\"UDP\"].port",
            ".spec.x[3]",
        ];
        assert_eq!(set.paths(), paths);
        assert_eq!(set.leaves().paths().len(), 4);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let mut deep = json!({});
        for _ in 0..100 {
            deep = json!({"f:a": deep});
        }
        for odd in [
            json!([]),
            json!({"a": {}}),
            json!({"x:a": {}}),
            json!({"f:a": 1}),
            json!({"k:[]": {}}),
            json!({"i:-1": {}}),
            json!({"v:": {}}),
            deep,
        ] {
            FieldSet::decode(&odd).unwrap_err();
        }
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        let path = prop::collection::vec(0_u8..3, 1..4);
        prop::collection::vec(path, 0..12).prop_map(|paths| {
            let mut set = FieldSet::default();
            for path in paths {
                let steps = path.iter().rev();
                let node = steps.fold(FieldSet::member(), |below, step| {
                    let mut node = FieldSet::default();
                    node.put(Step::Field(step.to_string()), below);
                    node
                });
                set = set.union(&node);
            }
            set
        })
    }

    proptest! {
        #[test]
        fn sets_obey_the_laws_of_sets(a in any_set(), b in any_set()) {
            let paths = |set: &FieldSet| set.paths().into_iter().collect::<std::collections::BTreeSet<_>>();
            let (pa, pb) = (paths(&a), paths(&b));
            prop_assert_eq!(paths(&a.union(&b)), &pa | &pb);
            prop_assert_eq!(paths(&a.intersection(&b)), &pa & &pb);
            prop_assert_eq!(paths(&a.difference(&b)), &pa - &pb);
            prop_assert_eq!(FieldSet::decode(&a.encode()).unwrap(), a);
        }
    }
}
