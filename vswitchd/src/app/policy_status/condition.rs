//! The condition of a node, and what it changes of those that are there. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::policy::Flaw;
use crate::state::PolicyMode;

/// Before the name of a node: the type that OVN-Kubernetes writes, too, whose zones are nodes.
const TYPE: &str = "Ready-In-Zone-";

/// Longest message, bytes: there is one for each node.
const MAX_MESSAGE_BYTES: usize = 512;

/// What there is to say of a policy on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Readiness {
    is_ready: bool,
    reason: &'static str,
    message: String,
}

impl Readiness {
    /// Returns it for a policy of which these parts are not understood.
    pub(super) fn of(mode: PolicyMode, flaws: &[Flaw]) -> Self {
        if mode == PolicyMode::Audit {
            return Self {
                is_ready: false,
                reason: "Audit",
                message: "in audit: what it would deny is counted, and nothing is denied"
                    .to_owned(),
            };
        }
        let part = |(part, problem): &Flaw| format!("{part}: {problem}");
        let parts: Vec<String> = flaws.iter().map(part).collect();
        if parts.is_empty() {
            return Self {
                is_ready: true,
                reason: "SetupSucceeded",
                message: "in force as it is written".to_owned(),
            };
        }
        let mut message = format!("in force, fails closed in part: {}", parts.join("; "));
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        Self {
            is_ready: false,
            reason: "SetupFailed",
            message,
        }
    }

    /// Returns the condition of `node`; it has been so since `now`.
    fn condition(&self, node: &str, generation: &Value, now: &str) -> Value {
        json!({
            "type": format!("{TYPE}{node}"),
            "status": if self.is_ready { "True" } else { "False" },
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": generation,
            "lastTransitionTime": now,
        })
    }
}

/// Returns the conditions that a policy should have, `None` if it has them: that of `node`, those
/// of other `nodes`, and those of whoever else. What nodes have left that are gone is left out.
pub(super) fn changed(
    policy: &Value,
    readiness: &Readiness,
    node: &str,
    nodes: &BTreeSet<&str>,
    now: &str,
) -> Option<Vec<Value>> {
    let mut own = readiness.condition(node, &policy["metadata"]["generation"], now);
    let before = policy["status"]["conditions"].as_array();
    let before = before.map_or(&[][..], Vec::as_slice);
    let name = own["type"].clone();
    let at = before
        .iter()
        .position(|condition| condition["type"] == name);
    if let Some(old) = at.and_then(|at| before.get(at))
        && old["status"] == own["status"]
    {
        own["lastTransitionTime"] = old["lastTransitionTime"].clone();
    }
    let mut after = before.to_vec();
    match at.and_then(|at| after.get_mut(at)) {
        Some(old) => *old = own,
        None => after.push(own),
    }
    after.retain(|condition| {
        let name = condition["type"].as_str().unwrap_or_default();
        let of = name.strip_prefix(TYPE);
        of.is_none_or(|of| of == node || nodes.contains(of))
    });
    (after != before).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T00:00:00Z";
    const BEFORE: &str = "2026-01-01T00:00:00Z";

    fn flaw(part: &str) -> Flaw {
        (part.to_owned(), "no".to_owned())
    }

    fn in_force(flaws: &[Flaw]) -> Readiness {
        Readiness::of(PolicyMode::Enforce, flaws)
    }

    fn ready() -> Readiness {
        in_force(&[])
    }

    fn policy(generation: u64, conditions: &[Value]) -> Value {
        json!({"metadata": {"generation": generation}, "status": {"conditions": conditions}})
    }

    fn conditions(policy: &Value, readiness: &Readiness, nodes: &[&str]) -> Option<Vec<Value>> {
        let nodes = nodes.iter().copied().collect();
        changed(policy, readiness, "node-a", &nodes, NOW)
    }

    #[test]
    fn a_policy_without_conditions_gets_one_that_is_not_written_again() {
        let nothing = json!({"metadata": {"generation": 3}});
        let written = conditions(&nothing, &ready(), &["node-a"]).unwrap();
        let expected = json!({"type": "Ready-In-Zone-node-a", "status": "True",
            "reason": "SetupSucceeded", "message": "in force as it is written",
            "observedGeneration": 3, "lastTransitionTime": NOW});
        assert_eq!(written, [expected]);
        assert_eq!(
            conditions(&policy(3, &written), &ready(), &["node-a"]),
            None
        );
    }

    #[test]
    fn time_of_a_condition_is_that_of_its_last_change_of_status() {
        let own = ready().condition("node-a", &json!(1), BEFORE);
        let others = ready().condition("node-b", &json!(1), BEFORE);
        let foreign = json!({"type": "Enforceable", "status": "True"});
        let there = [foreign.clone(), own, others.clone()];
        let nodes = ["node-a", "node-b"];
        let newer = conditions(&policy(2, &there), &ready(), &nodes).unwrap();
        let own = ready().condition("node-a", &json!(2), BEFORE);
        assert_eq!(newer, [foreign.clone(), own, others.clone()]);
        let failed = in_force(&[flaw("egress[0].to[0]"), flaw("egress[1]")]);
        let failing = conditions(&policy(2, &newer), &failed, &nodes).unwrap();
        let message = "in force, fails closed in part: egress[0].to[0]: no; egress[1]: no";
        let own = json!({"type": "Ready-In-Zone-node-a", "status": "False",
            "reason": "SetupFailed", "message": message,
            "observedGeneration": 2, "lastTransitionTime": NOW});
        assert_eq!(failing, [foreign, own, others]);
    }

    #[test]
    fn conditions_of_nodes_that_are_gone_are_left_out() {
        let of = |node: &str| ready().condition(node, &json!(1), BEFORE);
        let there = ["gone", "node-a", "node-b"].map(of);
        let left = conditions(&policy(1, &there), &ready(), &["node-a", "node-b"]).unwrap();
        let mut left: Vec<&str> = left.iter().map(|of| of["type"].as_str().unwrap()).collect();
        left.sort_unstable();
        assert_eq!(left, ["Ready-In-Zone-node-a", "Ready-In-Zone-node-b"]);
    }

    #[test]
    fn a_message_is_bounded_and_a_status_of_another_form_is_replaced() {
        let long = in_force(&[flaw(&"ä".repeat(1_000))]);
        assert!(long.message.len() <= MAX_MESSAGE_BYTES && long.message.ends_with('ä'));
        let odd = json!({"metadata": {"generation": 1}, "status": {"conditions": "x"}});
        assert_eq!(conditions(&odd, &ready(), &["node-a"]).unwrap().len(), 1);
    }
}
