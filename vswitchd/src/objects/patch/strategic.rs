//! Strategic merge patches, as the API server applies them
//! (`k8s.io/apimachinery/pkg/util/strategicpatch`): a merge patch whose lists are merged by the
//! keys that Kubernetes' types name, with directives for what a merge cannot say.
//!
//! | directive | where | meaning |
//! |---|---|---|
//! | `$patch: replace` | a map, an element of a list | the patch takes the place of the old map or list |
//! | `$patch: delete` | a map, an element of a list | the map becomes empty; the element of this key goes |
//! | `$retainKeys` | a map | fields that are not in this list go |
//! | `$deleteFromPrimitiveList/FIELD` | a map | these values go from the list |
//! | `$setElementOrder/FIELD` | a map | the order of the list's elements after the patch |

use std::collections::{HashMap, HashSet};

use serde_json::{Map as Object, Value};

use crate::objects::schema::{List, Map, Strategy, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// What is wrong with a patch, and under which field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    path: String,
    why: String,
}

impl Fault {
    fn new(why: impl Into<String>) -> Self {
        let why = why.into();
        Self {
            path: String::new(),
            why,
        }
    }

    fn under(self, field: &str) -> Self {
        let separator = match self.path.as_str() {
            "" => "",
            path if path.starts_with('[') => "",
            _ => ".",
        };
        Self {
            path: format!("{field}{separator}{}", self.path),
            ..self
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.why);
        }
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// Merges a patch into an object of this type.
pub(super) fn merge(kind: &Type, old: &mut Value, patch: &Value) -> Result<(), Fault> {
    let Some(patch) = patch.as_object() else {
        return Ok(());
    };
    match std::mem::take(old) {
        Value::Object(fields) => *old = merged_map(Some(kind), fields, patch)?.into(),
        _ => *old = merged_map(Some(kind), Object::new(), patch)?.into(),
    }
    Ok(())
}

fn map_of(kind: Option<&Type>) -> Option<&Map> {
    match kind?.resolved() {
        Type::Map(map) => Some(map),
        _ => None,
    }
}

fn list_of(kind: Option<&Type>) -> Option<&List> {
    match kind?.resolved() {
        Type::List(list) => Some(list),
        _ => None,
    }
}

fn merged_map(
    kind: Option<&Type>,
    mut fields: Object<String, Value>,
    patch: &Object<String, Value>,
) -> Result<Object<String, Value>, Fault> {
    match patch.get(PATCH) {
        None => {}
        Some(directive) if directive == "replace" => return Ok(plain_map(patch)),
        Some(directive) if directive == "delete" => return Ok(Object::new()),
        Some(other) => return Err(Fault::new(format!("unknown patch type: {other}")).under(PATCH)),
    }
    let map = map_of(kind);
    let under = |field: &str| map.and_then(|map| map.under(field));
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        retain_keys(&mut fields, retained, patch)?;
    }
    let mut ordered = HashSet::new();
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix(ELEMENT_ORDER) {
            let list = list_of(under(field));
            order_list(list, &mut fields, field, order, patch.get(field))
                .map_err(|fault| fault.under(field))?;
            ordered.insert(field);
        }
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM_LIST) {
            let doomed = elements(value).map_err(|fault| fault.under(key))?;
            if let Some(list) = fields.get_mut(field).and_then(Value::as_array_mut) {
                let doomed: HashSet<String> = doomed.iter().map(ToString::to_string).collect();
                list.retain(|value| !doomed.contains(&value.to_string()));
            }
        } else if key.starts_with(ELEMENT_ORDER) || key == RETAIN_KEYS || ordered.contains(&**key) {
            // Done above.
        } else if value.is_null() {
            fields.remove(key);
        } else {
            let old = fields.remove(key);
            let new = merged(under(key), old, value).map_err(|fault| fault.under(key))?;
            fields.insert(key.clone(), new);
        }
    }
    Ok(fields)
}

fn merged(kind: Option<&Type>, old: Option<Value>, patch: &Value) -> Result<Value, Fault> {
    match (old, patch) {
        (Some(Value::Object(old)), Value::Object(patch)) => {
            Ok(merged_map(kind, old, patch)?.into())
        }
        (Some(Value::Array(old)), Value::Array(patch)) => {
            Ok(merged_list(list_of(kind), old, patch)?.into())
        }
        // Nothing to merge with.
        (_, patch) => Ok(plain(patch)),
    }
}

/// The fields of a patch that are to be taken as they are: without directives and nulls.
fn plain_map(patch: &Object<String, Value>) -> Object<String, Value> {
    let fields = patch.iter().filter(|(key, value)| {
        let is_directive = key.as_str() == PATCH
            || key.as_str() == RETAIN_KEYS
            || key.starts_with(DELETE_FROM_LIST)
            || key.starts_with(ELEMENT_ORDER);
        !is_directive && !value.is_null()
    });
    fields
        .map(|(key, value)| (key.clone(), plain(value)))
        .collect()
}

fn plain(patch: &Value) -> Value {
    match patch {
        Value::Object(patch) if patch.get(PATCH).is_some_and(|how| how == "delete") => {
            Value::Object(Object::new())
        }
        Value::Object(patch) => plain_map(patch).into(),
        Value::Array(items) => {
            let items = items.iter().filter(|item| !is_directive(item));
            items.map(plain).collect()
        }
        other => other.clone(),
    }
}

/// An element that says something about its list, and is none of it.
fn is_directive(item: &Value) -> bool {
    item.get(PATCH).is_some()
}

fn retain_keys(
    fields: &mut Object<String, Value>,
    retained: &Value,
    patch: &Object<String, Value>,
) -> Result<(), Fault> {
    let retained = elements(retained).map_err(|fault| fault.under(RETAIN_KEYS))?;
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let is_forgotten = |(key, value): &(&String, &Value)| {
        !key.starts_with('$') && !value.is_null() && !retained.contains(key.as_str())
    };
    if let Some((field, _)) = patch.iter().find(is_forgotten) {
        let why = format!("invalid patch format of retainKeys: {field} is set and not retained");
        return Err(Fault::new(why).under(RETAIN_KEYS));
    }
    fields.retain(|key, _| retained.contains(key.as_str()));
    Ok(())
}

fn elements(value: &Value) -> Result<&[Value], Fault> {
    let list = value.as_array().map(Vec::as_slice);
    list.ok_or_else(|| Fault::new("must be a list"))
}

/// Merges the patch's list, if it has one, and puts the elements into the order it asks for.
fn order_list(
    list: Option<&List>,
    fields: &mut Object<String, Value>,
    field: &str,
    order: &Value,
    patch: Option<&Value>,
) -> Result<(), Fault> {
    let order = elements(order).map_err(|fault| fault.under(ELEMENT_ORDER))?;
    let old = match fields.get(field) {
        Some(Value::Array(old)) => Some(old.clone()),
        _ => None,
    };
    let patch = patch.filter(|patch| !patch.is_null());
    let patch = patch.map(elements).transpose()?;
    let merged = match (&old, patch) {
        (None, None) => return Ok(()),
        (Some(old), None) => old.clone(),
        (None, Some(patch)) => merged_list(list, Vec::new(), patch)?,
        (Some(old), Some(patch)) => merged_list(list, old.clone(), patch)?,
    };
    let key = match list.map(|list| &list.strategy) {
        Some(Strategy::MergeBy(key)) => Some(key.as_str()),
        _ => None,
    };
    if let Some(patch) = patch {
        let ordered: HashSet<String> = order.iter().filter_map(|item| name_of(key, item)).collect();
        let stray = patch.iter().filter(|item| !is_directive(item));
        let mut stray = stray.filter_map(|item| name_of(key, item));
        if let Some(name) = stray.find(|name| !ordered.contains(name)) {
            let why = format!("the order does not name the element {name} of the patch");
            return Err(Fault::new(why).under(ELEMENT_ORDER));
        }
    }
    let new = in_order(key, merged, order, old.as_deref().unwrap_or_default());
    fields.insert(field.to_owned(), new.into());
    Ok(())
}

/// What an element is known by: its merge key, or itself.
fn name_of(key: Option<&str>, item: &Value) -> Option<String> {
    match key {
        Some(key) => item.get(key).map(ToString::to_string),
        None => Some(item.to_string()),
    }
}

/// Elements that `order` has come in its order; the others stay in front of those that followed
/// them in `old`.
fn in_order(key: Option<&str>, items: Vec<Value>, order: &[Value], old: &[Value]) -> Vec<Value> {
    let positions = |list: &[Value]| {
        let mut positions = HashMap::new();
        for (index, item) in list.iter().enumerate() {
            if let Some(name) = name_of(key, item) {
                positions.entry(name).or_insert(index);
            }
        }
        positions
    };
    let (order, old) = (positions(order), positions(old));
    let place = |places: &HashMap<String, usize>, item: &Value| {
        name_of(key, item).and_then(|name| places.get(&name).copied())
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = items
        .into_iter()
        .partition(|item| place(&order, item).is_some());
    named.sort_by_key(|item| place(&order, item));
    others.sort_by_key(|item| place(&old, item).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let here = place(&old, &item);
        let before =
            |other: &Value| matches!((place(&old, other), here), (Some(a), Some(b)) if a < b);
        while let Some(other) = others.next_if(before) {
            result.push(other);
        }
        result.push(item);
    }
    result.extend(others);
    result
}

fn merged_list(list: Option<&List>, old: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>, Fault> {
    let (list, key) = match list.map(|list| (list, &list.strategy)) {
        Some((_, Strategy::MergeScalars)) => return Ok(merged_scalars(old, patch)),
        Some((list, Strategy::MergeBy(key))) => (list, key),
        _ => return replaced(patch),
    };
    let mut list_is_replaced = false;
    let mut doomed = HashSet::new();
    for (index, item) in patch.iter().enumerate() {
        let Some(directive) = item.get(PATCH) else {
            continue;
        };
        let at = |fault: Fault| fault.under(&format!("[{index}]"));
        match directive.as_str() {
            Some("replace") => list_is_replaced = true,
            Some("delete") => {
                doomed.insert(key_of(key, item).map_err(at)?);
            }
            Some("merge") => {
                let why = "merging lists cannot be specified in the patch";
                return Err(at(Fault::new(why).under(PATCH)));
            }
            _ => {
                return Err(at(
                    Fault::new(format!("unknown patch type: {directive}")).under(PATCH)
                ));
            }
        }
    }
    let mut result = old;
    if list_is_replaced {
        result.clear();
    }
    result.retain(|item| name_of(Some(key), item).is_none_or(|name| !doomed.contains(&name)));
    let mut places: HashMap<String, usize> = HashMap::new();
    for (index, item) in result.iter().enumerate() {
        if let Some(name) = name_of(Some(key), item) {
            places.entry(name).or_insert(index);
        }
    }
    let old_order = result.clone();
    for (index, item) in patch.iter().enumerate() {
        if is_directive(item) {
            continue;
        }
        let at = |fault: Fault| fault.under(&format!("[{index}]"));
        let name = key_of(key, item).map_err(at)?;
        match places.get(&name) {
            Some(&place) => {
                let merged = merged(Some(&list.items), Some(result[place].take()), item);
                result[place] = merged.map_err(at)?;
            }
            None => {
                places.insert(name, result.len());
                result.push(plain(item));
            }
        }
    }
    let order: Vec<Value> = patch
        .iter()
        .filter(|item| !is_directive(item))
        .cloned()
        .collect();
    Ok(in_order(Some(key), result, &order, &old_order))
}

fn key_of(key: &str, item: &Value) -> Result<String, Fault> {
    let name = name_of(Some(key), item);
    name.ok_or_else(|| Fault::new(format!("the element has no merge key {key}")))
}

/// A list without a merge key is replaced as a whole; only that may be said of it.
fn replaced(patch: &[Value]) -> Result<Vec<Value>, Fault> {
    let odd = |item: &Value| item.get(PATCH).is_some_and(|how| how != "replace");
    if let Some(index) = patch.iter().position(odd) {
        let why = "the list has no merge key and is replaced as a whole";
        return Err(Fault::new(why).under(PATCH).under(&format!("[{index}]")));
    }
    let items = patch.iter().filter(|item| !is_directive(item));
    Ok(items.map(plain).collect())
}

fn merged_scalars(old: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let mut seen = HashSet::new();
    let mut both = old.clone();
    both.extend(patch.iter().cloned());
    both.retain(|value| seen.insert(value.to_string()));
    in_order(None, both, patch, &old)
}
