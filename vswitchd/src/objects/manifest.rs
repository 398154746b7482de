//! Manifests without a registry: checked as a create would check them, for those who want to
//! know what would come of them.

use serde_json::Value;

use super::calico::{CALICO_CRD_GROUP, of_stored_calico};
use super::causes::Causes;
use super::reduce::present;
use super::resource::CALICO_GROUP;
use super::shelf::id_of;
use super::{
    RESOURCES, Resource, ResourceInfo, Scope, StatusError, WriteOptions, prepare, validate,
};
use crate::state::ClusterChange;

/// Returns what the object would tell the switch, its status included; `None` for an object
/// of a kind that rules are not compiled from.
///
/// # Errors
/// What the API server would refuse it with.
pub fn cluster_change(manifest: &Value) -> Result<Option<ClusterChange>, StatusError> {
    let kind = manifest["kind"].as_str().unwrap_or_default();
    let version = manifest["apiVersion"].as_str().unwrap_or_default();
    if kind.is_empty() {
        return Err(StatusError::bad_request("Object 'Kind' is missing"));
    }
    let stored = format!("{CALICO_CRD_GROUP}/v1");
    let is_it = |info: &&ResourceInfo| {
        let is_stored = version == stored && info.group == CALICO_GROUP;
        let is_version = version.is_empty() || version == info.api_version() || is_stored;
        info.kind == kind && is_version
    };
    let Some(info) = RESOURCES.iter().find(is_it) else {
        return Ok(None);
    };
    let mut object = manifest.clone();
    if version == stored {
        of_stored_calico(&mut object);
        object["apiVersion"] = Value::from(info.api_version());
    }
    let metadata = &manifest["metadata"];
    let namespace = match info.scope {
        Scope::Cluster => "",
        Scope::Namespaced => metadata["namespace"].as_str().unwrap_or("default"),
    };
    if let Some(metadata) = object["metadata"].as_object_mut() {
        // Written by a server that the object was read from.
        metadata.remove("resourceVersion");
    }
    let options = WriteOptions::default();
    let (mut object, _warnings) = prepare::new_object(info, namespace, object, "", &options)?;
    if let Some(status) = manifest.get("status")
        && matches!(
            info.resource,
            Resource::Pod | Resource::Service | Resource::Node
        )
    {
        object["status"] = status.clone();
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let place = (info.resource, namespace.to_owned(), name.to_owned());
    Ok(present(&place, &object))
}

/// Returns what an object of an API server tells the switch; `None` for an object of a kind that
/// rules are not compiled from.
#[must_use]
pub fn served_change(resource: Resource, object: &Value) -> Option<ClusterChange> {
    present(&id_of(resource, object), object)
}

/// Returns what a policy of the whole cluster would tell the switch, with all that this version
/// does not know of it: as an API server tells it whose CRD is newer. Without a kind it is a
/// ClusterNetworkPolicy.
///
/// # Errors
/// What an API server would refuse it with that knows such fields.
pub fn cluster_policy_change(manifest: &Value) -> Result<ClusterChange, StatusError> {
    let mut of_cluster = RESOURCES
        .iter()
        .filter(|info| info.resource.cluster_policy().is_some());
    let named = of_cluster.find(|info| manifest["kind"] == info.kind);
    let info = named.unwrap_or_else(|| Resource::ClusterNetworkPolicy.info());
    prepare::check_kind(info, manifest)?;
    let mut causes = Causes::default();
    validate::object(info, manifest, &mut causes);
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    if !causes.is_empty() {
        return Err(StatusError::invalid(info, name, causes.into_list()));
    }
    let place = (info.resource, String::new(), name.to_owned());
    present(&place, manifest).ok_or_else(|| StatusError::bad_request("the policy says nothing"))
}
