//! Pods that are alike: of one namespace, with the same labels but for those that tell the pods of
//! one Deployment, StatefulSet, DaemonSet or Job apart.

use std::collections::BTreeMap;

use crate::state::PodRecord;

/// Labels that controllers of Kubernetes give their pods, other values for each pod or version.
const OF_ONE_POD_OR_VERSION: [&str; 10] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "job-name",
    "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/job-completion-index",
];

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// metadata.labels that all of them have.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// Returns what a pod is one of.
    #[must_use]
    pub fn of(pod: &PodRecord) -> Self {
        let is_shared =
            |(label, _): &(&String, &String)| !OF_ONE_POD_OR_VERSION.contains(&label.as_str());
        let labels = pod.labels.iter().filter(is_shared);
        Self {
            namespace: pod.key.namespace.clone(),
            labels: labels.map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}
