//! Since when each policy is as it is on this node.

use std::collections::BTreeSet;

use imbl::OrdMap;
use vswitch_api::Epoch;

use crate::state::{Changed, ClusterState, PolicyKey};

/// Since when this version of a policy is in force, or in audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicySince {
    /// Seconds since 1970.
    pub time: u64,
    /// The publication that brought it.
    pub epoch: Epoch,
}

/// Notes it for every policy.
#[derive(Debug, Default)]
pub(super) struct PolicyTimes {
    of: OrdMap<PolicyKey, PolicySince>,
    /// Policies that changed since the last publication.
    changed: BTreeSet<PolicyKey>,
}

impl PolicyTimes {
    /// Notes the policies that a change of the cluster is about.
    pub(super) fn changed(&mut self, changed: &Changed) {
        match changed {
            Changed::Policy(key) => {
                self.changed.insert(key.clone());
            }
            Changed::Namespace { policies, .. } => self.changed.extend(policies.iter().cloned()),
            _ => {}
        }
    }

    /// Notes that what changed was published.
    pub(super) fn published(&mut self, since: PolicySince, cluster: &ClusterState) {
        for key in std::mem::take(&mut self.changed) {
            if cluster.knows_policy(&key) {
                self.of.insert(key, since);
            } else {
                self.of.remove(&key);
            }
        }
    }

    pub(super) const fn all(&self) -> &OrdMap<PolicyKey, PolicySince> {
        &self.of
    }
}
