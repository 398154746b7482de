//! From a request's body to the object that is stored: schema, metadata, defaults, validation.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::causes::Causes;
use super::validate;
use super::{
    Family, Resource, ResourceInfo, Scope, StatusError, WriteOptions, cluster_policy, defaults,
    schema, services,
};

/// Largest object, bytes of JSON: etcd's limit, which the API server has as well.
const MAX_OBJECT_BYTES: usize = 1_572_864;

/// Returns the time as metadata has it: RFC 3339, whole seconds.
#[must_use]
pub fn now() -> String {
    timestamp(crate::clock::unix_seconds())
}

/// Returns a time in seconds since 1970 as metadata has it: RFC 3339, UTC.
#[must_use]
pub fn timestamp(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_secs(seconds));
    time.unwrap_or(Timestamp::MAX).to_string()
}

/// Checks and completes an object to be created; returns it with warnings.
pub(super) fn new_object(
    info: &ResourceInfo,
    namespace: &str,
    object: Value,
    node_name: &str,
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), StatusError> {
    let (mut object, warnings) = parsed(info, object, options)?;
    if !object["metadata"]["resourceVersion"].is_null() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(StatusError::bad_request(message));
    }
    set_namespace(info, &mut object, namespace)?;
    let metadata = &mut object["metadata"];
    if metadata["name"].as_str().unwrap_or_default().is_empty()
        && let Some(prefix) = metadata["generateName"].as_str()
    {
        metadata["name"] = json!(format!("{prefix}{}", suffix()));
    }
    metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
    metadata["creationTimestamp"] = json!(now());
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        metadata
            .as_object_mut()
            .map(|metadata| metadata.remove(field));
    }
    if info.has_spec() {
        metadata["generation"] = json!(1);
    }
    if info.has_status {
        object.as_object_mut().map(|object| object.remove("status"));
    }
    defaults::complete(info.resource, &mut object, node_name);
    say_what_is_enforced(info, &mut object);
    finish(info, None, object, warnings)
}

/// Checks and completes an object that is to take the place of `old`.
pub(super) fn changed_object(
    info: &ResourceInfo,
    namespace: &str,
    name: &str,
    old: &Value,
    object: Value,
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), StatusError> {
    let (mut object, warnings) = parsed(info, object, options)?;
    set_namespace(info, &mut object, namespace)?;
    check_identity(info, name, old, &object)?;
    if info.has_status {
        keep_other_half(&mut object, old, options.status);
    }
    if info.resource == Resource::Service {
        services::keep(old, &mut object);
    }
    // A pod does not move: a change that leaves the node out means the same node.
    let node = old["spec"]["nodeName"].as_str().unwrap_or_default();
    defaults::complete(info.resource, &mut object, node);
    say_what_is_enforced(info, &mut object);
    keep_metadata(info, &mut object, old);
    finish(info, Some(old), object, warnings)
}

/// Writes the part of the status that follows from the spec.
fn say_what_is_enforced(info: &ResourceInfo, object: &mut Value) {
    if let Some(kind) = info.resource.cluster_policy() {
        cluster_policy::say_what_is_enforced(kind, object, &now());
    }
}

/// Brings the body into the schema's form.
fn parsed(
    info: &ResourceInfo,
    object: Value,
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), StatusError> {
    check_kind(info, &object)?;
    schema::canonical(info, object, options.field_validation)
}

pub(super) fn check_kind(info: &ResourceInfo, object: &Value) -> Result<(), StatusError> {
    if !object.is_object() {
        return Err(StatusError::bad_request("the body is not a JSON object"));
    }
    let (kind, version) = (&object["kind"], &object["apiVersion"]);
    if kind.as_str().is_some_and(|kind| kind != info.kind) {
        let message = format!(
            "the object provided is unrecognized (must be of type {}): {kind}",
            info.kind
        );
        return Err(StatusError::bad_request(message));
    }
    if version
        .as_str()
        .is_some_and(|version| version != info.api_version())
    {
        let message = format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            version.as_str().unwrap_or_default(),
            info.api_version()
        );
        return Err(StatusError::bad_request(message));
    }
    Ok(())
}

fn set_namespace(
    info: &ResourceInfo,
    object: &mut Value,
    namespace: &str,
) -> Result<(), StatusError> {
    let metadata = &mut object["metadata"];
    if info.scope == Scope::Cluster {
        metadata
            .as_object_mut()
            .map(|metadata| metadata.remove("namespace"));
        return Ok(());
    }
    match metadata["namespace"].as_str() {
        None | Some("") => metadata["namespace"] = json!(namespace),
        Some(given) if given == namespace => {}
        Some(_) => {
            let message = "the namespace of the provided object does not match the namespace \
                           sent on the request";
            return Err(StatusError::bad_request(message));
        }
    }
    Ok(())
}

/// Name, uid and version of a write must be those of the object it changes.
fn check_identity(
    info: &ResourceInfo,
    name: &str,
    old: &Value,
    object: &Value,
) -> Result<(), StatusError> {
    let (new, old) = (&object["metadata"], &old["metadata"]);
    let given = new["name"].as_str().unwrap_or_default();
    if given != name {
        let message =
            format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(StatusError::bad_request(message));
    }
    let differs = |field: &str| {
        let given = new[field].as_str().filter(|text| !text.is_empty());
        given.is_some_and(|given| old[field].as_str() != Some(given))
    };
    if differs("uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            new["uid"].as_str().unwrap_or_default(),
            old["uid"].as_str().unwrap_or_default()
        );
        return Err(StatusError::conflict(info, name, &why));
    }
    if differs("resourceVersion") {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        return Err(StatusError::conflict(info, name, why));
    }
    Ok(())
}

/// A write to `/status` changes only the status, any other write all but the status.
fn keep_other_half(object: &mut Value, old: &Value, is_status: bool) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    if is_status {
        let status = fields.remove("status");
        let mut kept = old.as_object().cloned().unwrap_or_default();
        set_or_remove(&mut kept, "status", status);
        *fields = kept;
    } else {
        set_or_remove(fields, "status", old.get("status").cloned());
    }
}

fn set_or_remove(fields: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => fields.insert(key.to_owned(), value),
        None => fields.remove(key),
    };
}

/// What a client cannot change stays; the generation counts changes of the spec.
fn keep_metadata(info: &ResourceInfo, object: &mut Value, old: &Value) {
    let spec_changed = info.has_spec() && object["spec"] != old["spec"];
    let (Some(metadata), Some(before)) = (
        object["metadata"].as_object_mut(),
        old["metadata"].as_object(),
    ) else {
        return;
    };
    let fixed = [
        "uid",
        "creationTimestamp",
        "generateName",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ];
    for field in fixed {
        set_or_remove(metadata, field, before.get(field).cloned());
    }
    if spec_changed && let Some(generation) = before.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
}

/// Validation, and the order of fields that a typed client would write.
fn finish(
    info: &ResourceInfo,
    old: Option<&Value>,
    object: Value,
    warnings: Vec<String>,
) -> Result<(Value, Vec<String>), StatusError> {
    let mut causes = Causes::default();
    validate::object(info, &object, &mut causes);
    if let Some(old) = old {
        validate::change(info, old, &object, &mut causes);
    }
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if !causes.is_empty() {
        return Err(StatusError::invalid(info, &name, causes.into_list()));
    }
    Ok((object, warnings))
}

/// Checks the size of an object that is complete.
pub(super) fn check_size(object: &Value) -> Result<(), StatusError> {
    if object.to_string().len() > MAX_OBJECT_BYTES {
        let message = format!("Request entity too large: limit is {MAX_OBJECT_BYTES}");
        return Err(StatusError::plain(413, "RequestEntityTooLarge", message));
    }
    Ok(())
}

/// Five characters as the API server appends to generateName.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    let letters = random.as_bytes().iter().take(5);
    letters
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect()
}

impl ResourceInfo {
    /// Returns whether objects have a spec whose changes are counted.
    fn has_spec(&self) -> bool {
        matches!(
            self.resource.family(),
            Family::Pods
                | Family::NetworkPolicies
                | Family::ClusterPolicies(_)
                | Family::Calico
                | Family::HostEndpoints
        )
    }
}
