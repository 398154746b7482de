//! ClusterIPs and NodePorts of Services, allocated as the API server does.
//!
//! There is no list of what is taken: it is read from the Services that there are, under the
//! registry's writer lock, so nothing can leak or be given out twice.

mod addresses;
mod kept;
mod node_ports;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::causes::Causes;
use super::shelf::Shelf;
use super::{RegistryConfig, Resource, StatusError};

pub(super) use kept::keep;

/// Returns whether there is an address for the Service (or "None" for a headless one).
pub(super) fn needs_cluster_ip(spec: &Value) -> bool {
    spec["type"] != "ExternalName"
}

/// Returns whether the Service has ports on the node.
pub(super) fn needs_node_ports(spec: &Value) -> bool {
    spec["type"] == "NodePort" || spec["type"] == "LoadBalancer"
}

/// Returns whether a load balancer asks a port of the node for the Service's health.
pub(super) fn needs_health_check_port(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// Returns whether something besides the ClusterIP leads to the Service.
pub(super) fn is_externally_reachable(spec: &Value) -> bool {
    let has_external_ips = spec["externalIPs"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    needs_node_ports(spec) || (spec["type"] == "ClusterIP" && has_external_ips)
}

/// Returns whether the Service is only a name for its endpoints.
pub(super) fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None"
}

/// Takes out zeros, by which typed clients say that they do not choose a port.
pub(super) fn drop_zeros(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else {
        return;
    };
    fields.retain(|field, value| field != "healthCheckNodePort" || *value != 0);
    let ports = fields.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        port.retain(|field, value| match field.as_str() {
            "nodePort" => *value != 0,
            "targetPort" => *value != 0 && *value != "",
            _ => true,
        });
    }
}

/// Returns the selector; none if it is empty, which selects nothing.
pub(super) fn selector(spec: &Value) -> Option<&Map<String, Value>> {
    spec["selector"].as_object().filter(|map| !map.is_empty())
}

/// Returns the name that the API has for an address's family.
pub(super) fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Gives a Service that was validated what it needs and does not have. `old` is the Service
/// that it takes the place of.
///
/// # Errors
/// 422 if what it asks for is taken or not to be had, 500 if nothing is left.
pub(super) fn allocate(
    config: &RegistryConfig,
    shelf: &Shelf,
    old: Option<&Value>,
    service: &mut Value,
) -> Result<(), StatusError> {
    if !needs_cluster_ip(&service["spec"]) {
        return Ok(());
    }
    let mut causes = Causes::default();
    addresses::allocate(config, shelf, old, service, &mut causes)?;
    node_ports::allocate(config, shelf, old, service, &mut causes)?;
    if causes.is_empty() {
        return Ok(());
    }
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let info = Resource::Service.info();
    Err(StatusError::invalid(info, name, causes.into_list()))
}

/// The other Services.
fn others<'a>(shelf: &'a Shelf, service: &Value) -> impl Iterator<Item = &'a Arc<Value>> {
    let metadata = &service["metadata"];
    let namespace = metadata["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    shelf
        .objects(Resource::Service, None)
        .filter(move |((_, ns, n), _)| (ns, n) != (&namespace, &name))
        .map(|(_, object)| object)
}

/// Where the search for something free begins: at the same place whenever a Service of this
/// name is created, so that it likely gets again what clients may still remember.
fn start_of(service: &Value, what: &str) -> u64 {
    let metadata = &service["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let key = format!("{}/{}/{what}", text("namespace"), text("name"));
    u64::from(crc32fast::hash(key.as_bytes()))
}

fn exhausted(what: &str) -> StatusError {
    StatusError::internal(&format!("failed to allocate a {what}: range is full"))
}
