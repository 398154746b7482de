//! The resources that the registry serves.

/// A served resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are Kubernetes'")]
pub enum Resource {
    Namespace,
    Pod,
    Node,
    Service,
    EndpointSlice,
    NetworkPolicy,
    ClusterNetworkPolicy,
}

/// Whether objects live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// What discovery says of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceInfo {
    /// Which one.
    pub resource: Resource,
    /// API group; empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind of the objects.
    pub kind: &'static str,
    /// Plural name, as in paths.
    pub plural: &'static str,
    /// Singular name.
    pub singular: &'static str,
    /// Short names.
    pub short_names: &'static [&'static str],
    /// Categories.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// Whether it has a `/status` subresource.
    pub has_status: bool,
}

/// Everything that is served, in the order of discovery.
pub const RESOURCES: [ResourceInfo; 7] = [
    core(
        Resource::Namespace,
        "Namespace",
        "namespaces",
        "namespace",
        &["ns"],
        Scope::Cluster,
        true,
    ),
    core(
        Resource::Node,
        "Node",
        "nodes",
        "node",
        &["no"],
        Scope::Cluster,
        true,
    ),
    ResourceInfo {
        categories: &["all"],
        ..core(
            Resource::Pod,
            "Pod",
            "pods",
            "pod",
            &["po"],
            Scope::Namespaced,
            true,
        )
    },
    ResourceInfo {
        categories: &["all"],
        ..core(
            Resource::Service,
            "Service",
            "services",
            "service",
            &["svc"],
            Scope::Namespaced,
            true,
        )
    },
    ResourceInfo {
        group: "discovery.k8s.io",
        has_status: false,
        ..core(
            Resource::EndpointSlice,
            "EndpointSlice",
            "endpointslices",
            "endpointslice",
            &[],
            Scope::Namespaced,
            false,
        )
    },
    ResourceInfo {
        group: "networking.k8s.io",
        has_status: false,
        ..core(
            Resource::NetworkPolicy,
            "NetworkPolicy",
            "networkpolicies",
            "networkpolicy",
            &["netpol"],
            Scope::Namespaced,
            false,
        )
    },
    ResourceInfo {
        group: "policy.networking.k8s.io",
        version: "v1alpha2",
        ..core(
            Resource::ClusterNetworkPolicy,
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            "clusternetworkpolicy",
            &["cnp"],
            Scope::Cluster,
            true,
        )
    },
];

const fn core(
    resource: Resource,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
    scope: Scope,
    has_status: bool,
) -> ResourceInfo {
    ResourceInfo {
        resource,
        group: "",
        version: "v1",
        kind,
        plural,
        singular,
        short_names,
        categories: &[],
        scope,
        has_status,
    }
}

impl ResourceInfo {
    /// Returns `group/version`, or the version for core.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

impl Resource {
    /// Returns what discovery says of it.
    #[must_use]
    pub fn info(self) -> &'static ResourceInfo {
        RESOURCES
            .iter()
            .find(|info| info.resource == self)
            .expect("RESOURCES lists every variant")
    }
}
