//! The labels that Calico's selectors are held against: those of a pod or network set, and those that
//! Calico adds.

use std::collections::BTreeMap;

use super::expression::{NAME, NAMESPACE, OF_ACCOUNT, OF_NAMESPACE, ORCHESTRATOR, SERVICE_ACCOUNT};
use super::pods::Pod;
use crate::state::{ClusterState, NetworkSetRecord, PodRecord};

type Labels = BTreeMap<String, String>;

/// Returns whether a label is one that Calico adds.
pub(super) fn is_added(label: &str) -> bool {
    let added = [NAMESPACE, SERVICE_ACCOUNT, ORCHESTRATOR];
    let prefixes = [OF_NAMESPACE, OF_ACCOUNT];
    added.contains(&label) || prefixes.iter().any(|prefix| label.starts_with(prefix))
}

/// Returns all labels of a pod or network set.
pub(super) fn labels_of(of: &Pod, cluster: &ClusterState) -> Labels {
    let record = &of.record;
    if of.is_network_set {
        return with_namespace(&record.labels, &record.key.namespace, cluster);
    }
    labels_of_pod(record, cluster)
}

/// Returns all labels of a network set.
pub(super) fn labels_of_set(set: &NetworkSetRecord, cluster: &ClusterState) -> Labels {
    with_namespace(&set.labels, &set.key.namespace, cluster)
}

/// Returns all labels of a pod in this cluster.
pub(super) fn labels_of_pod(pod: &PodRecord, cluster: &ClusterState) -> Labels {
    let namespace = cluster.namespace(&pod.key.namespace);
    let account = cluster.service_account_of(pod);
    let of_namespace = namespace.map(|record| &record.labels);
    all_labels_of_pod(pod, of_namespace, account.map(|record| &record.labels))
}

/// Returns all labels of a pod whose namespace and service account have these labels, as far as
/// they have been heard of.
pub(super) fn all_labels_of_pod(
    pod: &PodRecord,
    of_namespace: Option<&Labels>,
    of_account: Option<&Labels>,
) -> Labels {
    let mut labels = pod.labels.clone();
    add_namespace(&mut labels, &pod.key.namespace, of_namespace);
    labels.insert(ORCHESTRATOR.to_owned(), "k8s".to_owned());
    let account = &pod.service_account;
    if !account.is_empty() {
        labels.insert(SERVICE_ACCOUNT.to_owned(), account.clone());
        add_all(&mut labels, OF_ACCOUNT, of_account);
        labels.insert(format!("{OF_ACCOUNT}{NAME}"), account.clone());
    }
    labels
}

fn with_namespace(own: &Labels, namespace: &str, cluster: &ClusterState) -> Labels {
    let mut labels = own.clone();
    if !namespace.is_empty() {
        let of_namespace = cluster.namespace(namespace).map(|record| &record.labels);
        add_namespace(&mut labels, namespace, of_namespace);
    }
    labels
}

fn add_namespace(labels: &mut Labels, namespace: &str, of_namespace: Option<&Labels>) {
    labels.insert(NAMESPACE.to_owned(), namespace.to_owned());
    add_all(labels, OF_NAMESPACE, of_namespace);
    labels.insert(format!("{OF_NAMESPACE}{NAME}"), namespace.to_owned());
}

fn add_all(labels: &mut Labels, prefix: &str, more: Option<&Labels>) {
    let more = more.into_iter().flatten();
    labels.extend(more.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
}
