//! What a change of the cluster came to: which object differs now, and what it was before where
//! compilers have to know.

use std::sync::Arc;

use super::records::{EndpointSliceRecord, NodeRecord, ObjectKey, PodRecord, PolicyKey};

/// An object that was added, changed or removed. What it is now is in
/// [`ClusterState`](super::ClusterState).
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// A namespace.
    Namespace {
        /// Its name.
        name: String,
        /// Policies that count no longer, or count now, because of it.
        policies: Vec<PolicyKey>,
    },
    /// A pod.
    Pod {
        /// Namespace and name.
        key: ObjectKey,
        /// What it was, if it was there.
        before: Option<Arc<PodRecord>>,
    },
    /// A policy of any kind.
    Policy(PolicyKey),
    /// A network set.
    NetworkSet(ObjectKey),
    /// A ServiceAccount.
    ServiceAccount(ObjectKey),
    /// A tier, by name.
    Tier(String),
    /// A Service.
    Service(ObjectKey),
    /// An EndpointSlice.
    EndpointSlice {
        /// Namespace and name.
        key: ObjectKey,
        /// What it was, if it was there; it may have been another Service's.
        before: Option<Arc<EndpointSliceRecord>>,
    },
    /// A Node.
    Node {
        /// Its name.
        name: String,
        /// What it was, if it was there.
        before: Option<Arc<NodeRecord>>,
    },
}
