//! Pod objects as CNI ADD and DEL write them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

/// Names the container or VM that a Pod object was made for; one that somebody declared has none.
const MADE_FOR: &str = "vswitch.io/made-for";

/// The UID that the runtime said.
const RUNTIME_UID: &str = "vswitch.io/runtime-uid";

/// A container's or VM's pod, as whoever attaches it knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadePod {
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.name.
    pub name: String,
    /// Names the container or VM.
    pub maker: String,
    /// UID that the runtime said.
    pub uid: Option<String>,
    /// Labels for an object that nobody declared; `None` where they are not known any more.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// A Pod object that is not what was made of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodMismatch {
    /// There is none.
    #[error("there is no Pod object {namespace}/{name}")]
    Missing {
        /// Namespace asked for.
        namespace: String,
        /// Name asked for.
        name: String,
    },
    /// Its status lacks an address.
    #[error("Pod object {namespace}/{name} does not have the address {address}")]
    Address {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// What it lacks.
        address: IpAddr,
    },
}

/// Returns a Pod that stands for a container nobody declared.
pub(super) fn made_for(pod: &MadePod) -> Value {
    let mut object = json!({
        "metadata": {"name": pod.name, "labels": pod.labels.clone().unwrap_or_default()},
        "spec": {"containers": [{"name": "container", "image": "unknown"}]},
    });
    mark(&mut object, pod);
    object
}

/// Marks an object that was made for another container as this one's, with its labels.
pub(super) fn hand_over(object: &mut Value, pod: &MadePod) {
    mark(object, pod);
    if let Some(labels) = &pod.labels {
        object["metadata"]["labels"] = json!(labels);
    }
}

fn mark(object: &mut Value, pod: &MadePod) {
    let annotations = &mut object["metadata"]["annotations"];
    annotations[MADE_FOR] = json!(pod.maker);
    match &pod.uid {
        Some(uid) => annotations[RUNTIME_UID] = json!(uid),
        None => {
            annotations
                .as_object_mut()
                .map(|all| all.remove(RUNTIME_UID));
        }
    }
}

/// Returns the container or VM that a Pod object was made for; none if somebody declared it.
pub(super) fn maker(pod: &Value) -> Option<&str> {
    pod["metadata"]["annotations"][MADE_FOR].as_str()
}

/// Returns whether the status has one of these addresses.
pub(super) fn has_any(pod: &Value, ips: &[IpAddr]) -> bool {
    ips.iter().any(|ip| has(pod, *ip))
}

/// Returns the address that the status lacks.
pub(super) fn lacks(pod: &Value, ips: &[IpAddr]) -> Option<IpAddr> {
    ips.iter().copied().find(|ip| !has(pod, *ip))
}

/// Returns whether the status is that of a running pod with exactly these addresses.
pub(super) fn is_running(pod: &Value, ips: &[IpAddr]) -> bool {
    let list = pod["status"]["podIPs"].as_array();
    pod["status"]["phase"] == "Running"
        && list.is_some_and(|list| list.len() == ips.len())
        && lacks(pod, ips).is_none()
}

fn has(pod: &Value, ip: IpAddr) -> bool {
    let list = pod["status"]["podIPs"].as_array();
    let text = |entry: &Value| entry["ip"].as_str().and_then(|text| text.parse().ok());
    list.is_some_and(|list| list.iter().any(|entry| text(entry) == Some(ip)))
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
