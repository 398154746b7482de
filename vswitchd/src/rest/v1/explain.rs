//! `POST /v1/explain`.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use vswitch_api::v1::{
    ExplainRequest, ExplainedDirection, ExplainedEndpoint, ExplainedService, Explanation,
    TablesVerdict, TraceRequest,
};
use vswitch_datapath::DropReason;
use vswitch_datapath::flow::{FlowKey, ip_proto};
use vswitch_datapath::group::Group;
use vswitch_datapath::pipeline::TraceVerdict;

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode};
use super::trace::walk;
use crate::policy::explain::{self as policy, Ground, Judgement, Question, near_miss, part};
use crate::switch::Ends;

/// Says why NetworkPolicies allow a connection, or what of them comes closest.
#[utoipa::path(post, path = "/v1/explain", request_body = ExplainRequest,
    responses((status = 200, body = Explanation), (status = 400), (status = 404)))]
pub(super) async fn explain(
    State(state): State<RestState>,
    body: Result<Json<ExplainRequest>, JsonRejection>,
) -> Result<Json<Explanation>, ApiError> {
    let Json(request) =
        body.map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.body_text()))?;
    explanation(&state, &request).map(Json)
}

/// Explains a connection.
pub(super) fn explanation(
    state: &RestState,
    request: &ExplainRequest,
) -> Result<Explanation, ApiError> {
    let packet = TraceRequest {
        from: request.from.clone(),
        to: request.to.clone(),
        protocol: request.protocol.clone(),
        port: request.port,
        src_port: None,
    };
    let (key, trace) = walk(state, &packet)?;
    let drop_reason = match trace.verdict {
        TraceVerdict::Drop(reason) => Some(reason),
        TraceVerdict::Forward(_) | TraceVerdict::Answered(_) => None,
    };
    let snapshot = state.switch.reconcile().snapshot();
    let ends = Ends::of(&snapshot, state.switch.datapath());
    if let Some(translation) = &trace.translation {
        return through_service(state, &ends, &packet, &translation.group);
    }
    let question = question(&ends, request, &key);
    let explained = policy::explain(&snapshot.cluster, &question);
    let note = note(&explained, drop_reason, snapshot.is_synced);
    Ok(view(&explained, drop_reason, note))
}

/// Explains the connection to each endpoint of a Service: policies judge those.
fn through_service(
    state: &RestState,
    ends: &Ends<'_>,
    packet: &TraceRequest,
    group: &Group,
) -> Result<Explanation, ApiError> {
    let is_synced = state.switch.reconcile().snapshot().is_synced;
    let mut answers = Vec::new();
    for endpoint in group.endpoints.iter().take(ENDPOINTS_EXPLAINED) {
        let direct = TraceRequest {
            to: endpoint.ip.to_string(),
            port: Some(endpoint.port),
            ..packet.clone()
        };
        let (key, trace) = walk(state, &direct)?;
        let asked = ExplainRequest {
            from: direct.from,
            to: direct.to,
            protocol: direct.protocol,
            port: direct.port,
        };
        let question = question(ends, &asked, &key);
        let explained = policy::explain(ends.cluster, &question);
        let drop_reason = match trace.verdict {
            TraceVerdict::Drop(reason) => Some(reason),
            TraceVerdict::Forward(_) | TraceVerdict::Answered(_) => None,
        };
        let note = note(&explained, drop_reason, is_synced);
        let answer = view(&explained, drop_reason, note);
        let pod = question.to.pod.map(|pod| pod.to_string());
        answers.push((endpoint.to_string(), pod, answer));
    }
    // A group that chose an endpoint has one; what is left then is to say that it has not.
    let first = answers.first().map(|(.., first)| first.clone());
    let missing = || ApiError::new(ErrorCode::Internal, "the group lost its endpoints");
    Ok(of_service(group, &answers, &first.ok_or_else(missing)?))
}

/// Endpoints of a Service that are explained.
const ENDPOINTS_EXPLAINED: usize = 16;

/// An endpoint, the pod that it is, and the explanation of the connection to it.
type Answer = (String, Option<String>, Explanation);

/// Puts the explanations of a Service's endpoints together.
fn of_service(group: &Group, answers: &[Answer], first: &Explanation) -> Explanation {
    let passes = |answer: &Explanation| answer.allowed && answer.tables.allowed;
    let reachable = answers.iter().filter(|(.., answer)| passes(answer)).count();
    let (looked_at, all) = (answers.len(), group.endpoints.len());
    let endpoints = answers
        .iter()
        .map(|(endpoint, pod, answer)| ExplainedEndpoint {
            endpoint: endpoint.clone(),
            pod: pod.clone(),
            allowed: passes(answer),
            summary: answer.summary.clone(),
        });
    let service = ExplainedService {
        group: group.name.to_string(),
        reachable,
        endpoints: endpoints.collect(),
        more: all - looked_at,
    };
    let shown = answers.iter().find(|(.., answer)| !passes(answer));
    let shown = shown.map_or(first, |(.., answer)| answer).clone();
    let allowed = reachable == looked_at;
    let verdict = if allowed { "allowed" } else { "denied" };
    let summary = format!(
        "{verdict}: {reachable} of {looked_at} endpoints of service {} can be reached; policies \
         judge the endpoint and its port",
        group.name
    );
    Explanation {
        allowed,
        summary,
        service: Some(service),
        ..shown
    }
}

fn question(ends: &Ends<'_>, request: &ExplainRequest, key: &FlowKey) -> Question {
    let has_ports = ip_proto::has_ports(key.ip_proto);
    Question {
        from: ends.end(&request.from, key.ip_src),
        to: ends.end(&request.to, key.ip_dst),
        protocol: key.ip_proto,
        port: if has_ports { key.tp_dst } else { 0 },
    }
}

/// Says why tables and policies differ, if they do.
fn note(
    explained: &policy::Explanation,
    drop_reason: Option<DropReason>,
    is_synced: bool,
) -> Option<String> {
    match (explained.allowed_here(), drop_reason) {
        (true, None) if explained.allowed => None,
        (true, None) => Some(
            "the tables of this node let it pass: the policies that deny it are those of a pod of \
             another node, which applies them"
                .to_owned(),
        ),
        (false, Some(reason)) if is_by_policies(reason) => None,
        (false, None) => Some(
            "the tables let it pass although policies deny it: `vsctl trace` shows which rule does"
                .to_owned(),
        ),
        (true, Some(DropReason::PodUnknown)) if !is_synced => Some(
            "the tables drop it (pod_unknown): every pod is isolated until all objects of the \
             cluster have been heard of"
                .to_owned(),
        ),
        (_, Some(reason)) => Some(format!(
            "the tables drop it for another reason ({}): {}",
            reason.name(),
            reason.help().trim()
        )),
    }
}

fn is_by_policies(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::PolicyIngress | DropReason::PolicyEgress | DropReason::PodUnknown
    )
}

fn view(
    explained: &policy::Explanation,
    drop_reason: Option<DropReason>,
    note: Option<String>,
) -> Explanation {
    Explanation {
        allowed: explained.allowed,
        summary: summary(explained),
        tables: TablesVerdict {
            allowed: drop_reason.is_none(),
            drop_reason: drop_reason.map(|reason| reason.name().to_owned()),
        },
        note,
        service: None,
        egress: direction(&explained.egress),
        ingress: direction(&explained.ingress),
    }
}

fn summary(explained: &policy::Explanation) -> String {
    let both = [&explained.egress, &explained.ingress];
    let deciding = both.iter().filter(|of| of.allowed == explained.allowed);
    let mut grounds: Vec<String> = deciding.map(|of| of.ground.to_string()).collect();
    grounds.dedup();
    let verdict = if explained.allowed {
        "allowed"
    } else {
        "denied"
    };
    format!("{verdict}: {}", grounds.join("; "))
}

fn direction(judgement: &Judgement) -> ExplainedDirection {
    let allowed_by = match &judgement.ground {
        Ground::Allowed(rule) | Ground::Accepted(rule) => Some(part(rule)),
        _ => None,
    };
    let denied_by = match &judgement.ground {
        Ground::Denied(rule) | Ground::NoTableLeft(rule) => Some(part(rule)),
        _ => None,
    };
    ExplainedDirection {
        allowed: judgement.allowed,
        here: judgement.is_here,
        reason: judgement.ground.to_string(),
        isolated_by: judgement
            .isolated_by
            .iter()
            .map(ToString::to_string)
            .collect(),
        allowed_by,
        denied_by,
        near_misses: judgement.misses.iter().map(near_miss).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::sync::Arc;

    use serde_json::json;
    use vswitch_api::{MacAddr, PortNo};

    use super::*;
    use crate::state::{
        Attachment, ClusterChange, ClusterState, NamespaceRecord, ObjectKey, PodPhase, PodRecord,
        PolicyRecord,
    };

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        }
    }

    fn pod(name: &str, ip: &str) -> PodRecord {
        PodRecord {
            service_account: "default".to_owned(),
            key: key(name),
            uid: name.to_owned(),
            ips: vec![ip.parse().unwrap()],
            phase: PodPhase::Running,
            ..PodRecord::default()
        }
    }

    /// Pod a is here, pod b is not, pod h is this node; a policy demands role=db of who wants
    /// to reach b.
    fn cluster() -> ClusterState {
        let mut host = pod("h", "192.168.0.1");
        host.host_network = true;
        let namespace = NamespaceRecord {
            name: "default".to_owned(),
            labels: BTreeMap::new(),
            mode: None,
        };
        let rules = json!([{
            "from": [{ "podSelector": { "matchLabels": { "role": "db" } } }],
        }, {
            "ports": [{ "port": 443 }, { "port": 8000, "endPort": 8010 }]
        }]);
        let spec = json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules });
        let policy = PolicyRecord {
            key: key("p"),
            spec: serde_json::from_value(spec).unwrap(),
            mode: None,
        };
        let mut cluster = ClusterState::default();
        cluster.apply(ClusterChange::Namespace(namespace));
        for pod in [pod("a", "10.0.0.1"), pod("b", "10.0.1.2"), host] {
            cluster.apply(ClusterChange::Pod(pod));
        }
        cluster.apply(ClusterChange::Policy(policy));
        cluster
    }

    fn attachments() -> BTreeMap<PortNo, Arc<Attachment>> {
        let attachment = Attachment {
            container_id: "c".to_owned(),
            ifname: "eth0".parse().unwrap(),
            network: "n".to_owned(),
            netns: PathBuf::new(),
            host_ifname: "veth0".parse().unwrap(),
            port_no: PortNo(2),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            addresses: vec!["10.0.0.1/24".parse().unwrap()],
            mtu: 1500,
            pod: key("a"),
            delegated_ipam: None,
            host_ports: Vec::new(),
        };
        [(PortNo(2), Arc::new(attachment))].into()
    }

    fn ask(from: (&str, &str), to: (&str, &str)) -> (Question, policy::Explanation) {
        let (cluster, attachments) = (cluster(), attachments());
        let ends = Ends {
            cluster: &cluster,
            attachments: &attachments,
            node: vec!["192.168.0.1/32".parse().unwrap()],
        };
        let request = ExplainRequest {
            from: from.0.to_owned(),
            to: to.0.to_owned(),
            ..ExplainRequest::default()
        };
        let packet = FlowKey {
            ip_proto: ip_proto::TCP,
            ip_src: from.1.parse().ok(),
            ip_dst: to.1.parse().ok(),
            tp_dst: 80,
            ..FlowKey::default()
        };
        let question = question(&ends, &request, &packet);
        let explained = policy::explain(&cluster, &question);
        (question, explained)
    }

    const A: (&str, &str) = ("a", "10.0.0.1");
    const B: (&str, &str) = ("default/b", "10.0.1.2");

    #[test]
    fn ends_are_found_by_address() {
        let pods = |from, to| {
            let (question, _) = ask(from, to);
            [question.from, question.to].map(|end| end.pod.map(|pod| pod.name))
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(pods(A, B), [named("a"), named("b")]);
        let by_address = pods(("10.0.1.2", "10.0.1.2"), ("10.0.0.1", "10.0.0.1"));
        assert_eq!(by_address, [named("b"), named("a")]);
        let others = pods(("node", "192.168.0.1"), ("8.8.8.8", "8.8.8.8"));
        assert_eq!(others, [None, None]);
        assert_eq!(pods(("h", "192.168.0.1"), A), [named("h"), named("a")]);
    }

    #[test]
    fn the_node_and_its_own_pods_are_told_from_others() {
        let (question, explained) = ask(("node", "192.168.0.1"), A);
        assert!(question.from.is_node && !question.from.is_local);
        assert!(question.to.is_local && explained.allowed);
        assert!(!ask(A, B).0.to.is_local);
    }

    #[test]
    fn the_answer_carries_sentences_and_what_they_are_made_of() {
        let (_, explained) = ask(B, A);
        let answer = view(&explained, Some(DropReason::PolicyIngress), None);
        assert_eq!(
            answer.summary,
            "denied: pod default/a is isolated for ingress, and no rule allows it"
        );
        assert_eq!(answer.tables.drop_reason.as_deref(), Some("policy_ingress"));
        let misses = serde_json::to_value(&answer.ingress.near_misses).unwrap();
        let labels = json!([{
            "kind": "Pod", "namespace": "default", "name": "b", "set": { "role": "db" }, "remove": []
        }]);
        let ports = json!([
            { "protocol": "tcp", "port": 443 },
            { "protocol": "tcp", "port": 8000, "end_port": 8010 }
        ]);
        assert_eq!(misses[0]["advice"]["labels"], labels);
        assert_eq!(misses[0]["rule"]["part"], "ingress[0].from[0]");
        assert_eq!(misses[1]["advice"]["ports"], ports);
        assert_eq!(answer.ingress.isolated_by, ["default/p"]);
    }

    #[test]
    fn a_difference_between_tables_and_policies_is_noted() {
        let (_, denied) = ask(B, A);
        let (_, denied_elsewhere) = ask(A, B);
        let (_, allowed) = ask(A, ("8.8.8.8", "8.8.8.8"));
        let said = |explained, reason| note(explained, reason, true).unwrap();
        assert_eq!(note(&denied, Some(DropReason::PolicyIngress), true), None);
        assert_eq!(note(&allowed, None, true), None);
        assert!(said(&denied, None).contains("although policies deny it"));
        assert!(said(&denied_elsewhere, None).contains("another node"));
        let spoofed = Some(DropReason::Spoofed);
        assert!(said(&denied, spoofed).contains("another reason (spoofed)"));
        assert!(said(&allowed, spoofed).contains("another reason (spoofed)"));
        let unsynced = note(&allowed, Some(DropReason::PodUnknown), false).unwrap();
        assert!(unsynced.contains("until all objects"));
    }
}
