//! What an Event says of a denial.

use std::fmt::Write as _;

use vswitch_api::v1::FlowRecord;

/// The end of a denial that an Event is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// Who began.
    Source,
    /// With whom.
    Destination,
}

/// Says what was denied, by whom, and what would have helped.
pub(super) fn message(record: &FlowRecord, side: Side) -> String {
    let of = &record.of;
    let (preposition, peer) = match side {
        Side::Source => ("to", &of.destination),
        Side::Destination => ("from", &of.source),
    };
    let peer = peer.as_ref().map(ToString::to_string).unwrap_or_default();
    let what = of.protocol_and_port();
    let verb = if of.verdict == "cut" { "cut" } else { "denied" };
    let mut text = format!("{what} {preposition} {peer}");
    if let Some(service) = &of.service {
        let _ = write!(text, " (asked for {service})");
    }
    let _ = write!(text, " {verb} by {}", of.decided_by());
    if let Some(direction) = &of.direction {
        let _ = write!(text, " ({direction})");
    }
    if let Some(explanation) = &record.explanation {
        let _ = write!(text, ": {explanation}");
    }
    text
}

/// Says that there were more kinds of connections than are told apart.
pub(super) fn message_of_others(namespace: &str, name: &str) -> String {
    format!(
        "many other connections denied: `vsctl why {namespace}/{name}` tells of the last ones, \
         `vsctl flows` of all"
    )
}
