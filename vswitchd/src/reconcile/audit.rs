//! The policies as they would be with those in audit in force: another cluster, another compiler.
//! They are there while any policy is in audit.

use std::collections::BTreeMap;

use vswitch_api::PortNo;
use vswitch_datapath::pipeline::AuditUpdate;

use crate::config::Deny;
use crate::policy::{Compiler, NodeFacts};
use crate::rules::RuleDelta;
use crate::state::{Changed, ClusterChange, ClusterState, LocalEndpoint};

/// See the module.
#[derive(Debug)]
pub(super) struct Audit {
    cluster: ClusterState,
    compiler: Compiler,
}

impl Audit {
    /// Begins from the cluster as it is. That takes as long as a start: all policies are compiled.
    pub(super) fn of(cluster: &ClusterState, deny: Deny) -> Self {
        let cluster = cluster.with_audit();
        let mut compiler = Compiler::new(deny);
        for changed in cluster.everything() {
            compiler.changed(&changed, &cluster);
        }
        Self { cluster, compiler }
    }

    /// Applies a change of the cluster; returns what is different with the policies in audit.
    pub(super) fn apply(&mut self, change: ClusterChange) -> Option<Changed> {
        let changed = self.cluster.apply(change)?;
        self.compiler.changed(&changed, &self.cluster);
        Some(changed)
    }

    /// Sets the ports of this node and what is known of the node.
    pub(super) fn set_node(&mut self, endpoints: BTreeMap<PortNo, LocalEndpoint>, node: NodeFacts) {
        self.compiler.set_node(endpoints, node, &self.cluster);
    }

    /// Returns what the changes since the last call come to.
    pub(super) fn flush(&mut self) -> AuditUpdate {
        let delta = self.compiler.flush(&self.cluster);
        if delta == RuleDelta::default() {
            return AuditUpdate::Nothing;
        }
        AuditUpdate::Change {
            remove_rules: delta.remove_rules,
            add_rules: delta.add_rules,
            sets: delta.sets,
        }
    }
}
