//! Answers of `GET /v1/policies`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/policies`: a policy; the list is in the order in which they are judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: String,
    /// `namespace/name`, or the bare name of a ClusterNetworkPolicy.
    pub policy: String,
    /// `Admin` or `Baseline`, of a ClusterNetworkPolicy that is understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Priority in its tier; lower ones come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// How many pods of this node it selects.
    pub pods: usize,
    /// What of it is not understood and fails closed, where it concerns this node.
    pub problems: Vec<String>,
}
