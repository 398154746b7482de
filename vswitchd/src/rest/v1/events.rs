//! Server-sent events (HTML Living Standard, section 9.2).

use serde::Serialize;
use serde_json::json;

/// Their media type.
pub(super) const EVENTS: &str = "text/event-stream";

/// A comment, which says that the connection lives.
pub(super) const KEEP_ALIVE: &str = ":\n\n";

/// Returns an event.
pub(super) fn event(name: &str, data: &impl Serialize) -> String {
    format!("event: {name}\ndata: {}\n\n", json!(data))
}
