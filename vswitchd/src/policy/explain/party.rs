//! One end of the connection with its objects, and whether a rule's peer means it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer};

use super::super::calico_labels::{all_labels_of_pod, labels_of_set};
use super::super::peers::{Members, Peer, PodPeer, Scope};
use super::super::pods::is_addressable;
use super::labels::{self, LabelMiss};
use super::{End, Labelled, Relabel};
use crate::state::{ClusterState, NamespaceRecord, ObjectKey, PodRecord, ServiceAccountRecord};

/// One end.
#[derive(Debug, Clone)]
pub(super) struct Party<'a> {
    pub(super) end: &'a End,
    pod: Option<Arc<PodRecord>>,
    namespace: Option<Arc<NamespaceRecord>>,
    account: Option<Arc<ServiceAccountRecord>>,
}

/// What policies can make of an end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Standing<'a> {
    /// An address without labels.
    Address,
    /// A pod that selectors find.
    Pod(&'a PodRecord),
    /// A pod with the address of its node.
    HostNetwork(&'a ObjectKey),
    /// A pod whose address belongs to nobody.
    Finished(&'a ObjectKey),
    /// A pod whose object has not been heard of.
    Unknown(&'a ObjectKey),
}

/// How a rule's peer does not mean an end.
#[derive(Debug)]
pub(super) struct PeerMiss {
    /// Why.
    pub(super) text: String,
    /// The labels that would make it match; `None` if none would.
    pub(super) relabels: Option<Vec<Relabel>>,
}

/// Whether a rule's peer means an end.
#[derive(Debug)]
pub(super) enum PeerFit {
    /// It does.
    Matches,
    /// It does not.
    Misses(PeerMiss),
    /// It cannot be understood, for this reason.
    Flawed(String),
}

impl<'a> Party<'a> {
    pub(super) fn new(cluster: &ClusterState, end: &'a End) -> Self {
        let key = end.pod.as_ref();
        let pod = key.and_then(|key| cluster.pod(key)).cloned();
        let account = pod.as_ref().and_then(|pod| cluster.service_account_of(pod));
        Self {
            end,
            namespace: key
                .and_then(|key| cluster.namespace(&key.namespace))
                .cloned(),
            account: account.cloned(),
            pod,
        }
    }

    /// Returns who it is, for people.
    pub(super) fn name(&self) -> String {
        match (&self.end.pod, self.end.address) {
            (Some(key), _) => format!("pod {key}"),
            (None, _) if self.end.is_node => "the node".to_owned(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "an unknown address".to_owned(),
        }
    }

    pub(super) fn standing(&self) -> Standing<'_> {
        let Some(key) = &self.end.pod else {
            return Standing::Address;
        };
        match &self.pod {
            None => Standing::Unknown(key),
            Some(pod) if pod.host_network => Standing::HostNetwork(key),
            // An address of the node belongs to no pod, whatever the pod's status claims.
            Some(_) if self.end.is_node => Standing::Address,
            Some(pod) if is_addressable(pod) => Standing::Pod(pod),
            Some(_) => Standing::Finished(key),
        }
    }

    /// Returns the same end with other labels.
    pub(super) fn relabelled(&self, relabels: &[Relabel]) -> Self {
        let mut party = self.clone();
        for relabel in relabels {
            match &relabel.object {
                Labelled::Pod(key) => {
                    if let Some(pod) = party.pod.as_mut().filter(|pod| pod.key == *key) {
                        labels::apply(&mut Arc::make_mut(pod).labels, &relabel.changes);
                    }
                }
                Labelled::Namespace(name) => {
                    if let Some(of) = party.namespace.as_mut().filter(|of| of.name == *name) {
                        labels::apply(&mut Arc::make_mut(of).labels, &relabel.changes);
                    }
                }
            }
        }
        party
    }

    /// Returns whether it is one of the pods that selectors find.
    pub(super) fn is_among(&self, members: &Members) -> bool {
        let Standing::Pod(pod) = self.standing() else {
            return false;
        };
        match members {
            Members::Pods(peer) => self.pod_outside(peer, pod).is_none(),
            Members::Selected { expression, .. } => {
                let of_namespace = self.namespace.as_ref().map(|record| &record.labels);
                let of_account = self.account.as_ref().map(|record| &record.labels);
                expression.matches(&all_labels_of_pod(pod, of_namespace, of_account))
            }
        }
    }

    /// Returns whether it is one of those, or has an address of a network set that they find.
    pub(super) fn is_member(&self, members: &Members, cluster: &ClusterState) -> bool {
        if self.is_among(members) {
            return true;
        }
        let Members::Selected {
            expression,
            is_here: false,
        } = members
        else {
            return false;
        };
        let mut sets = cluster.network_sets();
        sets.any(|set| self.is_in(&set.nets) && expression.matches(&labels_of_set(set, cluster)))
    }

    /// Returns whether its address is in one of these networks.
    pub(super) fn is_in(&self, networks: &BTreeSet<IpNet>) -> bool {
        let address = self.end.address;
        address.is_some_and(|address| networks.iter().any(|net| net.contains(&address)))
    }

    /// Returns whether a peer of a policy in namespace `own` means this end.
    pub(super) fn fits(&self, written: &NetworkPolicyPeer, own: &str) -> PeerFit {
        match (Peer::parse(written, own), &written.ip_block) {
            (Err(error), _) => PeerFit::Flawed(error.to_string()),
            (Ok(Peer::Pods(pods)), _) => match self.outside_pods(&pods) {
                None => PeerFit::Matches,
                Some(miss) => PeerFit::Misses(miss),
            },
            (Ok(Peer::Networks(networks)), block) => {
                match self.outside_block(&networks, block.as_ref()) {
                    None => PeerFit::Matches,
                    Some(text) => PeerFit::Misses(PeerMiss {
                        text,
                        relabels: None,
                    }),
                }
            }
        }
    }

    fn outside_pods(&self, pods: &PodPeer) -> Option<PeerMiss> {
        let unselectable = |why: &str| {
            let text = format!("{} {why}", self.name());
            let relabels = None;
            Some(PeerMiss { text, relabels })
        };
        match self.standing() {
            Standing::Pod(pod) => self.pod_outside(pods, pod),
            Standing::Address => unselectable("is no pod: it has no labels"),
            Standing::HostNetwork(_) => {
                unselectable("is in the host's network: an ipBlock can mean it, a selector cannot")
            }
            Standing::Finished(_) => unselectable("has finished: its address belongs to nobody"),
            Standing::Unknown(_) => unselectable("has no known object: no selector finds it"),
        }
    }

    fn pod_outside(&self, pods: &PodPeer, pod: &PodRecord) -> Option<PeerMiss> {
        let of_pod = labels::miss(&pods.selector, &pod.labels).map(|miss| {
            let object = Labelled::Pod(pod.key.clone());
            labels_miss(object, miss)
        });
        let misses: Vec<PeerMiss> = [of_pod, self.namespace_outside(&pods.scope, &pod.key)]
            .into_iter()
            .flatten()
            .collect();
        merge(misses)
    }

    fn namespace_outside(&self, scope: &Scope, pod: &ObjectKey) -> Option<PeerMiss> {
        let name = &pod.namespace;
        match (scope, &self.namespace) {
            (Scope::Everywhere, _) => None,
            (Scope::Namespace(own), _) if own == name => None,
            (Scope::Namespace(own), _) => Some(PeerMiss {
                text: format!(
                    "pod {pod} is not in namespace {own}, which a podSelector alone means"
                ),
                relabels: None,
            }),
            (Scope::Namespaces(_), None) => Some(PeerMiss {
                text: format!("namespace {name} is not known"),
                relabels: None,
            }),
            (Scope::Namespaces(selector), Some(record)) => {
                let miss = labels::miss(selector, &record.labels)?;
                Some(labels_miss(Labelled::Namespace(name.clone()), miss))
            }
        }
    }

    fn outside_block(&self, networks: &[IpNet], block: Option<&IPBlock>) -> Option<String> {
        let Some(address) = self.end.address else {
            return Some(format!("{} has no address", self.name()));
        };
        if networks.iter().any(|network| network.contains(&address)) {
            return None;
        }
        let has = |text: &&String| {
            let network = text.parse::<IpNet>();
            network.is_ok_and(|network| network.contains(&address))
        };
        let block = block?;
        let except = block.except.iter().flatten().find(has);
        Some(match except {
            Some(except) => {
                format!("{address} is in the except {except} of {}", block.cidr)
            }
            None => format!("{address} is not in {}", block.cidr),
        })
    }
}

fn labels_miss(object: Labelled, miss: LabelMiss) -> PeerMiss {
    PeerMiss {
        text: format!("{object} {}", miss.text),
        relabels: miss
            .changes
            .map(|changes| vec![Relabel { object, changes }]),
    }
}

/// Joins misses of one peer; labels help only if they help against each.
fn merge(misses: Vec<PeerMiss>) -> Option<PeerMiss> {
    let mut misses = misses.into_iter();
    let mut merged = misses.next()?;
    for miss in misses {
        merged.text = format!("{}, {}", merged.text, miss.text);
        merged.relabels = merged.relabels.zip(miss.relabels).map(|(mut all, more)| {
            all.extend(more);
            all
        });
    }
    Some(merged)
}
