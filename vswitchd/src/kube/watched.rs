//! Kinds that are watched, and which of them a node can do without.

use crate::objects::{Family, Resource};
use crate::state::ClusterPolicyKind;

/// What a watcher is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Watched {
    /// Pods of this node: few, and CNI ADD waits for them.
    OwnPods,
    /// All objects of a kind.
    All(Resource),
}

/// Every watcher there is.
pub(super) const WATCHED: [Watched; 20] = [
    Watched::OwnPods,
    Watched::All(Resource::Namespace),
    Watched::All(Resource::NetworkPolicy),
    Watched::All(Resource::ClusterNetworkPolicy),
    Watched::All(Resource::AdminNetworkPolicy),
    Watched::All(Resource::BaselineAdminNetworkPolicy),
    Watched::All(Resource::CalicoTier),
    Watched::All(Resource::GlobalNetworkPolicy),
    Watched::All(Resource::CalicoNetworkPolicy),
    Watched::All(Resource::GlobalNetworkSet),
    Watched::All(Resource::NetworkSet),
    Watched::All(Resource::StagedGlobalNetworkPolicy),
    Watched::All(Resource::StagedNetworkPolicy),
    Watched::All(Resource::StagedKubernetesNetworkPolicy),
    Watched::All(Resource::HostEndpoint),
    Watched::All(Resource::ServiceAccount),
    Watched::All(Resource::Pod),
    Watched::All(Resource::Node),
    Watched::All(Resource::Service),
    Watched::All(Resource::EndpointSlice),
];

impl Watched {
    /// Returns its position in [`WATCHED`].
    pub(super) fn index(self) -> usize {
        WATCHED
            .iter()
            .position(|watched| *watched == self)
            .expect("WATCHED lists every watcher")
    }

    /// Names it, for logs and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OwnPods => "own_pods",
            Self::All(resource) => resource.info().unique_name(),
        }
    }

    pub(super) const fn resource(self) -> Resource {
        match self {
            Self::OwnPods => Resource::Pod,
            Self::All(resource) => resource,
        }
    }

    /// Returns whether it tells of objects of a kind.
    pub(super) fn covers(self, resource: Resource) -> bool {
        self.resource() == resource
    }

    /// Returns whether a node may go on without ever having heard of these objects. Without pods
    /// and namespaces no policy can be judged. Policies that must not be read may be there; in a
    /// cluster that does not serve them there is none.
    pub(super) fn is_dispensable(self, absence: Absence) -> bool {
        match self.resource().family() {
            Family::Services
            | Family::EndpointSlices
            | Family::Nodes
            | Family::HostEndpoints
            | Family::Events => true,
            Family::NetworkPolicies | Family::ClusterPolicies(_) | Family::Calico => {
                absence == Absence::NotServed
            }
            Family::Pods | Family::Namespaces | Family::ServiceAccounts => false,
        }
    }

    /// Returns whether clusters are as they should be that do not serve these objects.
    pub(super) fn is_an_addition(self) -> bool {
        let family = self.resource().family();
        matches!(
            family,
            Family::ClusterPolicies(_) | Family::Calico | Family::HostEndpoints
        )
    }

    /// Says what does not work while these objects cannot be read.
    pub(super) fn consequence(self, absence: Absence) -> &'static str {
        let unjudged = "policies cannot be judged, the node does not become ready";
        let without = match self.resource().family() {
            Family::Services => return "this node's switch serves no Services",
            Family::EndpointSlices => {
                return "Services have no endpoints, connections to them are refused";
            }
            Family::Nodes => {
                return "pods of other nodes are not reached by vswitch's routes and tunnels";
            }
            Family::Pods | Family::Namespaces | Family::ServiceAccounts => return unjudged,
            Family::NetworkPolicies => "there are no NetworkPolicies to enforce",
            Family::ClusterPolicies(ClusterPolicyKind::ClusterNetworkPolicy) => {
                "there are no ClusterNetworkPolicies to enforce"
            }
            Family::ClusterPolicies(ClusterPolicyKind::AdminNetworkPolicy) => {
                "there are no AdminNetworkPolicies to enforce"
            }
            Family::ClusterPolicies(ClusterPolicyKind::BaselineAdminNetworkPolicy) => {
                "there is no BaselineAdminNetworkPolicy to enforce"
            }
            Family::Calico => "there are no policies of Calico's to enforce",
            Family::Events => return "Events are not read",
            Family::HostEndpoints => {
                return "HostEndpoints have no effect here, and which there are is not said";
            }
        };
        match absence {
            Absence::NotServed => without,
            Absence::Forbidden => unjudged,
        }
    }

    /// Returns the other watcher that tells of the pods of this node.
    pub(super) fn other_of(self, resource: Resource) -> Option<Self> {
        match self {
            Self::OwnPods => Some(Self::All(Resource::Pod)),
            Self::All(_) if resource == Resource::Pod => Some(Self::OwnPods),
            Self::All(_) => None,
        }
    }
}

/// Why a kind cannot be read, though the API server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// The API server does not serve it.
    NotServed,
    /// This client must not read it.
    Forbidden,
}
