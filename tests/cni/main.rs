//! The real shim and the real daemon under the rules of the CNI specification, the shipped
//! list with the plugins behind it, and podman.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod chain;
mod descriptors;
mod names;
mod podman;
mod spec;

use serde_json::{Value, json};
use vswitch_tests::Daemon;

/// Returns the names of the node's interfaces, of which the gateway is one.
fn links(daemon: &Daemon) -> Vec<String> {
    let shown = daemon.node().ip(&["-json", "link"]).unwrap();
    let shown: Vec<Value> = serde_json::from_str(&shown).unwrap();
    let name = |link: &Value| link["ifname"].as_str().unwrap().to_owned();
    let names: Vec<String> = shown.iter().map(name).collect();
    assert!(names.iter().any(|name| name == "vsw0"), "{names:?}");
    names
}

/// Checks that there is neither pod nor attachment, no container has a lease, and the node has
/// the interfaces that it had before.
fn assert_nothing_is_left(daemon: &Daemon, before: &[String]) {
    assert_eq!(daemon.vsctl_json(&["dump-attachments"]).unwrap(), json!([]));
    let pods = daemon.vsctl_json(&["get", "pods"]).unwrap();
    assert_eq!(pods["items"], json!([]));
    let leases = daemon.vsctl_json(&["dump-leases"]).unwrap();
    let mut leases_in_order = leases.as_array().unwrap().iter();
    assert!(
        leases_in_order.all(|lease| lease.get("container_id").is_none()),
        "{leases}"
    );
    assert_eq!(links(daemon), before);
}
