//! The cases through the simulator: every step's changes taken in as the running switch takes
//! them in, every probe a real frame, both directions judged.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use vswitchd::objects::cluster_change;
use vswitchd::simulate::{Cluster, End, PortName, Probe, Protocol, Simulator};
use vswitchd::state::{ClusterChange, ObjectKey};

use crate::Tally;
use crate::cases::{self, Action, Case, Expected, Labels, Node, Pod, State, split};

/// Plays all cases.
pub(crate) fn play(cases: &[Case]) -> Result<Tally> {
    let mut tally = Tally::default();
    for case in cases {
        tally.begin();
        play_case(case, &mut tally).with_context(|| case.id.clone())?;
        println!(
            "{} in process {} {}",
            case.id,
            tally.of_case(),
            case.description
        );
    }
    Ok(tally)
}

/// Whether the policies that are named are those that decided; a case may leave them out.
fn are_named(expected: Option<&Vec<String>>, named: &[String]) -> bool {
    let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    expected.is_none_or(|expected| sorted(expected) == sorted(named))
}

fn play_case(case: &Case, tally: &mut Tally) -> Result<()> {
    let first = case.steps.first().context("a case has a step")?;
    let mut cluster = Cluster::default();
    for namespace in &first.state.namespaces {
        cluster.add(&namespace_manifest(&namespace.name, &namespace.labels))?;
    }
    for pod in &first.state.pods {
        cluster.add(&pod_manifest(pod, &pod.labels))?;
    }
    for node in &first.state.nodes {
        cluster.add(&node_manifest(node))?;
    }
    let mut simulator = Simulator::new(cluster);
    for (number, step) in case.steps.iter().enumerate() {
        for action in &step.actions {
            simulator.apply(vec![change(action, &step.state)?]);
        }
        for expected in step.judged() {
            let answer = simulator.judge(&probe(expected)?)?;
            let is_right = (answer.ingress, answer.egress, answer.allowed)
                == (expected.ingress, expected.egress, expected.allowed)
                && are_named(expected.egress_by.as_ref(), &answer.egress_by)
                && are_named(expected.ingress_by.as_ref(), &answer.ingress_by);
            let found = format!("{answer:?}");
            tally.count(case, number, expected, &found, is_right);
        }
    }
    Ok(())
}

fn change(action: &Action, after: &State) -> Result<ClusterChange> {
    let manifest = match action {
        Action::DeletePolicy { namespace, name } => {
            return Ok(ClusterChange::PolicyGone(ObjectKey {
                namespace: namespace.clone(),
                name: name.clone(),
            }));
        }
        Action::CreatePolicy { policy, .. }
        | Action::UpdatePolicy { policy, .. }
        | Action::CreateClusterPolicy { policy }
        | Action::UpdateClusterPolicy { policy, .. } => policy.clone(),
        Action::SetNamespaceLabels { name, labels } => namespace_manifest(name, labels),
        Action::SetPodLabels {
            namespace,
            name,
            labels,
        } => {
            let mut pods = after.pods.iter();
            let pod = pods.find(|pod| pod.namespace == *namespace && pod.name == *name);
            pod_manifest(pod.context("a relabelled pod is in the state")?, labels)
        }
    };
    cluster_change(&manifest)?.context("policies depend on every kind that an action names")
}

fn namespace_manifest(name: &str, labels: &Labels) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

fn pod_manifest(pod: &Pod, labels: &Labels) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": pod.namespace, "name": pod.name, "labels": labels },
        "spec": { "hostNetwork": pod.host_network,
                  "containers": [{ "name": "server", "image": "server",
                                   "ports": cases::container_ports(pod) }] },
        "status": { "phase": "Running", "podIP": pod.ip, "podIPs": [{ "ip": pod.ip }] },
    })
}

fn node_manifest(node: &Node) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": node.name, "labels": node.labels },
        "status": { "addresses": [{ "type": "InternalIP", "address": node.ip }] },
    })
}

fn probe(expected: &Expected) -> Result<Probe> {
    let end = |key: &str| -> Result<End> {
        if let Ok(ip) = key.parse() {
            return Ok(End::Address { ip });
        }
        let (namespace, name) = split(key)?;
        Ok(End::Pod(ObjectKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }))
    };
    Ok(Probe {
        from: end(&expected.from)?,
        to: end(&expected.to)?,
        port: Some(PortName::Number(expected.port)),
        protocol: match expected.protocol {
            cases::Protocol::Tcp => Protocol::Tcp,
            cases::Protocol::Udp => Protocol::Udp,
            cases::Protocol::Sctp => Protocol::Sctp,
        },
    })
}
