//! What ships for Prometheus and Grafana: alerts that fire on what they are for, and a dashboard
//! whose queries are valid.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use vswitch_tests::{run, tool};

use super::config_folder;

fn promtool(arguments: &[&str], file: &Path) {
    let mut command = Command::new(tool("promtool"));
    let output = run(command.args(arguments).arg(file), "").unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
}

fn dashboard() -> Value {
    let path = config_folder().join("monitoring/dashboard.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The queries of all panels.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_alerts_are_valid_and_fire_on_what_they_are_for() {
    let folder = config_folder().join("monitoring");
    promtool(&["check", "rules"], &folder.join("rules.yaml"));
    promtool(&["test", "rules"], &folder.join("rules.test.yaml"));
}

#[test]
fn the_queries_of_the_dashboard_are_valid() {
    let queries = queries(&dashboard());
    assert!(queries.len() > 20, "{queries:?}");
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(n, expr)| json!({"record": format!("query:{n}"), "expr": expr}))
        .collect();
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, groups.to_string()).unwrap();
    promtool(&["check", "rules"], &file);
}
