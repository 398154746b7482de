//! Cases as data: those of Kubernetes' own e2e suite, and those of ClusterNetworkPolicy's
//! conformance suite. `e2e-cases.json` and `cnp-cases.json` say where they are from.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::older::older;

pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
struct File {
    cases: Vec<Case>,
}

/// A case: steps that follow each other.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) description: String,
    pub(crate) steps: Vec<Step>,
}

/// Changes, what the cluster is like after them, and what has to hold then.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Step {
    pub(crate) actions: Vec<Action>,
    pub(crate) state: State,
    pub(crate) expected: Vec<Expected>,
}

#[derive(Debug, Clone, Deserialize)]
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
    CreateClusterPolicy {
        policy: Value,
    },
    UpdateClusterPolicy {
        name: String,
        policy: Value,
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
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct State {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pods: Vec<Pod>,
    #[serde(default)]
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) ip: std::net::IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) labels: Labels,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) ip: std::net::IpAddr,
    pub(crate) ports: Vec<Port>,
    #[serde(default)]
    pub(crate) host_network: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Port {
    #[serde(default)]
    pub(crate) name: Option<String>,
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
#[serde(rename_all = "camelCase")]
pub(crate) struct Expected {
    /// `namespace/name`.
    pub(crate) from: String,
    /// The same, or an address.
    pub(crate) to: String,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) ingress: bool,
    pub(crate) egress: bool,
    pub(crate) allowed: bool,
    /// A pod to itself: the suite does not judge it.
    #[serde(default)]
    pub(crate) loopback: bool,
    /// Policies that decide at the sender, where the case names them.
    pub(crate) egress_by: Option<Vec<String>>,
    /// Policies that decide at the receiver.
    pub(crate) ingress_by: Option<Vec<String>>,
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
        let mut written = json!({ "containerPort": port.port, "protocol": name(port.protocol) });
        if let Some(name) = &port.name {
            written["name"] = json!(name);
        }
        written
    });
    ports.collect()
}

/// Splits `namespace/name`.
pub(crate) fn split(key: &str) -> Result<(&str, &str)> {
    key.split_once('/')
        .with_context(|| format!("{key:?} is no pod"))
}

/// Reads the cases of NetworkPolicies.
pub(crate) fn load() -> Result<Vec<Case>> {
    let file: File = serde_json::from_str(include_str!("e2e-cases.json"))?;
    Ok(file.cases)
}

/// Addresses of the two nodes that the cases of ClusterNetworkPolicies call `$node0` and `$node1`:
/// of a network for documentation (RFC 5737).
pub(crate) const NODES: [&str; 2] = ["203.0.113.10", "203.0.113.11"];

/// Reads the cases of ClusterNetworkPolicies.
pub(crate) fn load_cluster() -> Result<Vec<Case>> {
    let text = include_str!("cnp-cases.json");
    let text = text.replace("$node0", NODES[0]).replace("$node1", NODES[1]);
    let file: File = serde_json::from_str(&text)?;
    Ok(file.cases)
}

/// Returns the cases whose policies of the cluster can all be written as AdminNetworkPolicies and a
/// BaselineAdminNetworkPolicy, written so.
pub(crate) fn in_older_form(cases: &[Case]) -> Vec<Case> {
    cases.iter().filter_map(older_case).collect()
}

fn older_case(case: &Case) -> Option<Case> {
    let mut case = case.clone();
    // What policies are called in answers.
    let mut names = BTreeMap::new();
    let mut baseline = None;
    for step in &mut case.steps {
        for action in &mut step.actions {
            let (Action::CreateClusterPolicy { policy }
            | Action::UpdateClusterPolicy { policy, .. }) = action
            else {
                continue;
            };
            let name = policy["metadata"]["name"].as_str()?.to_owned();
            // There can be one.
            if policy["spec"]["tier"] == "Baseline" {
                let one = baseline.get_or_insert_with(|| name.clone());
                if *one != name {
                    return None;
                }
            }
            let (kind, called, spec) = older(&name, &policy["spec"], true)?;
            names.insert(name, format!("{kind} {called}"));
            *policy = json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind,
                "metadata": {"name": called}, "spec": spec});
        }
        for expected in &mut step.expected {
            for by in [&mut expected.egress_by, &mut expected.ingress_by] {
                for name in by.iter_mut().flatten() {
                    if let Some(called) = names.get(name) {
                        name.clone_from(called);
                    }
                }
            }
        }
    }
    Some(case)
}
