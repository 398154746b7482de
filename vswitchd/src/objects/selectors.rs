//! Label and field selectors in the text form of list and watch requests.

use serde_json::Value;

use super::{Selection, StatusError};

/// A parsed [`Selection`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<LabelDemand>,
    fields: Vec<FieldDemand>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelDemand {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldDemand {
    path: &'static [&'static str],
    value: String,
    equal: bool,
}

/// Fields that can be selected by, as the API server has them for these kinds.
const FIELDS: &[(&str, &[&str])] = &[
    ("metadata.name", &["metadata", "name"]),
    ("metadata.namespace", &["metadata", "namespace"]),
    ("spec.nodeName", &["spec", "nodeName"]),
    ("spec.restartPolicy", &["spec", "restartPolicy"]),
    ("spec.schedulerName", &["spec", "schedulerName"]),
    ("spec.serviceAccountName", &["spec", "serviceAccountName"]),
    ("spec.hostNetwork", &["spec", "hostNetwork"]),
    ("spec.unschedulable", &["spec", "unschedulable"]),
    ("spec.clusterIP", &["spec", "clusterIP"]),
    ("spec.type", &["spec", "type"]),
    ("status.phase", &["status", "phase"]),
    ("involvedObject.kind", &["involvedObject", "kind"]),
    ("involvedObject.namespace", &["involvedObject", "namespace"]),
    ("involvedObject.name", &["involvedObject", "name"]),
    ("involvedObject.uid", &["involvedObject", "uid"]),
    (
        "involvedObject.apiVersion",
        &["involvedObject", "apiVersion"],
    ),
    ("regarding.kind", &["involvedObject", "kind"]),
    ("regarding.namespace", &["involvedObject", "namespace"]),
    ("regarding.name", &["involvedObject", "name"]),
    ("regarding.uid", &["involvedObject", "uid"]),
    ("reason", &["reason"]),
    ("type", &["type"]),
    ("source", &["source", "component"]),
    ("reportingComponent", &["reportingComponent"]),
    ("reportingController", &["reportingComponent"]),
    ("status.podIP", &["status", "podIP"]),
    ("status.nominatedNodeName", &["status", "nominatedNodeName"]),
];

impl Selector {
    /// Parses both selectors.
    ///
    /// # Errors
    /// 400 that quotes what cannot be understood.
    pub(super) fn parse(selection: &Selection) -> Result<Self, StatusError> {
        Ok(Self {
            labels: parse_labels(&selection.label_selector)?,
            fields: parse_fields(&selection.field_selector)?,
        })
    }

    /// Returns whether an object is selected.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|demand| demand.holds(labels))
            && self.fields.iter().all(|demand| demand.holds(object))
    }
}

impl LabelDemand {
    fn holds(&self, labels: &Value) -> bool {
        let value = |key: &str| labels.get(key).and_then(Value::as_str);
        match self {
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
            Self::In(key, values) => value(key).is_some_and(|v| values.iter().any(|x| x == v)),
            Self::NotIn(key, values) => value(key).is_none_or(|v| values.iter().all(|x| x != v)),
        }
    }
}

impl FieldDemand {
    fn holds(&self, object: &Value) -> bool {
        let mut found = object;
        for part in self.path {
            found = &found[part];
        }
        let text = match found {
            Value::String(text) => text.clone(),
            Value::Null if self.path.ends_with(&["hostNetwork"]) => "false".to_owned(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        (text == self.value) == self.equal
    }
}

fn parse_labels(text: &str) -> Result<Vec<LabelDemand>, StatusError> {
    let refuse = || {
        StatusError::bad_request(format!(
            "unable to parse requirement: label selector {text:?}"
        ))
    };
    let mut demands = Vec::new();
    for part in split_outside_parentheses(text) {
        let part = part.trim();
        if part.is_empty() {
            if text.trim().is_empty() {
                continue;
            }
            return Err(refuse());
        }
        demands.push(parse_label(part).ok_or_else(refuse)?);
    }
    Ok(demands)
}

/// Splits at commas that are not inside a list of values.
fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0u32);
    for (position, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_label(part: &str) -> Option<LabelDemand> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(LabelDemand::Absent(label_key(key)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(LabelDemand::NotIn(
            label_key(key)?,
            vec![value.trim().to_owned()],
        ));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(LabelDemand::In(
            label_key(key)?,
            vec![value.trim().to_owned()],
        ));
    }
    if let Some((head, rest)) = part.split_once('(') {
        let values = rest.trim().strip_suffix(')')?;
        let values = values
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let mut words = head.split_whitespace();
        let (key, operator) = (words.next()?, words.next()?);
        return match (operator, words.next()) {
            ("in", None) => Some(LabelDemand::In(label_key(key)?, values)),
            ("notin", None) => Some(LabelDemand::NotIn(label_key(key)?, values)),
            _ => None,
        };
    }
    Some(LabelDemand::Exists(label_key(part)?))
}

fn label_key(text: &str) -> Option<String> {
    let key = text.trim();
    let is_key = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    is_key.then(|| key.to_owned())
}

fn parse_fields(text: &str) -> Result<Vec<FieldDemand>, StatusError> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(parse_field).collect()
}

fn parse_field(part: &str) -> Result<FieldDemand, StatusError> {
    let split = part.split_once("!=").map(|pair| (pair, false));
    let split = split.or_else(|| part.split_once("==").map(|pair| (pair, true)));
    let split = split.or_else(|| part.split_once('=').map(|pair| (pair, true)));
    let Some(((name, value), equal)) = split else {
        let message = format!("invalid field selector {part:?}: can't understand");
        return Err(StatusError::bad_request(message));
    };
    let known = FIELDS.iter().find(|(field, _)| *field == name.trim());
    let Some((_, path)) = known else {
        let message = format!("field label not supported: {}", name.trim());
        return Err(StatusError::bad_request(message));
    };
    Ok(FieldDemand {
        path,
        value: value.trim().to_owned(),
        equal,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(labels: &str, fields: &str) -> bool {
        let object = json!({
            "metadata": {"name": "web-1", "labels": {"app": "web", "tier": "", "x.io/y": "z"}},
            "spec": {"nodeName": "node-a"}, "status": {"phase": "Running"}
        });
        let selection = Selection {
            label_selector: labels.to_owned(),
            field_selector: fields.to_owned(),
        };
        Selector::parse(&selection).unwrap().matches(&object)
    }

    #[test]
    fn label_selectors_follow_the_api_server() {
        for yes in [
            "",
            "app=web",
            "app==web",
            "app in (web,db)",
            "app notin (db)",
            "tier",
            "tier=",
            "!role",
            "role!=db",
            "role notin (db)",
            "app=web,x.io/y=z",
            "app in (web) , tier",
        ] {
            assert!(selects(yes, ""), "{yes}");
        }
        for no in [
            "app=db",
            "app!=web",
            "role",
            "!app",
            "role in (db)",
            "app notin (web)",
            "tier=x",
        ] {
            assert!(!selects(no, ""), "{no}");
        }
    }

    #[test]
    fn field_selectors_know_the_usual_fields() {
        assert!(selects(
            "",
            "metadata.name=web-1,status.phase!=Failed,spec.hostNetwork=false"
        ));
        assert!(!selects("", "spec.nodeName=node-b"));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for (labels, fields) in [
            ("a b", ""),
            ("app in web", ""),
            ("app=web,", ""),
            ("=x", ""),
            ("", "spec.x=1"),
            ("", "x"),
        ] {
            let selection = Selection {
                label_selector: labels.to_owned(),
                field_selector: fields.to_owned(),
            };
            assert_eq!(
                Selector::parse(&selection).unwrap_err().code,
                400,
                "{labels} {fields}"
            );
        }
    }
}
