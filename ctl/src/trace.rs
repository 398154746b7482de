//! `vsctl trace`: a described packet, table by table; with `--live` those that really come.

mod live;

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use vswitch_api::v1::{Trace, TraceRequest, TraceStep};

use crate::flows::line;
use crate::output::{Format, print};
use crate::server::Server;

/// `trace`.
#[derive(Debug, Args)]
#[command(after_help = "\
  vsctl trace client server:80
  vsctl trace --live client server:80 --count 4
  vsctl trace --live client svc/web:80 --for 5m --peer http://127.0.0.1:7442

With --live the next packets between the two are traced, those of established connections as well, in
both directions: times, tables and rules, verdict, and where each goes. Every node tells of what passes
it; --peer names the API of others that are asked as well, and a packet that leaves one and comes into
another is told of as one. FROM and TO have to be known there: addresses are everywhere. vsctl speaks no
TLS: `ssh -L 7442:/run/vswitchd/api.sock NODE` brings a peer's API here. While a pod is traced none of its
connections takes the fast path. It ends after --count packets, or --for so long.")]
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
    /// Trace the next packets that really come.
    #[arg(long)]
    live: bool,
    /// End after so many packets.
    #[arg(
        short,
        long,
        value_name = "PACKETS",
        default_value_t = 10,
        requires = "live"
    )]
    count: u64,
    /// End after so much time: 30s, 5m, 1h.
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = parse_seconds,
        requires = "live")]
    seconds: u64,
    /// API of another node, http://HOST:PORT or unix:///PATH; with the same token. Repeatable.
    #[arg(long = "peer", value_name = "URL", requires = "live")]
    peers: Vec<String>,
}

/// Parses a time of whole seconds, minutes or hours.
fn parse_seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600)];
    let split = |(unit, seconds)| Some((text.strip_suffix(unit)?, seconds));
    let (number, seconds): (&str, u64) = units.into_iter().find_map(split).unwrap_or((text, 1));
    let number = number.parse::<u64>().ok();
    let total = number.and_then(|number| number.checked_mul(seconds));
    total.ok_or_else(|| format!("{text:?} is no time like 30s, 5m or 1h"))
}

/// Traces a packet, or those that come; exit code 2 if the one described would be dropped.
pub(crate) fn trace(server: Server, args: &TraceArgs, format: Format) -> Result<ExitCode> {
    let (to, port) = split_port(&args.to)?;
    let request = TraceRequest {
        from: args.from.clone(),
        to,
        protocol: Some(args.protocol.clone()),
        port,
        src_port: args.src_port,
    };
    if args.live {
        let what = (&request, args.count, args.seconds);
        live::live(server, &args.peers, what, format)?;
        return Ok(ExitCode::SUCCESS);
    }
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
    write_steps(&mut out, &trace.steps, "");
    let _ = writeln!(out, "verdict: {}", trace.summary);
    out
}

/// Writes the tables of a walk, each with the rule that matched.
pub(crate) fn write_steps(out: &mut String, steps: &[TraceStep], indent: &str) {
    for step in steps {
        let note = if step.note.is_empty() {
            String::new()
        } else {
            format!(" [{}]", step.note)
        };
        let _ = writeln!(out, "{indent}{:>3} {}{note}", step.table, step.table_name);
        let rule = step.flow.as_ref().map(line);
        let rule = rule.unwrap_or_else(|| "no rule matches".to_owned());
        let _ = writeln!(out, "{indent}      {rule}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("30s", 30), ("45", 45), ("5m", 300), ("1h", 3_600)] {
            assert_eq!(parse_seconds(text), Ok(seconds));
        }
        for text in [
            "",
            "s",
            "1d",
            "-1s",
            "99999999999999999999h",
            "9999999999999999h",
        ] {
            let refused = parse_seconds(text).unwrap_err();
            assert!(refused.contains(&format!("{text:?}")), "{refused}");
        }
    }

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
