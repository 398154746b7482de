//! The indexed facts of the cluster.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::records::{
    ClusterChange, ClusterPolicyRecord, EndpointSliceRecord, NamespaceRecord, NodeRecord,
    ObjectKey, PodPhase, PodRecord, PolicyKey, PolicyRecord, ServiceRecord,
};

/// Namespaces, pods, policies of both kinds, services and nodes as last heard of. A clone shares everything with its original
/// and costs nothing; a change copies the few nodes that lead to it.
///
/// Removing a namespace removes nothing else: its pods and policies are announced gone by
/// themselves, before or after it, and a namespace made anew under the same name may already
/// have pods of its own when the removal of the old one arrives.
#[derive(Debug, Clone, Default)]
pub struct ClusterState {
    namespaces: OrdMap<String, Arc<NamespaceRecord>>,
    pods: OrdMap<ObjectKey, Arc<PodRecord>>,
    policies: OrdMap<ObjectKey, Arc<PolicyRecord>>,
    cluster_policies: OrdMap<String, Arc<ClusterPolicyRecord>>,
    services: OrdMap<ObjectKey, Arc<ServiceRecord>>,
    slices: OrdMap<ObjectKey, Arc<EndpointSliceRecord>>,
    /// EndpointSlices by their Service.
    slices_of: OrdMap<ObjectKey, OrdMap<ObjectKey, Arc<EndpointSliceRecord>>>,
    nodes: OrdMap<String, Arc<NodeRecord>>,
    /// Pods that claim an address, in the order in which they came to claim it.
    claims: OrdMap<IpAddr, Vec<ObjectKey>>,
}

impl ClusterState {
    /// Takes in a change; returns whether anything is different now.
    pub fn apply(&mut self, change: ClusterChange) -> bool {
        match change {
            ClusterChange::Namespace(record) => {
                let name = record.name.clone();
                replace(&mut self.namespaces, name, record)
            }
            ClusterChange::NamespaceGone(name) => self.namespaces.remove(&name).is_some(),
            ClusterChange::Pod(record) => self.set_pod(record),
            ClusterChange::PodGone(key) => self.remove_pod(&key),
            ClusterChange::Policy(record) => {
                let key = record.key.clone();
                replace(&mut self.policies, key, record)
            }
            ClusterChange::PolicyGone(key) => self.policies.remove(&key).is_some(),
            ClusterChange::ClusterPolicy(record) => {
                let name = record.name.clone();
                replace(&mut self.cluster_policies, name, record)
            }
            ClusterChange::ClusterPolicyGone(name) => self.cluster_policies.remove(&name).is_some(),
            ClusterChange::Service(record) => {
                let key = record.key.clone();
                replace(&mut self.services, key, record)
            }
            ClusterChange::ServiceGone(key) => self.services.remove(&key).is_some(),
            ClusterChange::EndpointSlice(record) => self.set_slice(record),
            ClusterChange::EndpointSliceGone(key) => self.remove_slice(&key),
            ClusterChange::Node(record) => {
                let name = record.name.clone();
                replace(&mut self.nodes, name, record)
            }
            ClusterChange::NodeGone(name) => self.nodes.remove(&name).is_some(),
        }
    }

    fn set_slice(&mut self, record: EndpointSliceRecord) -> bool {
        if self
            .slices
            .get(&record.key)
            .is_some_and(|old| **old == record)
        {
            return false;
        }
        self.remove_slice(&record.key);
        let (key, service, record) = (record.key.clone(), record.service.clone(), Arc::new(record));
        let of_service = self.slices_of.entry(service).or_default();
        of_service.insert(key.clone(), Arc::clone(&record));
        self.slices.insert(key, record);
        true
    }

    fn remove_slice(&mut self, key: &ObjectKey) -> bool {
        let Some(slice) = self.slices.remove(key) else {
            return false;
        };
        if let Some(of_service) = self.slices_of.get_mut(&slice.service) {
            of_service.remove(key);
            if of_service.is_empty() {
                self.slices_of.remove(&slice.service);
            }
        }
        true
    }

    fn set_pod(&mut self, record: PodRecord) -> bool {
        let key = record.key.clone();
        let before = self
            .pods
            .get(&key)
            .map(|pod| claimed(pod))
            .unwrap_or_default();
        let after = claimed(&record);
        for ip in before.iter().filter(|ip| !after.contains(ip)) {
            self.drop_claim(*ip, &key);
        }
        for ip in after.into_iter().filter(|ip| !before.contains(ip)) {
            self.claims.entry(ip).or_default().push(key.clone());
        }
        replace(&mut self.pods, key, record)
    }

    fn remove_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(pod) = self.pods.remove(key) else {
            return false;
        };
        for ip in claimed(&pod) {
            self.drop_claim(ip, key);
        }
        true
    }

    fn drop_claim(&mut self, ip: IpAddr, key: &ObjectKey) {
        if let Some(claimants) = self.claims.get_mut(&ip) {
            claimants.retain(|claimant| claimant != key);
            if claimants.is_empty() {
                self.claims.remove(&ip);
            }
        }
    }

    /// Returns a namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Arc<NamespaceRecord>> {
        self.namespaces.get(name)
    }

    /// Returns all namespaces by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<NamespaceRecord>> {
        self.namespaces.values()
    }

    /// Returns a pod.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<PodRecord>> {
        self.pods.get(key)
    }

    /// Returns all pods, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodRecord>> {
        self.pods.values()
    }

    /// Returns the pods of a namespace by name.
    pub fn pods_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<PodRecord>> {
        let first = ObjectKey {
            namespace: namespace.to_owned(),
            name: String::new(),
        };
        let of_namespace = move |key: &ObjectKey| key.namespace == namespace;
        self.pods
            .range(first..)
            .take_while(move |(key, _)| of_namespace(key))
            .map(|(_, pod)| pod)
    }

    /// Returns a policy.
    #[must_use]
    pub fn policy(&self, key: &ObjectKey) -> Option<&Arc<PolicyRecord>> {
        self.policies.get(key)
    }

    /// Returns all policies, by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<PolicyRecord>> {
        self.policies.values()
    }

    /// Returns a ClusterNetworkPolicy.
    #[must_use]
    pub fn cluster_policy(&self, name: &str) -> Option<&Arc<ClusterPolicyRecord>> {
        self.cluster_policies.get(name)
    }

    /// Returns all ClusterNetworkPolicies by name.
    pub fn cluster_policies(&self) -> impl Iterator<Item = &Arc<ClusterPolicyRecord>> {
        self.cluster_policies.values()
    }

    /// Returns whether a policy is there.
    #[must_use]
    pub fn has_policy(&self, key: &PolicyKey) -> bool {
        match key {
            PolicyKey::NetworkPolicy(key) => self.policies.contains_key(key),
            PolicyKey::ClusterNetworkPolicy(name) => self.cluster_policies.contains_key(name),
        }
    }

    /// Returns a Service.
    #[must_use]
    pub fn service(&self, key: &ObjectKey) -> Option<&Arc<ServiceRecord>> {
        self.services.get(key)
    }

    /// Returns all Services, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceRecord>> {
        self.services.values()
    }

    /// Returns an EndpointSlice.
    #[must_use]
    pub fn slice(&self, key: &ObjectKey) -> Option<&Arc<EndpointSliceRecord>> {
        self.slices.get(key)
    }

    /// Returns the EndpointSlices of a Service, by name.
    pub fn slices_of(
        &self,
        service: &ObjectKey,
    ) -> impl Iterator<Item = &Arc<EndpointSliceRecord>> {
        self.slices_of
            .get(service)
            .into_iter()
            .flat_map(OrdMap::values)
    }

    /// Returns a Node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<NodeRecord>> {
        self.nodes.get(name)
    }

    /// Returns all Nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes.values()
    }

    /// Returns whether no Node changed between `other` and this; costs nothing.
    #[must_use]
    pub fn has_nodes_of(&self, other: &Self) -> bool {
        self.nodes.ptr_eq(&other.nodes)
    }

    /// Returns the pods that claim an address, the true owner last.
    pub fn claimants(&self, ip: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.claims.get(&ip).into_iter().flatten()
    }

    /// Returns the pod that an address belongs to by the pods' own word.
    ///
    /// Two pods claim one address while the status of the older lags behind its release:
    /// the latest claim is the true one, since addresses are given out only when free.
    #[must_use]
    pub fn owner_of(&self, ip: IpAddr) -> Option<&Arc<PodRecord>> {
        self.claims
            .get(&ip)
            .and_then(|claimants| claimants.last())
            .and_then(|key| self.pod(key))
    }
}

/// Stores a record; returns whether it differs from what was there.
fn replace<K: Ord + Clone, V: PartialEq>(map: &mut OrdMap<K, Arc<V>>, key: K, value: V) -> bool {
    if map.get(&key).is_some_and(|old| **old == value) {
        return false;
    }
    map.insert(key, Arc::new(value));
    true
}

/// Returns the addresses that are the pod's own: a finished pod has none any more, a pod in
/// the host's network none of its own, and one address of another kind names no pod at all.
fn claimed(pod: &PodRecord) -> Vec<IpAddr> {
    let is_over = matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed);
    if is_over || pod.host_network {
        return Vec::new();
    }
    pod.ips
        .iter()
        .copied()
        .filter(|ip| names_a_pod(*ip))
        .collect()
}

/// Returns whether an address can be a pod's. An IPv4-mapped IPv6 address is none: on the
/// wire it would be another address than the one it looks like.
pub(crate) fn names_a_pod(ip: IpAddr) -> bool {
    let is_mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let is_link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !(is_mapped || is_link_local || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        }
    }

    fn pod(name: &str, ips: &[&str]) -> PodRecord {
        PodRecord {
            key: key(name),
            uid: format!("uid-{name}"),
            labels: BTreeMap::new(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            host_network: false,
            phase: PodPhase::Running,
            node_name: None,
            named_ports: Vec::new(),
            bandwidth: vswitch_datapath::pipeline::Bandwidth::default(),
        }
    }

    fn namespace() -> ClusterChange {
        let labels = BTreeMap::new();
        ClusterChange::Namespace(NamespaceRecord {
            name: "ns".to_owned(),
            labels,
        })
    }

    fn owner(state: &ClusterState, ip: &str) -> Option<String> {
        state
            .owner_of(ip.parse().unwrap())
            .map(|pod| pod.key.name.clone())
    }

    #[test]
    fn the_same_change_twice_changes_nothing() {
        let mut state = ClusterState::default();
        assert!(state.apply(ClusterChange::Pod(pod("a", &["10.0.0.1"]))));
        assert!(!state.apply(ClusterChange::Pod(pod("a", &["10.0.0.1"]))));
        assert!(state.apply(namespace()));
        assert!(!state.apply(namespace()));
        assert!(state.apply(ClusterChange::PodGone(key("a"))));
        assert!(!state.apply(ClusterChange::PodGone(key("a"))));
        assert!(!state.apply(ClusterChange::PolicyGone(key("p"))));
    }

    #[test]
    fn a_pod_may_come_before_its_namespace_and_go_after_it() {
        let mut early = ClusterState::default();
        early.apply(ClusterChange::Pod(pod("a", &["10.0.0.1"])));
        early.apply(namespace());
        let mut late = ClusterState::default();
        late.apply(namespace());
        late.apply(ClusterChange::Pod(pod("a", &["10.0.0.1"])));
        for state in [&early, &late] {
            assert_eq!(state.pods_of("ns").count(), 1);
            assert!(state.namespace("ns").is_some());
        }
        late.apply(ClusterChange::NamespaceGone("ns".to_owned()));
        assert!(
            late.pod(&key("a")).is_some(),
            "a pod made in a new namespace of that name"
        );
        late.apply(ClusterChange::PodGone(key("a")));
        assert_eq!(late.pods().count(), 0);
        assert_eq!(owner(&late, "10.0.0.1"), None);
    }

    #[test]
    fn an_address_belongs_to_the_pod_that_claimed_it_last() {
        let mut state = ClusterState::default();
        state.apply(ClusterChange::Pod(pod("old", &["10.0.0.1"])));
        state.apply(ClusterChange::Pod(pod("new", &["10.0.0.1"])));
        assert_eq!(owner(&state, "10.0.0.1").as_deref(), Some("new"));
        let mut relabelled = pod("old", &["10.0.0.1"]);
        relabelled.labels.insert("a".to_owned(), "b".to_owned());
        state.apply(ClusterChange::Pod(relabelled));
        assert_eq!(owner(&state, "10.0.0.1").as_deref(), Some("new"));
        state.apply(ClusterChange::PodGone(key("new")));
        assert_eq!(owner(&state, "10.0.0.1").as_deref(), Some("old"));
    }

    #[test]
    fn finished_and_host_network_pods_own_no_address() {
        let mut state = ClusterState::default();
        let mut done = pod("done", &["10.0.0.1"]);
        done.phase = PodPhase::Succeeded;
        let mut host = pod("host", &["10.0.0.2"]);
        host.host_network = true;
        state.apply(ClusterChange::Pod(done));
        state.apply(ClusterChange::Pod(host));
        assert_eq!(owner(&state, "10.0.0.1"), None);
        assert_eq!(owner(&state, "10.0.0.2"), None);
    }

    #[test]
    fn addresses_that_name_no_pod_are_left_out() {
        let mut state = ClusterState::default();
        let odd = ["::ffff:10.0.0.1", "fe80::1", "0.0.0.0", "::1", "224.0.0.1"];
        state.apply(ClusterChange::Pod(pod("a", &odd)));
        for ip in odd {
            assert_eq!(owner(&state, ip), None, "{ip}");
        }
    }

    #[test]
    fn pods_of_a_namespace_are_not_those_of_one_with_a_longer_name() {
        let mut state = ClusterState::default();
        state.apply(ClusterChange::Pod(pod("a", &[])));
        let mut other = pod("b", &[]);
        other.key.namespace = "ns-2".to_owned();
        state.apply(ClusterChange::Pod(other));
        assert_eq!(state.pods_of("ns").count(), 1);
    }
}
