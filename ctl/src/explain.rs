//! `vsctl explain`: why NetworkPolicies allow a connection or not.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use vswitch_api::v1::{
    ExplainRequest, ExplainedDirection, ExplainedService, Explanation, NearMiss,
};

use crate::output::{Format, print};
use crate::server::Server;
use crate::trace::split_port;

/// Near misses that people are shown; programs get all.
const SHOWN: usize = 5;

/// `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Sender: NAMESPACE/POD, POD (in namespace default), an address, or `node`.
    from: String,
    /// Receiver: the same forms or a Service (svc/NAME, svc/NAMESPACE/NAME), then :PORT or
    /// :PORT/PROTOCOL for TCP, UDP and SCTP.
    to: String,
    /// tcp, udp, sctp or icmp; what stands behind the port wins.
    #[arg(short, long, default_value = "tcp")]
    protocol: String,
}

/// Explains a connection; exit code 2 if policies or tables would not let it pass.
pub(crate) fn explain(server: &Server, args: &ExplainArgs, format: Format) -> Result<ExitCode> {
    let explanation: Explanation = server.post("/v1/explain", &request(args)?)?;
    print(format, &explanation, || text(&explanation))?;
    let passes = explanation.allowed && explanation.tables.allowed;
    Ok(if passes {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}

fn request(args: &ExplainArgs) -> Result<ExplainRequest> {
    let (target, protocol) = split_protocol(&args.to);
    let (to, port) = split_port(target)?;
    Ok(ExplainRequest {
        from: args.from.clone(),
        to,
        protocol: Some(protocol.unwrap_or(&args.protocol).to_owned()),
        port,
    })
}

/// Splits `…:PORT/PROTOCOL`. A slash before the port is that of NAMESPACE/POD.
pub(crate) fn split_protocol(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('/') {
        Some((target, protocol)) if target.contains(':') => (target, Some(protocol)),
        _ => (text, None),
    }
}

/// Returns what people are told.
pub(crate) fn text(explanation: &Explanation) -> String {
    let mut out = format!("{}\n", explanation.summary);
    if let Some(note) = &explanation.note {
        let _ = writeln!(out, "note: {note}");
    }
    if let Some(service) = &explanation.service {
        write_service(&mut out, service);
    }
    for (name, direction) in [
        ("egress", &explanation.egress),
        ("ingress", &explanation.ingress),
    ] {
        let _ = write!(out, "\n{name}: ");
        write_direction(&mut out, direction);
    }
    out
}

/// The directions behind it are those of one endpoint.
fn write_service(out: &mut String, service: &ExplainedService) {
    out.push_str("\nendpoints:\n");
    for endpoint in &service.endpoints {
        let pod = endpoint.pod.as_deref().unwrap_or("no pod");
        let (address, summary) = (&endpoint.endpoint, &endpoint.summary);
        let _ = writeln!(out, "  {address} ({pod}) {summary}");
    }
    if service.more > 0 {
        let _ = writeln!(out, "  and {} more, not looked at", service.more);
    }
    let denied = service.endpoints.iter().find(|endpoint| !endpoint.allowed);
    if let Some(shown) = denied.or(service.endpoints.first()) {
        let _ = writeln!(out, "\nin detail, {}:", shown.endpoint);
    }
}

fn write_direction(out: &mut String, direction: &ExplainedDirection) {
    let verdict = if direction.allowed {
        "allowed"
    } else {
        "denied"
    };
    let _ = writeln!(out, "{verdict}\n  {}", direction.reason);
    if !direction.isolated_by.is_empty() {
        let _ = writeln!(out, "  isolated by {}", direction.isolated_by.join(", "));
    }
    if direction.near_misses.is_empty() {
        return;
    }
    out.push_str("  nearest rules:\n");
    for miss in direction.near_misses.iter().take(SHOWN) {
        write_miss(out, miss);
    }
    let hidden = direction.near_misses.len().saturating_sub(SHOWN);
    if hidden > 0 {
        let _ = writeln!(out, "    and {hidden} more (-o yaml shows all)");
    }
}

fn write_miss(out: &mut String, miss: &NearMiss) {
    let _ = writeln!(out, "    {} {}", miss.rule.policy, miss.rule.part);
    let _ = writeln!(out, "      {}", miss.reason);
    if let Some(advice) = &miss.advice {
        let _ = writeln!(out, "      advice: {}", advice.text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(to: &str) -> (String, Option<u16>, String) {
        let args = ExplainArgs {
            from: "client".to_owned(),
            to: to.to_owned(),
            protocol: "tcp".to_owned(),
        };
        let request = request(&args).unwrap();
        (request.to, request.port, request.protocol.unwrap())
    }

    #[test]
    fn port_and_protocol_are_split_off_names_and_both_families() {
        let expect = |to: &str, port, protocol: &str| (to.to_owned(), port, protocol.to_owned());
        assert_eq!(asked("server:80"), expect("server", Some(80), "tcp"));
        assert_eq!(asked("server:80/udp"), expect("server", Some(80), "udp"));
        assert_eq!(asked("x/server"), expect("x/server", None, "tcp"));
        assert_eq!(asked("x/server:80"), expect("x/server", Some(80), "tcp"));
        assert_eq!(asked("x/s:53/udp"), expect("x/s", Some(53), "udp"));
        assert_eq!(
            asked("10.0.0.1:80/sctp"),
            expect("10.0.0.1", Some(80), "sctp")
        );
        assert_eq!(
            asked("[fd00::1]:80/udp"),
            expect("fd00::1", Some(80), "udp")
        );
        assert_eq!(asked("fd00::1"), expect("fd00::1", None, "tcp"));
    }

    fn denied(misses: usize) -> Explanation {
        let miss = json!({
            "rule": { "policy": "x/p", "part": "ingress[0].from[0]" },
            "reason": "port matches, peer does not: pod x/b lacks label role=db",
            "advice": { "text": "would pass with label role=db on pod x/b" }
        });
        let explanation = json!({
            "allowed": false,
            "summary": "denied: pod x/a is isolated for ingress, and no rule allows it",
            "tables": { "allowed": false, "drop_reason": "policy_ingress" },
            "egress": {
                "allowed": true, "here": true, "isolated_by": [], "near_misses": [],
                "reason": "no policy isolates pod x/b for egress"
            },
            "ingress": {
                "allowed": false, "here": true, "isolated_by": ["x/p", "x/q"],
                "reason": "pod x/a is isolated for ingress, and no rule allows it",
                "near_misses": vec![miss; misses]
            }
        });
        serde_json::from_value(explanation).unwrap()
    }

    #[test]
    fn people_get_the_verdict_first_and_a_block_for_each_direction() {
        assert_eq!(
            text(&denied(1)),
            "denied: pod x/a is isolated for ingress, and no rule allows it\n\
             \n\
             egress: allowed\n  \
               no policy isolates pod x/b for egress\n\
             \n\
             ingress: denied\n  \
               pod x/a is isolated for ingress, and no rule allows it\n  \
               isolated by x/p, x/q\n  \
               nearest rules:\n    \
                 x/p ingress[0].from[0]\n      \
                   port matches, peer does not: pod x/b lacks label role=db\n      \
                   advice: would pass with label role=db on pod x/b\n"
        );
    }

    #[test]
    fn only_the_nearest_misses_are_shown_and_the_note_is() {
        let mut explanation = denied(7);
        explanation.note = Some("the tables differ".to_owned());
        let text = text(&explanation);
        assert_eq!(text.matches("advice:").count(), SHOWN);
        assert!(text.ends_with("    and 2 more (-o yaml shows all)\n"));
        assert_eq!(text.lines().nth(1), Some("note: the tables differ"));
    }
}
