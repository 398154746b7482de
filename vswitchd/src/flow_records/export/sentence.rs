//! A record as one line for people.

use std::fmt::Write as _;

use vswitch_api::v1::{FlowRecord, FlowTraffic};

/// Says what was denied, by whom, how often, and what would have helped; of connections that were
/// allowed what they carried.
pub(super) fn sentence(record: &FlowRecord) -> String {
    let of = &record.of;
    let end = |end: &Option<_>| match end {
        Some(end) => format!("{end}"),
        // Too many to be told apart.
        None => "various".to_owned(),
    };
    let mut text = format!(
        "{}: {} -> {} {}",
        of.verdict.replace('_', " "),
        end(&of.source),
        end(&of.destination),
        of.protocol_and_port()
    );
    if let Some(service) = &of.service {
        let _ = write!(text, " (asked for {service})");
    }
    let _ = write!(text, " by {}", of.decided_by());
    if let Some(direction) = &of.direction {
        let _ = write!(text, " ({direction})");
    }
    let (number, what) = match of.verdict.as_str() {
        "would_deny" | "allowed" => (record.connections, "connection"),
        _ => (record.packets, "packet"),
    };
    let plural = if number == 1 { "" } else { "s" };
    let _ = write!(text, ", {number} {what}{plural}");
    match (&of.end, of.event.as_deref()) {
        (Some(end), _) => _ = write!(text, " ended ({end})"),
        (None, Some("begin")) => text.push_str(" began"),
        _ => {}
    }
    if let Some(FlowTraffic { sent, received, .. }) = &record.traffic {
        let (sent, received) = (sent.bytes, received.bytes);
        let _ = write!(text, ", {sent} bytes sent, {received} received");
    }
    if let Some(explanation) = &record.explanation {
        let _ = write!(text, ": {explanation}");
    }
    text
}
