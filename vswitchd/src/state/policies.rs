//! The policies of the cluster: as they are written, and those of them that count.
//!
//! A policy in audit is there to be tried out: it counts only where the cluster is seen as it would
//! be with all of them in force ([`View::WithAudit`]), and so does what Calico's staged policies say.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::records::{
    AnyPolicy, CalicoPolicyRecord, ClusterPolicyKey, ClusterPolicyRecord, ObjectKey, PolicyKey,
    PolicyMode, PolicyRecord, StagedRecord,
};

/// Which policies count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum View {
    /// Those in force.
    #[default]
    InForce,
    /// Those in audit as well, and staged ones in the place of those that they are to replace.
    WithAudit,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Policies {
    view: View,
    written: OrdMap<PolicyKey, AnyPolicy>,
    staged: OrdMap<PolicyKey, StagedRecord>,
    /// Namespaces whose policies are in audit, unless they say otherwise.
    audited_namespaces: OrdSet<String>,
    /// Policies that say so themselves.
    audited: OrdSet<PolicyKey>,
    // Those that count.
    pub(super) network: OrdMap<ObjectKey, Arc<PolicyRecord>>,
    pub(super) cluster: OrdMap<ClusterPolicyKey, Arc<ClusterPolicyRecord>>,
    pub(super) calico: OrdMap<ObjectKey, Arc<CalicoPolicyRecord>>,
}

impl Policies {
    /// Writes a policy; returns whether what counts is different now.
    pub(super) fn set(&mut self, policy: AnyPolicy) -> bool {
        let key = policy.key();
        match policy.mode() {
            Some(PolicyMode::Audit) => self.audited.insert(key.clone()),
            _ => self.audited.remove(&key),
        };
        self.written.insert(key.clone(), policy);
        self.refresh(&key)
    }

    /// Removes a policy; returns whether what counts is different now.
    pub(super) fn remove(&mut self, key: &PolicyKey) -> bool {
        self.written.remove(key);
        self.audited.remove(key);
        self.refresh(key)
    }

    /// Stages a change of a policy, or no longer; returns whether what counts is different now.
    pub(super) fn stage(&mut self, key: &PolicyKey, staged: Option<StagedRecord>) -> bool {
        match staged {
            Some(staged) => self.staged.insert(key.clone(), staged),
            None => self.staged.remove(key),
        };
        self.refresh(key)
    }

    /// Sets what the policies of a namespace are that do not say it themselves; returns those by
    /// which what counts is different now.
    pub(super) fn set_namespace(&mut self, name: &str, mode: Option<PolicyMode>) -> Vec<PolicyKey> {
        let is_audited = mode == Some(PolicyMode::Audit);
        if is_audited == self.audited_namespaces.contains(name) {
            return Vec::new();
        }
        if is_audited {
            self.audited_namespaces.insert(name.to_owned());
        } else {
            self.audited_namespaces.remove(name);
        }
        let is_its = |key: &&PolicyKey| key.namespace() == Some(name);
        let of_namespace: Vec<PolicyKey> = self.written.keys().filter(is_its).cloned().collect();
        let is_different = |key: &PolicyKey| self.refresh(key);
        of_namespace.into_iter().filter(is_different).collect()
    }

    /// Returns whether a policy that is written is in audit.
    pub(super) fn mode(&self, key: &PolicyKey) -> PolicyMode {
        let own = self.written.get(key).and_then(AnyPolicy::mode);
        own.unwrap_or_else(|| {
            let namespace = key.namespace();
            if namespace.is_some_and(|name| self.audited_namespaces.contains(name)) {
                PolicyMode::Audit
            } else {
                PolicyMode::Enforce
            }
        })
    }

    /// Returns whether any may be in audit, or anything is staged.
    pub(super) fn has_audit(&self) -> bool {
        let counts = [
            self.audited.len(),
            self.audited_namespaces.len(),
            self.staged.len(),
        ];
        counts.iter().any(|count| *count > 0)
    }

    /// Returns the policies that are in audit, and those that a staged one would change.
    pub(super) fn in_audit(&self) -> impl Iterator<Item = &PolicyKey> {
        let written = self.written.keys();
        let audited = written.filter(|key| self.mode(key) == PolicyMode::Audit);
        let is_not_listed = |key: &&PolicyKey| {
            !self.written.contains_key(*key) || self.mode(key) == PolicyMode::Enforce
        };
        audited.chain(self.staged.keys().filter(is_not_listed))
    }

    /// Returns the same as they would be with all of them in force.
    pub(super) fn with_audit(&self) -> Self {
        let mut with = Self {
            view: View::WithAudit,
            ..self.clone()
        };
        let keys: Vec<PolicyKey> = self.in_audit().cloned().collect();
        for key in &keys {
            with.refresh(key);
        }
        with
    }

    /// Returns whether a policy is written or staged.
    pub(super) fn knows(&self, key: &PolicyKey) -> bool {
        self.written.contains_key(key) || self.staged.contains_key(key)
    }

    pub(super) fn is_staged(&self, key: &PolicyKey) -> bool {
        self.staged.contains_key(key)
    }

    /// Returns the policies that count.
    pub(super) fn keys(&self) -> impl Iterator<Item = PolicyKey> {
        let network = self.network.keys().cloned().map(PolicyKey::NetworkPolicy);
        let cluster = self.cluster.keys().cloned();
        let cluster = cluster.map(PolicyKey::ClusterPolicy);
        let calico = self.calico.keys().map(PolicyKey::of_calico);
        network.chain(cluster).chain(calico)
    }

    /// Returns whether a policy counts.
    pub(super) fn has(&self, key: &PolicyKey) -> bool {
        match key {
            PolicyKey::NetworkPolicy(key) => self.network.contains_key(key),
            PolicyKey::ClusterPolicy(key) => self.cluster.contains_key(key),
            PolicyKey::GlobalNetworkPolicy(_) | PolicyKey::CalicoNetworkPolicy(_) => {
                self.calico.contains_key(&key.object())
            }
        }
    }

    /// Returns what counts of a policy.
    fn effective(&self, key: &PolicyKey) -> Option<&AnyPolicy> {
        let written = self.written.get(key);
        match self.view {
            View::InForce => written.filter(|_| self.mode(key) == PolicyMode::Enforce),
            View::WithAudit => match self.staged.get(key) {
                Some(staged) => staged.becomes.as_ref(),
                None => written,
            },
        }
    }

    /// Finds out anew what counts of a policy; returns whether that is different now.
    fn refresh(&mut self, key: &PolicyKey) -> bool {
        match self.effective(key).cloned() {
            Some(AnyPolicy::Network(record)) => put(&mut self.network, key.object(), record),
            Some(AnyPolicy::Cluster(record)) => {
                let key = record.key.clone();
                put(&mut self.cluster, key, record)
            }
            Some(AnyPolicy::Calico(record)) => put(&mut self.calico, key.object(), record),
            None => match key {
                PolicyKey::NetworkPolicy(key) => self.network.remove(key).is_some(),
                PolicyKey::ClusterPolicy(key) => self.cluster.remove(key).is_some(),
                PolicyKey::GlobalNetworkPolicy(_) | PolicyKey::CalicoNetworkPolicy(_) => {
                    self.calico.remove(&key.object()).is_some()
                }
            },
        }
    }
}

/// Stores a record; returns whether it differs from the one before.
fn put<K: Ord + Clone, V: PartialEq>(map: &mut OrdMap<K, Arc<V>>, key: K, value: Arc<V>) -> bool {
    let before = map.insert(key, Arc::clone(&value));
    before.is_none_or(|before| before != value)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::NetworkPolicySpec;

    use super::*;

    fn key(name: &str) -> PolicyKey {
        PolicyKey::NetworkPolicy(object(name))
    }

    fn object(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        }
    }

    fn policy(name: &str, mode: Option<PolicyMode>, types: &[&str]) -> AnyPolicy {
        let types = types.iter().map(|text| (*text).to_owned());
        AnyPolicy::Network(Arc::new(PolicyRecord {
            key: object(name),
            spec: NetworkPolicySpec {
                policy_types: Some(types.collect()),
                ..NetworkPolicySpec::default()
            },
            mode,
        }))
    }

    fn names(policies: &Policies) -> Vec<&str> {
        policies
            .network
            .keys()
            .map(|key| key.name.as_str())
            .collect()
    }

    const AUDIT: Option<PolicyMode> = Some(PolicyMode::Audit);
    const ENFORCE: Option<PolicyMode> = Some(PolicyMode::Enforce);

    #[test]
    fn what_is_in_audit_does_not_count_until_it_is_enforced() {
        let mut policies = Policies::default();
        assert!(policies.set(policy("a", None, &["Ingress"])));
        assert!(!policies.set(policy("b", AUDIT, &["Ingress"])));
        assert_eq!(names(&policies), ["a"]);
        assert!(policies.has_audit());
        assert_eq!(names(&policies.with_audit()), ["a", "b"]);
        assert!(
            !policies.set(policy("b", AUDIT, &["Egress"])),
            "it did not count"
        );
        assert!(policies.set(policy("b", None, &["Egress"])));
        assert_eq!(names(&policies), ["a", "b"]);
        assert!(!policies.has_audit());
        assert!(
            policies.set(policy("a", AUDIT, &["Ingress"])),
            "no longer in force"
        );
        assert_eq!(names(&policies), ["b"]);
        assert!(!policies.remove(&key("a")) && policies.remove(&key("b")));
    }

    #[test]
    fn a_namespace_speaks_for_its_policies_but_for_those_that_say_it_themselves() {
        let mut policies = Policies::default();
        policies.set(policy("a", None, &[]));
        policies.set(policy("b", ENFORCE, &[]));
        assert!(policies.set_namespace("other", AUDIT).is_empty());
        assert_eq!(policies.set_namespace("shop", AUDIT), [key("a")]);
        assert_eq!(names(&policies), ["b"]);
        assert!(policies.set_namespace("shop", AUDIT).is_empty());
        let mut with = policies.with_audit();
        assert_eq!(names(&with), ["a", "b"]);
        assert!(
            with.set_namespace("shop", None).is_empty(),
            "all count there already"
        );
        assert_eq!(policies.set_namespace("shop", ENFORCE), [key("a")]);
        assert_eq!(names(&policies), ["a", "b"]);
    }

    #[test]
    fn what_is_staged_changes_only_what_would_be() {
        let mut policies = Policies::default();
        policies.set(policy("a", None, &["Ingress"]));
        let staged = |becomes| Some(StagedRecord { becomes });
        let new = policy("a", None, &["Egress"]);
        assert!(!policies.stage(&key("a"), staged(Some(new.clone()))));
        assert!(!policies.stage(&key("b"), staged(Some(policy("b", None, &[])))));
        assert_eq!(names(&policies), ["a"]);
        let mut with = policies.with_audit();
        assert_eq!(names(&with), ["a", "b"]);
        assert_eq!(Some(&new), with.effective(&key("a")));
        let in_audit: Vec<&PolicyKey> = policies.in_audit().collect();
        assert_eq!(in_audit, [&key("a"), &key("b")]);
        assert!(with.stage(&key("a"), staged(None)), "it would be deleted");
        assert_eq!(names(&with), ["b"]);
        assert!(with.stage(&key("a"), None) && with.stage(&key("b"), None));
        assert_eq!(names(&with), ["a"]);
        assert!(!with.has_audit());
    }
}
