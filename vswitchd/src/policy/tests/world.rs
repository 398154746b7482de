//! A small cluster as tests write it down, and the facts the compiler gets of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::flow::ip_proto;

use super::program::Program;
use super::walker::{self, Flow};
use crate::config::Deny;
use crate::policy::{Compiler, NodeFacts, PolicyProblem};
use crate::rules::RuleDelta;
use crate::state::{
    CalicoPolicyRecord, ClusterChange, ClusterPolicyKey, ClusterPolicyKind, ClusterPolicyRecord,
    ClusterState, LocalEndpoint, NamedPort, NamespaceRecord, NetworkSetRecord, NodeRecord,
    ObjectKey, PodPhase, PodRecord, PolicyRecord, ServiceAccountRecord, TierRecord,
};

pub(super) type Labels = BTreeMap<String, String>;

/// Port of the gateway in every world; pods are numbered from 10.
pub(super) const GATEWAY: PortNo = PortNo(1);
/// Address of the node in every world.
pub(super) const NODE: &str = "192.168.0.1";

#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) key: ObjectKey,
    pub(super) labels: Labels,
    /// Addresses that it really has if it is local, else what its status says.
    pub(super) ips: Vec<IpAddr>,
    /// What the status of a local pod says.
    pub(super) status_ips: Vec<IpAddr>,
    pub(super) is_local: bool,
    /// Whether its object has been heard of.
    pub(super) is_known: bool,
    pub(super) host_network: bool,
    pub(super) phase: PodPhase,
    /// Name, number, protocol.
    pub(super) ports: Vec<(String, u16, u8)>,
    pub(super) service_account: String,
}

#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) key: ObjectKey,
    pub(super) spec: Value,
}

#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) pods: Vec<Pod>,
    pub(super) policies: Vec<Policy>,
    /// ClusterNetworkPolicies: name and spec.
    pub(super) cluster_policies: Vec<(String, Value)>,
    /// Policies of the cluster of the kinds before it: key and spec.
    pub(super) older: Vec<(ClusterPolicyKey, Value)>,
    /// Calico's policies; without a namespace global ones.
    pub(super) calico: Vec<Policy>,
    pub(super) network_sets: Vec<NetworkSetRecord>,
    pub(super) tiers: Vec<TierRecord>,
    pub(super) accounts: Vec<ServiceAccountRecord>,
    pub(super) nodes: Vec<NodeRecord>,
}

/// Splits `ns/name`.
pub(super) fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// The key of a ClusterNetworkPolicy.
pub(super) fn newer(name: &str) -> ClusterPolicyKey {
    ClusterPolicyKey {
        kind: ClusterPolicyKind::ClusterNetworkPolicy,
        name: name.to_owned(),
    }
}

/// Splits `a=1,b=2`.
pub(super) fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

impl World {
    /// Two local pods a and b in x, one remote in y.
    pub(super) fn small() -> Self {
        Self::default()
            .namespace("x", "team=x")
            .namespace("y", "team=y")
            .pod("x/a", "app=a", &["10.0.0.1", "fd00::1"])
            .pod("x/b", "app=b", &["10.0.0.2", "fd00::2"])
            .remote("y/c", "app=c", &["10.0.1.3", "fd00:1::3"])
    }

    pub(super) fn namespace(mut self, name: &str, with: &str) -> Self {
        self.namespaces.insert(name.to_owned(), labels(with));
        self
    }

    /// A running pod of this node; its namespace comes with it.
    pub(super) fn pod(mut self, name: &str, with: &str, ips: &[&str]) -> Self {
        let key = key(name);
        self.namespaces.entry(key.namespace.clone()).or_default();
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.pods.push(Pod {
            key,
            labels: labels(with),
            status_ips: ips.clone(),
            ips,
            is_local: true,
            is_known: true,
            host_network: false,
            phase: PodPhase::Running,
            ports: Vec::new(),
            service_account: "default".to_owned(),
        });
        self
    }

    /// A running pod of another node.
    pub(super) fn remote(self, name: &str, with: &str, ips: &[&str]) -> Self {
        self.pod(name, with, ips)
            .last_pod(|pod| pod.is_local = false)
    }

    /// Changes the pod that was added last.
    pub(super) fn last_pod(mut self, change: impl FnOnce(&mut Pod)) -> Self {
        change(self.pods.last_mut().unwrap());
        self
    }

    pub(super) fn policy(mut self, name: &str, spec: Value) -> Self {
        self.policies.push(Policy {
            key: key(name),
            spec,
        });
        self
    }

    pub(super) fn cluster_policy(mut self, name: &str, spec: Value) -> Self {
        self.cluster_policies.push((name.to_owned(), spec));
        self
    }

    /// An AdminNetworkPolicy.
    pub(super) fn admin(mut self, name: &str, spec: Value) -> Self {
        let kind = ClusterPolicyKind::AdminNetworkPolicy;
        let name = name.to_owned();
        self.older.push((ClusterPolicyKey { kind, name }, spec));
        self
    }

    /// The BaselineAdminNetworkPolicy.
    pub(super) fn baseline(mut self, spec: Value) -> Self {
        let kind = ClusterPolicyKind::BaselineAdminNetworkPolicy;
        let name = "default".to_owned();
        self.older.push((ClusterPolicyKey { kind, name }, spec));
        self
    }

    /// A policy of Calico's; one without a namespace is written `/name`.
    pub(super) fn calico(mut self, name: &str, spec: Value) -> Self {
        self.calico.push(Policy {
            key: key(name),
            spec,
        });
        self
    }

    pub(super) fn tier(mut self, name: &str, order: f64, passes: bool) -> Self {
        self.tiers.push(TierRecord {
            name: name.to_owned(),
            order: Some(order),
            passes,
        });
        self
    }

    pub(super) fn account(mut self, name: &str, with: &str) -> Self {
        self.accounts.push(ServiceAccountRecord {
            key: key(name),
            labels: labels(with),
        });
        self
    }

    /// A network set; one without a namespace is written `/name`.
    pub(super) fn network_set(mut self, name: &str, with: &str, nets: &[&str]) -> Self {
        self.network_sets.push(NetworkSetRecord {
            key: key(name),
            labels: labels(with),
            nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        });
        self
    }

    pub(super) fn node(mut self, name: &str, with: &str, ips: &[&str]) -> Self {
        self.nodes.push(NodeRecord {
            name: name.to_owned(),
            labels: labels(with),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..NodeRecord::default()
        });
        self
    }

    pub(super) fn changes(&self) -> Vec<ClusterChange> {
        let mut changes: Vec<ClusterChange> = Vec::new();
        for (name, labels) in &self.namespaces {
            let record = NamespaceRecord {
                name: name.clone(),
                labels: labels.clone(),
                mode: None,
            };
            changes.push(ClusterChange::Namespace(record));
        }
        let known = self.pods.iter().filter(|pod| pod.is_known);
        changes.extend(known.map(|pod| ClusterChange::Pod(pod.record())));
        for policy in &self.policies {
            let spec = serde_json::from_value(policy.spec.clone()).unwrap();
            changes.push(ClusterChange::Policy(PolicyRecord {
                key: policy.key.clone(),
                spec,
                mode: None,
            }));
        }
        let accounts = self.accounts.iter().cloned();
        changes.extend(accounts.map(ClusterChange::ServiceAccount));
        let tiers = self.tiers.iter().cloned();
        changes.extend(tiers.map(ClusterChange::Tier));
        let sets = self.network_sets.iter().cloned();
        changes.extend(sets.map(ClusterChange::NetworkSet));
        let of_calico = self.calico.iter().cloned();
        changes.extend(of_calico.map(|Policy { key, spec }| {
            ClusterChange::CalicoPolicy(CalicoPolicyRecord {
                key,
                spec,
                mode: None,
            })
        }));
        let nodes = self.nodes.iter().cloned();
        changes.extend(nodes.map(ClusterChange::Node));
        let of_cluster = self.cluster_policies.iter();
        let of_cluster = of_cluster.map(|(name, spec)| (newer(name), spec.clone()));
        let of_cluster = of_cluster.chain(self.older.iter().cloned());
        changes.extend(of_cluster.map(|(key, spec)| {
            ClusterChange::ClusterPolicy(ClusterPolicyRecord {
                key,
                spec,
                mode: None,
            })
        }));
        changes
    }

    /// Returns what turns the world before into this one.
    pub(super) fn changes_since(&self, before: &Self) -> Vec<ClusterChange> {
        let mut changes: Vec<ClusterChange> = Vec::new();
        let (old, new) = (before.changes(), self.changes());
        let is_there = |gone: &ClusterChange| new.iter().any(|change| same_object(change, gone));
        for change in old.iter().filter(|change| !is_there(change)) {
            changes.push(match change {
                ClusterChange::Namespace(record) => {
                    ClusterChange::NamespaceGone(record.name.clone())
                }
                ClusterChange::Pod(record) => ClusterChange::PodGone(record.key.clone()),
                ClusterChange::Policy(record) => ClusterChange::PolicyGone(record.key.clone()),
                ClusterChange::ClusterPolicy(record) => {
                    ClusterChange::ClusterPolicyGone(record.key.clone())
                }
                ClusterChange::CalicoPolicy(record) => {
                    ClusterChange::CalicoPolicyGone(record.key.clone())
                }
                ClusterChange::NetworkSet(record) => {
                    ClusterChange::NetworkSetGone(record.key.clone())
                }
                ClusterChange::ServiceAccount(record) => {
                    ClusterChange::ServiceAccountGone(record.key.clone())
                }
                ClusterChange::Tier(record) => ClusterChange::TierGone(record.name.clone()),
                ClusterChange::Node(record) => ClusterChange::NodeGone(record.name.clone()),
                other => other.clone(),
            });
        }
        changes.extend(new.into_iter().filter(|change| !old.contains(change)));
        changes
    }

    pub(super) fn port_of(&self, index: usize) -> PortNo {
        PortNo(u32::try_from(index).unwrap() + 10)
    }

    pub(super) fn locals(&self) -> BTreeMap<PortNo, LocalEndpoint> {
        let local = self.pods.iter().enumerate().filter(|(_, pod)| pod.is_local);
        local
            .map(|(index, pod)| {
                let port_no = self.port_of(index);
                let mac = MacAddr([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]);
                let (addresses, pod) = (pod.ips.clone(), pod.key.clone());
                (
                    port_no,
                    LocalEndpoint {
                        port_no,
                        pod,
                        mac,
                        addresses,
                    },
                )
            })
            .collect()
    }

    pub(super) fn program(&self) -> Program {
        compile(self.changes(), self.locals(), node())
    }

    /// Returns the local port that an address is behind, else the gateway.
    pub(super) fn port_at(&self, ip: IpAddr) -> PortNo {
        let behind = |pod: &Pod| pod.is_local && pod.ips.contains(&ip);
        self.pods
            .iter()
            .position(behind)
            .map_or(GATEWAY, |index| self.port_of(index))
    }

    pub(super) fn flow(&self, from: &str, to: &str, proto: u8, port: u16) -> Flow {
        let (src, dst): (IpAddr, IpAddr) = (self.ip(from), self.ip(to));
        let (in_port, out_port) = (self.port_at(src), self.port_at(dst));
        Flow {
            src,
            dst,
            proto,
            port,
            in_port,
            out_port,
        }
    }

    /// Returns the first address of the pod of that name, or the text as an address.
    fn ip(&self, text: &str) -> IpAddr {
        let named = |pod: &&Pod| pod.key.to_string() == text;
        let pod = self.pods.iter().find(named);
        pod.map_or_else(|| text.parse().unwrap(), |pod| pod.ips[0])
    }

    /// Returns whether both sides' policies let the flow pass.
    pub(super) fn allows(&self, from: &str, to: &str, proto: u8, port: u16) -> bool {
        walker::verdict(&self.program(), &self.flow(from, to, proto, port)).is_ok()
    }

    pub(super) fn tcp(&self, from: &str, to: &str, port: u16) -> bool {
        self.allows(from, to, ip_proto::TCP, port)
    }
}

fn same_object(a: &ClusterChange, b: &ClusterChange) -> bool {
    match (a, b) {
        (ClusterChange::Namespace(a), ClusterChange::Namespace(b)) => a.name == b.name,
        (ClusterChange::Pod(a), ClusterChange::Pod(b)) => a.key == b.key,
        (ClusterChange::Policy(a), ClusterChange::Policy(b)) => a.key == b.key,
        (ClusterChange::ClusterPolicy(a), ClusterChange::ClusterPolicy(b)) => a.key == b.key,
        (ClusterChange::CalicoPolicy(a), ClusterChange::CalicoPolicy(b)) => a.key == b.key,
        (ClusterChange::NetworkSet(a), ClusterChange::NetworkSet(b)) => a.key == b.key,
        (ClusterChange::ServiceAccount(a), ClusterChange::ServiceAccount(b)) => a.key == b.key,
        (ClusterChange::Tier(a), ClusterChange::Tier(b)) => a.name == b.name,
        (ClusterChange::Node(a), ClusterChange::Node(b)) => a.name == b.name,
        _ => false,
    }
}

impl Pod {
    fn record(&self) -> PodRecord {
        let port = |(name, port, proto): &(String, u16, u8)| NamedPort {
            name: name.clone(),
            port: *port,
            proto: *proto,
        };
        PodRecord {
            key: self.key.clone(),
            uid: format!("uid-{}", self.key),
            labels: self.labels.clone(),
            ips: if self.is_local {
                self.status_ips.clone()
            } else {
                self.ips.clone()
            },
            host_network: self.host_network,
            phase: self.phase,
            node_name: None,
            service_account: self.service_account.clone(),
            named_ports: self.ports.iter().map(port).collect(),
            bandwidth: vswitch_datapath::pipeline::Bandwidth::default(),
        }
    }
}

pub(super) fn node() -> NodeFacts {
    NodeFacts {
        addresses: [NODE.parse().unwrap()].into(),
        is_synced: true,
    }
}

/// A cluster with the compiler that reads it, as the reconciler has them.
#[derive(Debug)]
pub(super) struct CompiledCluster {
    cluster: ClusterState,
    compiler: Compiler,
}

impl CompiledCluster {
    pub(super) fn new() -> Self {
        Self {
            cluster: ClusterState::default(),
            compiler: Compiler::new(Deny::default()),
        }
    }

    pub(super) fn cluster(&mut self, change: ClusterChange) {
        if let Some(changed) = self.cluster.apply(change) {
            self.compiler.changed(&changed, &self.cluster);
        }
    }

    pub(super) fn set_node(&mut self, locals: BTreeMap<PortNo, LocalEndpoint>, node: NodeFacts) {
        self.compiler.set_node(locals, node, &self.cluster);
    }

    pub(super) fn flush(&mut self) -> RuleDelta {
        self.compiler.flush(&self.cluster)
    }

    pub(super) fn problems(&self) -> Vec<PolicyProblem> {
        self.compiler.problems()
    }
}

/// Compiles from nothing, in one go.
pub(super) fn compile(
    changes: Vec<ClusterChange>,
    locals: BTreeMap<PortNo, LocalEndpoint>,
    node: NodeFacts,
) -> Program {
    let mut compiler = CompiledCluster::new();
    changes
        .into_iter()
        .for_each(|change| compiler.cluster(change));
    compiler.set_node(locals, node);
    let mut program = Program::default();
    program.apply(compiler.flush());
    program.problems = compiler.problems();
    program
}
