//! The resources that the registry serves.

use crate::state::{ClusterPolicyKind, PolicyKey};

/// A served resource, or Events, which the daemon writes and others read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are Kubernetes' and Calico's")]
pub enum Resource {
    Namespace,
    Pod,
    Node,
    Service,
    ServiceAccount,
    EndpointSlice,
    NetworkPolicy,
    ClusterNetworkPolicy,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    CalicoTier,
    GlobalNetworkPolicy,
    CalicoNetworkPolicy,
    GlobalNetworkSet,
    NetworkSet,
    StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    HostEndpoint,
    Event,
}

/// What kinds are about that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Namespaces.
    Namespaces,
    /// Pods.
    Pods,
    /// Nodes.
    Nodes,
    /// ServiceAccounts.
    ServiceAccounts,
    /// Services.
    Services,
    /// EndpointSlices.
    EndpointSlices,
    /// NetworkPolicies of Kubernetes.
    NetworkPolicies,
    /// Policies of the whole cluster.
    ClusterPolicies(ClusterPolicyKind),
    /// Policies of Calico's, tried out or not, and what they name.
    Calico,
    /// Interfaces of nodes that Calico guards: known by name alone, since policies are enforced on
    /// pods.
    HostEndpoints,
    /// Events about other objects.
    Events,
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

/// Group of Calico's kinds.
pub(crate) const CALICO_GROUP: &str = "projectcalico.org";

/// Events as each of their API groups has them, the older one first: kubectl reads that, some
/// clients the other. Only the daemon writes them.
pub const EVENTS: [ResourceInfo; 2] = [
    EVENT,
    ResourceInfo {
        group: "events.k8s.io",
        ..EVENT
    },
];

const EVENT: ResourceInfo = core(
    Resource::Event,
    "Event",
    "events",
    "event",
    &["ev"],
    Scope::Namespaced,
    false,
);

/// Everything that is served and can be written, in the order of discovery.
pub const RESOURCES: [ResourceInfo; 19] = [
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
    core(
        Resource::ServiceAccount,
        "ServiceAccount",
        "serviceaccounts",
        "serviceaccount",
        &["sa"],
        Scope::Namespaced,
        false,
    ),
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
    of_cluster(
        Resource::ClusterNetworkPolicy,
        ClusterPolicyKind::ClusterNetworkPolicy,
        "v1alpha2",
        ("clusternetworkpolicies", "clusternetworkpolicy", &["cnp"]),
    ),
    of_cluster(
        Resource::AdminNetworkPolicy,
        ClusterPolicyKind::AdminNetworkPolicy,
        "v1alpha1",
        ("adminnetworkpolicies", "adminnetworkpolicy", &["anp"]),
    ),
    of_cluster(
        Resource::BaselineAdminNetworkPolicy,
        ClusterPolicyKind::BaselineAdminNetworkPolicy,
        "v1alpha1",
        (
            "baselineadminnetworkpolicies",
            "baselineadminnetworkpolicy",
            &["banp"],
        ),
    ),
    calico(
        Resource::CalicoTier,
        "Tier",
        ("tiers", "tier", &[]),
        Scope::Cluster,
        true,
    ),
    calico(
        Resource::GlobalNetworkPolicy,
        "GlobalNetworkPolicy",
        (
            "globalnetworkpolicies",
            "globalnetworkpolicy",
            &["gnp", "cgnp"],
        ),
        Scope::Cluster,
        false,
    ),
    calico(
        Resource::CalicoNetworkPolicy,
        "NetworkPolicy",
        ("networkpolicies", "networkpolicy", &["caliconetworkpolicy"]),
        Scope::Namespaced,
        false,
    ),
    calico(
        Resource::GlobalNetworkSet,
        "GlobalNetworkSet",
        ("globalnetworksets", "globalnetworkset", &[]),
        Scope::Cluster,
        false,
    ),
    calico(
        Resource::NetworkSet,
        "NetworkSet",
        ("networksets", "networkset", &["netsets"]),
        Scope::Namespaced,
        false,
    ),
    calico(
        Resource::StagedGlobalNetworkPolicy,
        "StagedGlobalNetworkPolicy",
        (
            "stagedglobalnetworkpolicies",
            "stagedglobalnetworkpolicy",
            &["sgnp"],
        ),
        Scope::Cluster,
        false,
    ),
    calico(
        Resource::StagedNetworkPolicy,
        "StagedNetworkPolicy",
        ("stagednetworkpolicies", "stagednetworkpolicy", &["snp"]),
        Scope::Namespaced,
        false,
    ),
    calico(
        Resource::StagedKubernetesNetworkPolicy,
        "StagedKubernetesNetworkPolicy",
        (
            "stagedkubernetesnetworkpolicies",
            "stagedkubernetesnetworkpolicy",
            &["sknp"],
        ),
        Scope::Namespaced,
        false,
    ),
    calico(
        Resource::HostEndpoint,
        "HostEndpoint",
        ("hostendpoints", "hostendpoint", &["hep", "heps"]),
        Scope::Cluster,
        false,
    ),
];

const fn of_cluster(
    resource: Resource,
    kind: ClusterPolicyKind,
    version: &'static str,
    (plural, singular, short_names): (&'static str, &'static str, &'static [&'static str]),
) -> ResourceInfo {
    ResourceInfo {
        group: "policy.networking.k8s.io",
        version,
        ..core(
            resource,
            kind.name(),
            plural,
            singular,
            short_names,
            Scope::Cluster,
            true,
        )
    }
}

const fn calico(
    resource: Resource,
    kind: &'static str,
    (plural, singular, short_names): (&'static str, &'static str, &'static [&'static str]),
    scope: Scope,
    has_status: bool,
) -> ResourceInfo {
    ResourceInfo {
        group: CALICO_GROUP,
        version: "v3",
        ..core(
            resource,
            kind,
            plural,
            singular,
            short_names,
            scope,
            has_status,
        )
    }
}

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

    /// Returns the path of the objects of all namespaces.
    #[must_use]
    pub fn path(&self) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        format!("/{root}/{}/{}", self.api_version(), self.plural)
    }

    /// Returns the name that no other resource has, whatever its group.
    #[must_use]
    pub fn unique_name(&self) -> &'static str {
        match self.resource {
            Resource::CalicoNetworkPolicy => "networkpolicies.projectcalico.org",
            _ => self.plural,
        }
    }
}

impl Resource {
    /// Returns what it is about.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::Namespace => Family::Namespaces,
            Self::Pod => Family::Pods,
            Self::Node => Family::Nodes,
            Self::ServiceAccount => Family::ServiceAccounts,
            Self::Service => Family::Services,
            Self::EndpointSlice => Family::EndpointSlices,
            Self::NetworkPolicy => Family::NetworkPolicies,
            Self::ClusterNetworkPolicy => {
                Family::ClusterPolicies(ClusterPolicyKind::ClusterNetworkPolicy)
            }
            Self::AdminNetworkPolicy => {
                Family::ClusterPolicies(ClusterPolicyKind::AdminNetworkPolicy)
            }
            Self::BaselineAdminNetworkPolicy => {
                Family::ClusterPolicies(ClusterPolicyKind::BaselineAdminNetworkPolicy)
            }
            Self::CalicoTier
            | Self::GlobalNetworkPolicy
            | Self::CalicoNetworkPolicy
            | Self::GlobalNetworkSet
            | Self::NetworkSet
            | Self::StagedGlobalNetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedKubernetesNetworkPolicy => Family::Calico,
            Self::HostEndpoint => Family::HostEndpoints,
            Self::Event => Family::Events,
        }
    }

    /// Returns that of a policy.
    #[must_use]
    pub const fn of_policy(policy: &PolicyKey) -> Self {
        match policy {
            PolicyKey::NetworkPolicy(_) => Self::NetworkPolicy,
            PolicyKey::ClusterPolicy(key) => match key.kind {
                ClusterPolicyKind::ClusterNetworkPolicy => Self::ClusterNetworkPolicy,
                ClusterPolicyKind::AdminNetworkPolicy => Self::AdminNetworkPolicy,
                ClusterPolicyKind::BaselineAdminNetworkPolicy => Self::BaselineAdminNetworkPolicy,
            },
            PolicyKey::GlobalNetworkPolicy(_) => Self::GlobalNetworkPolicy,
            PolicyKey::CalicoNetworkPolicy(_) => Self::CalicoNetworkPolicy,
        }
    }

    /// Returns which kind of policies of the whole cluster it is, if it is one.
    #[must_use]
    pub const fn cluster_policy(self) -> Option<ClusterPolicyKind> {
        match self.family() {
            Family::ClusterPolicies(kind) => Some(kind),
            _ => None,
        }
    }

    /// Returns what discovery says of it.
    #[must_use]
    pub fn info(self) -> &'static ResourceInfo {
        RESOURCES
            .iter()
            .chain(&EVENTS)
            .find(|info| info.resource == self)
            .expect("one of both lists has every variant")
    }
}
