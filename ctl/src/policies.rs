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
        let priority = of.priority.map(|priority| priority.to_string());
        [
            of.kind.clone(),
            of.policy.clone(),
            of.tier.clone().unwrap_or_else(|| "-".to_owned()),
            priority.unwrap_or_else(|| "-".to_owned()),
            of.pods.to_string(),
            of.problems.join("; "),
        ]
    });
    let header = [
        "KIND",
        "POLICY",
        "TIER",
        "PRIORITY",
        "PODS-HERE",
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
            pods: 3,
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
            "egress[0]:",
            "odd",
        ];
        assert_eq!(line, expected, "{table}");
    }
}
