//! Writes the condition of this node wherever what there is to say has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::condition::{self, Readiness};
use crate::errors::chain;
use crate::kube::{ApiServer, KubeError};
use crate::objects::{Resource, now};
use crate::policy::flaws;
use crate::reconcile::{PolicySince, ReconcileHandle, ReconciledState};
use crate::state::{ClusterPolicyKey, PolicyKey, PolicyMode};
use crate::supervise::{Beats, Ended};

/// Nodes of a cluster up to which each of them writes its condition.
const MOST_NODES: usize = 100;

/// Pause of a node between two writes, for each node of the cluster, on average: so all of them
/// together write about five times a second.
const PAUSE_BY_NODE: Duration = Duration::from_millis(200);

/// Pause before any write.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// Pause before what could not be written is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What it is found out from, and where it goes.
pub(in super::super) struct PolicyStatus {
    pub(in super::super) api: ApiServer,
    pub(in super::super) reconcile: ReconcileHandle,
    pub(in super::super) node: String,
}

/// A version of a policy, and what there is to say of it.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    since: PolicySince,
    spec: Value,
    readiness: Readiness,
}

/// Follows it for as long as the daemon runs.
pub(in super::super) async fn follow(status: PolicyStatus, beat: Beats) -> Ended {
    let mut changes = status.reconcile.changes();
    let mut written = BTreeMap::new();
    let mut last_error = None;
    loop {
        let state = status.reconcile.snapshot();
        let nodes = nodes(&state, &status.node);
        let next = (state.is_synced && nodes.len() <= MOST_NODES)
            .then(|| next(&state, &mut written))
            .flatten();
        let Some((key, said)) = next else {
            if beat.wait(changes.next()).await.is_none() {
                return Ended::Early("the reconciler has ended");
            }
            continue;
        };
        beat.wait(sleep(moment(&status.node, &key, nodes.len())))
            .await;
        let outcome = beat.wait(status.write(&key, &said, &nodes)).await;
        let error = match outcome {
            Ok(Outcome::Written) => None,
            // The next look at what there is to say comes back to it.
            Ok(Outcome::Overtaken) => continue,
            Err(error) if !error.is_final() => {
                beat.wait(sleep(AGAIN_AFTER)).await;
                log(&error, &mut last_error);
                continue;
            }
            Err(error) => Some(error),
        };
        match error {
            Some(error) => log(&error, &mut last_error),
            None => last_error = None,
        }
        written.insert(key, said.since);
    }
}

/// Logs an error that is another one than the last time.
fn log(error: &KubeError, last: &mut Option<String>) {
    let error = chain(error);
    if last.as_ref() != Some(&error) {
        tracing::warn!(error, "writing the status of a policy failed");
    }
    *last = Some(error);
}

/// Returns a policy of which there is something else to say than was written, and forgets those
/// that are gone.
fn next(
    state: &ReconciledState,
    written: &mut BTreeMap<ClusterPolicyKey, PolicySince>,
) -> Option<(ClusterPolicyKey, Said)> {
    written.retain(|key, _| {
        let key = PolicyKey::ClusterPolicy(key.clone());
        state.policy_times.contains_key(&key)
    });
    let mut all = state.policy_times.iter();
    all.find_map(|(key, since)| match key {
        PolicyKey::ClusterPolicy(of) if written.get(of) != Some(since) => {
            Some((of.clone(), said(of, *since, state)?))
        }
        _ => None,
    })
}

/// Returns what there is to say of a policy, whether it selects a pod of this node or none.
fn said(key: &ClusterPolicyKey, since: PolicySince, state: &ReconciledState) -> Option<Said> {
    let (mode, spec) = {
        let policy = PolicyKey::ClusterPolicy(key.clone());
        let mode = state.cluster.mode_of(&policy);
        let cluster = match mode {
            PolicyMode::Audit => &state.cluster.with_audit(),
            PolicyMode::Enforce => &state.cluster,
        };
        (mode, cluster.cluster_policy(key)?.spec.clone())
    };
    Some(Said {
        since,
        readiness: Readiness::of(mode, &flaws(key.kind, &spec)),
        spec,
    })
}

/// Returns the names of the cluster's nodes, with this one's.
fn nodes(state: &ReconciledState, own: &str) -> BTreeSet<String> {
    let nodes = state.cluster.nodes().map(|node| node.name.clone());
    nodes.chain([own.to_owned()]).collect()
}

/// How long this node waits before it writes: another time for each node.
fn moment(node: &str, key: &ClusterPolicyKey, nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let most = PAUSE_BY_NODE.saturating_mul(nodes).saturating_mul(2);
    let share =
        crc32fast::hash(format!("{node} {} {}", key.kind.name(), key.name).as_bytes()) % 1_000;
    SHORTEST_PAUSE + most.saturating_mul(share) / 1_000
}

/// What became of a write.
enum Outcome {
    /// It says so, or the policy is gone.
    Written,
    /// The policy is another one by now, or somebody else has written at the same time.
    Overtaken,
}

impl PolicyStatus {
    async fn write(
        &self,
        key: &ClusterPolicyKey,
        said: &Said,
        nodes: &BTreeSet<String>,
    ) -> Result<Outcome, KubeError> {
        let policy = PolicyKey::ClusterPolicy(key.clone());
        let (resource, name) = (Resource::of_policy(&policy), &key.name);
        let Some(policy) = self.api.object(resource, name).await? else {
            return Ok(Outcome::Written);
        };
        // What the API server has by now may not be in force yet.
        if policy["spec"] != said.spec {
            return Ok(Outcome::Overtaken);
        }
        let nodes = nodes.iter().map(String::as_str).collect();
        let conditions = condition::changed(&policy, &said.readiness, &self.node, &nodes, &now());
        let Some(conditions) = conditions else {
            return Ok(Outcome::Written);
        };
        let patch = of_version(&policy, &conditions);
        match self.api.patch_status(resource, name, &patch).await {
            Err(error) if error.is_conflict() => Ok(Outcome::Overtaken),
            Err(error) if error.is_not_found() => Ok(Outcome::Written),
            written => written.map(|()| Outcome::Written),
        }
    }
}

/// Returns the patch that an API server refuses if the object was changed meanwhile.
fn of_version(policy: &Value, conditions: &[Value]) -> Value {
    json!({
        "metadata": {"resourceVersion": policy["metadata"]["resourceVersion"]},
        "status": {"conditions": conditions},
    })
}
