//! `POST /v1/probes`: one packet on behalf of a pod, and what became of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use vswitch_api::v1::{
    ExplainRequest, Explanation, ProbeAnswer, ProbeOutcome, ProbeRequest, ProbeResult, TraceRequest,
};
use vswitch_datapath::flow::{FlowKey, ip_proto};
use vswitch_datapath::packet::tcp_flags;
use vswitch_datapath::pipeline::{self, TraceVerdict};
use vswitch_datapath::probe::{Answer, AnswerKind};

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode};
use super::explain::explanation;
use super::trace::{summary, walk};
use super::way::{PortNames, way};
use crate::errors;
use crate::policy::deciding_policies;
use crate::policy::explain::protocol_name;
use crate::probe::{self, Outcome, ProbeError, ProbePacket, Probed};
use crate::supervise;
use crate::switch::{Ends, GATEWAY_PORT, within};
use crate::worker::WorkerError;

/// Sends one packet as if a pod of this node had: a TCP SYN, a UDP datagram or an echo request. What
/// answers is taken in before it reaches the pod, and of the connection nothing is left. At most eight
/// at once.
#[utoipa::path(post, path = "/v1/probes", request_body = ProbeRequest,
    responses((status = 200, body = ProbeResult), (status = 400), (status = 404), (status = 503)))]
pub(super) async fn send(
    State(state): State<RestState>,
    body: Result<Json<ProbeRequest>, JsonRejection>,
) -> Result<Json<ProbeResult>, ApiError> {
    let wrong = |problem: String| ApiError::new(ErrorCode::InvalidRequest, problem);
    let Json(request) = body.map_err(|error| wrong(error.body_text()))?;
    let timeout_ms = within("timeout_ms", request.timeout_ms, 1_000, 10_000);
    let timeout_ms = timeout_ms.map_err(|error| wrong(error.to_string()))?;
    let mut described = TraceRequest {
        from: request.from.clone(),
        to: request.to.clone(),
        protocol: request.protocol.clone(),
        port: request.port,
        src_port: None,
    };
    let (key, _) = walk(&state, &described)?;
    if key.in_port == GATEWAY_PORT {
        return Err(no_pod_here(&state, &request.from, &key));
    }
    let switch = Arc::clone(&state.switch);
    let packet = supervise::blocking(move || ProbePacket::choose(&switch, key)).await;
    let packet = packet.map_err(refused)?;
    described.src_port = Some(packet.source_port());
    // Before it is sent: what it leaves behind for a moment would make it a later packet.
    let (key, trace) = walk(&state, &described)?;
    let (switch, stop) = (Arc::clone(&state.switch), state.stopping.clone());
    let timeout = Duration::from_millis(timeout_ms);
    let probed = probe::send(switch, packet, timeout, stop).await;
    let probed = probed.map_err(refused)?;
    result(&state, &request, (&key, &trace), &probed, timeout_ms).map(Json)
}

fn refused(error: ProbeError) -> ApiError {
    let code = match &error {
        ProbeError::TooMany(_) | ProbeError::NoFreePort { .. } | ProbeError::Stopping => {
            ErrorCode::NotReady
        }
        ProbeError::NoSuchPacket { .. } => ErrorCode::InvalidRequest,
        ProbeError::Send {
            source: WorkerError::NoPortFor { .. },
        } => ErrorCode::PortNotFound,
        ProbeError::Send { .. } => ErrorCode::Internal,
    };
    ApiError::new(code, errors::chain(&error))
}

fn no_pod_here(state: &RestState, from: &str, key: &FlowKey) -> ApiError {
    let snapshot = state.switch.reconcile().snapshot();
    let ends = Ends::of(&snapshot, state.switch.datapath());
    let pod = ends.end(from, key.ip_src).pod;
    let pod = pod.and_then(|pod| snapshot.cluster.pod(&pod));
    let node = pod.and_then(|pod| pod.node_name.as_deref());
    let elsewhere = match node {
        Some(node) if node != state.node => format!("; the pod runs on node {node}: ask there"),
        _ => String::new(),
    };
    let message = format!(
        "{from:?} is no pod on node {}, which alone can be sent for{elsewhere}",
        state.node
    );
    ApiError::new(ErrorCode::PodNotFound, message)
}

fn result(
    state: &RestState,
    request: &ProbeRequest,
    (key, trace): (&FlowKey, &pipeline::Trace),
    probed: &Probed,
    timeout_ms: u64,
) -> Result<ProbeResult, ApiError> {
    let names = PortNames::of(state);
    let left_to = probed.left_with.map(|tuple| tuple.dst);
    let way = probed
        .out_port
        .map(|port| way(state, &names, port, left_to.or(key.ip_dst)));
    let reason = match probed.outcome {
        Outcome::Dropped(reason) => Some(reason),
        Outcome::Answered(..) | Outcome::NoAnswer => None,
    };
    let by_rules = match trace.verdict {
        TraceVerdict::Drop(reason) => Some(reason),
        TraceVerdict::Forward(_) | TraceVerdict::Answered(_) => None,
    };
    let policies = if by_rules == reason {
        deciding_policies(&trace.deciding)
    } else {
        Vec::new()
    };
    let answer = match probed.outcome {
        Outcome::Answered(answer, after) => Some(view(&answer, after)),
        Outcome::Dropped(_) | Outcome::NoAnswer => None,
    };
    let outcome = outcome(&probed.outcome);
    let explanation = match outcome {
        ProbeOutcome::Answered | ProbeOutcome::Refused => None,
        _ => Some(explained(state, request)?),
    };
    let summary = match (&answer, reason) {
        (Some(answer), _) => answered(outcome, answer),
        (None, Some(reason)) => summary(Some(reason), &policies),
        (None, None) => unanswered(timeout_ms, way.as_deref(), explanation.as_ref()),
    };
    let endpoint = probed.left_with.filter(|tuple| {
        (Some(tuple.dst), tuple.tp_dst) != (key.ip_dst, key.tp_dst)
            && ip_proto::has_ports(tuple.proto)
    });
    Ok(ProbeResult {
        outcome,
        packet: key.to_string(),
        answer,
        endpoint: endpoint.map(|tuple| SocketAddr::new(tuple.dst, tuple.tp_dst).to_string()),
        way,
        drop_reason: reason.map(|reason| reason.name().to_owned()),
        policies,
        explanation,
        summary,
    })
}

fn explained(state: &RestState, request: &ProbeRequest) -> Result<Explanation, ApiError> {
    let asked = ExplainRequest {
        from: request.from.clone(),
        to: request.to.clone(),
        protocol: request.protocol.clone(),
        port: request.port,
    };
    explanation(state, &asked)
}

fn outcome(outcome: &Outcome) -> ProbeOutcome {
    match outcome {
        Outcome::Dropped(reason) if reason.is_denial() => ProbeOutcome::Denied,
        Outcome::Dropped(_) => ProbeOutcome::Dropped,
        Outcome::NoAnswer => ProbeOutcome::NoAnswer,
        Outcome::Answered(answer, _) => match answer.kind {
            AnswerKind::IcmpError { .. } => ProbeOutcome::Refused,
            AnswerKind::Segment { flags, .. } if flags & tcp_flags::RST != 0 => {
                ProbeOutcome::Refused
            }
            _ => ProbeOutcome::Answered,
        },
    }
}

fn answered(outcome: ProbeOutcome, answer: &ProbeAnswer) -> String {
    let verb = match outcome {
        ProbeOutcome::Refused => "refused",
        _ => "answered",
    };
    let (millis, micros) = (answer.after_us / 1_000, answer.after_us % 1_000);
    format!(
        "{verb} by {}: {}, after {millis}.{micros:03} ms",
        answer.from, answer.text
    )
}

fn unanswered(timeout_ms: u64, way: Option<&str>, explanation: Option<&Explanation>) -> String {
    let left = way.map_or_else(String::new, |way| format!("; it was sent to {way}"));
    let denied = explanation.filter(|explanation| !explanation.allowed);
    let denied = denied.map_or_else(String::new, |explanation| {
        format!(
            "; policies that another node applies: {}",
            explanation.summary
        )
    });
    format!("no answer within {timeout_ms} ms{left}{denied}")
}

fn view(answer: &Answer, after: Duration) -> ProbeAnswer {
    let (kind, text) = match answer.kind {
        AnswerKind::Segment { flags, .. } => segment(flags),
        AnswerKind::Datagram { payload_bytes } => {
            ("datagram", format!("a datagram of {payload_bytes} bytes"))
        }
        AnswerKind::EchoReply => ("echo_reply", "echo reply".to_owned()),
        AnswerKind::IcmpError { icmp_type, code } => (
            "icmp_error",
            icmp_error(answer.from.is_ipv6(), icmp_type, code),
        ),
    };
    ProbeAnswer {
        kind: kind.to_owned(),
        text,
        from: answer.from.to_string(),
        after_us: u64::try_from(after.as_micros()).unwrap_or(u64::MAX),
    }
}

fn segment(flags: u8) -> (&'static str, String) {
    let has = |flag| flags & flag != 0;
    if has(tcp_flags::RST) {
        ("reset", "reset, nothing listens there".to_owned())
    } else if has(tcp_flags::SYN) && has(tcp_flags::ACK) {
        ("syn_ack", "SYN-ACK".to_owned())
    } else {
        ("segment", "a segment of another connection".to_owned())
    }
}

/// Names of the errors that say why (RFC 792, RFC 1812 section 5.2.7.1, RFC 4443 section 3).
fn icmp_error(is_ipv6: bool, icmp_type: u8, code: u8) -> String {
    let name = match (is_ipv6, icmp_type, code) {
        (false, 3, 0) | (true, 1, 0) => "no route to the network",
        (false, 3, 1) | (true, 1, 3) => "host unreachable",
        (false, 3, 3) | (true, 1, 4) => "port unreachable, nothing listens there",
        (false, 3, 9 | 10 | 13) | (true, 1, 1 | 5) => "administratively prohibited",
        (true, 1, 6) => "route rejects",
        (false, 3, 4) | (true, 2, _) => "packet too big",
        (false, 11, _) | (true, 3, _) => "time exceeded",
        _ => "ICMP error",
    };
    let protocol = protocol_name(if is_ipv6 {
        ip_proto::ICMPV6
    } else {
        ip_proto::ICMP
    });
    format!("{name} ({protocol} type {icmp_type} code {code})")
}

#[cfg(test)]
mod tests {
    use vswitch_datapath::{DropReason, Timestamp};

    use super::*;

    fn answer(kind: AnswerKind) -> Outcome {
        let answer = Answer {
            time: Timestamp::default(),
            from: "10.0.0.2".parse().unwrap(),
            kind,
        };
        Outcome::Answered(answer, Duration::from_micros(1_042))
    }

    #[test]
    fn an_outcome_says_whether_the_receiver_or_the_switch_said_no() {
        let (icmp_type, code, ack) = (3, 3, 1);
        for (of, expected) in [
            (
                Outcome::Dropped(DropReason::PolicyEgress),
                ProbeOutcome::Denied,
            ),
            (Outcome::Dropped(DropReason::NoRoute), ProbeOutcome::Dropped),
            (Outcome::NoAnswer, ProbeOutcome::NoAnswer),
            (answer(AnswerKind::EchoReply), ProbeOutcome::Answered),
            (
                answer(AnswerKind::IcmpError { icmp_type, code }),
                ProbeOutcome::Refused,
            ),
            (
                answer(AnswerKind::Segment { flags: 0x12, ack }),
                ProbeOutcome::Answered,
            ),
            (
                answer(AnswerKind::Segment { flags: 0x14, ack }),
                ProbeOutcome::Refused,
            ),
        ] {
            assert_eq!(outcome(&of), expected, "{of:?}");
        }
    }

    #[test]
    fn an_answer_says_who_what_and_when() {
        let Outcome::Answered(of, after) = answer(AnswerKind::Segment {
            flags: 0x12,
            ack: 1,
        }) else {
            unreachable!("made above");
        };
        let text = answered(ProbeOutcome::Answered, &view(&of, after));
        assert_eq!(text, "answered by 10.0.0.2: SYN-ACK, after 1.042 ms");
        assert_eq!(
            icmp_error(true, 1, 4),
            "port unreachable, nothing listens there (ICMPv6 type 1 code 4)"
        );
        assert_eq!(icmp_error(false, 12, 0), "ICMP error (ICMP type 12 code 0)");
    }

    #[test]
    fn what_is_not_answered_says_where_it_went() {
        assert_eq!(
            unanswered(500, Some("default/server"), None),
            "no answer within 500 ms; it was sent to default/server"
        );
    }
}
