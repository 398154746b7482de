//! metadata, and label selectors.

use serde_json::{Value, json};

use super::super::causes::Causes;
use super::super::{Resource, ResourceInfo, Scope};
use super::fields::items;

const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Names, labels, annotations.
pub(super) fn metadata(info: &ResourceInfo, metadata: &Value, causes: &mut Causes) {
    match metadata["name"].as_str() {
        None | Some("") => {
            causes.required("metadata.name", "name or generateName is required");
        }
        Some(name) => object_name(info.resource, name, causes),
    }
    if info.scope == Scope::Namespaced {
        let namespace = &metadata["namespace"];
        if !is_label_name(namespace.as_str().unwrap_or_default()) {
            causes.invalid("metadata.namespace", namespace, LABEL_NAME);
        }
    }
    labels(&metadata["labels"], "metadata.labels", causes);
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().unwrap_or_default().len();
        // Keys of annotations are compared in lower case.
        qualified_name(&key.to_ascii_lowercase(), "metadata.annotations", causes);
    }
    if size > MAX_ANNOTATIONS_BYTES {
        let message = format!("Too long: may not be more than {MAX_ANNOTATIONS_BYTES} bytes");
        causes.add("FieldValueTooLong", "metadata.annotations", message);
    }
}

const LABEL_NAME: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
    '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SERVICE_NAME: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or \
    '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
    'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
pub(super) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn object_name(resource: Resource, name: &str, causes: &mut Causes) {
    let (is_name, rule) = match resource {
        Resource::Namespace => (is_label_name(name), LABEL_NAME),
        Resource::Service => {
            let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
            (is_label_name(name) && starts, SERVICE_NAME)
        }
        _ => (is_subdomain(name), SUBDOMAIN),
    };
    if !is_name {
        causes.invalid("metadata.name", &json!(name), rule);
    }
}

/// RFC 1123 label: at most 63 of `a-z 0-9 -`, alphanumeric at both ends.
fn is_label_name(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| ok(*b) || *b == b'-')
        && bytes.first().is_some_and(|b| ok(*b))
        && bytes.last().is_some_and(|b| ok(*b))
}

/// RFC 1123 subdomain: labels of any length, 253 in all.
pub(super) fn is_subdomain(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.iter().all(|b| ok(*b) || *b == b'-')
            && bytes.first().is_some_and(|b| ok(*b))
            && bytes.last().is_some_and(|b| ok(*b))
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// Keys and values of labels.
pub(super) fn labels(labels: &Value, field: &str, causes: &mut Causes) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        qualified_name(key, field, causes);
        label_value(value, field, causes);
    }
}

const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
    '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn qualified_name(key: &str, field: &str, causes: &mut Causes) {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix
        && !is_subdomain(prefix)
    {
        causes.invalid(field, &json!(key), format!("prefix part {SUBDOMAIN}"));
    }
    if name.is_empty() {
        causes.invalid(field, &json!(key), "name part must be non-empty");
    } else if name.len() > 63 {
        causes.invalid(
            field,
            &json!(key),
            "name part must be no more than 63 characters",
        );
    }
    if !is_name_part(name) {
        causes.invalid(field, &json!(key), QUALIFIED_NAME);
    }
}

fn label_value(value: &Value, field: &str, causes: &mut Causes) {
    let text = value.as_str().unwrap_or_default();
    if text.len() > 63 {
        causes.invalid(field, value, "must be no more than 63 characters");
    }
    if !text.is_empty() && !is_name_part(text) {
        causes.invalid(field, value, LABEL_VALUE);
    }
}

/// A LabelSelector.
pub(super) fn label_selector(selector: &Value, field: &str, causes: &mut Causes) {
    labels(
        &selector["matchLabels"],
        &format!("{field}.matchLabels"),
        causes,
    );
    let expressions = format!("{field}.matchExpressions");
    for (path, expression) in items(&selector["matchExpressions"], &expressions) {
        let values = &expression["values"];
        let has_values = values.as_array().is_some_and(|values| !values.is_empty());
        let values_path = format!("{path}.values");
        match expression["operator"].as_str() {
            Some("In" | "NotIn") if !has_values => {
                causes.required(
                    &values_path,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            Some("Exists" | "DoesNotExist") if has_values => {
                causes.forbidden(
                    &values_path,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            Some("In" | "NotIn" | "Exists" | "DoesNotExist") => {}
            _ => {
                let operator = &expression["operator"];
                causes.invalid(
                    &format!("{path}.operator"),
                    operator,
                    "not a valid selector operator",
                );
            }
        }
        qualified_name(
            expression["key"].as_str().unwrap_or_default(),
            &format!("{path}.key"),
            causes,
        );
        for (path, value) in items(values, &values_path) {
            label_value(value, &path, causes);
        }
    }
}
