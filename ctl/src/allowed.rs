//! Connections that were allowed: the tables of `vsctl flows --allowed`.

use std::fmt::Write as _;

use vswitch_api::v1::{FlowCount, FlowOf, FlowRecord, FlowRecords, FlowRule};

use crate::answers::{end, write_gaps, write_more};
use crate::output::{Format, bytes, columns};

/// Returns how the connections ended, or that they began.
fn event(of: &FlowOf) -> String {
    or_none(of.end.as_ref().or(of.event.as_ref()))
}

fn or_none(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

/// Returns what was carried: by who began, by the others, and for how long.
fn traffic(record: &FlowRecord) -> [String; 3] {
    let Some(traffic) = record.traffic else {
        return ["-", "-", "-"].map(str::to_owned);
    };
    let carried = |count: FlowCount| bytes(count.bytes);
    let duration = std::time::Duration::from_millis(traffic.duration_ms);
    [
        carried(traffic.sent),
        carried(traffic.received),
        format!("{duration:?}"),
    ]
}

fn rules(rules: &[FlowRule]) -> String {
    let texts: Vec<String> = rules.iter().map(FlowRule::to_string).collect();
    if texts.is_empty() {
        "-".to_owned()
    } else {
        texts.join("; ")
    }
}

/// Shows records of allowed connections.
pub(crate) fn table(answer: &FlowRecords, format: Format) -> String {
    let is_wide = format == Format::Wide;
    let mut header = vec![
        "LAST", "EVENT", "FROM", "TO", "PORT", "COUNT", "SENT", "RECEIVED", "DURATION", "BY",
    ];
    if is_wide {
        header.extend(["FIRST", "SERVICE", "RULES"]);
    }
    let rows = answer.records.iter().map(|record| {
        let of = &record.of;
        let mut row = vec![
            record.last.clone(),
            event(of),
            end(of.source.as_ref()),
            end(of.destination.as_ref()),
            of.protocol_and_port(),
            record.connections.to_string(),
        ];
        row.extend(traffic(record));
        row.push(of.decided_by());
        if is_wide {
            let service = or_none(of.service.as_ref());
            row.extend([record.first.clone(), service, rules(&of.allowed_by)]);
        }
        row
    });
    let mut text = columns(&header, rows);
    write_more(&mut text, answer);
    match answer.recording.as_str() {
        "off" => text.push_str(
            "note: connections are not recorded (flows.connections = \"off\"); --follow tells of \
             them from now on\n",
        ),
        "all" => {}
        share => {
            let _ = writeln!(
                text,
                "note: {share} of the connections are recorded and counted (flows.connections)"
            );
        }
    }
    write_gaps(&mut text, answer, answer.lost_connections);
    text
}

/// Returns a record that is told while its connections begin or end.
pub(crate) fn line(record: &FlowRecord) -> String {
    let of = &record.of;
    let [sent, received, duration] = traffic(record);
    let carried = match record.traffic {
        Some(_) => format!("sent {sent}, received {received} in {duration}, "),
        None => String::new(),
    };
    format!(
        "{} {} {} -> {} {} {}, {carried}{} by {}\n",
        record.last,
        of.verdict,
        end(of.source.as_ref()),
        end(of.destination.as_ref()),
        of.protocol_and_port(),
        record.connections,
        event(of),
        of.decided_by(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(recording: &str) -> FlowRecords {
        serde_json::from_value(json!({
            "node": "n", "more": 0, "lost": 7, "lost_connections": 3, "recording": recording,
            "records": [{
                "node": "n", "verdict": "allowed", "reason": "policy", "direction": "ingress",
                "source": { "address": "10.0.0.2", "pod": "default/client" },
                "destination": { "address": "10.0.0.3", "pod": "default/server" },
                "protocol": "TCP", "port": 80, "service": "10.96.0.1:8080",
                "policies": ["default/web"], "event": "end", "end": "fin",
                "allowed_by": [{ "table": "IngressRule", "kind": "NetworkPolicy",
                    "name": "default/web", "part": "ingress[0]" }],
                "packets": 0, "connections": 2,
                "first": "2026-01-31T03:11:58Z", "last": "2026-01-31T03:12:07Z",
                "traffic": { "sent": { "packets": 6, "bytes": 512 },
                    "received": { "packets": 5, "bytes": 2048 }, "duration_ms": 1500 }
            }, {
                "node": "n", "verdict": "allowed", "reason": "not_isolated", "event": "begin",
                "source": { "address": "10.0.0.2", "pod": "default/client" },
                "destination": { "address": "10.0.0.9" }, "protocol": "UDP", "port": 53,
                "policies": [], "packets": 0, "connections": 4,
                "first": "2026-01-31T03:12:01Z", "last": "2026-01-31T03:12:07Z"
            }, {
                "node": "n", "verdict": "allowed", "reason": "lost", "policies": [],
                "packets": 0, "connections": 3,
                "first": "2026-01-31T03:12:07Z", "last": "2026-01-31T03:12:07Z"
            }]
        }))
        .unwrap()
    }

    #[test]
    fn a_line_a_record_and_behind_them_what_is_not_recorded() {
        assert_eq!(
            table(&answer("1/10"), Format::Table),
            "LAST                  EVENT  FROM            TO              PORT    COUNT  SENT   RECEIVED  DURATION  BY\n\
             2026-01-31T03:12:07Z  fin    default/client  default/server  TCP 80  2      512 B  2.0 KiB   1.5s      default/web\n\
             2026-01-31T03:12:07Z  begin  default/client  10.0.0.9        UDP 53  4      -      -         -         not_isolated\n\
             2026-01-31T03:12:07Z  -      various         various         -       3      -      -         -         lost\n\
             note: 1/10 of the connections are recorded and counted (flows.connections)\n\
             3 more since the daemon started: too many at once to keep apart\n"
        );
        let off = table(&answer("off"), Format::Wide);
        assert!(off.contains("are not recorded"), "{off}");
        assert!(
            off.contains("10.96.0.1:8080  IngressRule default/web ingress[0]"),
            "{off}"
        );
        assert!(!table(&answer("all"), Format::Table).contains("note"));
    }

    #[test]
    fn connections_that_begin_or_end_are_told_in_a_line() {
        let records = answer("all").records;
        assert_eq!(
            line(&records[0]),
            "2026-01-31T03:12:07Z allowed default/client -> default/server TCP 80 2, sent 512 B, \
             received 2.0 KiB in 1.5s, fin by default/web\n"
        );
        assert_eq!(
            line(&records[1]),
            "2026-01-31T03:12:07Z allowed default/client -> 10.0.0.9 UDP 53 4, begin by \
             not_isolated\n"
        );
    }
}
