//! Tracked connections.

use std::net::IpAddr;

use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use vswitch_api::v1::{Connection, Forwarded};
use vswitch_datapath::conntrack::ConnectionInfo;
use vswitch_datapath::flow::ip_proto;

use super::super::RestState;
use super::read::read;

/// Query of `GET /v1/connections`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionQuery {
    /// Only connections from or to this address.
    #[param(value_type = Option<String>)]
    address: Option<IpAddr>,
}

/// `GET /v1/connections`.
#[utoipa::path(get, path = "/v1/connections", params(ConnectionQuery),
    responses((status = 200, body = Vec<Connection>)))]
pub(super) async fn list(
    State(state): State<RestState>,
    Query(query): Query<ConnectionQuery>,
) -> Response {
    read(state, move |state| connections(state, &query)).await
}

fn connections(state: &RestState, query: &ConnectionQuery) -> Vec<Connection> {
    state.switch.sync_kernel_counters();
    let connections = state
        .switch
        .datapath()
        .connections(state.switch.clock().now());
    let wanted = connections.iter().filter(|connection| {
        let (original, reply) = (&connection.original, &connection.reply);
        let ends = [original.src, original.dst, reply.src, reply.dst];
        query.address.is_none_or(|address| ends.contains(&address))
    });
    wanted.map(view).collect()
}

fn view(info: &ConnectionInfo) -> Connection {
    let tuple = &info.original;
    Connection {
        protocol: protocol(tuple.proto),
        state: info.state.to_owned(),
        src: tuple.src,
        src_port: tuple.tp_src,
        dst: tuple.dst,
        dst_port: tuple.tp_dst,
        in_port: info.in_port.0,
        out_port: info.out_port.0,
        timeout_seconds: info.remaining.as_secs(),
        assured: info.assured,
        offloaded: info.in_kernel,
        orig_packets: info.packets_original,
        orig_bytes: info.bytes_original,
        reply_packets: info.packets_reply,
        reply_bytes: info.bytes_reply,
        forwarded: forwarded(info),
    }
}

fn forwarded(info: &ConnectionInfo) -> Option<Forwarded> {
    let leaves_as = info.reply.reversed();
    (leaves_as != info.original).then_some(Forwarded {
        src: leaves_as.src,
        src_port: leaves_as.tp_src,
        dst: leaves_as.dst,
        dst_port: leaves_as.tp_dst,
    })
}

fn protocol(number: u8) -> String {
    match number {
        ip_proto::TCP => "tcp".to_owned(),
        ip_proto::UDP => "udp".to_owned(),
        ip_proto::ICMP => "icmp".to_owned(),
        ip_proto::ICMPV6 => "icmpv6".to_owned(),
        ip_proto::SCTP => "sctp".to_owned(),
        other => other.to_string(),
    }
}
