//! `vsctl trace`: a described packet, table by table.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use vswitch_api::v1::{Trace, TraceRequest};

use crate::flows::line;
use crate::output::{Format, print};
use crate::server::Server;

/// `trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// Sender: NAMESPACE/POD, POD (in namespace default), an address, or `node`.
    from: String,
    /// Receiver: the same forms or a Service (svc/NAME, svc/NAMESPACE/NAME), with :PORT behind
    /// it for TCP, UDP and SCTP.
    to: String,
    /// tcp, udp, sctp or icmp.
    #[arg(short, long, default_value = "tcp")]
    protocol: String,
    /// Source port.
    #[arg(long)]
    src_port: Option<u16>,
}

/// Traces a packet; exit code 2 if it would be dropped.
pub(crate) fn trace(server: &Server, args: &TraceArgs, format: Format) -> Result<ExitCode> {
    let (to, port) = split_port(&args.to)?;
    let request = TraceRequest {
        from: args.from.clone(),
        to,
        protocol: Some(args.protocol.clone()),
        port,
        src_port: args.src_port,
    };
    let trace: Trace = server.post("/v1/trace", &request)?;
    print(format, &trace, || text(&trace))?;
    Ok(if trace.allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}

/// Splits `NAME:PORT`, `1.2.3.4:PORT` and `[v6]:PORT`; a bare IPv6 address has no port.
pub(crate) fn split_port(text: &str) -> Result<(String, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest
            .split_once(']')
            .with_context(|| format!("{text:?} lacks a closing bracket"))?;
        let port = rest.strip_prefix(':').map(parse_port).transpose()?;
        return Ok((address.to_owned(), port));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((text.to_owned(), None));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Ok((host.to_owned(), Some(parse_port(port)?))),
        None => Ok((text.to_owned(), None)),
    }
}

fn parse_port(text: &str) -> Result<u16> {
    text.parse()
        .with_context(|| format!("{text:?} is not a port number"))
}

fn text(trace: &Trace) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "packet: {}", trace.packet);
    for step in &trace.steps {
        let note = if step.note.is_empty() {
            String::new()
        } else {
            format!(" [{}]", step.note)
        };
        let _ = writeln!(out, "{:>3} {}{note}", step.table, step.table_name);
        match &step.flow {
            Some(flow) => {
                let _ = writeln!(out, "      {}", line(flow));
            }
            None => out.push_str("      no rule matches\n"),
        }
    }
    let _ = writeln!(out, "verdict: {}", trace.summary);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_split_off_names_and_both_families() {
        let split = |text| split_port(text).unwrap();
        assert_eq!(
            split("default/server:80"),
            ("default/server".to_owned(), Some(80))
        );
        assert_eq!(split("10.0.0.1:80"), ("10.0.0.1".to_owned(), Some(80)));
        assert_eq!(split("[fd00::1]:80"), ("fd00::1".to_owned(), Some(80)));
        assert_eq!(split("fd00::1"), ("fd00::1".to_owned(), None));
        assert_eq!(split("server"), ("server".to_owned(), None));
        assert!(split_port("server:http").is_err());
    }
}
