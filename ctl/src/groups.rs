//! Load-balancing groups.

use std::fmt::Write as _;

use anyhow::Result;
use vswitch_api::v1::LoadBalancingGroup;

use crate::output::{Format, print};
use crate::server::Server;

/// Shows every group on one line, as ovs-ofctl prints them.
pub(crate) fn dump_groups(server: &Server, format: Format) -> Result<()> {
    let groups: Vec<LoadBalancingGroup> = server.get("/v1/groups")?;
    print(format, &groups, || groups.iter().map(line).collect())
}

fn line(group: &LoadBalancingGroup) -> String {
    let mut line = format!("group_id={},type=select,name={}", group.id, group.name);
    if let Some(seconds) = group.affinity_seconds {
        let _ = write!(line, ",affinity={seconds}s");
    }
    for endpoint in &group.endpoints {
        let _ = write!(line, ",bucket={endpoint}");
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_line_with_its_buckets() {
        let group = LoadBalancingGroup {
            id: 7,
            name: "default/web:80/TCP".to_owned(),
            endpoints: vec!["10.244.0.5:8080".to_owned(), "[fd00::5]:8080".to_owned()],
            affinity_seconds: Some(10_800),
        };
        assert_eq!(
            line(&group),
            "group_id=7,type=select,name=default/web:80/TCP,affinity=10800s,\
             bucket=10.244.0.5:8080,bucket=[fd00::5]:8080\n"
        );
    }
}
