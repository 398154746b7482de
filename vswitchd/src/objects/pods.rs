//! What CNI ADD and DEL write into Pod objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

/// Names the container or VM that a Pod object was made for; one that somebody declared has none.
const MADE_FOR: &str = "vswitch.io/made-for";

/// Returns a Pod that stands for a container nobody declared.
pub(super) fn made_for(
    maker: &str,
    name: &str,
    uid: Option<&str>,
    labels: &BTreeMap<String, String>,
) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "labels": labels, "annotations": {MADE_FOR: maker}},
        "spec": {"containers": [{"name": "container", "image": "unknown"}]},
    });
    if let Some(uid) = uid {
        pod["metadata"]["annotations"]["vswitch.io/runtime-uid"] = json!(uid);
    }
    pod
}

/// Returns whether the Pod object was made for this container or VM.
pub(super) fn is_made_for(maker: &str, pod: &Value) -> bool {
    pod["metadata"]["annotations"][MADE_FOR] == maker
}

/// Sets what a kubelet sets when the sandbox is up.
pub(super) fn running(pod: &mut Value, ips: &[IpAddr]) {
    let now = super::prepare::now();
    let list: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": null});
    let status = &mut pod["status"];
    status["phase"] = json!("Running");
    status["podIPs"] = json!(list);
    match ips.first() {
        Some(first) => status["podIP"] = json!(first),
        None => {
            status.as_object_mut().map(|status| status.remove("podIP"));
        }
    }
    status["startTime"] = json!(now);
    status["conditions"] = json!([condition("Ready"), condition("ContainersReady")]);
}

/// Takes back what [`running`] set.
pub(super) fn without_addresses(pod: &mut Value) {
    pod["status"] = json!({"phase": "Pending"});
}
