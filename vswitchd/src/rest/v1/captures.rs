//! `GET /v1/captures`: what passes a port, as pcapng while it happens.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Deserialize;
use vswitch_datapath::capture::CaptureFilter;

use super::super::RestState;
use super::super::error::{ApiError, ErrorCode};
use crate::attach::Kind;
use crate::capture::{CaptureLimits, CaptureSession, CapturedPort};

/// Media type of pcapng, as Wireshark registers it with desktops.
const PCAPNG: &str = "application/x-pcapng";

/// Query of `GET /v1/captures`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CaptureQuery {
    /// `namespace/pod`, `pod` (in namespace default), or the host interface of a port.
    pod: String,
    /// `tcp`, `udp`, `sctp`, `icmp`, `arp`, `ip`, `ip6`, `dropped`, `host ADDRESS`, `net NETWORK`,
    /// `port NUMBER`, joined by `and`. All packets by default.
    #[serde(default)]
    filter: String,
    /// Packets after which it ends: 100000 by default.
    count: Option<u64>,
    /// Size of the file after which it ends: 64 by default.
    megabytes: Option<u64>,
    /// Time after which it ends: 60 by default.
    seconds: Option<u64>,
    /// Bytes of each packet: 2048 by default.
    snaplen: Option<u64>,
}

/// Captures the packets of a port, both directions, each with its verdict as a comment. It ends at
/// one of its limits, or when the client hangs up. At most four at once.
#[utoipa::path(get, path = "/v1/captures", params(CaptureQuery),
    responses((status = 200, content((String = "application/x-pcapng"))),
        (status = 400), (status = 404), (status = 503)))]
pub(super) async fn capture(
    State(state): State<RestState>,
    query: Result<Query<CaptureQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let wrong = |problem: String| ApiError::new(ErrorCode::InvalidRequest, problem);
    let Query(query) = query.map_err(|error| wrong(error.body_text()))?;
    let filter: CaptureFilter = query
        .filter
        .parse()
        .map_err(|error| wrong(format!("{error}")))?;
    let limits = CaptureLimits::new(query.count, query.megabytes, query.seconds, query.snaplen);
    let limits = limits.map_err(|error| wrong(error.to_string()))?;
    let port = port(&state, &query.pod)?;
    let filter = (filter, query.filter);
    let (switch, stop) = (state.switch.clone(), state.stopping.clone());
    let session = CaptureSession::begin(switch, port, filter, limits, stop).await;
    let session = session.map_err(|error| ApiError::new(ErrorCode::NotReady, error.to_string()))?;
    let pieces = stream::unfold(session, async |mut session| {
        let piece = session.next().await?;
        Some((Ok::<_, Infallible>(piece), session))
    });
    Ok(([(CONTENT_TYPE, PCAPNG)], Body::from_stream(pieces)).into_response())
}

/// Finds the port that is meant: a pod's or a VM's by its name, any by its interface on the host.
fn port(state: &RestState, asked: &str) -> Result<CapturedPort, ApiError> {
    let records = state.attachments.by_port();
    let (namespace, name) = asked.split_once('/').unwrap_or(("default", asked));
    let is_pod = |key: &crate::state::ObjectKey| key.namespace == namespace && key.name == name;
    let of_pod = records
        .iter()
        .find(|(_, record)| record.pod().is_some_and(|pod| is_pod(&pod.key)));
    let no = of_pod.map(|(no, _)| *no).or_else(|| {
        let ports = state.switch.workers().port_stats();
        let named = ports.iter().find(|port| port.ifname.as_str() == asked);
        named.map(|port| port.port)
    });
    let Some(no) = no else {
        let message =
            format!("{asked:?} is neither a pod on this node nor an interface of the switch");
        return Err(ApiError::new(ErrorCode::PortNotFound, message));
    };
    let record = records.get(&no);
    let host_ifname = record.map(|record| record.host_ifname().to_string());
    let host_ifname = host_ifname.unwrap_or_else(|| asked.to_owned());
    let name = match record.map(|record| (record, record.pod())) {
        // Inside a machine the interface has a name that is not known here.
        Some((record, Some(pod))) if record.kind == Kind::Pod => {
            format!("{} {}", pod.key, record.attachment.ifname)
        }
        Some((_, Some(pod))) => format!("{} {host_ifname}", pod.key),
        _ => host_ifname.clone(),
    };
    let description = format!("port {no} of the switch, {host_ifname} on the host");
    Ok(CapturedPort {
        no,
        name,
        description,
    })
}
