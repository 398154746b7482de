//! Custom resources of a test, which take any field.

use serde_json::{Value, json};

/// A kind of object that an API server is to serve.
#[derive(Debug, Clone, Copy)]
pub struct CustomResource {
    /// API group.
    pub group: &'static str,
    /// Version in it.
    pub version: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// `Namespaced` or `Cluster`.
    pub scope: &'static str,
}

impl CustomResource {
    /// With a status of its own, as its CRD has it.
    pub const CLUSTER_NETWORK_POLICY: Self = Self {
        group: "policy.networking.k8s.io",
        version: "v1alpha2",
        plural: "clusternetworkpolicies",
        kind: "ClusterNetworkPolicy",
        scope: "Cluster",
    };

    /// Returns the name of its CustomResourceDefinition.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// Returns its CustomResourceDefinition.
    #[must_use]
    pub fn definition(&self) -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": self.name(),
                "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
            "spec": {"group": self.group, "scope": self.scope,
                "names": {"plural": self.plural, "kind": self.kind,
                    "singular": self.kind.to_lowercase()},
                "versions": [{"name": self.version, "served": true, "storage": true,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object",
                        "x-kubernetes-preserve-unknown-fields": true}}}]},
        })
    }

    /// Returns what kubectl does to wait until it is served.
    #[must_use]
    pub fn wait(&self) -> [String; 4] {
        let name = format!("crd/{}", self.name());
        [
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            &name,
        ]
        .map(str::to_owned)
    }
}
