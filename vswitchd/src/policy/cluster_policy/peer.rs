//! Subjects and peers of policies of the cluster.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::super::direction::Direction;
use super::super::json::{self, PartError};
use super::super::peers::{PodPeer, Scope};
use super::form::Form;
use crate::state::Selector;

/// Whom a rule means at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClusterPeer {
    /// Pods, never such as are in their node's network.
    Pods(PodPeer),
    /// Nodes with all that runs in their own network: the addresses of their status.
    Nodes(Selector),
    /// Addresses, whoever has them.
    Network(IpNet),
}

const PODS: [&str; 2] = ["namespaces", "pods"];

/// Reads a subject, or a peer that means pods.
pub(super) fn pods(value: &Value, form: &Form) -> Result<PodPeer, PartError> {
    let (field, value) = json::one_of(value, &PODS)?;
    pods_in(field, value, form)
}

/// Reads a peer: several ones, if it lists networks.
pub(super) fn peers(
    value: &Value,
    direction: Direction,
    form: &Form,
) -> Result<Vec<ClusterPeer>, PartError> {
    let (field, value) = match direction {
        Direction::Ingress => json::one_of(value, &PODS)?,
        Direction::Egress => json::one_of(value, form.egress_peers)?,
    };
    match field {
        "nodes" => Ok(vec![ClusterPeer::Nodes(selector(value)?)]),
        "networks" => {
            let networks = json::items(value)?.iter().map(network);
            networks
                .map(|network| network.map(ClusterPeer::Network))
                .collect()
        }
        "domainNames" => Err(PartError::DomainNames),
        _ => Ok(vec![ClusterPeer::Pods(pods_in(field, value, form)?)]),
    }
}

/// There is no namespace that is a policy's own: without a demand it is every one.
fn pods_in(field: &str, value: &Value, form: &Form) -> Result<PodPeer, PartError> {
    let (namespaces, pods) = if field == "namespaces" {
        (selector(value)?, Selector::default())
    } else {
        let fields = json::object(value, &["namespaceSelector", "podSelector"])?;
        let given = |field: &str| fields.get(field).filter(|value| !value.is_null());
        let missing = |field| PartError::Missing { field };
        let namespaces = given("namespaceSelector");
        if form.names_namespaces && namespaces.is_none() {
            return Err(missing("namespaceSelector"));
        }
        let namespaces = namespaces.map(selector).transpose()?;
        let pods = selector(given("podSelector").ok_or_else(|| missing("podSelector"))?)?;
        (namespaces.unwrap_or_default(), pods)
    };
    let scope = if namespaces == Selector::default() {
        Scope::Everywhere
    } else {
        Scope::Namespaces(namespaces)
    };
    Ok(PodPeer {
        scope,
        selector: pods,
    })
}

fn selector(value: &Value) -> Result<Selector, PartError> {
    let fields = json::object(value, &["matchLabels", "matchExpressions"])?;
    let expressions = fields.get("matchExpressions").and_then(Value::as_array);
    for expression in expressions.into_iter().flatten() {
        json::object(expression, &["key", "operator", "values"])?;
    }
    let refuse = |error: &dyn std::fmt::Display| PartError::Selector(error.to_string());
    let written: LabelSelector =
        serde_json::from_value(value.clone()).map_err(|error| refuse(&error))?;
    Selector::parse(&written).map_err(|error| refuse(&error))
}

fn network(value: &Value) -> Result<IpNet, PartError> {
    let text = value
        .as_str()
        .ok_or(PartError::Type { expected: "a text" })?;
    let network = text.parse::<IpNet>().map(|network| network.trunc());
    network.map_err(|_| PartError::Network {
        text: text.to_owned(),
    })
}
