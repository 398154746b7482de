//! Reading of policies' JSON, of which every field has to be known.

use serde_json::{Map, Value};

/// Why a part of a policy is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PartError {
    #[error("field {field:?} is not known to this version")]
    UnknownField { field: String },
    #[error("domainNames is not served: no names are resolved")]
    DomainNames,
    #[error("has none of the fields {known}")]
    NoKnownField { known: String },
    #[error("has more than one of the fields {known}")]
    SeveralFields { known: String },
    #[error("field {field:?} is missing")]
    Missing { field: &'static str },
    #[error("is not {expected}")]
    Type { expected: &'static str },
    #[error("{value:?} is none of {known}")]
    UnknownValue { value: String, known: &'static str },
    #[error("{text:?} is not a network like 10.0.0.0/8")]
    Network { text: String },
    #[error("{number} is not in {first} to {last}")]
    Number {
        number: String,
        first: u16,
        last: u16,
    },
    #[error("range ends before it starts: {first} to {last}")]
    EmptyRange { first: u16, last: u16 },
    #[error("{0}")]
    Selector(String),
    #[error("http is not served: it takes a proxy")]
    Http,
    #[error("services is not served: no policy follows a Service's endpoints")]
    Services,
    #[error("{text:?} is no protocol: a name like TCP, or 1 to 255")]
    Protocol { text: String },
    #[error("port {text:?} is not a number, a range like 80:90, or a name")]
    Port { text: String },
    #[error("{what} needs protocol {protocols}")]
    NeedsProtocol {
        what: &'static str,
        protocols: &'static str,
    },
    #[error("{0}")]
    NotServed(&'static str),
}

impl PartError {
    /// A value that is none of those that are known.
    pub(super) fn unknown(value: &Value, known: &'static str) -> Self {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        Self::UnknownValue { value, known }
    }
}

/// Returns the object, if it has no other fields than these.
pub(super) fn object<'a>(
    value: &'a Value,
    known: &[&str],
) -> Result<&'a Map<String, Value>, PartError> {
    let object = value.as_object().ok_or(PartError::Type {
        expected: "an object",
    })?;
    let is_unknown =
        |(field, value): &(&String, &Value)| !value.is_null() && !known.contains(&field.as_str());
    match object.iter().find(is_unknown) {
        Some((field, _)) => Err(PartError::UnknownField {
            field: field.clone(),
        }),
        None => Ok(object),
    }
}

/// Returns the one field that the object has, which must be one of these.
pub(super) fn one_of<'a>(
    value: &'a Value,
    known: &[&'static str],
) -> Result<(&'static str, &'a Value), PartError> {
    let object = object(value, known)?;
    let mut there = known
        .iter()
        .filter_map(|field| Some((*field, object.get(*field)?)))
        .filter(|(_, value)| !value.is_null());
    let names = || known.join(", ");
    let found = there
        .next()
        .ok_or_else(|| PartError::NoKnownField { known: names() })?;
    match there.next() {
        Some(_) => Err(PartError::SeveralFields { known: names() }),
        None => Ok(found),
    }
}

/// Returns the items of a list that must have some.
pub(super) fn items(value: &Value) -> Result<&[Value], PartError> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return Err(PartError::Type {
            expected: "a list with items",
        });
    }
    Ok(items)
}

/// Returns a number that must be between these.
pub(super) fn number(value: &Value, first: u16, last: u16) -> Result<u16, PartError> {
    let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
    let number = number.filter(|number| (first..=last).contains(number));
    number.ok_or_else(|| PartError::Number {
        number: value.to_string(),
        first,
        last,
    })
}

/// Returns a text, if there is one that is not empty.
pub(super) fn optional_text(value: &Value) -> Result<Option<&str>, PartError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        _ => Err(PartError::Type { expected: "a text" }),
    }
}

/// Returns the texts of a list, which may be missing.
pub(super) fn texts(value: &Value) -> Result<Vec<&str>, PartError> {
    let expected = "a list of texts";
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        value => value.as_array().ok_or(PartError::Type { expected })?,
    };
    let texts = list.iter();
    texts
        .map(|text| text.as_str().ok_or(PartError::Type { expected }))
        .collect()
}
