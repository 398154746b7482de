//! What a denial of the datapath is a record of, and who is at an end.

use std::net::IpAddr;
use std::sync::Arc;

use vswitch_api::PortNo;
use vswitch_api::v1::{FlowEnd, FlowOf, FlowRule};
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::pipeline::Rule;
use vswitch_datapath::{Datapath, Denial, DenialVerdict, DropReason};

use crate::audit::pod_at;
use crate::policy::deciding_policies;
use crate::policy::explain::protocol_name;
use crate::reconcile::ReconciledState;
use crate::state::PodRecord;
use crate::switch::Ends;

/// Who has which address.
#[derive(Debug)]
pub(super) struct Names<'a> {
    pub(super) state: &'a ReconciledState,
    /// What was known the last time: a pod that has left since has a name by it.
    before: &'a ReconciledState,
    pub(super) ends: Ends<'a>,
}

impl<'a> Names<'a> {
    pub(super) fn of(
        state: &'a ReconciledState,
        before: &'a ReconciledState,
        datapath: &Datapath,
    ) -> Self {
        Self {
            state,
            before,
            ends: Ends::of(state, datapath),
        }
    }

    /// Returns who has an address, behind a port of the switch.
    pub(super) fn end(&self, port: PortNo, address: IpAddr) -> FlowEnd {
        let end = end(self.state, &self.ends, port, address);
        if end.pod.is_some() || end.is_node {
            return end;
        }
        self::end(self.before, &self.ends, port, address)
    }
}

/// Returns what its packets have in common, by the names of today.
pub(super) fn flow_of(denial: &Denial, names: &Names<'_>) -> FlowOf {
    let direction = match denial.reason {
        DropReason::PolicyIngress => Some("ingress"),
        DropReason::PolicyEgress => Some("egress"),
        _ => None,
    };
    let mut flow = FlowOf {
        verdict: verdict_name(denial.verdict).to_owned(),
        reason: denial.reason.name().to_owned(),
        direction: direction.map(str::to_owned),
        source: None,
        destination: None,
        service: None,
        protocol: None,
        port: None,
        policies: deciding_policies(&denial.rules),
        rule: denial.rules.first().map(rule_of),
        allowed_by: Vec::new(),
        end: None,
        event: None,
    };
    if let Some(of) = &denial.of {
        flow.source = Some(names.end(of.ports.0, of.ends.0));
        flow.destination = Some(names.end(of.ports.1, of.ends.1));
        flow.service = of.service.map(|service| service.to_string());
        flow.protocol = Some(protocol_name(of.proto));
        flow.port = has_number(of.proto).then_some(of.number);
    }
    flow
}

/// Returns a rule of the tables as a record names it.
pub(super) fn rule_of(rule: &Arc<Rule>) -> FlowRule {
    FlowRule {
        table: rule.table.to_string(),
        kind: rule.origin.kind.to_owned(),
        name: rule.origin.name.clone(),
        part: rule.origin.part.clone(),
    }
}

/// Returns the same without what tells it from others of its rule.
pub(super) fn of_any_end(of: &FlowOf) -> FlowOf {
    FlowOf {
        source: None,
        destination: None,
        service: None,
        protocol: None,
        port: None,
        ..of.clone()
    }
}

const fn verdict_name(verdict: DenialVerdict) -> &'static str {
    match verdict {
        DenialVerdict::Denied => "denied",
        DenialVerdict::Cut => "cut",
        DenialVerdict::WouldDeny => "would_deny",
    }
}

pub(super) const fn has_number(proto: u8) -> bool {
    ip_proto::has_ports(proto) || ip_proto::is_icmp(proto)
}

/// Returns who is at an end, by the names of today.
pub fn end(state: &ReconciledState, ends: &Ends<'_>, port: PortNo, address: IpAddr) -> FlowEnd {
    let attached = state.attachments.get(&port);
    let is_node = attached.is_none() && ends.is_node(address);
    let pod = (!is_node).then(|| pod_at(state, port, address)).flatten();
    let key = pod.map(|pod| &pod.key);
    // A port whose pod is not known as an object has a name all the same.
    let key = key.or(attached.map(|attached| &attached.pod));
    FlowEnd {
        address,
        pod: key.map(ToString::to_string),
        workload: pod.and_then(workload),
        is_node,
    }
}

/// Returns what a pod belongs to, by the labels that Kubernetes' controllers give their pods.
fn workload(pod: &PodRecord) -> Option<String> {
    let (name, label) = (&pod.key.name, |key| pod.labels.get(key));
    if let Some(hash) = label("pod-template-hash") {
        let (deployment, _) = name.rsplit_once(&format!("-{hash}-"))?;
        return Some(format!("Deployment {deployment}"));
    }
    if let Some(job) = label("batch.kubernetes.io/job-name").or(label("job-name")) {
        return Some(format!("Job {job}"));
    }
    let (of, _) = name.rsplit_once('-')?;
    if label("statefulset.kubernetes.io/pod-name").is_some() {
        return Some(format!("StatefulSet {of}"));
    }
    label("controller-revision-hash").map(|_| format!("DaemonSet {of}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{ObjectKey, PodPhase};

    fn workload_of(name: &str, label: (&str, &str)) -> Option<String> {
        workload(&PodRecord {
            service_account: "default".to_owned(),
            key: ObjectKey {
                namespace: "x".to_owned(),
                name: name.to_owned(),
            },
            labels: [(label.0.to_owned(), label.1.to_owned())].into(),
            phase: PodPhase::Running,
            ..PodRecord::default()
        })
    }

    #[test]
    fn what_a_pod_belongs_to_is_known_by_its_labels_and_not_guessed() {
        let of = |name, label| workload_of(name, label).unwrap_or_default();
        let hash = ("pod-template-hash", "5d9c7");
        assert_eq!(of("my-web-5d9c7-x2x4f", hash), "Deployment my-web");
        assert_eq!(of("renamed", hash), "");
        let set = ("statefulset.kubernetes.io/pod-name", "db-0");
        assert_eq!(of("db-0", set), "StatefulSet db");
        let revision = ("controller-revision-hash", "abc");
        assert_eq!(of("agent-q8r2z", revision), "DaemonSet agent");
        let job = ("batch.kubernetes.io/job-name", "nightly");
        assert_eq!(of("nightly-8xk2p", job), "Job nightly");
        assert_eq!(of("my-web-5d9c7-x2x4f", ("app", "web")), "");
    }
}
