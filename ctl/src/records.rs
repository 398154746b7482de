//! What was denied, and which connections were allowed: `vsctl flows` and `vsctl why`.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use clap::Args;
use vswitch_api::v1::{FlowRecord, FlowRecords};

use crate::allowed;
use crate::answers::{end, write_gaps, write_more};
use crate::output::{Format, columns, print, write_out};
use crate::server::{Server, encode};

/// Denials that `why` tells of.
const DENIALS: usize = 5;

/// `flows`.
#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    /// Only what was dropped, not what policies in audit would deny.
    #[arg(long)]
    denied: bool,
    /// Connections that were allowed and have ended, instead of what was denied: those that
    /// flows.connections has recorded; with --follow all of them, from now on. Where
    /// flows.connection_starts is on, those that have begun as well. Those that have not ended yet:
    /// `vsctl dump-conntrack`.
    #[arg(long, conflicts_with = "denied")]
    allowed: bool,
    /// Who began: NAMESPACE/POD, POD (in namespace default), NAMESPACE/, an address, a network, or
    /// `node`.
    #[arg(long)]
    from: Option<String>,
    /// With whom: the same forms.
    #[arg(long)]
    to: Option<String>,
    /// A policy that denied or allowed: as `vsctl get policies` names it.
    #[arg(long)]
    policy: Option<String>,
    /// Destination port, behind Services.
    #[arg(long)]
    port: Option<u16>,
    /// From when on: 03:00 or 03:00:30 of the last 24 hours (UTC), 15m, 2h or 1d ago, or RFC 3339.
    #[arg(long)]
    since: Option<String>,
    /// Until when: the same forms.
    #[arg(long)]
    until: Option<String>,
    /// Most records, the latest first.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Tell what is denied (--allowed: what ends, or begins) from now on, a line for each kind and
    /// second.
    #[arg(short, long, conflicts_with_all = ["since", "until", "limit"])]
    follow: bool,
}

/// `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// NAMESPACE/POD, POD (in namespace default), an address, or `node`.
    pod: String,
    /// From when on: 03:00 or 03:00:30 of the last 24 hours (UTC), 15m, 2h or 1d ago, or RFC 3339.
    #[arg(long)]
    since: Option<String>,
}

fn path(kind: &str, values: &[(&str, Option<&str>)]) -> String {
    let mut path = format!("/v1/flow-records?{kind}");
    for (name, value) in values {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", encode(value));
        }
    }
    path
}

/// Shows what was denied, or which connections were allowed.
pub(crate) fn flows(server: &Server, args: &FlowsArgs, format: Format) -> Result<()> {
    let (limit, of_all_times) = (args.limit.to_string(), !args.follow);
    let port = args.port.map(|port| port.to_string());
    let values = [
        ("from", args.from.as_deref()),
        ("to", args.to.as_deref()),
        ("policy", args.policy.as_deref()),
        ("port", port.as_deref()),
        ("since", args.since.as_deref()),
        ("until", args.until.as_deref()),
        ("limit", of_all_times.then_some(limit.as_str())),
    ];
    let kind = match (args.denied, args.allowed) {
        (_, true) => "allowed=true",
        (true, _) => "denied=true",
        _ => "denied=false",
    };
    let path = path(kind, &values);
    if args.follow {
        return follow(server, &path, format);
    }
    let answer: FlowRecords = server.get(&path)?;
    match format {
        // A line a record, for programs that read lines.
        Format::Jsonl => print(format, &answer.records, String::new),
        _ if args.allowed => print(format, &answer, || allowed::table(&answer, format)),
        _ => print(format, &answer, || table(&answer, format)),
    }
}

fn follow(server: &Server, path: &str, format: Format) -> Result<()> {
    server.events(path, |name, data| {
        if name == "missed" {
            eprintln!("vsctl: some records were missed: {data}");
            return Ok(());
        }
        let record: FlowRecord = serde_json::from_str(data)?;
        match format {
            Format::Table | Format::Wide if record.of.verdict == "allowed" => {
                write_out(&allowed::line(&record))
            }
            Format::Table | Format::Wide => write_out(&line(&record)),
            Format::Json | Format::Jsonl => print(Format::Jsonl, &record, String::new),
            Format::Yaml => {
                write_out("---\n")?;
                print(format, &record, String::new)
            }
        }
    })
}

/// Tells of the last denials that concern a pod, and of what would have helped.
pub(crate) fn why(server: &Server, args: &WhyArgs, format: Format) -> Result<()> {
    if args.pod.ends_with('/') {
        bail!(
            "{:?} is a namespace: `vsctl flows --from` and `--to` take one",
            args.pod
        );
    }
    let limit = DENIALS.to_string();
    let values = [
        ("with", Some(args.pod.as_str())),
        ("since", args.since.as_deref()),
        ("limit", Some(limit.as_str())),
    ];
    let answer: FlowRecords = server.get(&path("denied=true", &values))?;
    print(format, &answer, || why_text(&args.pod, &answer))
}

fn cure(record: &FlowRecord) -> Option<&str> {
    let miss = record.explanation.as_ref()?.nearest_miss.as_ref()?;
    Some(&miss.advice.as_ref()?.text)
}

fn count(record: &FlowRecord) -> u64 {
    match record.of.verdict.as_str() {
        "would_deny" => record.connections,
        _ => record.packets,
    }
}

fn table(answer: &FlowRecords, format: Format) -> String {
    let is_wide = format == Format::Wide;
    let mut header = vec![
        "LAST",
        "VERDICT",
        "FROM",
        "TO",
        "PORT",
        "COUNT",
        "BY",
        "DIRECTION",
    ];
    if is_wide {
        header.extend(["FIRST", "SERVICE", "CURE"]);
    }
    let rows = answer.records.iter().map(|record| {
        let of = &record.of;
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let mut row = vec![
            record.last.clone(),
            of.verdict.clone(),
            end(of.source.as_ref()),
            end(of.destination.as_ref()),
            record.of.protocol_and_port(),
            count(record).to_string(),
            record.of.decided_by(),
            or_none(&of.direction),
        ];
        if is_wide {
            let cure = cure(record).unwrap_or("-").to_owned();
            row.extend([record.first.clone(), or_none(&of.service), cure]);
        }
        row
    });
    let mut text = columns(&header, rows);
    write_more(&mut text, answer);
    write_gaps(&mut text, answer, answer.lost);
    text
}

fn line(record: &FlowRecord) -> String {
    let of = &record.of;
    format!(
        "{} {} {} -> {} {} {} by {}\n",
        record.last,
        of.verdict,
        end(of.source.as_ref()),
        end(of.destination.as_ref()),
        record.of.protocol_and_port(),
        count(record),
        record.of.decided_by(),
    )
}

fn why_text(pod: &str, answer: &FlowRecords) -> String {
    let mut text = String::new();
    if answer.records.is_empty() {
        let _ = writeln!(text, "nothing was denied from or to {pod}");
    }
    for record in &answer.records {
        write_denial(&mut text, record);
    }
    if answer.more > 0 {
        let _ = writeln!(
            text,
            "and {} earlier ones (`vsctl flows` shows them)",
            answer.more
        );
    }
    write_gaps(&mut text, answer, answer.lost);
    text
}

fn write_denial(out: &mut String, record: &FlowRecord) {
    let of = &record.of;
    let (from, to) = (end(of.source.as_ref()), end(of.destination.as_ref()));
    let service = of.service.as_ref();
    let service = service.map_or_else(String::new, |service| format!(" (asked for {service})"));
    let _ = writeln!(
        out,
        "{} {}: {from} -> {to} {}{service}, {} packets since {}",
        record.last,
        of.verdict,
        record.of.protocol_and_port(),
        record.packets,
        record.first,
    );
    match &record.explanation {
        Some(explanation) => {
            let _ = writeln!(out, "  {}", explanation.reason);
        }
        None => {
            let _ = writeln!(out, "  {}", of.reason);
        }
    }
    if !of.policies.is_empty() {
        let _ = writeln!(out, "  denied by {}", of.policies.join(", "));
    }
    let explanation = record.explanation.as_ref();
    let Some(miss) = explanation.and_then(|of| of.nearest_miss.as_ref()) else {
        return;
    };
    let _ = writeln!(
        out,
        "  nearest rule: {} {}",
        miss.rule.policy, miss.rule.part
    );
    let _ = writeln!(out, "    {}", miss.reason);
    if let Some(advice) = &miss.advice {
        let _ = writeln!(out, "    {}", advice.text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> FlowRecords {
        let client = json!({ "address": "10.0.0.2", "pod": "default/client" });
        let server = json!({ "address": "10.0.0.3", "pod": "default/server" });
        let records = json!([{
            "node": "n", "verdict": "denied", "reason": "policy_ingress", "direction": "ingress",
            "source": client, "destination": server, "protocol": "TCP", "port": 80,
            "service": "10.96.0.1:8080", "policies": ["default/secure-pod"],
            "packets": 14, "connections": 0,
            "first": "2026-01-31T03:11:58Z", "last": "2026-01-31T03:12:07Z",
            "explanation": {
                "reason": "pod default/server is isolated for ingress, and no rule allows it",
                "nearest_miss": {
                    "rule": { "policy": "default/secure-pod", "part": "ingress[0].from[0]" },
                    "reason": "port matches, peer does not: pod default/client lacks label a=b",
                    "advice": { "text": "would pass with label a=b on pod default/client" }
                }
            }
        }, {
            "node": "n", "verdict": "would_deny", "reason": "policy_egress", "policies": [],
            "packets": 0, "connections": 3,
            "first": "2026-01-31T03:00:00Z", "last": "2026-01-31T03:00:00Z"
        }]);
        serde_json::from_value(json!({
            "node": "n", "records": records, "more": 7, "lost": 2, "problems": ["a line is cut"]
        }))
        .unwrap()
    }

    #[test]
    fn a_line_a_record_and_behind_them_what_there_is_no_record_of() {
        assert_eq!(
            table(&answer(), Format::Table),
            "LAST                  VERDICT     FROM            TO              PORT    COUNT  BY                  DIRECTION\n\
             2026-01-31T03:12:07Z  denied      default/client  default/server  TCP 80  14     default/secure-pod  ingress\n\
             2026-01-31T03:00:00Z  would_deny  various         various         -       3      policy_egress       -\n\
             and 7 earlier ones (--limit shows more)\n\
             2 more since the daemon started: too many at once to keep apart\n\
             note: a line is cut\n"
        );
        let wide = table(&answer(), Format::Wide);
        assert!(
            wide.contains("10.96.0.1:8080  would pass with label a=b on pod"),
            "{wide}"
        );
    }

    #[test]
    fn why_says_what_denied_it_and_what_would_have_helped() {
        let mut answer = answer();
        answer.records.truncate(1);
        (answer.more, answer.lost) = (0, 0);
        answer.problems.clear();
        assert_eq!(
            why_text("client", &answer),
            "2026-01-31T03:12:07Z denied: default/client -> default/server TCP 80 \
             (asked for 10.96.0.1:8080), 14 packets since 2026-01-31T03:11:58Z\n  \
               pod default/server is isolated for ingress, and no rule allows it\n  \
               denied by default/secure-pod\n  \
               nearest rule: default/secure-pod ingress[0].from[0]\n    \
                 port matches, peer does not: pod default/client lacks label a=b\n    \
                 would pass with label a=b on pod default/client\n"
        );
        answer.records.clear();
        assert_eq!(
            why_text("client", &answer),
            "nothing was denied from or to client\n"
        );
    }
}
