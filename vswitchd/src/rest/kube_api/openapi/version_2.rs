//! The document of version 2, as `gnostic.openapi.v2.Document` in protobuf: what clients before
//! version 3 read. Only the fields that such clients read are written; their numbers are those of
//! gnostic's `OpenAPIv2.proto`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: usize) {
        loop {
            let low = u8::try_from(value & 0x7f).unwrap_or_default();
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    fn bytes(mut self, number: usize, bytes: &[u8]) -> Self {
        self.varint(number << 3 | 2);
        self.varint(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, number: usize, text: &str) -> Self {
        if text.is_empty() {
            return self;
        }
        self.bytes(number, text.as_bytes())
    }

    fn inner(self, number: usize, message: &Self) -> Self {
        self.bytes(number, &message.0)
    }

    /// A name and a value, as gnostic writes each entry of a map.
    fn named(self, number: usize, name: &str, value: &Self) -> Self {
        let entry = Self::default().text(1, name).inner(2, value);
        self.inner(number, &entry)
    }

    /// The `x-…` keys of an object; their values are YAML, and JSON is.
    fn extensions(self, number: usize, object: &Value) -> Self {
        let keys = object.as_object().into_iter().flatten();
        let extensions = keys.filter(|(key, _)| key.starts_with("x-"));
        extensions.fold(self, |message, (key, value)| {
            message.named(number, key, &any(value))
        })
    }
}

/// `Any`: field 2 is YAML.
fn any(value: &Value) -> Message {
    Message::default().text(2, &value.to_string())
}

/// Returns the document.
pub(super) fn document(
    paths: &Map<String, Value>,
    definitions: &BTreeMap<String, Value>,
) -> Vec<u8> {
    let info = Message::default()
        .text(1, "vswitchd")
        .text(2, env!("CARGO_PKG_VERSION"));
    let paths = paths.iter().fold(Message::default(), |all, (path, item)| {
        all.named(2, path, &path_item(item))
    });
    let definitions = definitions
        .iter()
        .fold(Message::default(), |all, (name, definition)| {
            all.named(1, name, &schema(definition))
        });
    let document = Message::default()
        .text(1, "2.0")
        .inner(2, &info)
        .inner(8, &paths)
        .inner(9, &definitions);
    document.0
}

fn path_item(item: &Value) -> Message {
    let verbs = [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (8, "patch"),
    ];
    let present = verbs
        .into_iter()
        .filter(|(_, verb)| item.get(*verb).is_some());
    present.fold(Message::default(), |message, (number, verb)| {
        message.inner(number, &operation(&item[verb]))
    })
}

fn operation(operation: &Value) -> Message {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let message = parameters.fold(Message::default(), |message, parameter| {
        let query = Message::default()
            .text(2, "query")
            .text(4, parameter["name"].as_str().unwrap_or_default())
            .text(6, "string");
        // ParametersItem.parameter, Parameter.non_body_parameter, its query_parameter_sub_schema.
        let not_of_the_body = Message::default().inner(3, &query);
        let parameter = Message::default().inner(2, &not_of_the_body);
        message.inner(8, &Message::default().inner(1, &parameter))
    });
    message.extensions(13, operation)
}

fn schema(value: &Value) -> Message {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let reference = text("$ref").replace("#/components/schemas/", "#/definitions/");
    let mut message = Message::default()
        .text(1, &reference)
        .text(2, text("format"))
        .text(4, text("description"));
    if let Some(default) = value.get("default") {
        message = message.inner(5, &any(default));
    }
    for required in value["required"].as_array().into_iter().flatten() {
        message = message.text(19, required.as_str().unwrap_or_default());
    }
    if let Some(values) = value.get("additionalProperties") {
        message = message.inner(21, &Message::default().inner(1, &schema(values)));
    }
    // Version 2 has no oneOf: what is text or a number is text there.
    let kind = if value.get("oneOf").is_some() {
        "string"
    } else {
        text("type")
    };
    if !kind.is_empty() {
        message = message.inner(22, &Message::default().text(1, kind));
    }
    if let Some(items) = value.get("items") {
        message = message.inner(23, &Message::default().inner(1, &schema(items)));
    }
    if let Some(properties) = value["properties"].as_object() {
        let properties = properties
            .iter()
            .fold(Message::default(), |all, (name, property)| {
                all.named(1, name, &schema(property))
            });
        message = message.inner(25, &properties);
    }
    message.extensions(31, value)
}
