//! Finds out what is not enforced, and notes it.
//!
//! What every node notes of a policy is written by one of them. Each waits a moment of its own before
//! it tries, so that a large cluster does not try at once. An API server forgets Events after an
//! hour: what is still so is noted again before.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::plan::{Plan, Subject};
use crate::clock::unix_seconds;
use crate::events::{EventType, MAX_MESSAGE, Note, Recorder, Regarding, Writers};
use crate::objects::{Registry, Resource, without_effect};
use crate::policy::PolicyProblem;
use crate::reconcile::ReconcileHandle;
use crate::state::PolicyKey;
use crate::supervise::{Beats, Ended};

/// `reason` of the Events.
const REASON: &str = "NotEnforced";

/// What is said of a HostEndpoint.
const HOST_ENDPOINT: &str = "HostEndpoints have no effect: vswitch enforces policies on pods alone";

/// What it is found out from, and who is told.
pub(in super::super) struct Unenforced {
    pub(in super::super) reconcile: ReconcileHandle,
    pub(in super::super) registry: Arc<Registry>,
    pub(in super::super) recorder: Recorder,
    pub(in super::super) node: String,
    /// Within which time the nodes of a cluster note the same.
    pub(in super::super) spread: Duration,
}

/// Follows it for as long as the daemon runs.
pub(in super::super) async fn follow(unenforced: Unenforced, beat: Beats) -> Ended {
    let Unenforced {
        reconcile,
        registry,
        recorder,
        node,
        spread,
    } = unenforced;
    let mut changes = reconcile.changes();
    let mut plan = Plan::new(&node, spread);
    let mut problems: Option<Arc<Vec<PolicyProblem>>> = None;
    let mut host_endpoints = own(&registry, &node);
    if beat.wait(reconcile.wait_until_in_force()).await.is_err() {
        return Ended::Early("the reconciler has ended");
    }
    loop {
        let state = reconcile.snapshot();
        if state.is_synced {
            if problems.is_none() {
                log(&state.problems, &registry);
            }
            let before = problems.replace(Arc::clone(&state.problems));
            if before.is_none_or(|before| !Arc::ptr_eq(&before, &state.problems)) {
                plan.replace(false, of_policies(&state.problems), unix_seconds());
            }
            plan.replace(true, of_host_endpoints(&host_endpoints), unix_seconds());
        }
        for (subject, message) in plan.due(unix_seconds()) {
            let (resource, namespace, name) = &subject;
            // What is gone meanwhile needs no Event.
            if let Ok(object) = registry.get(*resource, namespace, name) {
                recorder.note(note(&object, message));
            }
        }
        let next = plan.next().map(|at| at.saturating_sub(unix_seconds()));
        let is_other = |registry: &Registry| {
            let now = own(registry, &node);
            (now != host_endpoints).then_some(now)
        };
        let heard = async {
            tokio::select! {
                state = changes.next() => state.map(|_| None),
                now = registry.until(is_other) => Some(Some(now)),
                () = after(next) => Some(None),
            }
        };
        match beat.wait(heard).await {
            None => return Ended::Early("the reconciler has ended"),
            Some(Some(now)) => host_endpoints = now,
            Some(None) => {}
        }
    }
}

async fn after(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => sleep(Duration::from_secs(seconds)).await,
        None => pending().await,
    }
}

fn note(object: &Value, message: String) -> Note {
    Note {
        regarding: Regarding::object(object),
        event_type: EventType::Warning,
        reason: REASON,
        message,
        writers: Writers::EveryNode,
    }
}

/// Returns the HostEndpoints of this node; those of others are noted there.
fn own(registry: &Registry, node: &str) -> Vec<Arc<Value>> {
    let mut all = registry.host_endpoints();
    all.retain(|of| of["spec"]["node"] == node);
    all
}

fn of_host_endpoints(host_endpoints: &[Arc<Value>]) -> BTreeMap<Subject, String> {
    let subject = |of: &Arc<Value>| {
        let name = of["metadata"]["name"].as_str().unwrap_or_default();
        let subject = (Resource::HostEndpoint, String::new(), name.to_owned());
        (subject, HOST_ENDPOINT.to_owned())
    };
    host_endpoints.iter().map(subject).collect()
}

/// Returns what is to be said of each policy: all of its parts that are not enforced.
fn of_policies(problems: &[PolicyProblem]) -> BTreeMap<Subject, String> {
    let mut messages: BTreeMap<Subject, String> = BTreeMap::new();
    for PolicyProblem {
        policy,
        part,
        problem,
    } in problems
    {
        let key = policy.object();
        let message = messages
            .entry((Resource::of_policy(policy), key.namespace, key.name))
            .or_insert_with(|| "not enforced as it is written:".to_owned());
        // What is longer is cut off.
        if message.len() < MAX_MESSAGE {
            let separator = if message.ends_with(':') { "" } else { ";" };
            let _ = write!(message, "{separator} {part}: {problem}");
        }
    }
    messages
}

fn log(problems: &[PolicyProblem], registry: &Registry) {
    let host_endpoints = registry.host_endpoints();
    if let Some(host_endpoints) = without_effect(&host_endpoints) {
        tracing::warn!(host_endpoints, "HostEndpoints have no effect here");
    }
    let parts = parts_of_calico(problems);
    if parts.is_empty() && host_endpoints.is_empty() {
        return;
    }
    let parts = parts.iter().map(|(part, count)| format!("{part} {count}"));
    let parts = parts.collect::<Vec<_>>().join(", ");
    let host_endpoints = host_endpoints.len();
    tracing::warn!(
        host_endpoints,
        parts,
        "parts of Calico's objects have no effect here or are not understood"
    );
}

/// Counts parts by their field.
fn parts_of_calico(problems: &[PolicyProblem]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for problem in problems {
        let (PolicyKey::GlobalNetworkPolicy(_) | PolicyKey::CalicoNetworkPolicy(_)) =
            problem.policy
        else {
            continue;
        };
        *counts.entry(field(&problem.part)).or_default() += 1;
    }
    counts
}

/// Returns the field at the end of a path, without its place in a list.
fn field(part: &str) -> &str {
    let last = part.rsplit('.').next().unwrap_or(part);
    last.split('[').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ObjectKey;

    fn problem(policy: PolicyKey, part: &str) -> PolicyProblem {
        PolicyProblem {
            policy,
            part: part.to_owned(),
            problem: "no".to_owned(),
        }
    }

    fn global(name: &str) -> PolicyKey {
        PolicyKey::GlobalNetworkPolicy(name.to_owned())
    }

    fn web() -> ObjectKey {
        ObjectKey {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        }
    }

    #[test]
    fn parts_of_calicos_policies_are_counted_by_their_fields() {
        let problems = [
            problem(global("a"), "doNotTrack"),
            problem(global("b"), "ingress[0].http"),
            problem(PolicyKey::CalicoNetworkPolicy(web()), "egress[12].http"),
            problem(global("b"), "ingress[3].destination.services"),
            problem(global("b"), "ingress[4]"),
            problem(PolicyKey::NetworkPolicy(web()), "ingress[0].from[1]"),
        ];
        let counts: Vec<(&str, usize)> = parts_of_calico(&problems).into_iter().collect();
        let expected = [
            ("doNotTrack", 1),
            ("http", 2),
            ("ingress", 1),
            ("services", 1),
        ];
        assert_eq!(counts, expected);
    }

    #[test]
    fn one_message_says_all_parts_of_a_policy() {
        let problems = [
            problem(global("b"), "ingress[0].http"),
            problem(PolicyKey::CalicoNetworkPolicy(web()), "egress[1]"),
            problem(global("b"), "ingress[1].http"),
        ];
        let subject = |resource, namespace: &str, name: &str| {
            (resource, namespace.to_owned(), name.to_owned())
        };
        let said = "not enforced as it is written:";
        assert_eq!(
            of_policies(&problems),
            BTreeMap::from([
                (
                    subject(Resource::GlobalNetworkPolicy, "", "b"),
                    format!("{said} ingress[0].http: no; ingress[1].http: no")
                ),
                (
                    subject(Resource::CalicoNetworkPolicy, "shop", "web"),
                    format!("{said} egress[1]: no")
                ),
            ])
        );
    }
}
