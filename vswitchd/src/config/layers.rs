//! Lays file, environment and flags over the defaults, key by key.
//!
//! The defaults, as a TOML tree, say which keys there are and of which type each is. A value
//! that does not fit becomes a problem and its default stays, so that the check goes on and
//! finds the other problems too.

use std::collections::HashMap;
use std::path::Path;

use toml::{Table, Value};

use super::{Problem, RawConfig};

const ENVIRONMENT_PREFIX: &str = "VSWITCHD_";

/// Names with the prefix that are flags of the command line, not keys.
const ENVIRONMENT_OF_FLAGS: [&str; 1] = ["VSWITCHD_CONFIG"];

/// The configuration on its way from text to [`RawConfig`].
pub(super) struct Layers {
    values: Table,
    places: HashMap<String, String>,
    problems: Vec<Problem>,
}

/// All layers in one, where each key came from, and what could not be used.
pub(super) struct Merged {
    pub(super) raw: RawConfig,
    pub(super) places: HashMap<String, String>,
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    /// Starts with the defaults.
    pub(super) fn new() -> Self {
        let values =
            Table::try_from(RawConfig::default()).expect("text, numbers and lists are always TOML");
        Self {
            values,
            places: HashMap::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn add_file(&mut self, path: &Path) {
        let place = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.report(&place, "", &format!("cannot be read: {error}")),
        };
        match text.parse::<Table>() {
            Ok(table) => self.add_table(&place, "", &table),
            Err(error) => self.report(&place, "", error.to_string().trim()),
        }
    }

    fn add_table(&mut self, place: &str, section: &str, table: &Table) {
        for (name, value) in table {
            let key = if section.is_empty() {
                name.clone()
            } else {
                format!("{section}.{name}")
            };
            match (value, self.leaf(&key)) {
                (Value::Table(table), None) if self.is_section(&key) => {
                    self.add_table(place, &key, table);
                }
                (_, None) if self.is_section(&key) => {
                    self.report(place, &key, "is a section, not a value");
                }
                (_, None) => self.report(place, &key, "is not a key"),
                (value, Some(_)) => self.set(place, &key, value.clone()),
            }
        }
    }

    /// Returns the variables that have the prefix but are no key.
    pub(super) fn add_environment(&mut self, environment: &[(String, String)]) -> Vec<String> {
        let keys: HashMap<String, String> = self
            .keys()
            .into_iter()
            .map(|key| (variable_of(&key), key))
            .collect();
        let mut ignored = Vec::new();
        for (variable, text) in environment {
            match keys.get(variable) {
                Some(key) => self.set_text(variable, key, text),
                None if ENVIRONMENT_OF_FLAGS.contains(&variable.as_str()) => {}
                None if variable.starts_with(ENVIRONMENT_PREFIX) => ignored.push(variable.clone()),
                None => {}
            }
        }
        ignored
    }

    pub(super) fn add_overrides(&mut self, overrides: &[(String, String)]) {
        for (key, text) in overrides {
            if self.leaf(key).is_some() {
                self.set_text("command line", key, text);
            } else {
                self.report("command line", key, "is not a key");
            }
        }
    }

    pub(super) fn merge(self) -> Merged {
        let Self {
            values,
            places,
            problems,
        } = self;
        let raw = values
            .try_into()
            .expect("every value has the type of its default");
        Merged {
            raw,
            places,
            problems,
        }
    }

    /// Sets a key from text of the type that its default has.
    fn set_text(&mut self, place: &str, key: &str, text: &str) {
        let text = text.trim();
        let value = match self.leaf(key) {
            Some(Value::Array(_)) => {
                let parts = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
            }
            Some(Value::Integer(_)) => text
                .parse()
                .map_or_else(|_| Value::String(text.to_owned()), Value::Integer),
            Some(Value::Boolean(_)) => text
                .parse()
                .map_or_else(|_| Value::String(text.to_owned()), Value::Boolean),
            _ => Value::String(text.to_owned()),
        };
        self.set(place, key, value);
    }

    fn set(&mut self, place: &str, key: &str, value: Value) {
        let Some(leaf) = self.leaf(key) else { return };
        let expected = match leaf {
            Value::Integer(_) if value.is_integer() => None,
            Value::Boolean(_) if value.is_bool() => None,
            Value::Array(_) if is_list_of_text(&value) => None,
            Value::Integer(_) => Some("a number"),
            Value::Boolean(_) => Some("true or false"),
            Value::Array(_) => Some("a list of texts"),
            // The one key that takes a number as well as a text.
            _ if value.is_str() || (key == "network.mtu" && value.is_integer()) => None,
            _ => Some("a text"),
        };
        if let Some(expected) = expected {
            return self.report(place, key, &format!("must be {expected}"));
        }
        if let Some(leaf) = self.leaf_mut(key) {
            *leaf = value;
            self.places.insert(key.to_owned(), place.to_owned());
        }
    }

    fn report(&mut self, place: &str, key: &str, problem: &str) {
        let (place, key, problem) = (place.to_owned(), key.to_owned(), problem.to_owned());
        self.problems.push(Problem {
            place,
            key,
            problem,
        });
    }

    fn leaf(&self, key: &str) -> Option<&Value> {
        let value = match key.split_once('.') {
            Some((section, name)) => self.values.get(section)?.as_table()?.get(name)?,
            None => self.values.get(key)?,
        };
        (!value.is_table()).then_some(value)
    }

    fn leaf_mut(&mut self, key: &str) -> Option<&mut Value> {
        match key.split_once('.') {
            Some((section, name)) => self.values.get_mut(section)?.as_table_mut()?.get_mut(name),
            None => self.values.get_mut(key),
        }
    }

    fn is_section(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(Value::is_table)
    }

    fn keys(&self) -> Vec<String> {
        let names = |section: &str, value: &Value| match value {
            Value::Table(table) => table
                .keys()
                .map(|name| format!("{section}.{name}"))
                .collect(),
            _ => vec![section.to_owned()],
        };
        self.values
            .iter()
            .flat_map(|(section, value)| names(section, value))
            .collect()
    }
}

fn is_list_of_text(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|items| items.iter().all(Value::is_str))
}

fn variable_of(key: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        key.replace('.', "_").to_uppercase()
    )
}
