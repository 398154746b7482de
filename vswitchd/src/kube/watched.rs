//! Kinds that are watched, and which of them a node can do without.

use crate::objects::Resource;

/// What a watcher is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Watched {
    /// Pods of this node: few, and CNI ADD waits for them.
    OwnPods,
    /// All objects of a kind.
    All(Resource),
}

/// Every watcher there is.
pub(super) const WATCHED: [Watched; 8] = [
    Watched::OwnPods,
    Watched::All(Resource::Namespace),
    Watched::All(Resource::NetworkPolicy),
    Watched::All(Resource::ClusterNetworkPolicy),
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
            Self::All(resource) => resource.info().plural,
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
        match self.resource() {
            Resource::Service | Resource::EndpointSlice | Resource::Node => true,
            Resource::NetworkPolicy | Resource::ClusterNetworkPolicy => {
                absence == Absence::NotServed
            }
            Resource::Pod | Resource::Namespace => false,
        }
    }

    /// Returns whether clusters are as they should be that do not serve these objects.
    pub(super) fn is_an_addition(self) -> bool {
        self.resource() == Resource::ClusterNetworkPolicy
    }

    /// Says what does not work while these objects cannot be read.
    pub(super) fn consequence(self, absence: Absence) -> &'static str {
        match self.resource() {
            Resource::Service => "this node's switch serves no Services",
            Resource::EndpointSlice => {
                "Services have no endpoints, connections to them are refused"
            }
            Resource::Node => "pods of other nodes are not reached by vswitch's routes and tunnels",
            Resource::NetworkPolicy if absence == Absence::NotServed => {
                "there are no NetworkPolicies to enforce"
            }
            Resource::ClusterNetworkPolicy if absence == Absence::NotServed => {
                "there are no ClusterNetworkPolicies to enforce"
            }
            Resource::NetworkPolicy
            | Resource::ClusterNetworkPolicy
            | Resource::Namespace
            | Resource::Pod => "policies cannot be judged, the node does not become ready",
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
