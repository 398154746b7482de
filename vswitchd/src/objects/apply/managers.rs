//! The entries of `metadata.managedFields`: a manager, what it did, and the fields it set.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::field_set::FieldSet;

/// Who writes, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::objects) struct Writer {
    /// fieldManager, or the program of the user agent.
    pub(in crate::objects) manager: String,
    /// Whether it applies a configuration.
    pub(in crate::objects) applies: bool,
    /// Version of the configuration or object that it wrote.
    pub(in crate::objects) api_version: String,
    /// Whether it wrote to `/status`.
    pub(in crate::objects) is_status: bool,
}

impl Writer {
    const fn operation(&self) -> &'static str {
        if self.applies { "Apply" } else { "Update" }
    }

    /// As conflicts name it.
    pub(super) fn told(&self, since: &str) -> String {
        let mut text = format!("{:?}", self.manager);
        if self.is_status {
            text.push_str(" with subresource \"status\"");
        }
        if !self.applies {
            text = format!("{text} using {}", self.api_version);
            if !since.is_empty() {
                text = format!("{text} at {since}");
            }
        }
        text
    }
}

/// What a manager set, and when it last did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Managed {
    pub(super) fields: FieldSet,
    /// RFC 3339; empty if nobody knows.
    pub(super) time: String,
}

/// The managers of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Managers(pub(super) BTreeMap<Writer, Managed>);

/// Most managers that do not apply; of more, the oldest become one.
const MAX_UPDATERS: usize = 10;

/// Whose fields those are that the oldest managers set.
const ANCIENT: &str = "ancient-changes";

impl Managers {
    /// Reads entries.
    ///
    /// # Errors
    /// What is wrong with one.
    pub(super) fn decode(entries: &Value) -> Result<Self, String> {
        let list = match entries {
            Value::Null => &[][..],
            Value::Array(list) => list,
            _ => return Err("not a list".to_owned()),
        };
        let mut managers = BTreeMap::<Writer, Managed>::new();
        for entry in list {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            let applies = match text("operation").as_str() {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            if text("fieldsType") != "FieldsV1" {
                return Err(format!("invalid fieldsType {:?}", text("fieldsType")));
            }
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            let is_status = match text("subresource").as_str() {
                "" => false,
                "status" => true,
                other => return Err(format!("invalid subresource {other:?}")),
            };
            let writer = Writer {
                manager: text("manager"),
                applies,
                api_version,
                is_status,
            };
            let fields = match &entry["fieldsV1"] {
                Value::Null => FieldSet::default(),
                fields => FieldSet::decode(fields)?,
            };
            let managed = managers.entry(writer).or_default();
            managed.fields = managed.fields.union(&fields);
            managed.time = text("time");
        }
        Ok(Self(managers))
    }

    /// Returns the entries: who applies first, then by time and name.
    pub(super) fn encode(&self) -> Value {
        let mut managers: Vec<_> = self.0.iter().collect();
        managers.sort_by(|(a, of_a), (b, of_b)| {
            let order = |writer: &Writer, managed: &Managed| {
                (!writer.applies, managed.time.clone(), writer.clone())
            };
            order(a, of_a).cmp(&order(b, of_b))
        });
        let entries = managers.into_iter().map(|(writer, managed)| {
            let mut entry = json!({
                "manager": writer.manager, "operation": writer.operation(),
                "apiVersion": writer.api_version, "fieldsType": "FieldsV1",
                "fieldsV1": managed.fields.encode(),
            });
            if !managed.time.is_empty() {
                entry["time"] = json!(managed.time);
            }
            if writer.is_status {
                entry["subresource"] = json!("status");
            }
            entry
        });
        entries.collect()
    }

    /// Forgets who set nothing, and joins the oldest updaters when there are too many.
    pub(super) fn tidied(mut self) -> Self {
        self.0.retain(|_, managed| !managed.fields.is_empty());
        let updaters = self.0.iter().filter(|(writer, _)| !writer.applies);
        let mut updaters: Vec<(String, Writer)> = updaters
            .map(|(writer, managed)| (managed.time.clone(), writer.clone()))
            .collect();
        if updaters.len() <= MAX_UPDATERS {
            return self;
        }
        updaters.sort();
        let surplus = updaters.len() - MAX_UPDATERS;
        for (time, writer) in updaters.into_iter().take(surplus + 1) {
            let Some(old) = self.0.remove(&writer) else {
                continue;
            };
            let ancient = Writer {
                manager: ANCIENT.to_owned(),
                is_status: false,
                ..writer
            };
            let joined = self.0.entry(ancient).or_default();
            joined.fields = joined.fields.union(&old.fields);
            joined.time = time;
        }
        self
    }
}
