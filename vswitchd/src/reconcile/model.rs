//! The reconciler's model: intent and compilers. Each round of inputs becomes one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use vswitch_api::PortNo;
use vswitch_datapath::pipeline::{Bandwidth, Transaction};

use super::base::Base;
use super::intent::{AdminFlow, Intent, PortAttachMode, ReconcileConfig};
use super::owners::Owners;
use crate::policy::{Compiler, PolicyProblem};
use crate::rules::RuleDelta;
use crate::service::{HostPortForward, ServiceCompiler, ServiceDelta, Surface};
use crate::state::{Attachment, ClusterChange, ClusterState, ObjectKey, PodRecord};

/// One thing that the reconciler is told.
#[derive(Debug, Clone)]
pub enum ModelInput {
    /// Objects of the cluster changed, in order.
    Cluster(Vec<ClusterChange>),
    /// Everything of the cluster has been told once.
    Synced,
    /// A port was attached, or is known better now.
    Attach(Box<Attachment>, PortAttachMode),
    /// A port is gone.
    Detach(PortNo),
    /// Whether a port accepts TCP connections in the middle of their stream.
    Midstream(PortNo, bool),
    /// A port's MTU, in place of the attachment's or the gateway's.
    Mtu(PortNo, u16),
    /// All flows of operators and orchestrators.
    AdminFlows(Vec<AdminFlow>),
    /// The node's own addresses; the gateway's need not be among them.
    NodeAddresses(BTreeSet<IpAddr>),
}

/// What is wanted, and what was given out of it.
#[derive(Debug)]
pub struct Model {
    intent: Intent,
    compiler: Compiler,
    services: ServiceCompiler,
    base: Base,
    owners: Owners,
    /// Ports, flows or the node changed since the last flush.
    is_node_dirty: bool,
}

impl Model {
    /// Returns a model that was told nothing.
    #[must_use]
    pub fn new(config: ReconcileConfig) -> Self {
        let mut owners = Owners::default();
        owners.touch(&config.gateway.addresses);
        Self {
            compiler: Compiler::new(config.deny),
            services: ServiceCompiler::new(config.node_name.clone()),
            intent: Intent::new(config),
            base: Base::new(),
            owners,
            is_node_dirty: true,
        }
    }

    /// Takes in one thing.
    pub fn take(&mut self, told: ModelInput) {
        let intent = &mut self.intent;
        let is_changed = match told {
            ModelInput::Cluster(changes) => {
                changes.into_iter().for_each(|change| self.cluster(change));
                return;
            }
            ModelInput::Synced => !std::mem::replace(&mut intent.is_synced, true),
            ModelInput::Attach(attachment, mode) => {
                intent.attach(*attachment, mode);
                true
            }
            ModelInput::Detach(port) => intent.detach(port),
            ModelInput::Midstream(port, midstream) => intent.set_midstream(port, midstream),
            ModelInput::Mtu(port, mtu) => intent.mtus.insert(port, mtu) != Some(mtu),
            ModelInput::AdminFlows(flows) => {
                let is_changed = intent.admin_flows != flows;
                intent.admin_flows = flows;
                is_changed
            }
            ModelInput::NodeAddresses(addresses) => {
                let is_changed = intent.node_addresses != addresses;
                intent.node_addresses = addresses;
                is_changed
            }
        };
        self.is_node_dirty |= is_changed;
    }

    fn cluster(&mut self, change: ClusterChange) {
        let key = match &change {
            ClusterChange::Pod(record) => {
                self.owners.touch(&record.ips);
                Some(&record.key)
            }
            ClusterChange::PodGone(key) => Some(key),
            _ => None,
        };
        let before = key.and_then(|key| self.compiler.state().pod(key));
        let limits = |pod: Option<&PodRecord>| pod.map(|pod| pod.bandwidth).unwrap_or_default();
        let after = match &change {
            ClusterChange::Pod(record) => limits(Some(record)),
            _ => Bandwidth::default(),
        };
        self.is_node_dirty |= key.is_some() && limits(before.map(AsRef::as_ref)) != after;
        if let Some(before) = before {
            self.owners.touch(&before.ips);
        }
        self.services.touch(&change, self.compiler.state());
        self.compiler.cluster(change);
    }

    /// Returns what all that was taken in since the last call changes.
    pub fn flush(&mut self) -> Transaction {
        let mut changes = Transaction::default();
        if std::mem::take(&mut self.is_node_dirty) {
            let node = self.intent.node_facts();
            let endpoints = self.intent.endpoints(&node);
            self.owners.set_local(&endpoints);
            let (delta, ports) = {
                let cluster = self.compiler.state();
                self.base.update(&self.intent, &endpoints, cluster)
            };
            add(&mut changes, delta);
            changes.ports = ports;
            self.services.set_node_addresses(&node.addresses);
            self.services
                .set_host_ports(self.intent.host_ports(&endpoints));
            self.compiler.set_node(endpoints, node);
        }
        let delta = self.compiler.flush();
        add(&mut changes, delta);
        let ServiceDelta {
            rules,
            groups,
            lost,
            served,
        } = self.services.flush(self.compiler.state());
        add(&mut changes, rules);
        changes.groups = groups;
        changes.forget_endpoints = lost;
        changes.forget_untranslated = served;
        changes.forget_addresses = self
            .owners
            .changed_hands(&self.intent, self.compiler.state());
        changes
    }

    /// Returns the objects of the cluster.
    #[must_use]
    pub fn cluster_state(&self) -> &ClusterState {
        self.compiler.state()
    }

    /// Returns what outside the switch has to lead to Services.
    #[must_use]
    pub const fn surfaces(&self) -> &OrdMap<ObjectKey, Surface> {
        self.services.surfaces()
    }

    /// Returns the host ports that the node's kernel has to translate.
    #[must_use]
    pub fn host_port_forwards(&self) -> BTreeSet<HostPortForward> {
        self.services.host_port_forwards()
    }

    /// Returns what was not understood of policies.
    #[must_use]
    pub fn problems(&self) -> Vec<PolicyProblem> {
        self.compiler.problems()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.intent.is_synced
    }

    pub(super) fn attachments(&self) -> BTreeMap<PortNo, Arc<Attachment>> {
        let attached = self.intent.attached.iter();
        attached
            .map(|(no, attached)| (*no, Arc::clone(&attached.attachment)))
            .collect()
    }
}

fn add(changes: &mut Transaction, delta: RuleDelta) {
    changes.remove_rules.extend(delta.remove_rules);
    changes.add_rules.extend(delta.add_rules);
    changes.sets.extend(delta.sets);
}
