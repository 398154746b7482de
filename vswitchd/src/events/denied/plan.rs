//! What is said of which pod, and when again. Pure: the time is a parameter, in seconds since 1970.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use vswitch_api::v1::FlowRecord;

use super::message::{Side, message, message_of_others};
use crate::events::note::cut;
use crate::events::recent::Recent;
use crate::events::{EventType, Note, Regarding, Writers};

/// `reason` of the Events.
const REASON: &str = "PolicyDenied";

/// So many pods are remembered, several times those of a node; beyond them the one goes that was
/// denied nothing for longest.
const MAX_PODS: usize = 512;

/// Kinds of connections of a pod that have an Event of their own, and the seconds after which one
/// that does not come again makes room (client-go's `defaultAggregateMaxEvents` and
/// `defaultAggregateIntervalInSeconds`).
const MAX_KINDS: usize = 10;
const FORGOTTEN_AFTER: u64 = 600;

/// Seconds until what goes on is said again: soon at first, then as often as the recorder lets an
/// object have one more write.
const FIRST_PAUSE: u64 = 10;
const LONGER: u64 = 3;
const LONGEST_PAUSE: u64 = 300;

/// An Event that counts up.
#[derive(Debug)]
struct Said {
    message: String,
    /// Packets since it was said last.
    packets: u64,
    /// When it may be said again.
    due: u64,
    /// How long that was after it was said last; 0: it was not said yet.
    pause: u64,
    seen: u64,
}

impl Said {
    fn new(mut message: String, now: u64) -> Self {
        cut(&mut message);
        message.shrink_to_fit();
        Self {
            message,
            packets: 0,
            due: now,
            pause: 0,
            seen: now,
        }
    }
}

/// What was denied from and to a pod, by a hash of the record; `None` for all others.
type Kinds = HashMap<Option<u64>, Said>;

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    pods: Recent<Regarding, Kinds>,
    /// Packets choose their records: a secret seed keeps them from choosing equal hashes.
    hasher: RandomState,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            pods: Recent::new(MAX_PODS),
            hasher: RandomState::default(),
        }
    }
}

impl Plan {
    /// Counts the packets of a record at one of its ends.
    pub(super) fn count(&mut self, pod: &Regarding, side: Side, record: &FlowRecord, now: u64) {
        let explained = record.explanation.as_ref().map(|of| {
            let advice = of.nearest_miss.as_ref().map(|miss| &miss.reason);
            (&of.reason, advice)
        });
        let hash = self.hasher.hash_one((side, &record.of, explained));
        let kinds = self.pods.entry(pod, Kinds::default);
        let mut kind = Some(hash);
        if !kinds.contains_key(&kind) {
            kinds.retain(|_, said| said.packets > 0 || said.seen + FORGOTTEN_AFTER > now);
            let told_apart = kinds.keys().flatten().count();
            kind = kind.filter(|_| told_apart < MAX_KINDS);
        }
        let said = kinds.entry(kind).or_insert_with(|| {
            let message = match kind {
                Some(_) => message(record, side),
                None => message_of_others(&pod.namespace, &pod.name),
            };
            Said::new(message, now)
        });
        said.packets += record.packets;
        said.seen = now;
    }

    /// Returns what is to be said now, at most so many, with how many packets it is about. Pods
    /// take turns, and what was said less often goes first.
    pub(super) fn due(&mut self, most: usize, now: u64) -> Vec<(Note, u64)> {
        let mut due = Vec::new();
        for (pod, kinds) in self.pods.iter_mut() {
            let said = kinds.values_mut();
            let is_due = |said: &&mut Said| said.packets > 0 && said.due <= now;
            let mut of_pod: Vec<&mut Said> = said.filter(is_due).collect();
            of_pod.sort_by_key(|said| (said.pause, said.due));
            due.extend((0..).zip(of_pod).map(|(turn, said)| (turn, pod, said)));
        }
        due.sort_by_key(|(turn, _, said): &(usize, _, &mut Said)| (*turn, said.pause, said.due));
        let due = due.into_iter().take(most);
        due.map(|(_, pod, said)| {
            said.pause = (said.pause * LONGER).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            said.due = now + said.pause;
            let note = Note {
                regarding: pod.clone(),
                event_type: EventType::Warning,
                reason: REASON,
                message: said.message.clone(),
                writers: Writers::ThisNode,
            };
            (note, std::mem::take(&mut said.packets))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str) -> Regarding {
        Regarding {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
        }
    }

    fn record(port: u16, packets: u64, more: &Value) -> FlowRecord {
        let mut record = json!({
            "node": "n", "verdict": "denied", "reason": "policy_ingress", "direction": "ingress",
            "source": { "address": "10.0.0.2", "pod": "default/client" },
            "destination": { "address": "10.0.0.3", "pod": "default/server" },
            "protocol": "TCP", "port": port, "policies": ["default/secure-pod"],
            "packets": packets, "connections": 0,
            "first": "2026-01-31T03:11:58Z", "last": "2026-01-31T03:12:07Z"
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            record[field] = value.clone();
        }
        serde_json::from_value(record).unwrap()
    }

    fn denied(plan: &mut Plan, name: &str, port: u16, now: u64) {
        plan.count(&pod(name), Side::Source, &record(port, 3, &json!({})), now);
    }

    fn said(plan: &mut Plan, now: u64) -> Vec<(String, u64)> {
        let due = plan.due(usize::MAX, now).into_iter();
        due.map(|(note, packets)| {
            (
                format!("{}: {}", note.regarding.name, note.message),
                packets,
            )
        })
        .collect()
    }

    #[test]
    fn the_event_says_to_whom_by_which_policy_and_what_would_help() {
        let explanation = json!({
            "reason": "pod default/server is isolated for ingress, and no rule allows it",
            "nearest_miss": {
                "rule": { "policy": "default/secure-pod", "part": "ingress[0].from[0]" },
                "reason": "port matches, peer does not: pod default/client lacks label a=b",
                "advice": { "text": "would pass with label a=b on pod default/client" }
            }
        });
        let more = json!({"explanation": explanation, "service": "10.96.0.1:8080"});
        let explained = record(80, 1, &more);
        let because = "pod default/server is isolated for ingress, and no rule allows it; \
            nearest rule default/secure-pod ingress[0].from[0]: port matches, peer does not: pod \
            default/client lacks label a=b; would pass with label a=b on pod default/client";
        assert_eq!(
            message(&explained, Side::Source),
            format!(
                "TCP 80 to default/server (asked for 10.96.0.1:8080) denied by \
                 default/secure-pod (ingress): {because}"
            )
        );
        let cut = record(80, 1, &json!({"verdict": "cut", "policies": []}));
        assert_eq!(
            message(&cut, Side::Destination),
            "TCP 80 from default/client cut by policy_ingress (ingress)"
        );
    }

    #[test]
    fn what_goes_on_is_said_again_after_longer_and_longer_pauses_with_all_its_packets() {
        let mut plan = Plan::default();
        let mut times = Vec::new();
        let mut packets = 0;
        for now in 1_000..1_000 + 1_300 {
            denied(&mut plan, "client", 80, now);
            for (_, of) in said(&mut plan, now) {
                times.push(now - 1_000);
                packets += of;
            }
        }
        assert_eq!(times, [0, 10, 40, 130, 400, 700, 1_000]);
        assert_eq!(packets, 3 * 1_001);
        assert_eq!(said(&mut plan, 9_000)[0].1, 3 * 299, "the rest");
        assert!(said(&mut plan, 99_000).is_empty(), "once");
    }

    #[test]
    fn a_pod_has_a_few_events_of_its_kinds_and_one_of_all_others() {
        let mut plan = Plan::default();
        for port in 1..=1_000 {
            denied(&mut plan, "client", port, 1_000);
        }
        denied(&mut plan, "client", 1, 1_000);
        let all = said(&mut plan, 1_000);
        assert_eq!(all.len(), MAX_KINDS + 1);
        assert_eq!(all.iter().map(|of| of.1).sum::<u64>(), 3 * 1_001);
        let others = all.iter().find(|of| of.0.contains("many other"));
        let (text, packets) = others.unwrap();
        assert!(text.contains("`vsctl why default/client`"), "{text}");
        assert_eq!(*packets, 3 * 990);
        // Who comes when those before are over has one of its own again.
        denied(&mut plan, "client", 7_000, 1_599);
        assert!(said(&mut plan, 1_599)[0].0.contains("many other"));
        denied(&mut plan, "client", 7_001, 1_600);
        assert!(said(&mut plan, 1_600)[0].0.contains("TCP 7001 to"));
    }

    #[test]
    fn pods_take_turns_and_what_was_said_less_often_goes_first() {
        let mut plan = Plan::default();
        denied(&mut plan, "client", 80, 1_000);
        said(&mut plan, 1_000);
        for port in 80..90 {
            denied(&mut plan, "client", port, 1_010);
            denied(&mut plan, "noisy", port, 1_010);
        }
        denied(&mut plan, "quiet", 80, 1_010);
        let names = |plan: &mut Plan, most| {
            let due = plan.due(most, 1_010).into_iter();
            let mut names: Vec<String> = due.map(|(note, _)| note.regarding.name).collect();
            names.sort();
            names
        };
        assert_eq!(names(&mut plan, 3), ["client", "noisy", "quiet"]);
        assert_eq!(names(&mut plan, 2), ["client", "noisy"]);
        let rest = plan.due(usize::MAX, 1_010);
        assert_eq!(rest.len(), 16);
        let is_80 = |note: &Note| note.message.starts_with("TCP 80 ");
        let again = |(note, _): &(Note, u64)| note.regarding.name == "client" && is_80(note);
        assert_eq!(rest.iter().position(again), Some(15), "it was said before");
    }

    #[test]
    fn memory_is_bounded_under_ten_thousand_pairs() {
        let mut plan = Plan::default();
        let long = "x".repeat(5_000);
        for pair in 0..10_000_u64 {
            let port = u16::try_from(pair).unwrap();
            let more = json!({"policies": [long], "packets": 1});
            let name = format!("pod-{}", pair / 16);
            plan.count(&pod(&name), Side::Source, &record(port, 1, &more), 1_000);
        }
        let kinds: Vec<usize> = plan.pods.iter_mut().map(|(_, of)| of.len()).collect();
        assert_eq!(kinds.len(), MAX_PODS);
        assert!(kinds.iter().all(|of| *of <= MAX_KINDS + 1), "{kinds:?}");
        let longest = plan.pods.iter_mut().flat_map(|(_, of)| of.values());
        let longest = longest.map(|said| said.message.capacity()).max();
        assert!(longest <= Some(crate::events::MAX_MESSAGE), "{longest:?}");
    }
}
