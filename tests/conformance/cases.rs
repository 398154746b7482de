//! The cases of Kubernetes' own e2e suite, as data: `e2e-cases.json` says where they are from.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
struct File {
    cases: Vec<Case>,
}

/// A case: steps that follow each other.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) description: String,
    pub(crate) steps: Vec<Step>,
}

/// Changes, what the cluster is like after them, and what has to hold then.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) actions: Vec<Action>,
    pub(crate) state: State,
    pub(crate) expected: Vec<Expected>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum Action {
    CreatePolicy {
        namespace: String,
        policy: Value,
    },
    UpdatePolicy {
        namespace: String,
        name: String,
        policy: Value,
    },
    DeletePolicy {
        namespace: String,
        name: String,
    },
    SetNamespaceLabels {
        name: String,
        labels: Labels,
    },
    SetPodLabels {
        namespace: String,
        name: String,
        labels: Labels,
    },
}

/// The cluster after a step.
/// The policies of it are what the actions made.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pods: Vec<Pod>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) labels: Labels,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) ip: std::net::IpAddr,
    pub(crate) ports: Vec<Port>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// One verdict that has to come out.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Expected {
    /// `namespace/name`.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) ingress: bool,
    pub(crate) egress: bool,
    pub(crate) allowed: bool,
    /// A pod to itself: the suite does not judge it.
    #[serde(default)]
    pub(crate) loopback: bool,
}

impl Step {
    /// Returns what is judged.
    pub(crate) fn judged(&self) -> impl Iterator<Item = &Expected> {
        self.expected.iter().filter(|expected| !expected.loopback)
    }
}

impl Pod {
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Returns the ports of a pod as a container declares them.
pub(crate) fn container_ports(pod: &Pod) -> Value {
    let name = |protocol| match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    let ports = pod.ports.iter().map(|port| {
        json!({ "name": port.name, "containerPort": port.port, "protocol": name(port.protocol) })
    });
    ports.collect()
}

/// Splits `namespace/name`.
pub(crate) fn split(key: &str) -> Result<(&str, &str)> {
    key.split_once('/')
        .with_context(|| format!("{key:?} is no pod"))
}

/// Reads all cases.
pub(crate) fn load() -> Result<Vec<Case>> {
    let file: File = serde_json::from_str(include_str!("e2e-cases.json"))?;
    Ok(file.cases)
}
