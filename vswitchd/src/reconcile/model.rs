//! The reconciler's model: intent, the cluster, and the compilers that read it. Each round of inputs
//! becomes one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use vswitch_api::PortNo;
use vswitch_datapath::pipeline::{AuditUpdate, Transaction};

use super::audit::Audit;
use super::base::Base;
use super::intent::{AdminFlow, Intent, PortAttachMode, ReconcileConfig};
use super::owners::Owners;
use super::since::{PolicySince, PolicyTimes};
use crate::config::Deny;
use crate::policy::{Compiler, NodeFacts, PolicyProblem};
use crate::rules::RuleDelta;
use crate::service::{HostPortForward, ServiceCompiler, ServiceDelta, Surface};
use crate::state::{
    Attachment, Changed, ClusterChange, ClusterState, LocalEndpoint, ObjectKey, PodRecord,
    PolicyKey,
};

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

/// The ports of this node, and what is known of the node.
type Node = (BTreeMap<PortNo, LocalEndpoint>, NodeFacts);

/// What is wanted, and what was given out of it.
#[derive(Debug)]
pub struct Model {
    intent: Intent,
    cluster: ClusterState,
    compiler: Compiler,
    services: ServiceCompiler,
    base: Base,
    owners: Owners,
    /// While any policy is in audit.
    audit: Option<Audit>,
    times: PolicyTimes,
    deny: Deny,
    /// Ports, flows or the node changed since the last flush.
    is_node_dirty: bool,
}

impl Model {
    /// Returns a model that was told nothing.
    #[must_use]
    pub fn new(config: ReconcileConfig) -> Self {
        let mut owners = Owners::default();
        owners.touch(&config.gateway.addresses);
        let deny = config.deny;
        Self {
            deny,
            cluster: ClusterState::default(),
            compiler: Compiler::new(deny),
            services: ServiceCompiler::new(config.node_name.clone()),
            intent: Intent::new(config),
            base: Base::new(),
            audit: None,
            times: PolicyTimes::default(),
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
        let audit = self.audit.as_mut();
        if let Some(changed) = audit.and_then(|audit| audit.apply(change.clone())) {
            self.times.changed(&changed);
        }
        let Some(changed) = self.cluster.apply(change) else {
            return;
        };
        if let Changed::Pod { key, before } = &changed {
            self.pod_changed(key, before.as_deref());
        }
        self.times.changed(&changed);
        self.services.changed(&changed, &self.cluster);
        self.compiler.changed(&changed, &self.cluster);
    }

    fn pod_changed(&mut self, key: &ObjectKey, before: Option<&PodRecord>) {
        let after = self.cluster.pod(key).map(AsRef::as_ref);
        let limits = |pod: Option<&PodRecord>| pod.map(|pod| pod.bandwidth).unwrap_or_default();
        self.is_node_dirty |= limits(before) != limits(after);
        for pod in [before, after].into_iter().flatten() {
            self.owners.touch(&pod.ips);
        }
    }

    /// Returns what all that was taken in since the last call changes.
    pub fn flush(&mut self) -> Transaction {
        let mut changes = Transaction::default();
        let is_node_dirty = std::mem::take(&mut self.is_node_dirty);
        let node = is_node_dirty.then(|| self.node());
        changes.audit = self.flush_audit(node.as_ref());
        if let Some((endpoints, node)) = node {
            self.owners.set_local(&endpoints);
            let (delta, ports) = self.base.update(&self.intent, &endpoints, &self.cluster);
            add(&mut changes, delta);
            changes.ports = ports;
            self.services.set_node_addresses(&node.addresses);
            self.services
                .set_host_ports(self.intent.host_ports(&endpoints));
            self.compiler.set_node(endpoints, node, &self.cluster);
        }
        let delta = self.compiler.flush(&self.cluster);
        add(&mut changes, delta);
        let ServiceDelta {
            rules,
            groups,
            lost,
            served,
        } = self.services.flush(&self.cluster);
        add(&mut changes, rules);
        changes.groups = groups;
        changes.forget_endpoints = lost;
        changes.forget_untranslated = served;
        changes.forget_addresses = self.owners.changed_hands(&self.intent, &self.cluster);
        changes
    }

    /// Returns the ports of this node and what is known of the node.
    fn node(&self) -> Node {
        let node = self.intent.node_facts();
        (self.intent.endpoints(&node), node)
    }

    /// Returns what the policies in audit come to, and begins or ends with them; `node` if that is
    /// different now.
    fn flush_audit(&mut self, node: Option<&Node>) -> AuditUpdate {
        if !self.cluster.has_audit() {
            return match self.audit.take() {
                Some(_) => AuditUpdate::Off,
                None => AuditUpdate::Nothing,
            };
        }
        let is_new = self.audit.is_none();
        if is_new {
            for key in self.cluster.in_audit() {
                self.times.changed(&Changed::Policy(key.clone()));
            }
        }
        let node = node.cloned().or_else(|| is_new.then(|| self.node()));
        let deny = self.deny;
        let audit = self
            .audit
            .get_or_insert_with(|| Audit::of(&self.cluster, deny));
        if let Some((endpoints, node)) = node {
            audit.set_node(endpoints, node);
        }
        audit.flush()
    }

    /// Notes that what the last flush returned is published.
    pub(super) fn published(&mut self, since: PolicySince) {
        self.times.published(since, &self.cluster);
    }

    /// Returns since when each policy is as it is.
    pub(super) const fn policy_times(&self) -> &OrdMap<PolicyKey, PolicySince> {
        self.times.all()
    }

    /// Returns the objects of the cluster.
    #[must_use]
    pub fn cluster_state(&self) -> &ClusterState {
        &self.cluster
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
