//! A cluster in one JSON object, with its probes: for tests that try many.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};
use vswitch_datapath::pipeline::Bandwidth;

use super::Simulator;
use super::cluster::{Cluster, ManifestError, cluster_policy_kind};
use super::ports::{ClusterPort, Protocol};
use super::probe::{Answer, Probe, ProbeError};
use crate::state::{
    ClusterChange, NamedPort, NamespaceRecord, NodeRecord, ObjectKey, PodPhase, PodRecord,
    ServiceAccountRecord,
};

type Labels = std::collections::BTreeMap<String, String>;

/// `{"namespaces": […], "pods": […], "policies": […], "clusterPolicies": […], "calico": […],
/// "serviceAccounts": […], "nodes": […], "probes": […]}`. Nothing is added to what is written: a namespace has the labels given here and no others.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct World {
    namespaces: Vec<WorldNamespace>,
    pods: Vec<WorldPod>,
    #[serde(default)]
    policies: Vec<Value>,
    #[serde(default)]
    /// ClusterNetworkPolicies, and such as name another kind.
    cluster_policies: Vec<Value>,
    /// Calico's policies, sets and tiers, with their kinds.
    #[serde(default)]
    calico: Vec<Value>,
    #[serde(default)]
    service_accounts: Vec<WorldAccount>,
    #[serde(default)]
    nodes: Vec<WorldNode>,
    #[serde(default)]
    probes: Vec<Probe>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorldNamespace {
    name: String,
    #[serde(default)]
    labels: Labels,
}

/// What selectors of service accounts match.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorldAccount {
    namespace: String,
    name: String,
    #[serde(default)]
    labels: Labels,
}

/// What peers `nodes` match; to all else its addresses are addresses outside.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorldNode {
    name: String,
    #[serde(default)]
    labels: Labels,
    ip: Option<IpAddr>,
    /// More addresses, e.g. of the other family.
    #[serde(default)]
    ips: Vec<IpAddr>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WorldPod {
    namespace: String,
    name: String,
    #[serde(default)]
    labels: Labels,
    ip: Option<IpAddr>,
    /// More addresses, e.g. of the other family.
    #[serde(default)]
    ips: Vec<IpAddr>,
    #[serde(default)]
    ports: Vec<WorldPort>,
    #[serde(default)]
    host_network: bool,
    phase: Option<Phase>,
    service_account: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorldPort {
    #[serde(default)]
    name: String,
    port: u16,
    #[serde(default)]
    protocol: Protocol,
}

/// A world that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// It is not JSON of this shape.
    #[error("world: {0}")]
    Shape(#[from] serde_json::Error),
    /// Two pods of one name.
    #[error("pod {pod} is there twice")]
    PodTwice {
        /// Namespace and name.
        pod: ObjectKey,
    },
    /// Two nodes of one name, or two policies of the cluster of one kind and name.
    #[error("{what} {name} is there twice")]
    NameTwice {
        /// `node` or `clusterPolicy`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A policy that the API server would refuse.
    #[error(transparent)]
    Policy(#[from] ManifestError),
    /// A policy without its kind.
    #[error("policies[{index}] is no NetworkPolicy")]
    NoPolicy {
        /// Its position.
        index: usize,
    },
    /// An object that is none of Calico's.
    #[error("calico[{index}] has no apiVersion of Calico's")]
    NotCalicos {
        /// Its position.
        index: usize,
    },
    /// A probe that means nothing.
    #[error("probes[{index}]: {source}")]
    Probe {
        /// Its position.
        index: usize,
        /// Why.
        source: ProbeError,
    },
}

impl World {
    /// Reads a world.
    ///
    /// # Errors
    /// [`WorldError::Shape`].
    pub fn parse(text: &str) -> Result<Self, WorldError> {
        Ok(serde_json::from_str(text)?)
    }

    /// Returns the cluster without its probes.
    ///
    /// # Errors
    /// [`WorldError`].
    pub fn cluster(&self) -> Result<Cluster, WorldError> {
        let mut cluster = Cluster::default();
        for namespace in &self.namespaces {
            cluster.apply(ClusterChange::Namespace(NamespaceRecord {
                name: namespace.name.clone(),
                labels: namespace.labels.clone(),
                mode: None,
            }));
        }
        for account in &self.service_accounts {
            cluster.apply(ClusterChange::ServiceAccount(ServiceAccountRecord {
                key: ObjectKey {
                    namespace: account.namespace.clone(),
                    name: account.name.clone(),
                },
                labels: account.labels.clone(),
            }));
        }
        let mut keys = BTreeSet::new();
        for pod in &self.pods {
            let record = pod.record();
            if !keys.insert(record.key.clone()) {
                return Err(WorldError::PodTwice { pod: record.key });
            }
            cluster.set_ports(record.key.clone(), pod.ports());
            cluster.apply(ClusterChange::Pod(record));
        }
        for (index, policy) in self.policies.iter().enumerate() {
            cluster.add(&named_kind(policy, index)?)?;
        }
        self.add_nodes(&mut cluster)?;
        for (index, object) in self.calico.iter().enumerate() {
            if !is_of_calico(object) {
                return Err(WorldError::NotCalicos { index });
            }
            cluster.add(object)?;
        }
        let mut names = BTreeSet::new();
        for policy in &self.cluster_policies {
            cluster.add_cluster_policy(policy)?;
            let name = policy["metadata"]["name"].as_str().unwrap_or_default();
            if !names.insert((cluster_policy_kind(policy), name)) {
                return Err(WorldError::NameTwice {
                    what: "clusterPolicy",
                    name: name.to_owned(),
                });
            }
        }
        Ok(cluster)
    }

    fn add_nodes(&self, cluster: &mut Cluster) -> Result<(), WorldError> {
        let mut names = BTreeSet::new();
        for node in &self.nodes {
            if !names.insert(&node.name) {
                return Err(WorldError::NameTwice {
                    what: "node",
                    name: node.name.clone(),
                });
            }
            cluster.apply(ClusterChange::Node(NodeRecord {
                name: node.name.clone(),
                labels: node.labels.clone(),
                ips: node.ip.iter().chain(&node.ips).copied().collect(),
                ..NodeRecord::default()
            }));
        }
        Ok(())
    }

    /// Answers the probes in their order.
    ///
    /// # Errors
    /// [`WorldError`].
    pub fn answers(&self) -> Result<Vec<Answer>, WorldError> {
        let mut simulator = Simulator::new(self.cluster()?);
        let probes = self.probes.iter().enumerate();
        let answer = |(index, probe)| {
            simulator
                .judge(probe)
                .map_err(|source| WorldError::Probe { index, source })
        };
        probes.map(answer).collect()
    }
}

fn is_of_calico(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    version.contains("projectcalico.org/")
}

/// A policy may leave out what its place in the world says already.
fn named_kind(policy: &Value, index: usize) -> Result<Value, WorldError> {
    let mut policy = policy.clone();
    let object = policy
        .as_object_mut()
        .ok_or(WorldError::NoPolicy { index })?;
    let kind = object
        .entry("kind")
        .or_insert_with(|| json!("NetworkPolicy"));
    if kind != "NetworkPolicy" {
        return Err(WorldError::NoPolicy { index });
    }
    object
        .entry("apiVersion")
        .or_insert_with(|| json!("networking.k8s.io/v1"));
    Ok(policy)
}

impl WorldPod {
    fn record(&self) -> PodRecord {
        let named = self.ports.iter().filter(|port| !port.name.is_empty());
        PodRecord {
            key: ObjectKey {
                namespace: self.namespace.clone(),
                name: self.name.clone(),
            },
            uid: String::new(),
            labels: self.labels.clone(),
            ips: self.ip.iter().chain(&self.ips).copied().collect(),
            host_network: self.host_network,
            phase: match self.phase {
                Some(Phase::Pending) => PodPhase::Pending,
                Some(Phase::Succeeded) => PodPhase::Succeeded,
                Some(Phase::Failed) => PodPhase::Failed,
                Some(Phase::Unknown) => PodPhase::Unknown,
                Some(Phase::Running) | None => PodPhase::Running,
            },
            node_name: None,
            service_account: self
                .service_account
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
            bandwidth: Bandwidth::default(),
            named_ports: named
                .map(|port| NamedPort {
                    name: port.name.clone(),
                    port: port.port,
                    proto: port.protocol.number(),
                })
                .collect(),
        }
    }

    fn ports(&self) -> Vec<ClusterPort> {
        let ports = self.ports.iter().map(|port| ClusterPort {
            name: port.name.clone(),
            port: port.port,
            protocol: port.protocol,
        });
        ports.collect()
    }
}
