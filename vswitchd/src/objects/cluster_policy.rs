//! What the status of a policy of the whole cluster says: whether all of it can be enforced.

use serde_json::{Value, json};

use crate::policy::flaws;
use crate::state::ClusterPolicyKind;

/// Type of the condition.
const ENFORCEABLE: &str = "Enforceable";
/// Longest message of a condition, bytes (metav1.Condition).
const MAX_MESSAGE_BYTES: usize = 32_768;

/// Writes the condition that says what of the spec is not understood, or not served, and
/// therefore fails closed; `now` is when it began to say so.
pub(super) fn say_what_is_enforced(kind: ClusterPolicyKind, object: &mut Value, now: &str) {
    let condition = condition(kind, &object["spec"], now);
    let mut conditions = match object["status"]["conditions"].take() {
        Value::Array(conditions) => conditions,
        _ => Vec::new(),
    };
    let old = conditions.iter_mut().find(|old| old["type"] == ENFORCEABLE);
    match old {
        Some(old) if says_the_same(old, &condition) => {}
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
    object["status"] = json!({ "conditions": conditions });
}

fn says_the_same(old: &Value, new: &Value) -> bool {
    let fields = ["status", "reason", "message"];
    fields.iter().all(|field| old[field] == new[field])
}

fn condition(kind: ClusterPolicyKind, spec: &Value, now: &str) -> Value {
    let flaws = flaws(kind, spec);
    let parts: Vec<String> = flaws
        .iter()
        .map(|(part, problem)| format!("{part}: {problem}"))
        .collect();
    let (status, reason, mut message) = if parts.is_empty() {
        let message = "every rule is enforced as it is written".to_owned();
        ("True", "Understood", message)
    } else {
        let message = format!("fails closed in part: {}", parts.join("; "));
        ("False", "NotUnderstood", message)
    };
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    json!({"type": ENFORCEABLE, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now})
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ClusterPolicyKind = ClusterPolicyKind::ClusterNetworkPolicy;

    #[test]
    fn a_condition_says_what_fails_closed_and_keeps_its_time_while_it_says_the_same() {
        let names = json!(["example.com"]);
        let rule = json!({"action": "Accept", "to": [{ "domainNames": names }]});
        let mut object = json!({"spec": {"tier": "Admin", "priority": 1,
            "subject": {"namespaces": {}}, "egress": [rule]}});
        say_what_is_enforced(KIND, &mut object, "2026-01-01T00:00:00Z");
        let first = object["status"]["conditions"][0].clone();
        assert_eq!(first["status"], "False");
        assert_eq!(
            first["message"],
            "fails closed in part: egress[0].to[0]: domainNames is not served: no names are resolved"
        );
        object["status"]["conditions"][0]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        let others = json!({"type": "Other", "status": "True"});
        object["status"]["conditions"]
            .as_array_mut()
            .unwrap()
            .push(others.clone());
        say_what_is_enforced(KIND, &mut object, "2026-01-01T00:00:00Z");
        let conditions = &object["status"]["conditions"];
        assert_eq!(conditions[0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!(conditions[1], others);
        object["spec"]["egress"] = json!([]);
        say_what_is_enforced(KIND, &mut object, "2026-01-01T00:00:00Z");
        let now = &object["status"]["conditions"][0];
        assert_eq!(
            (&now["status"], &now["reason"]),
            (&json!("True"), &json!("Understood"))
        );
        assert_ne!(now["lastTransitionTime"], "2020-01-01T00:00:00Z");
    }
}
