//! Tracked connections.

use anyhow::Result;
use clap::Args;
use vswitch_api::v1::Connection;

use crate::output::{Format, columns, print};
use crate::server::{Server, encode};

/// `dump-conntrack`.
#[derive(Debug, Args)]
pub(crate) struct DumpConntrack {
    /// Only connections from or to this address.
    #[arg(long)]
    address: Option<std::net::IpAddr>,
}

/// Shows tracked connections.
pub(crate) fn dump_conntrack(server: &Server, args: &DumpConntrack, format: Format) -> Result<()> {
    let path = match &args.address {
        Some(address) => format!("/v1/connections?address={}", encode(&address.to_string())),
        None => "/v1/connections".to_owned(),
    };
    let connections: Vec<Connection> = server.get(&path)?;
    print(format, &connections, || {
        let header = [
            "PROTO",
            "STATE",
            "SOURCE",
            "DESTINATION",
            "PORTS",
            "TIMEOUT",
            "ORIG PACKETS",
            "REPLY PACKETS",
        ];
        columns(&header, connections.iter().map(row))
    })
}

/// As conntrack(8) marks connections that a fast path forwards.
fn state(connection: &Connection) -> String {
    let mark = if connection.offloaded {
        " [OFFLOAD]"
    } else {
        ""
    };
    format!("{}{mark}", connection.state)
}

fn row(connection: &Connection) -> Vec<String> {
    let end = |ip: std::net::IpAddr, port: u16| std::net::SocketAddr::new(ip, port).to_string();
    vec![
        connection.protocol.clone(),
        state(connection),
        end(connection.src, connection.src_port),
        match &connection.forwarded {
            Some(forwarded) => format!(
                "{} (to {})",
                end(connection.dst, connection.dst_port),
                end(forwarded.dst, forwarded.dst_port)
            ),
            None => end(connection.dst, connection.dst_port),
        },
        format!("{}->{}", connection.in_port, connection.out_port),
        format!("{} s", connection.timeout_seconds),
        connection.orig_packets.to_string(),
        connection.reply_packets.to_string(),
    ]
}
