//! All policies, whatever their kind.

use anyhow::Result;
use vswitch_api::v1::PolicyView;

use crate::output::{Format, columns, print};
use crate::server::Server;

/// Shows all policies in the order in which they are judged.
pub(crate) fn get_policies(server: &Server, format: Format) -> Result<()> {
    let policies: Vec<PolicyView> = server.get("/v1/policies")?;
    print(format, &policies, || table(&policies))
}

fn table(policies: &[PolicyView]) -> String {
    let rows = policies.iter().map(|of| {
        let order = of.order.map(|order| order.to_string());
        let place = of.priority.map(|priority| priority.to_string()).or(order);
        [
            of.kind.clone(),
            of.policy.clone(),
            of.tier.clone().unwrap_or_else(|| "-".to_owned()),
            place.unwrap_or_else(|| "-".to_owned()),
            of.pods.to_string(),
            of.mode.clone(),
            of.since.clone().unwrap_or_else(|| "-".to_owned()),
            if of.subject.is_empty() {
                "-".to_owned()
            } else {
                of.subject.clone()
            },
            of.problems.join("; "),
        ]
    });
    let header = [
        "KIND",
        "POLICY",
        "TIER",
        "ORDER",
        "PODS-HERE",
        "MODE",
        "SINCE",
        "SUBJECT",
        "PROBLEMS",
    ];
    columns(&header, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_a_line_with_what_of_it_is_not_understood() {
        let policy = PolicyView {
            kind: "ClusterNetworkPolicy".to_owned(),
            policy: "guard".to_owned(),
            tier: Some("Admin".to_owned()),
            priority: Some(10),
            order: None,
            subject: "pods:all:*".to_owned(),
            pods: 3,
            mode: "audit".to_owned(),
            since: Some("2026-01-01T00:00:00Z".to_owned()),
            epoch: Some(7),
            problems: vec!["egress[0]: odd".to_owned()],
        };
        let table = table(&[policy]);
        let line: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        let expected = [
            "ClusterNetworkPolicy",
            "guard",
            "Admin",
            "10",
            "3",
            "audit",
            "2026-01-01T00:00:00Z",
            "pods:all:*",
            "egress[0]:",
            "odd",
        ];
        assert_eq!(line, expected, "{table}");
    }
}
