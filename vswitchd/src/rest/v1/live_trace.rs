//! `GET /v1/trace/live`: packets of a description while they pass.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use vswitch_api::v1::{TraceBegun, TraceEnded, TraceHop, TraceRequest, TracedHeaders};
use vswitch_datapath::conntrack::Direction;
use vswitch_datapath::flow::{CtState, FlowKey, ip_proto};
use vswitch_datapath::live_trace::{PacketSummary, TracedPacket};
use vswitch_datapath::packet::tcp_flags;
use vswitch_datapath::pipeline::TraceVerdict;
use vswitch_datapath::{DropReason, Verdict};

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode};
use super::events::{EVENTS, KEEP_ALIVE, event};
use super::trace::{refused, step, summary, translation};
use super::way::{PortNames, way};
use crate::live_trace::{Heard, LiveTraceSession, TraceLimits};
use crate::policy::deciding_policies;
use crate::policy::explain::protocol_name;

/// Query of `GET /v1/trace/live`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LiveTraceQuery {
    /// Who begins the connection: `namespace/pod`, `pod`, an address, or `node`.
    from: String,
    /// With whom: the same forms, or a Service: `svc/name`, `svc/namespace/name`.
    to: String,
    /// `tcp` (default), `udp`, `sctp`, `icmp`.
    protocol: Option<String>,
    /// Destination port (tcp, udp, sctp).
    port: Option<u16>,
    /// Source port: any by default.
    src_port: Option<u16>,
    /// Packets after which it ends: 10 by default, at most 10000.
    count: Option<u64>,
    /// Time after which it ends: 30 by default, at most 3600.
    seconds: Option<u64>,
}

/// Traces the next packets of a description, both directions, with the tables that they meet: an event
/// `begun`, an event `hop` for each packet, an event `ended` when it is over. It ends at one of its
/// limits, or when the client hangs up. At most four at once.
#[utoipa::path(get, path = "/v1/trace/live", params(LiveTraceQuery),
    responses((status = 200, content((TraceHop = "text/event-stream"))),
        (status = 400), (status = 404), (status = 503)))]
pub(super) async fn live(
    State(state): State<RestState>,
    query: Result<Query<LiveTraceQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let wrong = |problem: String| ApiError::new(ErrorCode::InvalidRequest, problem);
    let Query(query) = query.map_err(|error| wrong(error.body_text()))?;
    let limits = TraceLimits::new(query.count, query.seconds);
    let limits = limits.map_err(|error| wrong(error.to_string()))?;
    let request = TraceRequest {
        from: query.from,
        to: query.to,
        protocol: query.protocol,
        port: query.port,
        src_port: query.src_port,
    };
    let described = state.switch.describe(&request).map_err(refused)?;
    let (switch, stop) = (state.switch.clone(), state.stopping.clone());
    let session = LiveTraceSession::begin(switch, described, limits, stop).await;
    let session = session.map_err(|error| ApiError::new(ErrorCode::NotReady, error.to_string()))?;
    let names = PortNames::of(&state);
    let begun = TraceBegun {
        node: state.node.clone(),
        port: names.name(session.port()),
    };
    let teller = Teller {
        state,
        session,
        names,
        met: HashSet::new(),
    };
    let first = Some(event("begun", &begun));
    let events = stream::unfold((teller, first), async |(mut teller, first)| {
        let event = match first {
            Some(first) => first,
            None => teller.next().await?,
        };
        Some((Ok::<_, Infallible>(event), (teller, None)))
    });
    Ok(([(CONTENT_TYPE, EVENTS)], Body::from_stream(events)).into_response())
}

/// Makes events of what a session hears.
struct Teller {
    state: RestState,
    session: LiveTraceSession,
    names: PortNames,
    /// Connections of which a packet was told, of no more than the packets that were wanted.
    met: HashSet<[End; 2]>,
}

/// Address and port.
type End = (Option<IpAddr>, u16);

impl Teller {
    async fn next(&mut self) -> Option<String> {
        Some(match self.session.next().await? {
            Heard::Nothing => KEEP_ALIVE.to_owned(),
            Heard::Packet { unix_nanos, packet } => event("hop", &self.hop(unix_nanos, &packet)),
            Heard::Ended { why, lost } => {
                let reason = why.name().to_owned();
                event("ended", &TraceEnded { reason, lost })
            }
        })
    }

    fn hop(&mut self, unix_nanos: u64, packet: &TracedPacket) -> TraceHop {
        let out_port = match packet.verdict {
            Verdict::Forward(port) => Some(port),
            _ => None,
        };
        if [Some(packet.in_port), out_port]
            .into_iter()
            .flatten()
            .any(|port| !self.names.has(port))
        {
            self.names = PortNames::of(&self.state);
        }
        let trace = &packet.trace;
        let drop_reason = match packet.verdict {
            Verdict::Drop(reason) => Some(reason),
            _ => None,
        };
        let by_rules = match trace.verdict {
            TraceVerdict::Drop(reason) => Some(reason),
            TraceVerdict::Forward(_) | TraceVerdict::Answered(_) => None,
        };
        // Of what was dropped for another reason than the rules', they say nothing.
        let policies = if by_rules == drop_reason {
            deciding_policies(&trace.deciding)
        } else {
            Vec::new()
        };
        let key = &packet.came.key;
        let mut ends = [(key.ip_src, key.tp_src), (key.ip_dst, key.tp_dst)];
        ends.sort_unstable();
        // The kernel is asked how far it came within a second: until then it may have forwarded.
        let is_first = self.met.insert(ends);
        let to = packet.left.and_then(|left| left.key.ip_dst);
        let ct_state = trace.steps.last().map(|step| step.ct_state);
        TraceHop {
            node: self.state.node.clone(),
            time: time(unix_nanos),
            is_reply: packet.direction == Direction::Reply,
            in_port: self.names.name(packet.in_port),
            packet: headers(&packet.came),
            left_as: packet.left.as_ref().map(headers),
            steps: trace.steps.iter().map(step).collect(),
            ct_state: state_text(ct_state.unwrap_or_default()),
            translation: translation(trace),
            was_in_kernel: packet.was_in_kernel && is_first,
            verdict: verdict_name(packet.verdict).to_owned(),
            drop_reason: drop_reason.map(|reason| reason.name().to_owned()),
            is_sender_told: packet.is_told && drop_reason.is_some(),
            way: out_port.map(|port| way(&self.state, &self.names, port, to)),
            summary: hop_summary(packet.verdict, drop_reason, &policies),
            policies,
        }
    }
}

fn hop_summary(verdict: Verdict, reason: Option<DropReason>, policies: &[String]) -> String {
    match verdict {
        Verdict::Forward(_) | Verdict::InFragments | Verdict::Drop(_) => summary(reason, policies),
        Verdict::Answered => "answered by the switch".to_owned(),
        Verdict::Held => "held until the first fragment of its datagram comes".to_owned(),
        Verdict::Taken => "answers a probe of the switch, and goes no further".to_owned(),
    }
}

const fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forward(_) => "forwarded",
        Verdict::InFragments => "forwarded_in_fragments",
        Verdict::Answered => "answered",
        Verdict::Drop(_) => "dropped",
        Verdict::Held => "held",
        Verdict::Taken => "taken",
    }
}

/// Of what is not tracked there is no state.
fn state_text(state: CtState) -> String {
    let text = format!("{state:?}");
    if text == "0" { String::new() } else { text }
}

/// Returns a time as RFC 3339, to the microsecond: as text they sort as they are.
fn time(unix_nanos: u64) -> String {
    let time = Timestamp::from_nanosecond(unix_nanos.into()).unwrap_or(Timestamp::MAX);
    format!("{time:.6}")
}

fn headers(summary: &PacketSummary) -> TracedHeaders {
    let key = &summary.key;
    let is_icmp = ip_proto::is_icmp(key.ip_proto);
    TracedHeaders {
        protocol: protocol_name(key.ip_proto),
        source: end(key, key.ip_src, key.tp_src),
        destination: end(key, key.ip_dst, key.tp_dst),
        ip_id: summary.ip_id,
        tcp_flags: summary.tcp.map(|tcp| flags(tcp.flags)),
        tcp_seq: summary.tcp.map(|tcp| tcp.seq),
        tcp_ack: summary
            .tcp
            .filter(|tcp| tcp.flags & tcp_flags::ACK != 0)
            .map(|tcp| tcp.ack),
        icmp_type: is_icmp.then_some(key.tp_src),
        payload_bytes: summary.payload_bytes,
        payload_checksum: summary.payload_checksum,
    }
}

fn end(key: &FlowKey, address: Option<IpAddr>, port: u16) -> String {
    let Some(address) = address else {
        return String::new();
    };
    if ip_proto::has_ports(key.ip_proto) && !key.is_later_fragment {
        SocketAddr::new(address, port).to_string()
    } else {
        address.to_string()
    }
}

fn flags(flags: u8) -> String {
    let named = [
        (tcp_flags::SYN, "SYN"),
        (tcp_flags::FIN, "FIN"),
        (tcp_flags::RST, "RST"),
        (tcp_flags::PSH, "PSH"),
        (tcp_flags::ACK, "ACK"),
        (tcp_flags::URG, "URG"),
    ];
    let set = named.iter().filter(|(flag, _)| flags & flag != 0);
    let names: Vec<&str> = set.map(|(_, name)| *name).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_text() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(1_500_000_999), "1970-01-01T00:00:01.500000Z");
    }

    #[test]
    fn ends_have_ports_where_the_protocol_has() {
        let mut key = FlowKey {
            ip_proto: ip_proto::TCP,
            ..FlowKey::default()
        };
        let v6 = "fd00::1".parse().ok();
        assert_eq!(end(&key, v6, 80), "[fd00::1]:80");
        key.ip_proto = ip_proto::ICMPV6;
        assert_eq!(end(&key, v6, 128), "fd00::1");
        assert_eq!(flags(0x12), "SYN,ACK");
    }
}
