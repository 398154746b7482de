//! Values seen through their types: which fields they have, how two differ, one merged into
//! another, fields taken away.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as Object, Value};

use super::field_set::{FieldSet, Step};
use crate::objects::schema::{List, Map, Relation, Type};

/// How the parts of a value are told apart.
enum Parts<'a> {
    /// It is one value.
    None,
    Fields(&'a Map),
    Elements(&'a List),
}

fn parts<'a>(kind: Option<&'a Type>) -> Parts<'a> {
    match kind.map(Type::resolved) {
        Some(Type::Map(map)) if !map.is_atomic => Parts::Fields(map),
        Some(Type::List(list)) if list.relation != Relation::Atomic => Parts::Elements(list),
        _ => Parts::None,
    }
}

/// Returns what an element of a list is known by.
fn step_of(list: &List, item: &Value) -> Result<Step, String> {
    let Relation::Map(keys) = &list.relation else {
        return match item {
            Value::Array(_) | Value::Object(_) => {
                Err("an element of a set is no plain value".to_owned())
            }
            plain => Ok(Step::Value(plain.to_string())),
        };
    };
    let fields = item.as_object().ok_or("an element is not an object")?;
    let defaults = match list.items.resolved() {
        Type::Map(map) => Some(&map.fields),
        _ => None,
    };
    let mut values = BTreeMap::new();
    for key in keys {
        let default = || defaults?.get(key)?.default.as_ref();
        let value = fields.get(key).or_else(default);
        let value = value.ok_or_else(|| format!("an element has no {key}, which is its key"))?;
        values.insert(key.clone(), value.to_string());
    }
    Ok(Step::Key(values))
}

/// Elements by their steps, in their order; one whose step is taken or cannot be told is known
/// by its place.
fn steps_of(list: &List, items: &[Value]) -> Vec<Step> {
    let mut seen = BTreeSet::new();
    let steps = items.iter().enumerate().map(|(index, item)| {
        let step = step_of(list, item).unwrap_or(Step::Index(index));
        if seen.insert(step.clone()) {
            step
        } else {
            Step::Index(index)
        }
    });
    steps.collect()
}

/// Checks that the lists of a configuration can be merged, and that it has only fields that
/// there are.
///
/// # Errors
/// The path, and what is wrong with it.
pub(super) fn check(kind: &Type, value: &Value, path: &str) -> Result<(), (String, String)> {
    match (parts(Some(kind)), value) {
        (Parts::Fields(map), Value::Object(fields)) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match map.under(name) {
                    Some(kind) => check(kind, value, &path)?,
                    None => return Err((path, "field not declared in schema".to_owned())),
                }
            }
            Ok(())
        }
        (Parts::Elements(list), Value::Array(items)) => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let at = || format!("{path}[{index}]");
                let step = step_of(list, item).map_err(|why| (at(), why))?;
                if seen.contains(&step) {
                    return Err((at(), format!("duplicate entries for key {step}")));
                }
                seen.insert(step);
                check(&list.items, item, &at())?;
            }
            Ok(())
        }
        (Parts::None, _) | (_, Value::Null) => Ok(()),
        (Parts::Fields(_), _) => Err((path.to_owned(), "expected an object".to_owned())),
        (Parts::Elements(_), _) => Err((path.to_owned(), "expected a list".to_owned())),
    }
}

/// Returns the fields that a value sets.
pub(super) fn fields_of(kind: Option<&Type>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match (parts(kind), value) {
        (Parts::Fields(map), Value::Object(fields)) => {
            for (name, value) in fields {
                let mut below = fields_of(map.under(name), value);
                let is_empty = value.as_object().is_some_and(Object::is_empty);
                if value.is_null() || is_empty || !map.fields.contains_key(name) {
                    below.is_member = true;
                }
                set.put(Step::Field(name.clone()), below);
            }
        }
        (Parts::Elements(list), Value::Array(items)) => {
            for (step, item) in steps_of(list, items).into_iter().zip(items) {
                let mut below = fields_of(Some(&list.items), item);
                below.is_member = true;
                set.put(step, below);
            }
        }
        (Parts::None, _) => set.is_member = true,
        _ => {}
    }
    set
}

/// How a value differs from another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Difference {
    fn put(&mut self, step: &Step, below: Self) {
        self.added.put(step.clone(), below.added);
        self.modified.put(step.clone(), below.modified);
        self.removed.put(step.clone(), below.removed);
    }

    /// Returns the fields that have another value than before.
    pub(super) fn set(&self) -> FieldSet {
        self.added.union(&self.modified)
    }
}

/// Compares two values; `None` is none.
pub(super) fn compare(kind: Option<&Type>, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    let is_leaf = match parts(kind) {
        Parts::None => true,
        Parts::Fields(map) => {
            let fields = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
            let (old, new) = (
                fields(old).unwrap_or_default(),
                fields(new).unwrap_or_default(),
            );
            let names = old.keys().chain(new.keys()).collect::<BTreeSet<_>>();
            for name in &names {
                let below = compare(map.under(name), old.get(*name), new.get(*name));
                difference.put(&Step::Field((*name).clone()), below);
            }
            names.is_empty()
        }
        Parts::Elements(list) => {
            let items = |value: Option<&Value>| {
                let items = value.and_then(Value::as_array).cloned().unwrap_or_default();
                let steps = steps_of(list, &items);
                steps.into_iter().zip(items).collect::<BTreeMap<_, _>>()
            };
            let (old, new) = (items(old), items(new));
            let steps = old.keys().chain(new.keys()).collect::<BTreeSet<_>>();
            for step in &steps {
                let below = compare(Some(&list.items), old.get(*step), new.get(*step));
                difference.put(step, below);
            }
            steps.is_empty()
        }
    };
    match (old, new) {
        (None, Some(_)) => difference.added.is_member = true,
        (Some(_), None) => difference.removed.is_member = true,
        (Some(old), Some(new)) if is_leaf && old != new => difference.modified.is_member = true,
        _ => {}
    }
    difference
}

/// Returns the live value with a configuration merged into it.
pub(super) fn merged(kind: Option<&Type>, live: &Value, config: &Value) -> Value {
    match (parts(kind), live, config) {
        (Parts::Fields(map), Value::Object(live), Value::Object(config)) => {
            let mut fields = live.clone();
            for (name, value) in config {
                let old = fields.get(name).unwrap_or(&Value::Null);
                let new = merged(map.under(name), old, value);
                fields.insert(name.clone(), new);
            }
            fields.into()
        }
        (Parts::Elements(list), Value::Array(live), Value::Array(config)) => {
            merged_list(list, live, config).into()
        }
        // A configuration that says nothing of a list or an object leaves it.
        (Parts::Fields(_) | Parts::Elements(_), live, Value::Null) => live.clone(),
        (_, _, config) => config.clone(),
    }
}

/// Elements of the configuration in its order; the others where they stood before those that
/// followed them.
fn merged_list(list: &List, live: &[Value], config: &[Value]) -> Vec<Value> {
    let live_steps = steps_of(list, live);
    let config_steps = steps_of(list, config);
    let by_step: BTreeMap<&Step, &Value> = live_steps.iter().zip(live).collect();
    let named: BTreeSet<&Step> = config_steps.iter().collect();
    let places: BTreeMap<&Step, usize> = live_steps
        .iter()
        .enumerate()
        .map(|(index, step)| (step, index))
        .collect();
    let others = live_steps
        .iter()
        .zip(live)
        .filter(|(step, _)| !named.contains(step));
    let mut others = others.peekable();
    let mut result = Vec::new();
    for (step, item) in config_steps.iter().zip(config) {
        let here = places.get(step);
        let before = |(other, _): &(&Step, &Value)| here.is_some_and(|here| places[other] < *here);
        while let Some((_, other)) = others.next_if(before) {
            result.push(other.clone());
        }
        let old = by_step.get(step).copied().unwrap_or(&Value::Null);
        result.push(merged(Some(&list.items), old, item));
    }
    result.extend(others.map(|(_, other)| other.clone()));
    result
}

/// Returns the value without these fields; `None` if nothing is left of it.
pub(super) fn without(kind: Option<&Type>, value: &Value, fields: &FieldSet) -> Option<Value> {
    match (parts(kind), value) {
        (Parts::Fields(map), Value::Object(object)) if !object.is_empty() => {
            let mut kept = Object::new();
            for (name, value) in object {
                let below = fields.under(&Step::Field(name.clone()));
                let value = match below {
                    below if below.is_member => None,
                    below if below.is_empty() => Some(value.clone()),
                    below => without(map.under(name), value, below),
                };
                if let Some(value) = value {
                    kept.insert(name.clone(), value);
                }
            }
            (!kept.is_empty()).then(|| kept.into())
        }
        (Parts::Elements(list), Value::Array(items)) if !items.is_empty() => {
            let steps = steps_of(list, items);
            let items = steps.iter().zip(items).filter_map(|(step, item)| {
                let below = fields.under(step);
                match below {
                    below if below.is_member => None,
                    below if below.is_empty() => Some(item.clone()),
                    below => without(Some(&list.items), item, below),
                }
            });
            let kept: Vec<Value> = items.collect();
            (!kept.is_empty()).then(|| kept.into())
        }
        _ => Some(value.clone()),
    }
}

/// Returns the set with each named field that something below is a member of: an object is taken
/// away with the last of its fields.
pub(super) fn with_objects(kind: Option<&Type>, set: &FieldSet) -> FieldSet {
    let mut all = FieldSet {
        is_member: set.is_member,
        below: BTreeMap::new(),
    };
    for (step, below) in &set.below {
        let (kind, is_named) = match (parts(kind), step) {
            (Parts::Fields(map), Step::Field(name)) => {
                (map.under(name), map.fields.contains_key(name))
            }
            (Parts::Elements(list), _) => (Some(&list.items), false),
            _ => (None, false),
        };
        let mut below = with_objects(kind, below);
        below.is_member |= is_named;
        all.put(step.clone(), below);
    }
    all
}
