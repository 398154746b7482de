//! Decides what is written of what is noted: a new Event, or a count at one that is there. Pure:
//! the time is a parameter.

use serde_json::{Value, json};
use uuid::Uuid;

use super::note::{Note, Regarding, Writers};
use super::recent::{MAX_REMEMBERED, Recent};
use super::spam_filter::SpamFilter;
use crate::objects::timestamp;

/// `source.component` of Events.
const COMPONENT: &str = "vswitchd";

/// Longest name of an object.
const MAX_NAME: usize = 253;

/// Highest `count` of an Event, an int32.
const MAX_COUNT: u64 = 2_147_483_647;

/// A write of an Event.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum EventWrite {
    /// A new one.
    Create(Value),
    /// One that this node has written says it again.
    Count {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Merge patch.
        patch: Value,
    },
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is written.
    Written,
    /// Another node has written this Event, and counts it up.
    Exists,
    /// The Event to count at is gone: an API server keeps one for an hour.
    Gone,
}

/// An Event that was noted before.
#[derive(Debug)]
struct Known {
    name: String,
    count: u64,
    first: u64,
    /// Whether this node has written it, and counts it up.
    is_written: bool,
}

/// What is known of Events.
#[derive(Debug)]
pub(super) struct Correlator {
    node: String,
    known: Recent<Note, Known>,
    filter: SpamFilter,
}

impl Correlator {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            known: Recent::new(MAX_REMEMBERED),
            filter: SpamFilter::default(),
        }
    }

    /// Notes that something was so many times, at a time in seconds since 1970; returns what is to
    /// be written of it, if anything is. What is not written counts at the next write.
    pub(super) fn note(&mut self, note: &Note, times: u64, now: u64) -> Option<EventWrite> {
        let known = self.known.entry(note, || Known::new(note, now));
        known.count = known.count.saturating_add(times).min(MAX_COUNT);
        let is_allowed = self.filter.allows(&note.regarding, now);
        is_allowed.then(|| self.write(note, now))
    }

    /// Returns what is to be written of what was noted.
    pub(super) fn write(&mut self, note: &Note, now: u64) -> EventWrite {
        let known = self.known.entry(note, || Known::new(note, now));
        let count = known.count.max(1);
        if known.is_written {
            return EventWrite::Count {
                namespace: note.regarding.events_namespace().to_owned(),
                name: known.name.clone(),
                patch: json!({"count": count, "lastTimestamp": timestamp(now)}),
            };
        }
        let namespace = note.regarding.events_namespace();
        EventWrite::Create(json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": known.name, "namespace": namespace},
            "involvedObject": note.regarding.to_value(),
            "type": note.event_type.name(), "reason": note.reason,
            "message": note.message,
            "source": {"component": COMPONENT, "host": self.node},
            "reportingComponent": COMPONENT, "reportingInstance": self.node,
            "firstTimestamp": timestamp(known.first), "lastTimestamp": timestamp(now),
            "count": count,
        }))
    }

    /// Notes what became of a write; returns whether it is to be written anew.
    pub(super) fn wrote(&mut self, note: &Note, outcome: Outcome, now: u64) -> bool {
        let known = self.known.entry(note, || Known::new(note, now));
        known.is_written = outcome == Outcome::Written;
        outcome == Outcome::Gone
    }
}

impl Known {
    fn new(note: &Note, now: u64) -> Self {
        Self {
            name: event_name(note),
            count: 0,
            first: now,
            is_written: false,
        }
    }
}

/// Names an Event: by what it says where every node says it, else as none was named before.
fn event_name(note: &Note) -> String {
    let suffix = match note.writers {
        Writers::EveryNode => {
            let Regarding { kind, uid, .. } = &note.regarding;
            let what = [kind.as_str(), uid, note.reason, &note.message].join("\n");
            format!("{:08x}", crc32fast::hash(what.as_bytes()))
        }
        Writers::ThisNode => {
            let mut random = Uuid::new_v4().simple().to_string();
            random.truncate(16);
            random
        }
    };
    let mut name = note.regarding.name.clone();
    // Names of objects are ASCII; where one is not, the API server says so.
    while name.len() + 1 + suffix.len() > MAX_NAME || name.ends_with(['.', '-']) {
        name.pop();
    }
    format!("{name}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventType, MAX_MESSAGE};

    fn note(message: &str, writers: Writers) -> Note {
        Note {
            regarding: Regarding {
                api_version: "projectcalico.org/v3".to_owned(),
                kind: "GlobalNetworkPolicy".to_owned(),
                namespace: String::new(),
                name: "guard".to_owned(),
                uid: "u1".to_owned(),
            },
            event_type: EventType::Warning,
            reason: "NotEnforced",
            message: message.to_owned(),
            writers,
        }
    }

    fn created(write: Option<EventWrite>) -> Value {
        match write {
            Some(EventWrite::Create(event)) => event,
            other => panic!("no new Event: {other:?}"),
        }
    }

    #[test]
    fn one_event_says_it_and_counts_up() {
        let mut correlator = Correlator::new("node-a");
        let note = note("part", Writers::EveryNode);
        let event = created(correlator.note(&note, 1, 60));
        let name = event["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(
            event,
            json!({"apiVersion": "v1", "kind": "Event",
                "metadata": {"name": name, "namespace": "default"},
                "involvedObject": {"apiVersion": "projectcalico.org/v3",
                    "kind": "GlobalNetworkPolicy", "name": "guard", "uid": "u1"},
                "type": "Warning", "reason": "NotEnforced", "message": "part",
                "source": {"component": "vswitchd", "host": "node-a"},
                "reportingComponent": "vswitchd", "reportingInstance": "node-a",
                "firstTimestamp": "1970-01-01T00:01:00Z",
                "lastTimestamp": "1970-01-01T00:01:00Z", "count": 1})
        );
        assert!(!correlator.wrote(&note, Outcome::Written, 60));
        let again = correlator.note(&note, 1, 120);
        let patch = json!({"count": 2, "lastTimestamp": "1970-01-01T00:02:00Z"});
        let namespace = "default".to_owned();
        let count = EventWrite::Count {
            namespace,
            name: name.clone(),
            patch,
        };
        assert_eq!(again, Some(count));
        // The API server has forgotten it: it is written anew, with its whole count.
        assert!(correlator.wrote(&note, Outcome::Gone, 120));
        let event = created(Some(correlator.write(&note, 120)));
        assert_eq!(
            (&event["count"], &event["metadata"]["name"]),
            (&json!(2), &json!(name))
        );
        assert_eq!(event["firstTimestamp"], "1970-01-01T00:01:00Z");
    }

    #[test]
    fn nodes_that_say_the_same_name_it_the_same_and_one_counts() {
        let [mut a, mut b] = ["node-a", "node-b"].map(Correlator::new);
        let shared = note("part", Writers::EveryNode);
        let (of_a, of_b) = (
            created(a.note(&shared, 1, 1)),
            created(b.note(&shared, 1, 1)),
        );
        assert_eq!(of_a["metadata"], of_b["metadata"]);
        assert!(!b.wrote(&shared, Outcome::Exists, 1));
        // It is not its own to count: should the other node be gone, it is written anew.
        assert_eq!(created(b.note(&shared, 1, 2))["metadata"], of_b["metadata"]);
        let other = created(a.note(&note("other", Writers::EveryNode), 1, 1));
        assert_ne!(other["metadata"], of_a["metadata"]);
        let own = note("part", Writers::ThisNode);
        let (of_a, of_b) = (created(a.note(&own, 1, 1)), created(b.note(&own, 1, 1)));
        assert_ne!(of_a["metadata"], of_b["metadata"]);
    }

    #[test]
    fn what_is_not_written_counts_at_the_next_write() {
        let mut correlator = Correlator::new("node-a");
        let note = note("part", Writers::ThisNode);
        correlator.note(&note, 1, 0);
        correlator.wrote(&note, Outcome::Written, 0);
        let written = (0..99).filter(|_| correlator.note(&note, 1, 0).is_some());
        assert_eq!(written.count(), 24);
        let Some(EventWrite::Count { patch, .. }) = correlator.note(&note, 1, 300) else {
            panic!("one more may be written");
        };
        assert_eq!(patch["count"], 101);
    }

    #[test]
    fn names_and_messages_are_as_long_as_the_api_has_them() {
        let mut long = note(&"ä".repeat(600), Writers::EveryNode).cut();
        long.regarding.name = format!("{}-{}", "a".repeat(243), "b".repeat(9));
        long.regarding.namespace = "shop".to_owned();
        let event = created(Correlator::new("node-a").note(&long, 1, 0));
        let name = event["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= MAX_NAME, "{name}");
        assert!(name.starts_with(&format!("{}.", "a".repeat(243))), "{name}");
        assert_eq!(event["metadata"]["namespace"], "shop");
        let message = event["message"].as_str().unwrap();
        assert!(message.len() <= MAX_MESSAGE && message.ends_with("ä…"));
    }
}
