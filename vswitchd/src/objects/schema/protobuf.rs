//! Objects in Kubernetes' protobuf form, decoded into the API's JSON.
//!
//! The body is `k8s\0` and a message `runtime.Unknown`, which names the kind and holds its
//! message. Fields have numbers there; `protobuf.json` names their properties, and the types of
//! those tell how a value is written. No crate decodes into JSON: Kubernetes' own mapping has
//! fields of inner messages at the outer object, times as text, and numbers or text in one field.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map as Object, Value, json};

use super::types::{Map, Scalar, Type, definition_of};
use crate::objects::{RESOURCES, StatusError};

/// What a field number stands for.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Tag {
    Property(String),
    /// A message whose fields are properties of the outer object.
    Inlined(BTreeMap<String, String>),
}

static TAGS: LazyLock<HashMap<String, BTreeMap<u64, Tag>>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("protobuf.json"))
        .expect("the embedded field numbers are JSON")
});

const MAGIC: &[u8] = b"k8s\0";

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Deepest message: no kind that is served nests deeper.
const MAX_DEPTH: usize = 32;

/// Numbers that Kubernetes writes where there is nothing to say: its types cannot tell zero from
/// absent.
const ZERO_IS_ABSENT: [&str; 10] = [
    "count",
    "failureThreshold",
    "generation",
    "healthCheckNodePort",
    "hostPort",
    "initialDelaySeconds",
    "nodePort",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
];

/// Decodes a body.
///
/// # Errors
/// 400 names what is wrong with it.
pub(crate) fn from_protobuf(body: &[u8]) -> Result<Value, StatusError> {
    decode(body).map_err(|why| {
        StatusError::bad_request(format!("the body is not Kubernetes protobuf: {why}"))
    })
}

fn decode(body: &[u8]) -> Result<Value, String> {
    let message = body
        .strip_prefix(MAGIC)
        .ok_or("it does not begin with its magic number")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in fields(message) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in fields(meta) {
                    match field? {
                        (1, wire) => api_version = wire.text()?,
                        (2, wire) => kind = wire.text()?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, wire) if !wire.text()?.is_empty() => {
                return Err("its content is encoded".to_owned());
            }
            _ => {}
        }
    }
    let known = RESOURCES
        .iter()
        .find(|info| info.kind == kind && info.api_version() == api_version)
        .map(definition_of);
    let name = match known {
        Some(name) => name,
        None if kind == "DeleteOptions" => DELETE_OPTIONS.to_owned(),
        None => {
            return Err(format!(
                "{kind:?} of {api_version:?} is no kind that is served"
            ));
        }
    };
    let mut object = match Type::Named(name).value(Wire::Bytes(raw), 0)? {
        Value::Object(object) => object,
        _ => return Err("it is no object".to_owned()),
    };
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(object.into())
}

/// A value on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => {
                Err("a number stands where text or a message is expected".to_owned())
            }
        }
    }

    fn text(self) -> Result<String, String> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|error| error.to_string())?;
        Ok(text.to_owned())
    }

    fn number(self) -> Result<i64, String> {
        match self {
            // Negative numbers are written as their two's complement.
            Self::Number(number) => Ok(number.cast_signed()),
            Self::Bytes(_) => Err("text stands where a number is expected".to_owned()),
        }
    }
}

/// Takes a varint off the front.
fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("it ends within a number")?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is longer than 64 bits".to_owned())
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let length = usize::try_from(length).map_err(|error| error.to_string())?;
    let (taken, rest) = bytes
        .split_at_checked(length)
        .ok_or("it ends within a field")?;
    *bytes = rest;
    Ok(taken)
}

/// Returns the fields of a message: number and value.
fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>), String>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Wire<'a>), String> {
    let key = varint(rest)?;
    let wire = match key & 7 {
        0 => Wire::Number(varint(rest)?),
        1 => Wire::Bytes(take(rest, 8)?),
        2 => {
            let length = varint(rest)?;
            Wire::Bytes(take(rest, length)?)
        }
        5 => Wire::Bytes(take(rest, 4)?),
        other => return Err(format!("a field has wire type {other}")),
    };
    Ok((key >> 3, wire))
}

impl Type {
    fn value(&self, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it nests deeper than {MAX_DEPTH} messages"));
        }
        match self {
            Self::Scalar(scalar) => scalar.value(wire),
            Self::List(list) => list.items.value(wire, depth + 1),
            Self::Map(_) => Err("a map stands where one value is expected".to_owned()),
            Self::Named(name) => match self.resolved() {
                Self::Map(map) => {
                    let mut object = Object::new();
                    let tags = TAGS
                        .get(name)
                        .ok_or_else(|| format!("{name} has no numbers"))?;
                    for field in fields(wire.bytes()?) {
                        let (number, wire) = field?;
                        match tags.get(&number) {
                            Some(Tag::Property(property)) => {
                                map.put(&mut object, property, wire, depth)?
                            }
                            Some(Tag::Inlined(inner)) => {
                                for field in fields(wire.bytes()?) {
                                    let (number, wire) = field?;
                                    if let Some(property) = inner.get(&number.to_string()) {
                                        map.put(&mut object, property, wire, depth)?;
                                    }
                                }
                            }
                            // Of a later version of the API.
                            None => {}
                        }
                    }
                    Ok(object.into())
                }
                other => other.value(wire, depth),
            },
        }
    }
}

impl Map {
    /// Adds what a field holds to the object.
    fn put(
        &self,
        object: &mut Object<String, Value>,
        property: &str,
        wire: Wire<'_>,
        depth: usize,
    ) -> Result<(), String> {
        let at = |why: String| format!("{property}: {why}");
        let Some(kind) = self.fields.get(property).map(|field| &field.kind) else {
            return Ok(());
        };
        match kind {
            Type::List(list) => {
                let entry = object.entry(property).or_insert_with(|| json!([]));
                let Value::Array(items) = entry else {
                    return Ok(());
                };
                match (&list.items, wire) {
                    // Numbers may come packed.
                    (Type::Scalar(Scalar::Integer), Wire::Bytes(mut packed)) => {
                        while !packed.is_empty() {
                            items.push(json!(varint(&mut packed).map_err(at)?.cast_signed()));
                        }
                    }
                    (kind, wire) => items.push(kind.value(wire, depth + 1).map_err(at)?),
                }
            }
            Type::Map(map) => {
                let kind = map
                    .values
                    .as_ref()
                    .ok_or_else(|| at("no values".to_owned()))?;
                let (mut key, mut value) = (String::new(), Value::Null);
                for field in fields(wire.bytes().map_err(at)?) {
                    match field.map_err(at)? {
                        (1, wire) => key = wire.text().map_err(at)?,
                        (2, wire) => value = kind.value(wire, depth + 1).map_err(at)?,
                        _ => {}
                    }
                }
                if value.is_null() {
                    value = json!("");
                }
                let entry = object.entry(property).or_insert_with(|| json!({}));
                entry[key] = value;
            }
            kind => {
                let value = kind.value(wire, depth + 1).map_err(at)?;
                let is_absent = value.is_null()
                    || value == ""
                    || (value == 0
                        && (ZERO_IS_ABSENT.contains(&property) || property == "targetPort"));
                if !is_absent {
                    object.insert(property.to_owned(), value);
                }
            }
        }
        Ok(())
    }
}

impl Scalar {
    fn value(self, wire: Wire<'_>) -> Result<Value, String> {
        let numbered = |wanted: u64| -> Result<Option<Wire<'_>>, String> {
            let mut found = None;
            for field in fields(wire.bytes()?) {
                let (number, wire) = field?;
                if number == wanted {
                    found = Some(wire);
                }
            }
            Ok(found)
        };
        let number = |wanted| numbered(wanted)?.map_or(Ok(0), Wire::number);
        let text = |wanted| numbered(wanted)?.map_or(Ok(String::new()), Wire::text);
        match self {
            Self::String => Ok(json!(wire.text()?)),
            Self::Integer => Ok(json!(wire.number()?)),
            Self::Boolean => Ok(json!(wire.number()? != 0)),
            // Only kinds of CRDs have such fields, which Kubernetes serves as JSON alone.
            Self::Number => Err("a field of it is served as JSON alone".to_owned()),
            Self::Quantity => Ok(json!(text(1)?)),
            Self::IntOrString if number(1)? == 0 => Ok(json!(number(2)?)),
            Self::IntOrString => Ok(json!(text(3)?)),
            Self::Json => match numbered(1)? {
                Some(raw) => {
                    serde_json::from_slice(raw.bytes()?).map_err(|error| error.to_string())
                }
                None => Ok(Value::Null),
            },
            // Nothing is no time.
            Self::Time | Self::MicroTime if wire.bytes()?.is_empty() => Ok(Value::Null),
            Self::Time => Ok(json!(time(number(1)?, 0)?)),
            Self::MicroTime => Ok(json!(time(number(1)?, number(2)?)?)),
        }
    }
}

fn time(seconds: i64, nanoseconds: i64) -> Result<String, String> {
    let nanoseconds = i32::try_from(nanoseconds).map_err(|error| error.to_string())?;
    let time = Timestamp::new(seconds, nanoseconds).map_err(|error| error.to_string())?;
    Ok(time.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        field.push(u8::try_from(length).unwrap());
        field.extend(bytes);
        field
    }

    fn message(fields: &[Vec<u8>]) -> Vec<u8> {
        fields.concat()
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = message(&[field(1, api_version.as_bytes()), field(2, kind.as_bytes())]);
        [MAGIC, &message(&[field(1, &meta), field(2, raw)])].concat()
    }

    fn refusal(body: &[u8]) -> String {
        from_protobuf(body).unwrap_err().message
    }

    #[test]
    fn a_namespace_as_kubectl_sends_it() {
        let metadata = message(&[
            field(1, b"shop"),
            field(2, b""),
            vec![7 << 3, 0],
            field(8, b""),
            field(11, &message(&[field(1, b"team"), field(2, b"a")])),
        ]);
        let raw = message(&[field(1, &metadata), field(2, b""), field(3, &field(1, b""))]);
        assert_eq!(
            from_protobuf(&body("v1", "Namespace", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "Namespace", "spec": {}, "status": {},
                "metadata": {"name": "shop", "labels": {"team": "a"}}})
        );
    }

    #[test]
    fn numbers_times_and_either_of_two_are_told_apart() {
        let named = message(&[vec![1 << 3, 1], vec![2 << 3, 0], field(3, b"web")]);
        let port = |target: &[u8]| {
            message(&[
                field(1, b"x"),
                vec![3 << 3, 80],
                field(4, target),
                vec![5 << 3, 0],
            ])
        };
        let spec = message(&[
            field(1, &port(&named)),
            field(1, &port(&[1 << 3, 0, 2 << 3, 0])),
        ]);
        let created = field(8, &[1 << 3, 0x80, 0xde, 0xa0, 0xcb, 0x05]);
        let raw = message(&[
            field(1, &message(&[field(1, b"s"), created])),
            field(2, &spec),
        ]);
        assert_eq!(
            from_protobuf(&body("v1", "Service", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "s", "creationTimestamp": "2017-07-14T02:40:00Z"},
                "spec": {"ports": [{"name": "x", "port": 80, "targetPort": "web"}, {"name": "x", "port": 80}]}})
        );
    }

    /// Leaving out a port would open all of them.
    #[test]
    fn a_policys_port_zero_stays_to_be_refused() {
        let port = message(&[field(1, b"TCP"), field(2, &[1 << 3, 0, 2 << 3, 0])]);
        let ingress = field(1, &port);
        let raw = field(2, &message(&[field(1, b""), field(2, &ingress)]));
        let policy = from_protobuf(&body("networking.k8s.io/v1", "NetworkPolicy", &raw)).unwrap();
        assert_eq!(
            policy["spec"],
            json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "TCP", "port": 0}]}]})
        );
    }

    #[test]
    fn what_is_none_is_refused_with_the_field_named() {
        assert!(refusal(b"{}").contains("magic number"));
        assert!(
            refusal(&body("apps/v1", "Deployment", b"")).contains("\"Deployment\" of \"apps/v1\"")
        );
        let cut = body("v1", "Namespace", &[1 << 3 | 2, 200]);
        assert!(
            refusal(&cut).contains("it ends within"),
            "{}",
            refusal(&cut)
        );
        let odd = body("v1", "Namespace", &field(1, &[1 << 3, 7]));
        assert!(
            refusal(&odd).contains("metadata: name: a number stands"),
            "{}",
            refusal(&odd)
        );
        let text = body("v1", "Namespace", &field(1, &field(1, &[0xff])));
        assert!(
            refusal(&text).contains("metadata: name: "),
            "{}",
            refusal(&text)
        );
    }

    proptest! {
        #[test]
        fn no_body_brings_the_decoder_down(raw in prop::collection::vec(any::<u8>(), 0..300)) {
            for info in &RESOURCES {
                let _ = from_protobuf(&body(&info.api_version(), info.kind, &raw));
            }
            let _ = from_protobuf(&[MAGIC, &raw].concat());
        }
    }
}
