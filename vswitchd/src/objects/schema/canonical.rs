//! The schema: a body goes through the Kubernetes types, which refuse wrong types and drop
//! what they do not know.

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cluster_network_policy::ClusterNetworkPolicy;
use super::types::{Scalar, Type, root};
use crate::objects::{Family, FieldValidation, ResourceInfo, StatusError};
use crate::state::ClusterPolicyKind;

/// Returns the object in the schema's form, and warnings about fields that it does not have.
///
/// # Errors
/// 400 for a value of the wrong type, and for an unknown field if `validation` is strict.
pub(in crate::objects) fn canonical(
    info: &ResourceInfo,
    mut object: Value,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), StatusError> {
    object["kind"] = json!(info.kind);
    object["apiVersion"] = json!(info.api_version());
    let canonical = match info.resource.family() {
        Family::Namespaces => through::<Namespace>(info, &object),
        Family::Pods => through::<Pod>(info, &object),
        Family::Nodes => through::<Node>(info, &object),
        Family::Services => through::<Service>(info, &object),
        Family::ServiceAccounts => through::<ServiceAccount>(info, &object),
        Family::EndpointSlices => through::<EndpointSlice>(info, &object),
        Family::NetworkPolicies => through::<NetworkPolicy>(info, &object),
        Family::ClusterPolicies(ClusterPolicyKind::ClusterNetworkPolicy) => {
            through::<ClusterNetworkPolicy>(info, &object)
        }
        Family::Events => through::<Event>(info, &object),
        Family::ClusterPolicies(_) | Family::Calico | Family::HostEndpoints => {
            through_definition(info, &object)
        }
    }?;
    if let Some(path) = list_for_object(&object, &canonical, "") {
        let kind = info.kind;
        return Err(StatusError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {kind}: {path} is a list, not an object",
            info.version
        )));
    }
    let mut unknown = Vec::new();
    compare(&object, &canonical, "", &mut unknown);
    let unknown: Vec<String> = unknown
        .into_iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    match validation {
        FieldValidation::Strict if !unknown.is_empty() => {
            let kind = info.kind;
            let message = format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {}",
                info.version,
                unknown.join(", ")
            );
            Err(StatusError::bad_request(message))
        }
        FieldValidation::Ignore => Ok((canonical, Vec::new())),
        _ => Ok((canonical, unknown)),
    }
}

fn through<T: DeserializeOwned + Serialize>(
    info: &ResourceInfo,
    object: &Value,
) -> Result<Value, StatusError> {
    let refuse = |error: serde_json::Error| {
        let kind = info.kind;
        StatusError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {kind}: {error}",
            info.version
        ))
    };
    let typed: T = serde_path(object).map_err(refuse)?;
    serde_json::to_value(typed).map_err(refuse)
}

/// As [`through`], by the published definition of the kind; its metadata as Kubernetes has it.
fn through_definition(info: &ResourceInfo, object: &Value) -> Result<Value, StatusError> {
    let refuse = |error: String| {
        let kind = info.kind;
        StatusError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {kind}: {error}",
            info.version
        ))
    };
    let mut canonical = kept(object, root(info), "").map_err(refuse)?;
    let metadata = ObjectMeta::deserialize(&object["metadata"]).or_else(|error| {
        let is_absent = object["metadata"].is_null();
        if is_absent {
            Ok(ObjectMeta::default())
        } else {
            Err(error)
        }
    });
    let metadata = metadata.and_then(serde_json::to_value);
    canonical["metadata"] = metadata.map_err(|error| refuse(error.to_string()))?;
    Ok(canonical)
}

/// Returns a value without the fields that its type does not have.
fn kept(value: &Value, of: &Type, path: &str) -> Result<Value, String> {
    let wrong = |expected: &str| Err(format!("{path} is {value}, not {expected}"));
    match (of.resolved(), value) {
        (_, Value::Null) => Ok(Value::Null),
        (Type::Map(map), Value::Object(fields)) => {
            let known = fields.iter().filter_map(|(name, value)| {
                let of = map.under(name)?;
                Some((name, of, value)).filter(|_| !value.is_null())
            });
            let dot = if path.is_empty() { "" } else { "." };
            let kept = known.map(|(name, of, value)| {
                let value = kept(value, of, &format!("{path}{dot}{name}"))?;
                Ok((name.clone(), value))
            });
            kept.collect::<Result<serde_json::Map<_, _>, _>>()
                .map(Value::Object)
        }
        (Type::List(list), Value::Array(items)) => {
            let items = items.iter().enumerate();
            let kept =
                items.map(|(index, item)| kept(item, &list.items, &format!("{path}[{index}]")));
            kept.collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        (Type::Map(_), _) => wrong("an object"),
        (Type::List(_), _) => wrong("a list"),
        (Type::Scalar(Scalar::Integer), value) if value.as_i64().is_none() => {
            wrong("a whole number")
        }
        (Type::Scalar(Scalar::Number), value) if !value.is_number() => wrong("a number"),
        (Type::Scalar(Scalar::Boolean), value) if !value.is_boolean() => wrong("true or false"),
        (Type::Scalar(Scalar::IntOrString), value) if !value.is_string() && !value.is_number() => {
            wrong("a number or a text")
        }
        (Type::Scalar(Scalar::String), value) if !value.is_string() => wrong("a text"),
        (_, value) => Ok(value.clone()),
    }
}

fn serde_path<T: DeserializeOwned>(object: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(object)
}

/// Returns where a list stands for an object: serde takes its items for the fields in their order.
fn list_for_object(given: &Value, kept: &Value, path: &str) -> Option<String> {
    match (given, kept) {
        (Value::Array(_), Value::Object(_)) => Some(path.to_owned()),
        (Value::Object(given), Value::Object(kept)) => given.iter().find_map(|(key, value)| {
            let dot = if path.is_empty() { "" } else { "." };
            list_for_object(value, kept.get(key)?, &format!("{path}{dot}{key}"))
        }),
        (Value::Array(given), Value::Array(kept)) => {
            let mut items = given.iter().zip(kept).enumerate();
            items.find_map(|(index, (given, kept))| {
                list_for_object(given, kept, &format!("{path}[{index}]"))
            })
        }
        _ => None,
    }
}

/// Collects the paths of fields that are in `given` and not in `kept`. What is empty or null
/// may be dropped without being unknown.
fn compare(given: &Value, kept: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match kept.get(key) {
                    Some(kept) => compare(value, kept, &path, unknown),
                    None if is_empty(value) => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (index, (given, kept)) in given.iter().zip(kept).enumerate() {
                compare(given, kept, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
