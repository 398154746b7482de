//! What tests of Services and their endpoints, and of policies of the cluster, say to a registry.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::objects::{
    DeleteOptions, FieldValidation, PatchKind, Registry, RegistryConfig, Resource, Selection,
    StatusError, WriteOptions,
};
use crate::store::{MemoryStore, SharedStore};

pub(in crate::objects) const V4: &[&str] = &["10.96.0.0/16"];
pub(in crate::objects) const DUAL: &[&str] = &["10.96.0.0/16", "fd00:96::/108"];

pub(in crate::objects) fn open(store: SharedStore, cidrs: &[&str]) -> Arc<Registry> {
    let config = RegistryConfig {
        node_name: "node-a".to_owned(),
        service_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        node_ports: 30000..=30009,
    };
    Registry::open(store, config).unwrap()
}

pub(in crate::objects) fn registry(cidrs: &[&str]) -> Arc<Registry> {
    open(Arc::new(MemoryStore::default()), cidrs)
}

/// A Service with this spec; one port if it names none.
pub(in crate::objects) fn service(name: &str, mut spec: Value) -> Value {
    if spec["ports"].is_null() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

pub(in crate::objects) fn try_create(
    registry: &Registry,
    resource: Resource,
    object: Value,
) -> Result<Arc<Value>, StatusError> {
    let options = WriteOptions::default();
    let written = registry.create(resource, "default", object, options);
    written.map(|written| written.object)
}

pub(in crate::objects) fn create(
    registry: &Registry,
    resource: Resource,
    object: Value,
) -> Arc<Value> {
    try_create(registry, resource, object).unwrap()
}

/// Creates a Service and returns its spec.
pub(in crate::objects) fn spec_of(registry: &Registry, name: &str, spec: Value) -> Value {
    create(registry, Resource::Service, service(name, spec))["spec"].clone()
}

/// What is said against a Service with this spec.
pub(in crate::objects) fn refusal(registry: &Registry, spec: Value) -> String {
    let error = try_create(
        registry,
        Resource::Service,
        service("refused", spec.clone()),
    );
    let error = error.expect_err(&spec.to_string());
    assert_eq!((error.code, error.reason), (422, "Invalid"), "{error}");
    error.message
}

pub(in crate::objects) fn put(
    registry: &Registry,
    name: &str,
    spec: Value,
) -> Result<Value, StatusError> {
    let object = service(name, spec);
    let options = WriteOptions::default();
    let written = registry.update(Resource::Service, "default", name, object, options);
    written.map(|written| written.object["spec"].clone())
}

pub(in crate::objects) fn try_patch(
    registry: &Registry,
    resource: Resource,
    name: &str,
    patch: Value,
    status: bool,
) -> Result<Arc<Value>, StatusError> {
    let options = WriteOptions {
        status,
        ..WriteOptions::default()
    };
    let kind = PatchKind::Merge;
    let written = registry.patch(resource, "default", name, kind, &patch, options);
    written.map(|written| written.object)
}

pub(in crate::objects) fn patch(
    registry: &Registry,
    resource: Resource,
    name: &str,
    patch: Value,
) -> Arc<Value> {
    try_patch(registry, resource, name, patch, false).unwrap()
}

pub(in crate::objects) fn set_status(
    registry: &Registry,
    resource: Resource,
    name: &str,
    status: Value,
) -> Arc<Value> {
    try_patch(registry, resource, name, json!({"status": status}), true).unwrap()
}

pub(in crate::objects) fn delete(registry: &Registry, resource: Resource, name: &str) {
    let options = DeleteOptions::default();
    registry
        .delete(resource, "default", name, &options)
        .unwrap();
}

pub(in crate::objects) fn list(registry: &Registry, resource: Resource) -> Vec<Arc<Value>> {
    let selection = Selection::default();
    let objects = registry.list(resource, Some("default"), &selection);
    objects.unwrap().items
}

/// Creates an object of the cluster in an empty registry.
pub(in crate::objects) fn made_of_cluster(
    resource: Resource,
    name: &str,
    spec: &Value,
    field_validation: FieldValidation,
) -> Result<Value, StatusError> {
    let options = WriteOptions {
        field_validation,
        ..WriteOptions::default()
    };
    let object = json!({"metadata": {"name": name}, "spec": spec});
    let written = registry(&[]).create(resource, "", object, options)?;
    Ok((*written.object).clone())
}

/// What is said against an object of the cluster of whose spec something is changed: `field reason`.
pub(in crate::objects) fn refusals_of_changed(
    (resource, name): (Resource, &str),
    mut spec: Value,
    pointer: &str,
    value: Value,
) -> Vec<String> {
    let (at, field) = pointer.rsplit_once('/').unwrap();
    match (spec.pointer_mut(at).unwrap(), field.parse::<usize>()) {
        (Value::Array(list), Ok(index)) => list[index] = value,
        (object, _) => object[field] = value,
    }
    let Err(error) = made_of_cluster(resource, name, &spec, FieldValidation::Strict) else {
        return Vec::new();
    };
    if error.causes.is_empty() {
        return vec![format!("{} {}", error.code, error.message)];
    }
    let causes = error.causes.iter();
    causes
        .map(|cause| format!("{} {}", cause.field, cause.reason))
        .collect()
}
