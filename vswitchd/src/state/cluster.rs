//! The indexed facts of the cluster.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::changed::Changed;
use super::policies::Policies;
use super::records::{
    AnyPolicy, CalicoPolicyRecord, ClusterChange, ClusterPolicyKey, ClusterPolicyRecord,
    EndpointSliceRecord, NamespaceRecord, NetworkSetRecord, NodeRecord, ObjectKey, PodPhase,
    PodRecord, PolicyKey, PolicyMode, PolicyRecord, ServiceAccountRecord, ServiceRecord,
    StagedRecord, TierRecord,
};

/// Namespaces, pods, policies of all kinds, Services and nodes as last heard of; of the policies,
/// those in force are found, not the ones in audit. A clone shares
/// everything with its original and costs nothing; a change copies the few nodes that lead to it.
///
/// Removing a namespace removes nothing else: its pods and policies are announced gone by
/// themselves, before or after it, and a namespace made anew under the same name may already
/// have pods of its own when the removal of the old one arrives.
#[derive(Debug, Clone, Default)]
pub struct ClusterState {
    namespaces: OrdMap<String, Arc<NamespaceRecord>>,
    pods: OrdMap<ObjectKey, Arc<PodRecord>>,
    policies: Policies,
    network_sets: OrdMap<ObjectKey, Arc<NetworkSetRecord>>,
    service_accounts: OrdMap<ObjectKey, Arc<ServiceAccountRecord>>,
    tiers: OrdMap<String, Arc<TierRecord>>,
    services: OrdMap<ObjectKey, Arc<ServiceRecord>>,
    slices: OrdMap<ObjectKey, Arc<EndpointSliceRecord>>,
    /// EndpointSlices by their Service.
    slices_of: OrdMap<ObjectKey, OrdMap<ObjectKey, Arc<EndpointSliceRecord>>>,
    nodes: OrdMap<String, Arc<NodeRecord>>,
    /// Pods that claim an address, in the order in which they came to claim it.
    claims: OrdMap<IpAddr, Vec<ObjectKey>>,
}

impl ClusterState {
    /// Applies a change; returns what is different now, or `None` if nothing is.
    pub fn apply(&mut self, change: ClusterChange) -> Option<Changed> {
        match change {
            ClusterChange::Namespace(record) => {
                let (name, mode) = (record.name.clone(), record.mode);
                replace(&mut self.namespaces, &name, record)?;
                let policies = self.policies.set_namespace(&name, mode);
                Some(Changed::Namespace { name, policies })
            }
            ClusterChange::NamespaceGone(name) => {
                self.namespaces.remove(&name)?;
                let policies = self.policies.set_namespace(&name, None);
                Some(Changed::Namespace { name, policies })
            }
            ClusterChange::Pod(record) => self.set_pod(record),
            ClusterChange::PodGone(key) => self.remove_pod(key),
            ClusterChange::Policy(record) => self.set_policy(AnyPolicy::Network(Arc::new(record))),
            ClusterChange::PolicyGone(key) => self.remove_policy(PolicyKey::NetworkPolicy(key)),
            ClusterChange::ClusterPolicy(record) => {
                self.set_policy(AnyPolicy::Cluster(Arc::new(record)))
            }
            ClusterChange::ClusterPolicyGone(key) => {
                self.remove_policy(PolicyKey::ClusterPolicy(key))
            }
            ClusterChange::CalicoPolicy(record) => {
                self.set_policy(AnyPolicy::Calico(Arc::new(record)))
            }
            ClusterChange::CalicoPolicyGone(key) => self.remove_policy(PolicyKey::of_calico(&key)),
            ClusterChange::Staged(key, record) => self.stage(key, Some(record)),
            ClusterChange::StagedGone(key) => self.stage(key, None),
            ClusterChange::NetworkSet(record) => {
                let key = record.key.clone();
                replace(&mut self.network_sets, &key, record)?;
                Some(Changed::NetworkSet(key))
            }
            ClusterChange::NetworkSetGone(key) => {
                self.network_sets.remove(&key)?;
                Some(Changed::NetworkSet(key))
            }
            ClusterChange::ServiceAccount(record) => {
                let key = record.key.clone();
                replace(&mut self.service_accounts, &key, record)?;
                Some(Changed::ServiceAccount(key))
            }
            ClusterChange::ServiceAccountGone(key) => {
                self.service_accounts.remove(&key)?;
                Some(Changed::ServiceAccount(key))
            }
            ClusterChange::Tier(record) => {
                let name = record.name.clone();
                replace(&mut self.tiers, &name, record)?;
                Some(Changed::Tier(name))
            }
            ClusterChange::TierGone(name) => {
                self.tiers.remove(&name)?;
                Some(Changed::Tier(name))
            }
            ClusterChange::Service(record) => {
                let key = record.key.clone();
                replace(&mut self.services, &key, record)?;
                Some(Changed::Service(key))
            }
            ClusterChange::ServiceGone(key) => {
                self.services.remove(&key)?;
                Some(Changed::Service(key))
            }
            ClusterChange::EndpointSlice(record) => self.set_slice(record),
            ClusterChange::EndpointSliceGone(key) => {
                let before = Some(self.remove_slice(&key)?);
                Some(Changed::EndpointSlice { key, before })
            }
            ClusterChange::Node(record) => {
                let name = record.name.clone();
                let Replaced(before) = replace(&mut self.nodes, &name, record)?;
                Some(Changed::Node { name, before })
            }
            ClusterChange::NodeGone(name) => {
                let before = Some(self.nodes.remove(&name)?);
                Some(Changed::Node { name, before })
            }
        }
    }

    fn set_policy(&mut self, policy: AnyPolicy) -> Option<Changed> {
        let key = policy.key();
        self.policies.set(policy).then_some(Changed::Policy(key))
    }

    fn remove_policy(&mut self, key: PolicyKey) -> Option<Changed> {
        self.policies.remove(&key).then_some(Changed::Policy(key))
    }

    fn stage(&mut self, key: PolicyKey, staged: Option<StagedRecord>) -> Option<Changed> {
        let is_different = self.policies.stage(&key, staged);
        is_different.then_some(Changed::Policy(key))
    }

    /// Returns whether any policy may be in audit, or staged.
    #[must_use]
    pub fn has_audit(&self) -> bool {
        self.policies.has_audit()
    }

    /// Returns the policies that are in audit, and those that staged ones would change.
    pub fn in_audit(&self) -> impl Iterator<Item = &PolicyKey> {
        self.policies.in_audit()
    }

    /// Returns whether a policy is there, in force or in audit, or staged.
    #[must_use]
    pub fn knows_policy(&self, key: &PolicyKey) -> bool {
        self.policies.knows(key)
    }

    /// Returns whether a change of a policy is staged.
    #[must_use]
    pub fn is_staged(&self, key: &PolicyKey) -> bool {
        self.policies.is_staged(key)
    }

    /// Returns whether a policy that is there decides.
    #[must_use]
    pub fn mode_of(&self, key: &PolicyKey) -> PolicyMode {
        self.policies.mode(key)
    }

    /// Returns all objects that policies are judged by, as changes by which they came.
    pub(crate) fn everything(&self) -> impl Iterator<Item = Changed> {
        let namespaces = self.namespaces.keys().map(|name| Changed::Namespace {
            name: name.clone(),
            policies: Vec::new(),
        });
        let pods = self.pods.keys().map(|key| Changed::Pod {
            key: key.clone(),
            before: None,
        });
        let sets = self.network_sets.keys().cloned().map(Changed::NetworkSet);
        let policies = self.policies.keys().map(Changed::Policy);
        let nodes = self.nodes.keys().map(|name| Changed::Node {
            name: name.clone(),
            before: None,
        });
        let others = sets.chain(policies).chain(nodes);
        namespaces.chain(pods).chain(others)
    }

    /// Returns the cluster as it would be with all policies in audit in force, and with what is
    /// staged; changes are applied to it as to this one.
    #[must_use]
    pub fn with_audit(&self) -> Self {
        Self {
            policies: self.policies.with_audit(),
            ..self.clone()
        }
    }

    fn set_slice(&mut self, record: EndpointSliceRecord) -> Option<Changed> {
        let key = record.key.clone();
        if self.slices.get(&key).is_some_and(|old| **old == record) {
            return None;
        }
        let before = self.remove_slice(&key);
        let (service, record) = (record.service.clone(), Arc::new(record));
        let of_service = self.slices_of.entry(service).or_default();
        of_service.insert(key.clone(), Arc::clone(&record));
        self.slices.insert(key.clone(), record);
        Some(Changed::EndpointSlice { key, before })
    }

    fn remove_slice(&mut self, key: &ObjectKey) -> Option<Arc<EndpointSliceRecord>> {
        let slice = self.slices.remove(key)?;
        if let Some(of_service) = self.slices_of.get_mut(&slice.service) {
            of_service.remove(key);
            if of_service.is_empty() {
                self.slices_of.remove(&slice.service);
            }
        }
        Some(slice)
    }

    fn set_pod(&mut self, record: PodRecord) -> Option<Changed> {
        let key = record.key.clone();
        let after = claimed(&record);
        let Replaced(before) = replace(&mut self.pods, &key, record)?;
        let claimed_before = before.as_deref().map(claimed).unwrap_or_default();
        for ip in claimed_before.iter().filter(|ip| !after.contains(ip)) {
            self.drop_claim(*ip, &key);
        }
        for ip in after.into_iter().filter(|ip| !claimed_before.contains(ip)) {
            self.claims.entry(ip).or_default().push(key.clone());
        }
        Some(Changed::Pod { key, before })
    }

    fn remove_pod(&mut self, key: ObjectKey) -> Option<Changed> {
        let before = self.pods.remove(&key)?;
        for ip in claimed(&before) {
            self.drop_claim(ip, &key);
        }
        let before = Some(before);
        Some(Changed::Pod { key, before })
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
    pub fn namespaces(&self) -> impl ExactSizeIterator<Item = &Arc<NamespaceRecord>> {
        self.namespaces.values()
    }

    /// Returns a pod.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<PodRecord>> {
        self.pods.get(key)
    }

    /// Returns all pods, by namespace and name.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &Arc<PodRecord>> {
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
        self.policies.network.get(key)
    }

    /// Returns all policies, by namespace and name.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Arc<PolicyRecord>> {
        self.policies.network.values()
    }

    /// Returns a policy of the whole cluster.
    #[must_use]
    pub fn cluster_policy(&self, key: &ClusterPolicyKey) -> Option<&Arc<ClusterPolicyRecord>> {
        self.policies.cluster.get(key)
    }

    /// Returns all policies of the whole cluster, by kind and name.
    pub fn cluster_policies(&self) -> impl Iterator<Item = &Arc<ClusterPolicyRecord>> {
        self.policies.cluster.values()
    }

    /// Returns a policy of Calico's.
    #[must_use]
    pub fn calico_policy(&self, key: &ObjectKey) -> Option<&Arc<CalicoPolicyRecord>> {
        self.policies.calico.get(key)
    }

    /// Returns all policies of Calico's, by namespace and name, those of no namespace first.
    pub fn calico_policies(&self) -> impl Iterator<Item = &Arc<CalicoPolicyRecord>> {
        self.policies.calico.values()
    }

    /// Returns a network set.
    #[must_use]
    pub fn network_set(&self, key: &ObjectKey) -> Option<&Arc<NetworkSetRecord>> {
        self.network_sets.get(key)
    }

    /// Returns all network sets, by namespace and name, those of no namespace first.
    pub fn network_sets(&self) -> impl Iterator<Item = &Arc<NetworkSetRecord>> {
        self.network_sets.values()
    }

    /// Returns a ServiceAccount.
    #[must_use]
    pub fn service_account(&self, key: &ObjectKey) -> Option<&Arc<ServiceAccountRecord>> {
        self.service_accounts.get(key)
    }

    /// Returns all ServiceAccounts, by namespace and name.
    pub fn service_accounts(&self) -> impl Iterator<Item = &Arc<ServiceAccountRecord>> {
        self.service_accounts.values()
    }

    /// Returns the ServiceAccount of a pod.
    pub(crate) fn service_account_of(&self, pod: &PodRecord) -> Option<&Arc<ServiceAccountRecord>> {
        self.service_account(&ObjectKey {
            namespace: pod.key.namespace.clone(),
            name: pod.service_account.clone(),
        })
    }

    /// Returns a tier.
    #[must_use]
    pub fn tier(&self, name: &str) -> Option<&Arc<TierRecord>> {
        self.tiers.get(name)
    }

    /// Returns all tiers by name.
    pub fn tiers(&self) -> impl Iterator<Item = &Arc<TierRecord>> {
        self.tiers.values()
    }

    /// Returns whether a policy is in force.
    #[must_use]
    pub fn has_policy(&self, key: &PolicyKey) -> bool {
        self.policies.has(key)
    }

    /// Returns a Service.
    #[must_use]
    pub fn service(&self, key: &ObjectKey) -> Option<&Arc<ServiceRecord>> {
        self.services.get(key)
    }

    /// Returns all Services, by namespace and name.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<ServiceRecord>> {
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

/// The record that another came in the place of, if there was one.
struct Replaced<V>(Option<Arc<V>>);

/// Stores a record; returns the one before, or `None` if they do not differ.
fn replace<K: Ord + Clone, V: PartialEq>(
    map: &mut OrdMap<K, Arc<V>>,
    key: &K,
    value: V,
) -> Option<Replaced<V>> {
    if map.get(key).is_some_and(|old| **old == value) {
        return None;
    }
    Some(Replaced(map.insert(key.clone(), Arc::new(value))))
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
            service_account: "default".to_owned(),
            key: key(name),
            uid: format!("uid-{name}"),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            phase: PodPhase::Running,
            ..PodRecord::default()
        }
    }

    fn namespace() -> ClusterChange {
        let labels = BTreeMap::new();
        ClusterChange::Namespace(NamespaceRecord {
            name: "ns".to_owned(),
            labels,
            mode: None,
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
        let first = pod("a", &["10.0.0.1"]);
        let came = Changed::Pod {
            key: key("a"),
            before: None,
        };
        let went = Changed::Pod {
            key: key("a"),
            before: Some(Arc::new(first.clone())),
        };
        assert_eq!(state.apply(ClusterChange::Pod(first.clone())), Some(came));
        assert_eq!(state.apply(ClusterChange::Pod(first)), None);
        let named = Changed::Namespace {
            name: "ns".to_owned(),
            policies: Vec::new(),
        };
        assert_eq!(state.apply(namespace()), Some(named));
        assert_eq!(state.apply(namespace()), None);
        assert_eq!(state.apply(ClusterChange::PodGone(key("a"))), Some(went));
        assert_eq!(state.apply(ClusterChange::PodGone(key("a"))), None);
        assert_eq!(state.apply(ClusterChange::PolicyGone(key("p"))), None);
    }

    #[test]
    fn a_slice_that_passes_to_another_service_says_whose_it_was() {
        let slice = |service: &str| EndpointSliceRecord {
            key: key("s"),
            service: key(service),
            endpoints: Vec::new(),
            ports: Vec::new(),
        };
        let mut state = ClusterState::default();
        state.apply(ClusterChange::EndpointSlice(slice("a")));
        let changed = state.apply(ClusterChange::EndpointSlice(slice("b")));
        let expected = Changed::EndpointSlice {
            key: key("s"),
            before: Some(Arc::new(slice("a"))),
        };
        assert_eq!(changed, Some(expected));
        assert_eq!(state.slices_of(&key("a")).count(), 0);
        assert_eq!(state.slices_of(&key("b")).count(), 1);
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
