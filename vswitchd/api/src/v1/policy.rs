//! Answers of `GET /v1/policies`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/policies`: a policy; the list is in the order in which they are judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// `NetworkPolicy`, `ClusterNetworkPolicy`, `AdminNetworkPolicy`, `BaselineAdminNetworkPolicy`,
    /// or Calico's `GlobalNetworkPolicy` or `CalicoNetworkPolicy`.
    pub kind: String,
    /// `namespace/name`, the bare name of a policy of the whole cluster, or `calico:` before the namespace
    /// and name of one of Calico's.
    pub policy: String,
    /// `Admin` or `Baseline` of a policy of the whole cluster, the tier of one of Calico's, if it is
    /// understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Priority of a policy of the whole cluster in its tier; lower ones come first, a
    /// BaselineAdminNetworkPolicy, which has none, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Order of a policy of Calico's in its tier; lower ones come first, those without last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Whom it selects, in the words of `GET /v1/address-sets`; empty if it does nothing.
    #[serde(default)]
    pub subject: String,
    /// How many pods of this node it selects.
    pub pods: usize,
    /// `enforce`; `audit`: it is tried out and denies nothing; `staged`: it is in force, and a change
    /// of it is tried out.
    #[serde(default)]
    pub mode: String,
    /// Since when this version of it is in force on this node, or tried out: RFC 3339, UTC; at the
    /// earliest since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The epoch of the rules that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What of it is not understood and fails closed, where it concerns this node.
    pub problems: Vec<String>,
}
