//! A cluster as data, and where it comes from: Kubernetes manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use super::ports::ClusterPort;
use super::probe::{End, ProbeError};
use crate::objects::{
    ResourceInfo, StatusError, cluster_change, cluster_policy_change, served_change,
};
use crate::state::{
    ClusterChange, ClusterPolicyKind, ClusterState, NamespaceRecord, ObjectKey, PodRecord,
};

/// A pod with what a simulation needs besides its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Addresses that are its own.
    pub ips: Vec<IpAddr>,
    /// Ports that its containers declare, with and without names.
    pub ports: Vec<ClusterPort>,
}

/// Namespaces, pods, nodes and policies.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    state: ClusterState,
    /// Ports without a name are none of the policies' business, but people ask about them.
    ports: BTreeMap<ObjectKey, Vec<ClusterPort>>,
}

/// A manifest that the API server would refuse.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not an object at all.
    #[error("a manifest is {found}, not an object with apiVersion and kind")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// Its content is wrong.
    #[error("{kind} {name}: {}", .source.message)]
    Invalid {
        /// Its kind.
        kind: String,
        /// namespace/name, as far as it has them.
        name: String,
        /// What is wrong.
        source: Box<StatusError>,
    },
}

impl Cluster {
    /// Takes in a manifest: a Namespace, Pod, Node, NetworkPolicy, a policy of the whole cluster,
    /// one of Calico's policies, sets and tiers, or a List of them; other kinds are passed over. It is checked as the API server would check it.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn add(&mut self, manifest: &Value) -> Result<(), ManifestError> {
        if !manifest.is_object() {
            let found = kind_of(manifest);
            return Err(ManifestError::NotAnObject { found });
        }
        if let (Some(kind), Some(items)) = (manifest["kind"].as_str(), manifest["items"].as_array())
            && kind.ends_with("List")
        {
            return items.iter().try_for_each(|item| self.add_item(kind, item));
        }
        self.add_one(manifest)
    }

    /// The items of a PodList may leave out what the list's kind says.
    fn add_item(&mut self, list: &str, item: &Value) -> Result<(), ManifestError> {
        let mut item = item.clone();
        if let (Some(object), Some(kind)) = (item.as_object_mut(), list.strip_suffix("List"))
            && !kind.is_empty()
        {
            object.entry("kind").or_insert_with(|| json!(kind));
        }
        self.add(&item)
    }

    /// Takes in an object of a kind as an API server has it: what of it is not understood counts as
    /// for a switch that reads it there.
    pub fn add_served(&mut self, info: &ResourceInfo, object: &Value) {
        let Some(change) = served_change(info.resource, object) else {
            return;
        };
        if let ClusterChange::Pod(record) = &change {
            self.ports
                .insert(record.key.clone(), declared_ports(&object["spec"]));
        }
        self.apply(change);
    }

    fn add_one(&mut self, manifest: &Value) -> Result<(), ManifestError> {
        let change = cluster_change(manifest).map_err(|source| ManifestError::Invalid {
            kind: manifest["kind"].as_str().unwrap_or("object").to_owned(),
            name: name_of(&manifest["metadata"]),
            source: Box::new(source),
        })?;
        let Some(change) = change else {
            return Ok(());
        };
        if let ClusterChange::Pod(record) = &change {
            self.ports
                .insert(record.key.clone(), declared_ports(&manifest["spec"]));
        }
        self.apply(change);
        Ok(())
    }

    /// Takes in a policy of the whole cluster with all that this version does not know of it, which
    /// fails closed; without a kind it is a ClusterNetworkPolicy.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn add_cluster_policy(&mut self, manifest: &Value) -> Result<(), ManifestError> {
        let change = cluster_policy_change(manifest).map_err(|source| ManifestError::Invalid {
            kind: cluster_policy_kind(manifest).to_owned(),
            name: name_of(&manifest["metadata"]),
            source: Box::new(source),
        })?;
        self.apply(change);
        Ok(())
    }

    /// Makes the namespaces that pods and policies are in and no manifest describes.
    pub fn complete(&mut self) {
        let pods = self.state.pods().map(|pod| &pod.key.namespace);
        let policies = self.state.policies().map(|policy| &policy.key.namespace);
        let of_calico = self.state.calico_policies().map(|of| &of.key.namespace);
        let policies = policies.chain(of_calico.filter(|namespace| !namespace.is_empty()));
        let used: BTreeSet<String> = pods.chain(policies).cloned().collect();
        for name in used {
            if self.state.namespace(&name).is_none() {
                let label = ("kubernetes.io/metadata.name".to_owned(), name.clone());
                let labels = BTreeMap::from([label]);
                self.apply(ClusterChange::Namespace(NamespaceRecord {
                    name,
                    labels,
                    mode: None,
                }));
            }
        }
    }

    /// Takes in a change.
    pub fn apply(&mut self, change: ClusterChange) {
        self.state.apply(change);
    }

    pub(super) fn set_ports(&mut self, pod: ObjectKey, ports: Vec<ClusterPort>) {
        self.ports.insert(pod, ports);
    }

    /// Returns everything as changes that build it.
    pub(super) fn changes(&self) -> Vec<ClusterChange> {
        let namespaces = self.state.namespaces();
        let namespaces = namespaces.map(|record| ClusterChange::Namespace((**record).clone()));
        let pods = self.state.pods();
        let pods = pods.map(|record| ClusterChange::Pod((**record).clone()));
        let policies = self.state.policies();
        let policies = policies.map(|record| ClusterChange::Policy((**record).clone()));
        let of_cluster = self.state.cluster_policies();
        let of_cluster = of_cluster.map(|record| ClusterChange::ClusterPolicy((**record).clone()));
        let sets = self.state.network_sets();
        let sets = sets.map(|record| ClusterChange::NetworkSet((**record).clone()));
        let accounts = self.state.service_accounts();
        let accounts = accounts.map(|record| ClusterChange::ServiceAccount((**record).clone()));
        let tiers = self.state.tiers();
        let tiers = tiers.map(|record| ClusterChange::Tier((**record).clone()));
        let of_calico = self.state.calico_policies();
        let of_calico = of_calico.map(|record| ClusterChange::CalicoPolicy((**record).clone()));
        let of_calico = sets.chain(tiers).chain(of_calico);
        let nodes = self.state.nodes();
        let nodes = nodes.map(|record| ClusterChange::Node((**record).clone()));
        let policies = policies.chain(of_cluster).chain(of_calico);
        namespaces
            .chain(pods)
            .chain(nodes)
            .chain(accounts)
            .chain(policies)
            .collect()
    }

    /// Returns the pods that have an address of their own, by namespace and name.
    #[must_use]
    pub fn pods(&self) -> Vec<ClusterPod> {
        let pods = self.state.pods().map(|record| self.view(record));
        pods.filter(|pod| !pod.ips.is_empty()).collect()
    }

    fn view(&self, record: &PodRecord) -> ClusterPod {
        let is_own = |ip: &&IpAddr| {
            let owner = self.state.owner_of(**ip);
            owner.is_some_and(|owner| owner.key == record.key)
        };
        ClusterPod {
            key: record.key.clone(),
            ips: record.ips.iter().filter(is_own).copied().collect(),
            ports: self.ports.get(&record.key).cloned().unwrap_or_default(),
        }
    }

    /// Returns the pod at an end, if one is, and the end's addresses.
    pub(super) fn find(&self, end: &End) -> Result<(Option<ObjectKey>, Vec<IpAddr>), ProbeError> {
        let key = match end {
            End::Address { ip } => {
                let owner = self.state.owner_of(*ip);
                return Ok((owner.map(|pod| pod.key.clone()), vec![*ip]));
            }
            End::Pod(key) => key.clone(),
        };
        let Some(record) = self.state.pod(&key) else {
            return Err(ProbeError::UnknownPod { pod: key });
        };
        let (pod, ips) = if record.host_network {
            (None, record.ips.clone())
        } else {
            (Some(key.clone()), self.view(record).ips)
        };
        if ips.is_empty() {
            return Err(ProbeError::NoAddress { pod: key });
        }
        Ok((pod, ips))
    }

    /// Returns the ports that a pod declares.
    pub(super) fn ports_of(&self, pod: &ObjectKey) -> &[ClusterPort] {
        self.ports.get(pod).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the addresses of pods in the host's network: they are the node.
    pub(super) fn node_addresses(&self) -> BTreeSet<IpAddr> {
        let hosts = self.state.pods().filter(|pod| pod.host_network);
        hosts.flat_map(|pod| pod.ips.iter().copied()).collect()
    }
}

/// Returns the kind of a policy of the whole cluster, which may be left out.
pub(super) fn cluster_policy_kind(manifest: &Value) -> &str {
    let kind = manifest["kind"].as_str();
    kind.unwrap_or(ClusterPolicyKind::ClusterNetworkPolicy.name())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn name_of(metadata: &Value) -> String {
    let name = metadata["name"].as_str().unwrap_or("without a name");
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// Ports of containers and sidecars, named or not.
fn declared_ports(spec: &Value) -> Vec<ClusterPort> {
    let containers = spec["containers"].as_array().into_iter().flatten();
    let sidecars = spec["initContainers"].as_array().into_iter().flatten();
    let sidecars = sidecars.filter(|container| container["restartPolicy"] == "Always");
    let ports = containers
        .chain(sidecars)
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    ports
        .filter_map(|port| {
            let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
            let protocol = port.get("protocol").cloned().unwrap_or(json!("TCP"));
            Some(ClusterPort {
                name: port["name"].as_str().unwrap_or_default().to_owned(),
                port: number,
                protocol: serde_json::from_value(protocol).ok()?,
            })
        })
        .collect()
}
